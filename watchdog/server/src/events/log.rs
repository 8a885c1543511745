//! Writes events to the log.
//!
//! [`emit`] writes an event through `tracing` as one line with the fields below. Durations have their unit in
//! the name; points in time are `CLOCK_MONOTONIC`:
//!
//! | field | of | meaning |
//! | --- | --- | --- |
//! | `segment` | all | the segment's name |
//! | `event` | all | what happened: `expired`, `warning`, `overrun`, `ended_late`, `held`, `signalled`, ... |
//! | `lane`, `timer` | timers | which timer |
//! | `pid`, `command` | workers | the process in the watchdog's PID namespace, its arguments redacted; absent if not verified |
//! | `thread`, `tid`, `job`, `rank`, `world_size`, `host` | timers | what the worker wrote about itself when it attached |
//! | `scope`, `kind` | timers | the scope; `guard`, `keyed` or `heartbeat` |
//! | `deadline_ns`, `allowance_ms` | timers | the deadline, extended by stalls; the timeout |
//! | `late_ms` | `expired` | time from the deadline to the signal, or to the report |
//! | `signal` | `expired`, `signalled` | the last signal sent; 0 if there was none |
//! | `decision` | `cascade` | `suspect_first`, `held_back`, `suspect_told` or `as_usual`; the message says why |
//! | `suspect_pid`, `suspect_rank` | `cascade` | the worker that is not where the others wait |
//! | `inside`, `overdue`, `outside` | `cascade` | how many workers of the job are in the scope, overdue there, and not in it |
//! | `outcome` | `expired`, `suspect` | `reaped`, `exited`, `reported`, `braked`, `unkillable`, `failed`, `unattestable` |
//! | `processes` | `kin` | how many processes were killed with a worker |
//! | `left` | `kin` | how many of them are alive; `survivors` says which and why |
//! | `spared`, `survivors`, `fallback` | `kin` | pids of other workers among them, which are excluded; those alive; why fewer were killed than `--reap` asks for |
//! | `path`, `error` | `error_file` | the worker's error file; why it could not be written |
//! | `hold` | `held` | `traced`, `frozen`, `stopped`, or `other_user`: it runs as another user than when it attached |
//! | `wait_channel` | `expired` | for an unkillable worker, the kernel function it sleeps in |
//! | `incident` | `expired`, `verdict`, `suspect`, `incident_lost` | the incident's id, for `hangwatch show` |
//! | `who` | `left_behind` | which thread of the watchdog did not end with it |
//! | `error` | `incident_lost`, ... | the cause |
//! | `kind`, `lines` | `left_out` | the event and how many of its lines were dropped; `lane` or `pid` if all were about one |
//!
//! Every text is safe to print and bounded (see `hangwatch-log`); the number of lines is bounded by
//! [`limits`].

use super::limits::{self, About, OF_NONSENSE, OF_WORK, Rates};
use super::{Expiry, Leaving, ServerEvent, TimerFacts, What, WorkerFacts, hold_name};
use hangwatch_incident::story;
use hangwatch_process::descendants::Removed;
use hangwatch_text::ms;

/// Emits one line with the fields of a timer and the given fields.
macro_rules! timer_line {
    ($level:ident, $event:literal, $segment:expr, $timer:expr, $($field:tt)*) => {{
        let timer: &TimerFacts = $timer;
        let command = timer.worker.as_ref().map(|worker| worker.command.to_string());
        tracing::$level!(
            segment = $segment,
            event = $event,
            lane = timer.lane,
            timer = timer.timer,
            pid = timer.worker.as_ref().map(|worker| worker.pid),
            command,
            thread = timer.owner.thread,
            tid = timer.owner.tid,
            job = (!timer.owner.job.is_empty()).then_some(timer.owner.job.as_str()),
            rank = timer.owner.rank,
            world_size = timer.owner.world_size,
            host = (!timer.owner.host.is_empty()).then_some(timer.owner.host.as_str()),
            scope = timer.scope,
            kind = timer.kind.name(),
            deadline_ns = timer.deadline_ns,
            allowance_ms = ms(timer.allowance_ns()),
            $($field)*
        );
    }};
}

/// Writes an event to the log, unless its kind has used up its lines; dropped lines are reported later.
pub fn emit(event: &ServerEvent) {
    if is_admitted(event) {
        emit_line(event);
    }
}

fn is_admitted(event: &ServerEvent) -> bool {
    let Some((kind, about, rates)) = limited(&event.what) else { return true };
    limits::admit((kind, event.segment), about, rates)
}

