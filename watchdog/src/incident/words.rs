//! Words for what the kernel and the unwinders say: states, threads, frames. Harmless, by [`plain`].

use std::fmt::Write as _;

use super::schema::{Frame, Thread};
use crate::text::plain;

/// What the kernel's letter for a state means.
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

/// What a thread was doing, as the kernel sees it: `sleeping in futex_wait, holding the GIL`.
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

/// Where a frame is: `train.py:41`, else its module; empty where neither is known.
pub fn place(frame: &Frame) -> String {
    let file = frame.file.as_deref().or(frame.module.as_deref()).map(plain);
    match (file, frame.line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.into_owned(),
        (None, _) => String::new(),
    }
}

/// The frame that tells the most of a thread: its innermost Python one, else its innermost native one
/// that has a file, else the innermost.
pub fn telling_frame(thread: &Thread) -> Option<&Frame> {
    let python = thread.python.as_ref().and_then(|frames| frames.first());
    let native = thread.native.as_deref().unwrap_or_default();
    python.or_else(|| native.iter().find(|frame| frame.file.is_some())).or_else(|| native.first())
}

/// The operation of a record, as people read it: `too_late` is `released too late`.
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

    fn frame(function: &str, file: Option<&str>) -> Frame {
        Frame { function: function.into(), file: file.map(str::to_owned), ..Frame::default() }
    }

    #[test]
    fn the_python_frame_tells_the_most_and_then_the_one_with_a_line() {
        let native = Some(vec![frame("syscall", None), frame("recv", Some("recv.c"))]);
        let mut thread = Thread { native, ..Thread::default() };
        assert_eq!(telling_frame(&thread).unwrap().function, "recv");
        thread.python = Some(vec![frame("get", Some("queue.py"))]);
        assert_eq!(telling_frame(&thread).unwrap().function, "get");
        assert_eq!(telling_frame(&Thread::default()), None);
    }
}
