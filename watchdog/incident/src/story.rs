//! The story of an incident, in sentences: who, in which scope, how long it had, how late, how it ended,
//! and who the suspect is. What a terminal and the page show alike is said here once.
//!
//! Every name in it has gone through [`plain`]; a page still has to escape it.

use std::fmt::Write as _;
use std::time::SystemTime;

use hangwatch_core::wire::signal;

use crate::schema::{Ending, Incident, Moment, Suspect, Timer, Worker};
use hangwatch_text::{brief_ns, count, plain};

/// A decision that is the sending of a signal, as [`Decision::what`](crate::schema::Decision::what).
pub const SIGNALLED: &str = "signalled";

/// What a worker is called: `rank 2`, else `pid 17`, else its name.
pub fn who(worker: &Worker) -> String {
    called(worker.rank, worker.pid).unwrap_or_else(|| match &*worker.name {
        "" => "a worker out of sight".to_owned(),
        name => format!("{:?} (out of sight)", plain(name)),
    })
}

/// What a suspect is called, as [`who`].
pub fn who_is_suspected(suspect: &Suspect) -> String {
    called(suspect.rank, suspect.pid).unwrap_or_else(|| "a worker out of sight".to_owned())
}

fn called(rank: Option<u64>, pid: Option<u32>) -> Option<String> {
    rank.map(|rank| format!("rank {rank}")).or_else(|| pid.map(|pid| format!("pid {pid}")))
}

/// How much of a name a sentence can bear.
const NAME: usize = 64;

/// A name in quotes, harmless. Of one that is too long the end, which tells more than its beginning.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", plain(name).end(NAME + 1))
}

/// Whether the suspect is this worker.
pub fn is_suspect(suspect: Option<&Suspect>, worker: &Worker) -> bool {
    suspect.is_some_and(|suspect| match (suspect.pid, worker.pid) {
        (Some(a), Some(b)) => a == b,
        _ => suspect.rank.is_some() && suspect.rank == worker.rank,
    })
}

/// The scope of the incident: that of the earliest deadline that passed.
pub fn scope(timers: &[Timer]) -> &str {
    timers.first().map_or("(unknown scope)", |timer| &timer.scope)
}

/// Why it hung: who waits for whom, in one sentence; `None` where that is not known.
pub fn verdict(incident: &Incident) -> Option<String> {
    let waits = incident.waits.as_ref().filter(|waits| waits.verdict.is_known())?;
    Some(plain(&waits.sentence).into_owned())
}

/// The way to each culprit, a line each.
pub fn chain(incident: &Incident) -> Vec<String> {
    let lines = incident.waits.iter().flat_map(|waits| &waits.chain);
    lines.map(|line| plain(line).into_owned()).collect()
}

/// Why it is not known why it hung, where it was asked.
pub fn not_known(incident: &Incident) -> Option<String> {
    let waits = incident.waits.as_ref().filter(|waits| !waits.verdict.is_known())?;
    Some(full_stop(&plain(&waits.sentence)))
}

/// The incident in one line.
pub fn headline(incident: &Incident) -> String {
    let who = sentence_case(&who(&incident.worker));
    let scope = quoted(scope(&incident.timers));
    match &incident.suspect {
        // Reaped for the others' sake, without a timer.
        Some(suspect)
            if is_suspect(Some(suspect), &incident.worker) && incident.timers.is_empty() =>
        {
            format!("{who} held up the others, who waited in {}", quoted(&suspect.scope))
        }
        Some(suspect) if is_suspect(Some(suspect), &incident.worker) => {
            let waited = quoted(&suspect.scope);
            if suspect.scope == self::scope(&incident.timers) {
                format!("{who} hung in {scope} and held the others up")
            } else {
                format!("{who} hung in {scope}, while the others waited in {waited}")
            }
        }
        Some(suspect) => {
            format!("{who} ran out of time in {scope}, waiting for {}", who_is_suspected(suspect))
        }
        None => format!("{who} hung in {scope}"),
    }
}

/// What happened, a paragraph each.
pub fn paragraphs(incident: &Incident) -> Vec<String> {
    let mut told = vec![introduction(incident)];
    told.extend(entered(incident));
    told.push(ending(incident));
    told.extend(incident.suspect.as_ref().map(|suspect| {
        let who = who_is_suspected(suspect);
        format!("The suspect is {who}: {}", full_stop(&plain(&suspect.why)))
    }));
    told
}

