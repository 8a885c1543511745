//! The threads: the one that hung with its stacks, the others in one line each.

use hangwatch_incident::frames::where_it_hangs;
use hangwatch_incident::schema::{Evidence, Frame, Missing, Thread};
use hangwatch_incident::{story, words};
use hangwatch_text::{count, plain};

use super::page::{Page, cut_from_the_left};

/// How many innermost and outermost frames of a stack are shown when folded.
const INNERMOST: usize = 12;
const OUTERMOST: usize = 2;

/// The width of function names before their places, columns.
const FUNCTION: usize = 32;

pub(super) fn write(page: &mut Page, evidence: &Evidence) {
    let Some((first, others)) = evidence.threads.split_first() else { return };
    page.heading(&format!("Where it hangs: thread {}", called(first)));
    stacks(page, first);
    if others.is_empty() {
        return;
    }
    page.heading("Its other threads");
    for thread in others {
        if page.folds() {
            page.line(&format!("  {}", in_a_line(thread)));
        } else {
            page.line(&format!("  thread {}", called(thread)));
            stacks(page, thread);
        }
    }
    if page.folds() && others.iter().any(has_stacks) {
        page.folded("their stacks");
    }
    if evidence.threads_left_out > 0 {
        page.remark(&format!("{} more threads were not looked at", evidence.threads_left_out));
    }
}

/// Every thread with its stacks.
pub(super) fn all(page: &mut Page, evidence: &Evidence) {
    for thread in &evidence.threads {
        page.line(&format!("  thread {}", called(thread)));
        stacks(page, thread);
    }
}

fn called(thread: &Thread) -> String {
    format!("{} {}", thread.tid, story::quoted(&thread.name))
}

fn in_a_line(thread: &Thread) -> String {
    let doing = words::doing(thread);
    let place = words::telling_frame(thread).map_or_else(String::new, |frame| {
        let file = words::place(frame);
        // The end of a path says more than its beginning.
        let short = file.rsplit('/').next().unwrap_or_default();
        let at = if short.is_empty() { String::new() } else { format!(" ({short})") };
        format!(": {}{at}", plain(&frame.function))
    });
    format!("{}, {doing}{place}", called(thread))
}

fn has_stacks(thread: &Thread) -> bool {
    thread.python.is_some() || thread.native.is_some() || !thread.kernel_stack.is_empty()
}

/// What a thread was doing, and its stacks.
pub(super) fn stacks(page: &mut Page, thread: &Thread) {
    page.item("  ", &story::sentence_case(&format!("{}.", words::doing(thread))));
    if let Some(call) = &thread.system_call {
        page.item("  in ", &plain(call));
    }
    let native = thread.native.as_deref().filter(|frames| !frames.is_empty());
    let python = thread.python.as_deref().filter(|frames| !frames.is_empty());
    if let Some(frames) = python {
        stack(page, "Python", frames, Hangs::Here);
    }
    if let Some(frames) = native {
        let hangs = if python.is_some() { Hangs::Elsewhere } else { Hangs::Here };
        stack(page, "Native", frames, hangs);
    }
    if !thread.kernel_stack.is_empty() {
        let frame = |function: &String| Frame { function: function.clone(), ..Frame::default() };
        let frames: Vec<Frame> = thread.kernel_stack.iter().map(frame).collect();
        stack(page, "Kernel", &frames, Hangs::Elsewhere);
    }
}

/// Whether a stack contains the call that hung.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hangs {
    Here,
    Elsewhere,
}

fn stack(page: &mut Page, what: &str, frames: &[Frame], hangs: Hangs) {
    page.line(&format!("  {what} stack, the innermost call first:"));
    let marked = where_it_hangs(frames).filter(|_| hangs == Hangs::Here);
    // The call that hung is always shown, however deep it is.
    let innermost = INNERMOST.max(marked.map_or(0, |place| place + 1));
    let folds = page.folds() && frames.len() > innermost + OUTERMOST + 1;
    for (index, frame) in frames.iter().enumerate() {
        if folds && index == innermost {
            let left_out = frames.len() - innermost - OUTERMOST;
            page.folded(&count(left_out, "more call"));
        }
        if folds && (innermost..frames.len() - OUTERMOST).contains(&index) {
            continue;
        }
        call(page, frame, if marked == Some(index) { '>' } else { ' ' });
    }
}

/// The call that hung and its caller; without a stack, what is missing.
pub(super) fn in_brief(page: &mut Page, evidence: &Evidence) {
    let first = evidence.threads.first();
    if let Some(thread) = first {
        page.line(&format!("  Thread {}, {}.", called(thread), words::doing(thread)));
    }
    let frames = first.and_then(words::telling_stack).unwrap_or_default();
    let hangs = where_it_hangs(frames).unwrap_or_default();
    for (place, frame) in frames.iter().enumerate().skip(hangs).take(2) {
        call(page, frame, if place == hangs { '>' } else { ' ' });
    }
    if frames.is_empty() {
        for Missing { what, why } in &evidence.missing {
            page.item("  missing: ", &format!("{}: {}", plain(what), plain(why)));
        }
    }
}

/// A call and its place, on one line if both fit, else on two.
fn call(page: &mut Page, frame: &Frame, mark: char) {
    let function = plain(&frame.function);
    let place = words::place(frame);
    let wide = |text: &str| textwrap::core::display_width(text);
    let head = format!("  {mark} ");
    let mut lines = Vec::new();
    if place.is_empty() {
        lines.push(format!("{head}{function}"));
    } else if wide(&function) <= FUNCTION && FUNCTION + wide(&place) + 5 <= page.columns() {
        let gap = " ".repeat(FUNCTION - wide(&function));
        lines.push(format!("{head}{function}{gap} {place}"));
    } else {
        lines.push(format!("{head}{function}"));
        let room = page.columns().saturating_sub(8);
        lines.push(format!("        {}", cut_from_the_left(&place, room)));
    }
    for line in lines {
        if mark == '>' { page.alarming_line(&line) } else { page.line(&line) }
    }
}
