//! `hangwatch fleet`: the watchdogs of many hosts in one table.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use hangwatch::sys::host::raise_descriptor_limit;
use rustix::stdio::stdout;
use rustix::termios::isatty;

use super::demo::screen;
use super::status::{brief, shortened};
use super::{Failure, print};
use crate::cli::fleet::Fleet as Options;
use crate::exit::Exit;
use crate::fleet::view::{Missing, Odd, TargetRow, WorkerRow};
use crate::fleet::{Asking, Fleet, Target, ask, targets};

/// Descriptors beside the connections.
const SPARE_DESCRIPTORS: u64 = 64;
/// How many missing ranks are named.
const NAMED_RANKS: usize = 12;
/// Clears a terminal and goes to its first corner.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

pub(super) fn perform(options: &Options) -> Result<Exit, Failure> {
    let mut exit = look(options)?;
    while let Some(pause) = options.watch {
        thread::sleep(pause);
        exit = look(options)?;
    }
    Ok(exit)
}

/// Asks everybody once, and shows what they answered. A file is read anew each time.
fn look(options: &Options) -> Result<Exit, Failure> {
    let mut whom = options.urls.clone();
    for file in &options.file {
        whom.extend(targets::read(file)?);
    }
    let mut seen = std::collections::HashSet::new();
    whom.retain(|target| seen.insert(target.name.clone()));
    let fleet = gather(&whom, options)?;
    if options.json {
        print(&(serde_json::to_string_pretty(&fleet)? + "\n"))?;
    } else {
        let text = table(&fleet, options.limit.unwrap_or(usize::MAX));
        if options.watch.is_some() && isatty(stdout()) {
            print(&(CLEAR.to_owned() + &screen::clipped(&text, screen::size())))?;
        } else {
            print(&text)?;
        }
    }
    let answered = fleet.targets.iter().any(|target| target.status == "ok");
    Ok(if answered { Exit::Ok } else { Exit::Failed })
}

fn gather(whom: &[Target], options: &Options) -> Result<Fleet, Failure> {
    let at_once = u64::from(options.at_once).min(whom.len() as u64);
    // Where the kernel refuses, targets that find no descriptor are down, and say why.
    let _ = raise_descriptor_limit(at_once + SPARE_DESCRIPTORS);
    let asking = Asking { timeout: options.timeout, at_once: options.at_once as usize };
    Ok(Fleet::of(whom, &ask(whom, asking)?))
}

/// The fleet in at most 80 columns.
fn table(fleet: &Fleet, limit: usize) -> String {
    let mut text = summary(fleet);
    for odd in &fleet.odd {
        let _ = writeln!(text, "{}", odd_line(odd));
    }
    for missing in &fleet.missing {
        let _ = writeln!(text, "{}", missing_line(missing));
    }
    if !fleet.workers.is_empty() {
        let _ = writeln!(
            text,
            "  {:<14} {:>9} {:<9} {:>7} {:<17} {:>6} {:>9}",
            "HOST", "RANK", "JOB", "PID", "SCOPE", "AGE", "LEFT"
        );
    }
    for worker in fleet.workers.iter().take(limit) {
        let _ = writeln!(text, "{}", worker_line(worker));
    }
    let left_out = fleet.workers.len().saturating_sub(limit);
    if left_out > 0 {
        let _ = writeln!(text, "  ... and {left_out} more");
    }
    for target in fleet.targets.iter().filter(|target| target.reason.is_some()) {
        let _ = writeln!(text, "{}", target_line(target));
    }
    text
}

fn summary(fleet: &Fleet) -> String {
    let count = |status: &str| fleet.targets.iter().filter(|it| it.status == status).count();
    let mut text = format!("{} targets: {} answered", fleet.targets.len(), count("ok"));
    for (status, name) in
        [("down", "down"), ("slow", "slow"), ("lying", "lying"), ("other_version", "other version")]
    {
        if count(status) > 0 {
            let _ = write!(text, ", {} {name}", count(status));
        }
    }
    let overdue = fleet.workers.iter().filter(|worker| worker.left_ns.is_some_and(|ns| ns < 0));
    let _ = writeln!(text, "; {} workers, {} overdue", fleet.workers.len(), overdue.count());
    text
}

fn named(job: &str) -> String {
    if job.is_empty() { "a job without a name".to_owned() } else { format!("job {job}") }
}

fn odd_line(odd: &Odd) -> String {
    let Odd { job, rank, host, scope, others, waited_ns } = odd;
    let host =
        host.as_ref().map_or("no host that answered".to_owned(), |host| format!("host {host}"));
    let waited = brief(Duration::from_nanos(*waited_ns));
    let job = named(job);
    format!(
        "> rank {rank} of {job} on {host} is the odd one out: the other {others} have been in {scope:?} for {waited} or longer"
    )
}

fn missing_line(missing: &Missing) -> String {
    let Missing { job, world_size, ranks, count } = missing;
    let named_ranks: Vec<String> =
        ranks.iter().take(NAMED_RANKS).map(ToString::to_string).collect();
    let more = if *count > NAMED_RANKS { ", ..." } else { "" };
    let (job, ranks) = (named(job), named_ranks.join(", "));
    format!("? {count} of {world_size} ranks of {job} are on no host that answered: {ranks}{more}")
}

fn worker_line(worker: &WorkerRow) -> String {
    let mark = if worker.odd { '>' } else { ' ' };
    let rank = match (worker.rank, worker.world_size) {
        (None, _) => "-".to_owned(),
        (Some(rank), 0) => rank.to_string(),
        (Some(rank), world) => format!("{rank}/{world}"),
    };
    let (scope, age) = match (worker.scopes.first(), worker.age_ns) {
        (Some(scope), Some(age_ns)) => (scope.as_str(), brief(Duration::from_nanos(age_ns))),
        _ => ("(no timer armed)", String::new()),
    };
    let left = match (worker.state.as_deref(), worker.left_ns) {
        (None, _) => String::new(),
        (Some("armed"), Some(left)) => {
            let sign = if left < 0 { "-" } else { "" };
            format!("{sign}{}", brief(Duration::from_nanos(left.unsigned_abs())))
        }
        (Some(state), _) => shortened(state, 9),
    };
    format!(
        "{mark} {:<14} {rank:>9} {:<9} {:>7} {:<17} {age:>6} {left:>9}",
        shortened(&worker.host, 14),
        shortened(&worker.job, 9),
        worker.pid,
        shortened(scope, 17),
    )
    .trim_end()
    .to_owned()
}

fn target_line(target: &TargetRow) -> String {
    let status = match target.status {
        "ok" => "sick",
        "other_version" => "other version",
        status => status,
    };
    let reason = target.reason.as_deref().unwrap_or_default();
    format!("! {:<14} {status}: {reason}", shortened(&target.target, 30))
}