fn introduction(incident: &Incident) -> String {
    let worker = &incident.worker;
    let mut is = String::new();
    if let Some(rank) = worker.rank {
        let of = worker.world_size.map_or_else(String::new, |size| format!(" of {size}"));
        let job = if worker.job.is_empty() {
            String::new()
        } else {
            format!(" of job {}", quoted(&worker.job))
        };
        is = format!("Rank {rank}{of}{job} is ");
    }
    let pid = worker.pid.map_or_else(
        || "a process that the kernel does not vouch for".to_owned(),
        |pid| format!("pid {pid}"),
    );
    let name =
        if worker.name.is_empty() { String::new() } else { format!(" ({})", plain(&worker.name)) };
    let where_it_is = match (&*incident.host, &*incident.segment) {
        ("", segment) => format!("in segment {}", quoted(segment)),
        (host, segment) => format!("on host {}, in segment {}", plain(host), quoted(segment)),
    };
    let subject = if is.is_empty() { sentence_case(&pid) } else { format!("{is}{pid}") };
    let verb = if is.is_empty() { " is" } else { "," };
    format!("{subject}{name}{verb} {where_it_is}.")
}

/// Where it was, what it was given and what it took; `None` of one that has no deadline.
pub fn entered(incident: &Incident) -> Option<String> {
    let first = incident.timers.first()?;
    let (scope, given) = (quoted(&first.scope), brief_ns(first.allowance_ns));
    let since = clock_time(&first.acquired);
    let inside = enclosing(incident, first);
    let inside = if inside.is_empty() { String::new() } else { format!(" (inside {inside})") };
    let mut text = match &*first.kind {
        "heartbeat" => {
            format!(
                "Its heartbeat {scope}{inside} was last kicked at {since} UTC, and {given} were \
                     the most it might be silent."
            )
        }
        _ => format!("It entered {scope}{inside} at {since} UTC and had {given} for it."),
    };
    let more: Vec<String> = incident.timers[1..]
        .iter()
        .map(|timer| format!("{} ({})", quoted(&timer.scope), brief_ns(timer.allowance_ns)))
        .collect();
    if !more.is_empty() {
        let deadlines = count(more.len(), "more deadline");
        let _ = write!(text, " By then {deadlines} of it had passed: {}.", more.join(", "));
    }
    if incident.timers_left_out > 0 {
        let left_out = usize::try_from(incident.timers_left_out).unwrap_or(usize::MAX);
        let deadlines = count(left_out, "more deadline");
        let _ = write!(text, " {deadlines} of it passed within the same second.");
    }
    Some(text)
}

/// The scopes around a timer, the next one first: of its task, and of its thread before any task.
fn enclosing(incident: &Incident, timer: &Timer) -> String {
    let lane = incident.evidence.lanes.iter().find(|lane| lane.lane == timer.lane);
    let own = lane.and_then(|lane| lane.timers.iter().find(|other| other.timer == timer.timer));
    let task = own.unwrap_or(timer).task;
    let mut around: Vec<&Timer> = lane
        .into_iter()
        .flat_map(|lane| &lane.timers)
        .filter(|other| other.task == 0 || other.task == task)
        .filter(|other| other.timer != timer.timer)
        .filter(|other| other.acquired.monotonic_ns < timer.acquired.monotonic_ns)
        .collect();
    around.sort_by_key(|timer| std::cmp::Reverse(timer.acquired.monotonic_ns));
    let names: Vec<String> = around.iter().map(|timer| quoted(&timer.scope)).collect();
    names.join(", in ")
}

