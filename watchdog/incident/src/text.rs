//! What of an incident is kept as text: its [`Stacks`], its [`Flight`] record.
//!
//! What a worker says of itself may hold any character; all of it goes through [`plain`].

use std::fmt;

use crate::frames::where_it_hangs;
use crate::schema::{Descendant, Frame, Incident, Lane, Thread};
use crate::words::telling_stack;
use hangwatch_text::{plain, plain_words};

/// The stacks of every thread, as in `stacks.txt`. Where a thread hangs, its line is marked.
pub struct Stacks<'i>(pub &'i Incident);

impl fmt::Display for Stacks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Incident { id, worker, evidence, .. } = self.0;
        writeln!(f, "{}", plain(id))?;
        writeln!(f, "process {}: {}", worker.pid.unwrap_or(0), plain_words(&worker.command))?;
        for missing in &evidence.missing {
            writeln!(f, "missing: {}: {}", plain(&missing.what), plain(&missing.why))?;
        }
        evidence.threads.iter().try_for_each(|thread| write_thread(f, thread))?;
        if evidence.threads_left_out > 0 {
            writeln!(f, "\n{} more threads", evidence.threads_left_out)?;
        }
        for Descendant { worker, evidence } in &self.0.descendants {
            let command = plain_words(&worker.command);
            writeln!(f, "\ndescendant {}: {command}", worker.pid.unwrap_or(0))?;
            evidence.threads.iter().try_for_each(|thread| write_thread(f, thread))?;
        }
        Ok(())
    }
}

fn write_thread(f: &mut fmt::Formatter<'_>, thread: &Thread) -> fmt::Result {
    let Thread { tid, name, state, wait_channel, system_call, .. } = thread;
    write!(f, "\nthread {tid} {:?}, state {}", plain(name), plain(state))?;
    if thread.holds_gil == Some(true) {
        write!(f, ", holds the GIL")?;
    }
    if let Some(channel) = wait_channel {
        write!(f, ", waits in {}", plain(channel))?;
    }
    writeln!(f)?;
    if let Some(call) = system_call {
        writeln!(f, "  in {}", plain(call))?;
    }
    for (title, frames) in [("python", &thread.python), ("native", &thread.native)] {
        let Some(frames) = frames.as_deref().filter(|frames| !frames.is_empty()) else { continue };
        let is_telling = telling_stack(thread).is_some_and(|telling| std::ptr::eq(telling, frames));
        let hangs = where_it_hangs(frames).filter(|_| is_telling);
        writeln!(f, "  {title}:")?;
        for (place, frame) in frames.iter().enumerate() {
            let mark = if hangs == Some(place) { '>' } else { ' ' };
            writeln!(f, "  {mark} {}", Line(frame))?;
        }
    }
    if !thread.kernel_stack.is_empty() {
        writeln!(f, "  kernel:")?;
    }
    thread.kernel_stack.iter().try_for_each(|function| writeln!(f, "    {}", plain(function)))
}

/// A frame on one line: `get (queue.py:171)`, `read (libc.so.6)`.
pub struct Line<'f>(pub &'f Frame);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame { function, file, line, module } = self.0;
        write!(f, "{}", plain(function))?;
        match (file, line, module) {
            (Some(file), Some(line), _) => write!(f, " ({}:{line})", plain(file)),
            (Some(file), None, _) => write!(f, " ({})", plain(file)),
            (None, _, Some(module)) => write!(f, " ({})", plain(module)),
            (None, _, None) => Ok(()),
        }
    }
}

/// The flight record of every lane, as in `flight.txt`: times from the incident on, in milliseconds.
pub struct Flight<'i>(pub &'i Incident);

impl fmt::Display for Flight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let incident = self.0;
        writeln!(f, "{}", plain(&incident.id))?;
        for lane in &incident.evidence.lanes {
            write_lane(f, "the worker", incident.at.monotonic_ns, lane)?;
        }
        for peer in &incident.others {
            let who = peer.worker.pid.map_or("another".to_owned(), |pid| format!("process {pid}"));
            for lane in &peer.lanes {
                write_lane(f, &who, incident.at.monotonic_ns, lane)?;
            }
        }
        Ok(())
    }
}

fn write_lane(f: &mut fmt::Formatter<'_>, who: &str, at_ns: u64, lane: &Lane) -> fmt::Result {
    let Lane { lane: index, thread, tid, .. } = lane;
    writeln!(f, "\nlane {index}: {who}, thread {tid} {:?}", plain(thread))?;
    if lane.records_lost > 0 {
        writeln!(f, "  {} earlier records are not here", lane.records_lost)?;
    }
    for record in &lane.records {
        let at = ms(record.at_ns, at_ns);
        write!(f, "  {at:>12} ms  {:<8} {}", plain(&record.operation), plain(&record.scope))?;
        match record.deadline_ns {
            Some(deadline) => writeln!(f, ", due in {} ms", ms(deadline, record.at_ns))?,
            None => writeln!(f)?,
        }
    }
    Ok(())
}

/// From one time to another, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "milliseconds with a fraction are for reading")]
fn ms(ns: u64, from_ns: u64) -> String {
    format!("{:.3}", (ns.cast_signed().wrapping_sub(from_ns.cast_signed())) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Evidence, Moment, Record};

    fn frame(function: &str, file: Option<&str>, line: Option<u32>, module: Option<&str>) -> Frame {
        let text = |text: &str| text.to_owned();
        Frame { function: text(function), file: file.map(text), line, module: module.map(text) }
    }

    #[test]
    fn a_stack_is_a_line_a_frame() {
        let thread = Thread {
            tid: 7,
            name: "fee\u{1b}der".to_owned(),
            state: "S".to_owned(),
            python: Some(vec![frame("Queue.get", Some("queue.py"), Some(171), None)]),
            native: Some(vec![frame("0x12", None, None, Some("/lib/libc.so.6"))]),
            holds_gil: Some(true),
            ..Thread::default()
        };
        let evidence = Evidence { threads: vec![thread], ..Evidence::default() };
        let text = Stacks(&Incident { evidence, ..Incident::default() }).to_string();
        for part in ["> Queue.get (queue.py:171)", "  0x12 (/lib/libc.so.6)", "holds the GIL"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn a_flight_record_counts_from_the_incident() {
        let record = Record {
            at_ns: 1_000_000,
            operation: "acquire".to_owned(),
            scope: "forward".to_owned(),
            deadline_ns: Some(3_500_000),
            ..Record::default()
        };
        let lane = Lane { records: vec![record], ..Lane::default() };
        let evidence = Evidence { lanes: vec![lane], ..Evidence::default() };
        let at = Moment { monotonic_ns: 4_000_000, ..Moment::default() };
        let text = Flight(&Incident { at, evidence, ..Incident::default() }).to_string();
        assert!(text.contains("-3.000 ms  acquire  forward, due in 2.500 ms"), "{text}");
    }
}