/// Returns the kind of an event, its subject and its rates; `None` if no worker can cause it at will.
fn limited(what: &What) -> Option<(&'static str, About, Rates)> {
    let of_timer = |kind, timer: &TimerFacts| (kind, About::Lane(timer.lane), OF_WORK);
    let of_worker = |kind, worker: &WorkerFacts| (kind, About::Process(worker.pid), OF_WORK);
    Some(match what {
        What::Expired(expiry) => of_timer("expired", &expiry.timer),
        What::Warning(timer) => of_timer("warning", timer),
        What::Overrun(timer) => of_timer("overrun", timer),
        What::EndedLate { timer, .. } => of_timer("ended_late", timer),
        What::Held { timer, .. } => of_timer("held", timer),
        What::Cascade(cascade) if cascade.is_told() => of_timer("cascade", &cascade.timer),
        What::Suspect(end) => of_worker("suspect", &end.suspect.worker),
        What::Signalled { worker, .. } => of_worker("signalled", worker),
        What::ErrorFile { worker, .. } => of_worker("error_file", worker),
        What::DescendantsKilled { worker, .. } => of_worker("kin", worker),
        What::ReapFailed { worker, .. } => of_worker("reap_failed", worker),
        What::Resumed { worker, .. } => of_worker("resumed", worker),
        // These are only logged at debug level, so they are only limited there.
        What::Admitted(worker) if is_verbose() => of_worker("admitted", worker),
        What::Left { worker, .. } if is_verbose() => of_worker("left", worker),
        What::Captured(incident) if story::verdict(incident).is_some() => {
            ("verdict", About::Process(incident.worker.pid.unwrap_or(0)), OF_WORK)
        }
        What::IncidentLost { .. } => ("incident_lost", About::Itself, OF_WORK),
        What::Stalled { .. } => ("stalled", About::Itself, OF_WORK),
        What::Quarantined { lane, .. } => ("quarantined", About::Lane(*lane), OF_NONSENSE),
        What::AdmissionFailed { .. } => ("admission_failed", About::Itself, OF_NONSENSE),
        What::File(_) => ("file", About::Itself, OF_NONSENSE),
        _ => return None,
    })
}

fn is_verbose() -> bool {
    tracing::enabled!(tracing::Level::DEBUG)
}

fn emit_line(event: &ServerEvent) {
    let segment = event.segment;
    match &event.what {
        What::Expired(expiry) => emit_expiry(segment, expiry),
        What::Warning(timer) => {
            timer_line!(warn, "warning", segment, timer, "a deadline is near");
        }
        What::Overrun(timer) => {
            timer_line!(warn, "overrun", segment, timer, "would be killed by the deadlines file");
        }
        What::EndedLate { timer, late_ns } => {
            let late_ms = ms(*late_ns);
            timer_line!(info, "ended_late", segment, timer, late_ms, "a late acquire ended");
        }
        What::Held { timer, hold } => {
            let hold = hold_name(*hold);
            timer_line!(
                warn,
                "held",
                segment,
                timer,
                hold,
                "overdue but unable to run: not signalled"
            );
        }
        What::Cascade(cascade) => cascade.emit(segment),
        What::Suspect(end) => end.emit(segment),
        What::Signalled { worker, signal } => {
            let (pid, command) = told(worker);
            tracing::info!(segment, event = "signalled", pid, command, signal, "signalled");
        }
        What::ErrorFile { worker, path, error } => {
            let (pid, command) = told(worker);
            let path = path.to_string_lossy();
            let path = path.as_ref();
            if let Some(error) = error {
                tracing::warn!(
                    segment,
                    event = "error_file",
                    pid,
                    command,
                    path,
                    error,
                    "the error file was not written"
                );
            } else {
                tracing::info!(
                    segment,
                    event = "error_file",
                    pid,
                    command,
                    path,
                    "the error file was written"
                );
            }
        }
        What::DescendantsKilled { worker, removed } => emit_descendants(segment, worker, removed),
        What::Resumed { worker, processes } => {
            let (pid, command) = told(worker);
            tracing::warn!(
                segment,
                event = "resumed",
                pid,
                command,
                processes,
                "a watchdog died after it stopped them; they run again"
            );
        }
        What::ReapFailed { worker, error } => {
            let (pid, command) = told(worker);
            tracing::error!(segment, event = "reap_failed", pid, command, error, "a reap failed");
        }
        What::Admitted(worker) => {
            let (pid, command) = told(worker);
            tracing::debug!(segment, event = "admitted", pid, command, "admitted");
        }
        What::Left { worker, how } => {
            let (pid, command) = told(worker);
            let how = if *how == Leaving::Died { "died" } else { "execd" };
            tracing::debug!(segment, event = "left", pid, command, how, "left");
        }
        What::Captured(incident) => {
            if let Some(verdict) = story::verdict(incident) {
                let (pid, incident) = (incident.worker.pid, incident.id.as_str());
                tracing::warn!(segment, event = "verdict", pid, incident, "{verdict}");
            }
        }
        What::IncidentLost { id, error } => tracing::error!(
            segment,
            event = "incident_lost",
            incident = id,
            error,
            "an incident could not be written"
        ),
        other => emit_about_itself(segment, other),
    }
}