fn ending(incident: &Incident) -> String {
    let Some(ending) = &incident.ending else {
        return "How it ended is not known: the reap was under way when this was written, or the \
                watchdog ended before it."
            .to_owned();
    };
    let late = if is_overdue(incident, ending) {
        format!("{} after its deadline", brief_ns(ending.late_ns))
    } else {
        "before any deadline of its own had passed".to_owned()
    };
    // The lateness is that of the first signal, whatever followed it.
    let signals = incident.decisions.iter().filter(|decision| decision.what == SIGNALLED).count();
    let reaped =
        if signals > 1 { format!("; its first signal came {late}") } else { format!(", {late}") };
    let signal = signal_name(ending);
    let waits = match &ending.wait_channel {
        Some(channel) => format!(", where it sleeps in {}", plain(channel)),
        None => String::new(),
    };
    match &*ending.outcome {
        "reaped" => format!("It was reaped with {signal}{reaped}."),
        "exited" => "It ended by itself, before a signal.".to_owned(),
        "reported" => {
            format!("It was reported {late}; no signal was asked for.")
        }
        "braked" => format!(
            "It was found {late} and not signalled: the brake holds after too many \
             reaps."
        ),
        "unkillable" => format!(
            "{signal} was sent {late}, and it does not end: it is in the kernel and \
             cannot be interrupted{waits}."
        ),
        "failed" if ending.signal == 0 => "The reap failed; no signal was sent.".to_owned(),
        "failed" => format!("The reap failed; {signal} was sent {late}."),
        "unattestable" => format!(
            "It was found {late} and not signalled: the kernel does not say who it \
             is (another PID namespace?)."
        ),
        other => format!("It ended as {}, {late}.", quoted(other)),
    }
}

/// Whether its own time had run out when it ended. A suspect's need not have, and it may have no timer.
fn is_overdue(incident: &Incident, ending: &Ending) -> bool {
    let deadline = incident.timers.first().and_then(|timer| timer.deadline.as_ref());
    let is_past = |deadline: &Moment| deadline.monotonic_ns <= ending.at.monotonic_ns;
    // Only where nothing is said of a lateness is there something to ask.
    ending.late_ns != 0 || deadline.is_some_and(is_past)
}

/// The last signal of a reap: `SIGKILL`, `no signal`.
pub fn signal_name(ending: &Ending) -> String {
    match ending.signal {
        0 => "no signal".to_owned(),
        number => signal::spelled(number),
    }
}

/// How it ended, in one word; `pending` where it has not.
pub fn outcome(ending: Option<&Ending>) -> &str {
    ending.map_or("pending", |ending| &ending.outcome)
}

/// The point in time as `2026-11-23 15:44:13`; as it is written, where it is not understood.
pub fn date_time(moment: &Moment) -> String {
    match humantime::parse_rfc3339(&moment.utc) {
        Ok(at) => date_time_of(at),
        Err(_) => plain(&moment.utc).into_owned(),
    }
}

/// As [`date_time`], of the system's own type.
pub fn date_time_of(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string().replace('T', " ").replace('Z', "")
}

/// The time of day as `15:44:13.207`.
pub fn clock_time(moment: &Moment) -> String {
    match humantime::parse_rfc3339(&moment.utc) {
        Ok(at) => {
            let text = humantime::format_rfc3339_millis(at).to_string();
            let time = text.split_once('T').map_or(&*text, |(_, time)| time);
            time.trim_end_matches('Z').to_owned()
        }
        Err(_) => plain(&moment.utc).into_owned(),
    }
}

/// From one point in time to another: `+1.5s`, `-20ms`.
pub fn offset(at_ns: u64, from_ns: u64) -> String {
    match at_ns.checked_sub(from_ns) {
        Some(ns) => format!("+{}", brief_ns(ns)),
        None => format!("-{}", brief_ns(from_ns - at_ns)),
    }
}

/// The point in time from which `show` and `report` count: the deadline, where it had passed when the
/// incident began, so that a signal's offset is the lateness that is told; else the incident's beginning.
pub fn origin_ns(incident: &Incident) -> u64 {
    passed_deadline_ns(incident).unwrap_or(incident.at.monotonic_ns)
}

/// The deadline, where it had passed when the incident began.
fn passed_deadline_ns(incident: &Incident) -> Option<u64> {
    let deadline = incident.timers.first()?.deadline.as_ref()?.monotonic_ns;
    (deadline <= incident.at.monotonic_ns).then_some(deadline)
}

/// What stands above the decisions.
pub fn decisions_heading(incident: &Incident) -> &'static str {
    match passed_deadline_ns(incident) {
        Some(_) => "What was decided, and when after the deadline",
        None => "What was decided",
    }
}

/// What a decision is called: `held_back` reads `held back`.
pub fn what_was_decided(what: &str) -> String {
    plain(what).replace('_', " ")
}

fn full_stop(sentence: &str) -> String {
    let ended = sentence.ends_with(['.', '!', '?']);
    format!("{sentence}{}", if ended { "" } else { "." })
}

