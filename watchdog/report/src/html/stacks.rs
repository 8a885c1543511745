//! The threads: the one that hangs with its stacks, the others folded.

use maud::{Markup, html};

use hangwatch_incident::frames::where_it_hangs;
use hangwatch_incident::schema::{Descendant, Evidence, Frame, Incident, Thread};
use hangwatch_incident::{story, words};
use hangwatch_text::{count, plain, plain_words};

/// How many of a stack's innermost and outermost frames are not folded.
const INNERMOST: usize = 12;
const OUTERMOST: usize = 2;

/// The thread that hangs.
pub(super) fn section(evidence: &Evidence) -> Markup {
    html! {
        section aria-labelledby="where" {
            h2 #where { "Where it hangs" }
            @match evidence.threads.first() {
                Some(thread) => {
                    p { "Thread " (called(thread)) ", " (words::doing(thread)) "." }
                    (stacks(thread, Hangs::Here))
                }
                None => p.none { "No stack was captured. " a href="#missing" { "Why?" } },
            }
        }
    }
}

/// The others, each folded to a line.
pub(super) fn other_threads(evidence: &Evidence) -> Markup {
    let Some((_, others)) = evidence.threads.split_first() else { return html! {} };
    if others.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="threads" {
            h2 #threads { "Its other threads" }
            @for thread in others {
                details {
                    summary {
                        (called(thread)) " "
                        span.aside {
                            (words::doing(thread))
                            @if let Some(frame) = words::telling_frame(thread) {
                                " \u{b7} " code { (plain(&frame.function)) }
                            }
                        }
                    }
                    (stacks(thread, Hangs::Elsewhere))
                }
            }
            @if evidence.threads_left_out > 0 {
                p.aside { (evidence.threads_left_out) " more threads were not looked at." }
            }
        }
    }
}

/// What a command had started, each folded to a line.
pub(super) fn descendants(incident: &Incident) -> Markup {
    if incident.descendants.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="below" {
            h2 #below { "What it had started" }
            @for Descendant { worker, evidence } in &incident.descendants {
                details {
                    summary {
                        (story::who(worker)) " " code { (plain_words(&worker.command)) } " "
                        @if let Some(thread) = evidence.threads.first() {
                            span.aside {
                                (words::doing(thread))
                                @if let Some(frame) = words::telling_frame(thread) {
                                    " \u{b7} " code { (plain(&frame.function)) }
                                }
                            }
                        }
                    }
                    @for thread in &evidence.threads {
                        p { "Thread " (called(thread)) ", " (words::doing(thread)) "." }
                        (stacks(thread, Hangs::Here))
                    }
                }
            }
            @if incident.descendants_left_out > 0 {
                p.aside { (incident.descendants_left_out) " more processes were not looked at." }
            }
        }
    }
}

fn called(thread: &Thread) -> Markup {
    html! { (thread.tid) " " code { (plain(&thread.name)) } }
}

/// Whether these stacks are the ones to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hangs {
    Here,
    Elsewhere,
}

fn stacks(thread: &Thread, hangs: Hangs) -> Markup {
    let python = thread.python.as_deref().filter(|frames| !frames.is_empty());
    let native = thread.native.as_deref().filter(|frames| !frames.is_empty());
    let kernel = |function: &String| Frame { function: function.clone(), ..Frame::default() };
    let kernel: Vec<Frame> = thread.kernel_stack.iter().map(kernel).collect();
    // The most telling stack is marked: Python's, where there is one.
    let native_hangs = if python.is_some() { Hangs::Elsewhere } else { hangs };
    html! {
        @if let Some(call) = &thread.system_call {
            p.call { "System call " code { (plain(call)) } }
        }
        @if let Some(frames) = python { (stack("Python", frames, hangs)) }
        @if let Some(frames) = native { (stack("Native", frames, native_hangs)) }
        @if !kernel.is_empty() { (stack("Kernel", &kernel, Hangs::Elsewhere)) }
        @if python.is_none() && native.is_none() && kernel.is_empty() {
            p.none { "No stack of this thread was captured." }
        }
    }
}

fn stack(what: &str, frames: &[Frame], hangs: Hangs) -> Markup {
    let marked = where_it_hangs(frames).filter(|_| hangs == Hangs::Here);
    // However deep it is in machinery, the call that hangs is not folded.
    let innermost = INNERMOST.max(marked.map_or(0, |place| place + 1));
    let folds = frames.len() > innermost + OUTERMOST + 1;
    let first = if folds { innermost } else { frames.len() };
    let last = if folds { frames.len() - OUTERMOST } else { frames.len() };
    html! {
        h3 { (what) " stack " span.aside { "innermost call first" } }
        div.stack {
            ol { @for (index, frame) in frames[..first].iter().enumerate() {
                (call(frame, marked == Some(index)))
            } }
            @if folds {
                details {
                    summary { (count(last - first, "more call")) }
                    ol start=(first + 1) { @for frame in &frames[first..last] { (call(frame, false)) } }
                }
                ol start=(last + 1) { @for frame in &frames[last..] { (call(frame, false)) } }
            }
        }
    }
}

fn call(frame: &Frame, is_where_it_hangs: bool) -> Markup {
    let place = words::place(frame);
    html! {
        li.here[is_where_it_hangs] {
            span.function { (plain(&frame.function)) }
            @if !place.is_empty() { " " span.place { (place) } }
        }
    }
}