/// Returns a worker's pid, and its command as one field.
fn told(worker: &WorkerFacts) -> (u32, String) {
    (worker.pid, worker.command.to_string())
}

fn emit_expiry(segment: &str, expiry: &Expiry) {
    let late_ms = ms(expiry.late_ns);
    let Expiry { timer, signal, outcome, wait_channel, incident, .. } = expiry;
    let (outcome, wait_channel) = (outcome.name(), wait_channel.as_deref());
    let incident = incident.as_deref();
    timer_line!(
        warn,
        "expired",
        segment,
        timer,
        late_ms,
        signal,
        outcome,
        wait_channel,
        incident,
        "expired"
    );
}

fn emit_descendants(segment: &str, worker: &WorkerFacts, removed: &Removed) {
    let (pid, command) = told(worker);
    let Removed { signalled, spared, left, survivors, fallback } = removed;
    let spared: Vec<String> = spared.iter().map(ToString::to_string).collect();
    let listed = |items: &[String]| (!items.is_empty()).then(|| items.join(", "));
    let (spared, survivors) = (listed(&spared), listed(survivors));
    macro_rules! line {
        ($level:ident, $text:literal) => {
            tracing::$level!(
                segment,
                event = "kin",
                pid,
                command,
                processes = signalled,
                left,
                spared,
                survivors,
                fallback,
                $text
            )
        };
    }
    if survivors.is_some() {
        line!(warn, "some processes below a worker could not be killed with it");
    } else if fallback.is_some() {
        line!(warn, "the descendants of a worker were killed with it, and no other processes");
    } else {
        line!(info, "the processes below a worker were killed with it");
    }
}

fn emit_about_itself(segment: &str, what: &What) {
    match what {
        What::Standby => {
            tracing::info!(segment, event = "standby", "waiting for another watchdog to end");
        }
        What::Serving { adopted_lanes } => {
            tracing::info!(segment, event = "serving", adopted_lanes, "serving");
        }
        What::Ended(why) => {
            let why = format!("{why:?}").to_lowercase();
            tracing::info!(segment, event = "ended", why, "ended");
        }
        What::Limited { max_reaps } => tracing::error!(
            segment,
            event = "braked",
            max_reaps,
            "too many kills in a minute (--max-reaps): nothing is signalled until `hangwatch \
             release-brake`; workers that are still overdue are judged again then"
        ),
        What::LimiterReleased => {
            let text = "kills are allowed again: workers that are still overdue are judged again";
            tracing::info!(segment, event = "brake_released", "{text}");
        }
        What::Quarantined { lane, facts } => tracing::error!(
            segment,
            event = "quarantined",
            lane,
            claimed_pid = facts.claimed_pid,
            "a thread slot has invalid values: its deadlines are not enforced until its owner is dead"
        ),
        What::Stalled { length_ns } => {
            let late_ms = ms(*length_ns);
            let text = "the watchdog was late: deadlines that were armed are extended by the delay";
            tracing::warn!(segment, event = "stalled", late_ms, "{text}");
        }
        What::DescendantsUnlisted { pid, error } => tracing::error!(
            segment,
            event = "kin_unlisted",
            pid,
            error,
            "the processes below a worker cannot be listed; it is not killed until they are"
        ),
        What::AdmissionFailed { error } => {
            tracing::error!(
                segment,
                event = "admission_failed",
                error,
                "a worker cannot be verified"
            );
        }
        What::Unprotected { error } => {
            tracing::info!(segment, event = "unprotected", error, "a protection was refused");
        }
        What::ScopesFull { scopes } => {
            let text = "every scope name is taken: further names share the statistics and \
                        deadlines of (other); create it with more --scopes, or use fewer names";
            tracing::warn!(segment, event = "scopes_full", scopes, "{text}");
        }
        What::LeftBehind { who } => {
            let text = "the watchdog ended without this thread: a program, a process or a disk does not respond";
            tracing::error!(segment, event = "left_behind", who, "{text}");
        }
        What::File(finding) => {
            let finding = format!("{finding:?}").to_lowercase();
            tracing::error!(
                segment,
                event = "file",
                finding,
                "the segment's file was truncated, removed or replaced"
            );
        }
        What::Panicked { message } => {
            tracing::error!(
                segment,
                event = "panicked",
                message_text = message,
                "the watchdog panicked"
            );
        }
        What::Lost { events } => {
            tracing::error!(
                segment,
                event = "lost",
                events,
                "events were lost: the log was too slow"
            );
        }
        What::LeftOut { kind, lines, lane, pid } => tracing::warn!(
            segment,
            event = "left_out",
            kind,
            lines,
            lane,
            pid,
            "log lines were dropped: too many events of one kind"
        ),
        _ => {}
    }
}