/// With a capital letter.
pub fn sentence_case(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What an incident says of workers that it does not list.
pub fn others_left_out(incident: &Incident) -> Option<String> {
    let left_out = (incident.others_left_out > 0).then_some(incident.others_left_out)?;
    let listed =
        incident.others_in.as_deref().map(|id| format!("; incident {} lists all", plain(id)));
    Some(format!("{left_out} more workers are not listed here{}", listed.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Decision;

    #[test]
    fn a_moment_that_is_not_understood_is_shown_as_it_is_written() {
        let moment = |utc: &str| Moment { utc: utc.to_owned(), ..Moment::default() };
        let good = moment("2026-11-23T15:44:13.207123456Z");
        assert_eq!(date_time(&good), "2026-11-23 15:44:13");
        assert_eq!(clock_time(&good), "15:44:13.207");
        assert_eq!(date_time(&moment("yester\u{1b}day")), "yester\\u{1b}day");
        assert_eq!((offset(7, 5), offset(5, 7)), ("+2ns".to_owned(), "-2ns".to_owned()));
    }

    fn ended(outcome: &str, signal: u8, late_ns: u64, deadline_ns: Option<u64>) -> Incident {
        let moment = |monotonic_ns| Moment { monotonic_ns, ..Moment::default() };
        let at = moment(100);
        let ending =
            Ending { at, outcome: outcome.to_owned(), signal, late_ns, ..Ending::default() };
        let timer = |ns| Timer { deadline: Some(moment(ns)), ..Timer::default() };
        let worker = Worker { pid: Some(7), ..Worker::default() };
        let (ending, timers) = (Some(ending), deadline_ns.map(timer).into_iter().collect());
        Incident { worker, timers, ending, ..Incident::default() }
    }

    #[test]
    fn no_lateness_is_told_of_where_nothing_was_signalled_or_nothing_was_due() {
        let check = |incident: &Incident, text: &str| assert_eq!(ending(incident), text);
        check(&ended("exited", 0, 0, Some(50)), "It ended by itself, before a signal.");
        check(&ended("failed", 0, 0, Some(50)), "The reap failed; no signal was sent.");
        let reaped = "It was reaped with SIGKILL, ";
        check(&ended("reaped", 9, 5, Some(50)), &format!("{reaped}5ns after its deadline."));
        for deadline in [None, Some(200)] {
            let early = format!("{reaped}before any deadline of its own had passed.");
            check(&ended("reaped", 9, 0, deadline), &early);
        }
    }

    #[test]
    fn a_lateness_is_the_first_signals_and_offsets_count_from_the_deadline() {
        let mut incident = ended("reaped", 9, 40, Some(50));
        incident.at.monotonic_ns = 55; // found 5 ns late, signalled at 90 and 120
        for ns in [90, 120] {
            let at = Moment { monotonic_ns: ns, ..Moment::default() };
            let what = SIGNALLED.to_owned();
            incident.decisions.push(Decision { at, what, why: String::new() });
        }
        let told = "It was reaped with SIGKILL; its first signal came 40ns after its deadline.";
        assert_eq!(ending(&incident), told);
        assert_eq!(offset(90, origin_ns(&incident)), "+40ns");
        // What was not due yet counts from the incident's beginning.
        incident.at.monotonic_ns = 45;
        assert_eq!(origin_ns(&incident), 45);
    }

    #[test]
    fn a_suspect_without_a_timer_is_in_no_scope() {
        let mut incident = ended("reaped", 9, 0, None);
        let scope = "allreduce".to_owned();
        incident.suspect = Some(Suspect { pid: Some(7), scope, ..Suspect::default() });
        let told = headline(&incident);
        assert_eq!(told, "Pid 7 held up the others, who waited in \"allreduce\"");
    }

    #[test]
    fn a_suspect_is_known_by_pid_and_else_by_rank() {
        let suspect = |pid, rank| Suspect { pid, rank, ..Suspect::default() };
        let worker = |pid, rank| Worker { pid, rank, ..Worker::default() };
        let check = |suspect: Suspect, worker: Worker, is: bool| {
            assert_eq!(is_suspect(Some(&suspect), &worker), is, "{suspect:?} {worker:?}");
        };
        check(suspect(Some(7), None), worker(Some(7), Some(1)), true);
        check(suspect(Some(7), Some(1)), worker(Some(8), Some(1)), false);
        check(suspect(None, Some(1)), worker(Some(8), Some(1)), true);
        check(suspect(None, None), worker(None, None), false);
        assert!(!is_suspect(None, &worker(Some(7), None)));
    }
}
