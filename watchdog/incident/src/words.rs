//! Words for states, threads, frames and records. [`plain`] escapes all names.

use std::fmt::Write as _;

use crate::frames::where_it_hangs;
use crate::schema::{Frame, Thread};
use hangwatch_text::plain;

/// The meaning of the kernel's letter for a state.
pub fn state(letter: &str) -> &'static str {
    match letter {
        "R" => "running",
        "S" => "sleeping",
        "D" => "in an uninterruptible sleep",
        "T" => "stopped",
        "t" => "traced",
        "Z" => "a zombie",
        "X" => "dead",
        "I" => "idle",
        _ => "in an unknown state",
    }
}

/// What a thread was doing: `sleeping in futex_wait, holding the GIL`.
pub fn doing(thread: &Thread) -> String {
    let mut text = state(&thread.state).to_owned();
    if let Some(channel) = &thread.wait_channel {
        let _ = write!(text, " in {}", plain(channel));
    }
    if thread.holds_gil == Some(true) {
        text += ", holding the GIL";
    }
    text
}

/// The place of a frame: `train.py:41`, else its module, else empty.
pub fn place(frame: &Frame) -> String {
    let file = frame.file.as_deref().or(frame.module.as_deref()).map(plain);
    match (file, frame.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.into_owned(),
        (None, _) => String::new(),
    }
}

/// The most useful stack of a thread: the Python stack, else the native one.
pub fn telling_stack(thread: &Thread) -> Option<&[Frame]> {
    let stacks = [thread.python.as_deref(), thread.native.as_deref()];
    stacks.into_iter().flatten().find(|frames| !frames.is_empty())
}

/// The most useful frame of a thread: where [`telling_stack`] hangs.
pub fn telling_frame(thread: &Thread) -> Option<&Frame> {
    let frames = telling_stack(thread)?;
    where_it_hangs(frames).map(|place| &frames[place])
}

/// The operation of a record in text: `too_late` becomes `released too late`.
pub fn operation(name: &str) -> String {
    match name {
        "acquire" => "acquired".to_owned(),
        "rearm" => "re-armed".to_owned(),
        "release" => "released".to_owned(),
        "too_late" => "released too late".to_owned(),
        "pause" => "paused".to_owned(),
        "resume" => "resumed".to_owned(),
        "abandon" => "abandoned".to_owned(),
        other => plain(other).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: Option<&str>) -> Frame {
        Frame { function: function.into(), module: module.map(str::to_owned), ..Frame::default() }
    }

    #[test]
    fn python_frames_come_before_native_frames() {
        let native =
            Some(vec![frame("syscall", Some("/lib/libc.so.6")), frame("recv", Some("/opt/job"))]);
        let mut thread = Thread { native, ..Thread::default() };
        assert_eq!(telling_frame(&thread).unwrap().function, "recv");
        thread.python = Some(vec![]);
        assert_eq!(telling_frame(&thread).unwrap().function, "recv");
        thread.python = Some(vec![frame("get", None)]);
        assert_eq!(telling_frame(&thread).unwrap().function, "get");
        assert_eq!(telling_frame(&Thread::default()), None);
    }
}
