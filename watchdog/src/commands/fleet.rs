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
use crate::fleet::{Asker, Asking, Fleet, Target, TargetsError, targets};

/// Descriptors beside the connections: those of names that are looked up, too.
const SPARE_DESCRIPTORS: u64 = 128;
/// How many missing ranks are named.
const NAMED_RANKS: usize = 12;
/// The columns of what is no terminal, or not drawn over.
const COLUMNS: usize = 80;
/// The most that a table makes use of.
const MOST_COLUMNS: usize = 160;
/// Goes to a terminal's first corner.
const HOME: &str = "\u{1b}[H";
/// Clears what is right of the cursor.
const REST_OF_LINE: &str = "\u{1b}[K";
/// Clears what is right of the cursor and below it.
const REST_OF_SCREEN: &str = "\u{1b}[J";

pub(super) fn perform(options: &Options) -> Result<Exit, Failure> {
    let asker = Asker::new()?;
    let mut whom = targets_of(options)?;
    let Some(pause) = options.watch else {
        let fleet = look(&asker, &whom, options);
        if options.json {
            print(&(serde_json::to_string_pretty(&fleet)? + "\n"))?;
        } else {
            print(&table(&fleet, options.limit.unwrap_or(usize::MAX)))?;
        }
        let answered = fleet.targets.iter().any(|target| target.status == "ok");
        return Ok(if answered { Exit::Ok } else { Exit::Failed });
    };
    let mut trouble = None;
    loop {
        show(&look(&asker, &whom, options), trouble.as_deref(), options)?;
        thread::sleep(pause);
        // A file that is just being written anew says nothing of the hosts that were in it.
        match targets_of(options) {
            Ok(now) => (whom, trouble) = (now, None),
            Err(error) => trouble = Some(format!("! {error}; those of before are asked")),
        }
    }
}

/// Whom to ask, each once. A file is read anew each time.
fn targets_of(options: &Options) -> Result<Vec<Target>, TargetsError> {
    let mut whom = options.urls.clone();
    for file in &options.file {
        whom.extend(targets::read(file)?);
    }
    let mut seen = std::collections::HashSet::new();
    whom.retain(|target| seen.insert(target.name.clone()));
    Ok(whom)
}

/// Asks everybody once.
fn look(asker: &Asker, whom: &[Target], options: &Options) -> Fleet {
    let asking = Asking { timeout: options.timeout, at_once: at_once(options, whom.len()) };
    Fleet::of(whom, &asker.ask(whom, asking))
}

/// Shows one look of several: on a terminal over the last one.
fn show(fleet: &Fleet, trouble: Option<&str>, options: &Options) -> Result<(), Failure> {
    let limit = options.limit.unwrap_or(usize::MAX);
    if !isatty(stdout()) {
        trouble.into_iter().for_each(|trouble| eprintln!("hangwatch: {trouble}"));
        return print(&(table(fleet, limit) + "\n"));
    }
    let size = screen::size();
    let text = screen::clipped(&screenful(fleet, trouble, limit, size), size);
    // Each line over what stood there: a screen that is cleared first would flicker.
    let lines = text.replace('\n', &format!("{REST_OF_LINE}\n"));
    print(&format!("{HOME}{lines}{REST_OF_SCREEN}"))
}

/// How many are asked at once: as many as there may be descriptors, or hosts that are well would be
/// called down for want of one.
fn at_once(options: &Options, targets: usize) -> usize {
    let wanted = u64::from(options.at_once).min(targets as u64);
    let allowed = raise_descriptor_limit(wanted + SPARE_DESCRIPTORS);
    let allowed = allowed.unwrap_or_else(|error| error.allowed());
    wanted.min(allowed.saturating_sub(SPARE_DESCRIPTORS)).max(1) as usize
}

/// The fleet in at most 80 columns.
fn table(fleet: &Fleet, limit: usize) -> String {
    let troubles = troubles(fleet);
    let troubles = troubles.iter().flat_map(|line| screen::wrapped(line, COLUMNS));
    let workers = workers(fleet, limit, COLUMNS);
    lines_of(head(fleet, COLUMNS).into_iter().chain(workers).chain(troubles))
}

/// The fleet as a terminal of this many columns and rows shows it: where there is no room for all, it
/// goes to what is wrong first, and to the oldest workers.
fn screenful(
    fleet: &Fleet,
    trouble: Option<&str>,
    limit: usize,
    (columns, rows): (usize, usize),
) -> String {
    // The last row is the cursor's; a table has a head, and a line about those that are left out.
    let rows = rows.saturating_sub(1);
    let mut head = head(fleet, columns);
    // A line each: which it is counts more than the whole reason.
    head.extend(trouble.map(str::to_owned));
    let mut troubles = troubles(fleet);
    let most = (rows / 3).max(1);
    if troubles.len() > most {
        troubles.truncate(most - 1);
        troubles.push("! ... and more targets in trouble; a larger terminal shows them".to_owned());
    }
    let room = rows.saturating_sub(head.len() + troubles.len() + 2);
    let workers = workers(fleet, limit.min(room), columns);
    lines_of(head.into_iter().chain(workers).chain(troubles))
}

fn lines_of(lines: impl Iterator<Item = String>) -> String {
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

/// How many answered, who is the odd one out, who is missing.
fn head(fleet: &Fleet, columns: usize) -> Vec<String> {
    let lines = std::iter::once(summary(fleet))
        .chain(fleet.odd.iter().map(odd_line))
        .chain(fleet.missing.iter().map(missing_line));
    lines.flat_map(|line| screen::wrapped(&line, columns)).collect()
}

/// The workers, the oldest first. What there is beyond [`COLUMNS`] goes to hosts and scopes.
fn workers(fleet: &Fleet, limit: usize, columns: usize) -> Vec<String> {
    if fleet.workers.is_empty() {
        return Vec::new();
    }
    let spare = columns.clamp(COLUMNS, MOST_COLUMNS) - COLUMNS;
    let (host, scope) = (14 + spare / 2, 17 + spare / 2);
    let mut lines = vec![format!(
        "  {:<host$} {:>9} {:<9} {:>7} {:<scope$} {:>6} {:>9}",
        "HOST", "RANK", "JOB", "PID", "SCOPE", "AGE", "LEFT"
    )];
    lines.extend(fleet.workers.iter().take(limit).map(|it| worker_line(it, host, scope)));
    let left_out = fleet.workers.len().saturating_sub(limit);
    if left_out > 0 {
        lines.push(format!("  ... and {left_out} more"));
    }
    lines
}

/// The targets that are not well.
fn troubles(fleet: &Fleet) -> Vec<String> {
    let sick = fleet.targets.iter().filter(|target| target.reason.is_some());
    sick.map(target_line).collect()
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
    let _ = write!(text, "; {} workers, {} overdue", fleet.workers.len(), overdue.count());
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

/// A worker, in so many columns for its host and its scope.
fn worker_line(worker: &WorkerRow, host: usize, within: usize) -> String {
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
        "{mark} {:<host$} {rank:>9} {:<9} {:>7} {:<within$} {age:>6} {left:>9}",
        beginning(&worker.host, host),
        beginning(&worker.job, 9),
        worker.pid,
        shortened(scope, within),
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
    format!("! {:<14} {status}: {reason}", beginning(&target.target, 30))
}

/// The beginning of a name that is too long: of a host's in its domain, it tells more than its end.
fn beginning(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.to_owned();
    }
    name.chars().take(width - 1).chain(['\u{2026}']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(workers: usize, sick: usize) -> Fleet {
        let worker = |rank: usize| WorkerRow {
            host: "gpu".to_owned(),
            target: "gpu:9469".to_owned(),
            segment: "train".to_owned(),
            job: "job".to_owned(),
            rank: Some(rank as u32),
            world_size: 100_000,
            pid: 4_000_000,
            command: None,
            scopes: vec!["backward/train.py#1234".to_owned()],
            state: Some("armed".to_owned()),
            age_ns: Some(3_600_000_000_000),
            left_ns: Some(-3_600_000_000_000),
            odd: rank == 0,
        };
        let target = |number: usize| TargetRow {
            target: format!("gpu-{number}:9469"),
            status: "down",
            reason: Some("Connection refused (os error 111), and some more words".to_owned()),
            host: None,
            healthy: None,
        };
        let odd = Odd {
            job: "job".to_owned(),
            rank: 0,
            host: Some("gpu".to_owned()),
            scope: "a scope with a rather long name".to_owned(),
            others: 99_999,
            waited_ns: 3_000_000_000,
        };
        Fleet {
            targets: (0..sick).map(target).collect(),
            workers: (0..workers).map(worker).collect(),
            missing: Vec::new(),
            odd: vec![odd],
        }
    }

    #[test]
    fn a_screenful_fits_and_leaves_out_neither_the_odd_one_nor_all_trouble() {
        for (workers, sick) in [(0, 0), (3, 1), (500, 0), (500, 1), (500, 90), (0, 90)] {
            for (columns, rows) in [(80, 24), (40, 16), (200, 60)] {
                let text = screenful(&fleet(workers, sick), None, usize::MAX, (columns, rows));
                let told = format!("{workers} {sick} {columns} {rows}:\n{text}");
                assert!(text.lines().count() < rows, "{told}");
                assert!(text.contains("odd one out"), "{told}");
                assert_eq!(text.contains("\n! gpu-0"), sick > 0, "{told}");
                assert_eq!(text.contains("more targets in trouble"), sick > 30, "{told}");
                assert_eq!(text.contains("0/100000"), workers > 0, "{told}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_file_is_on_the_screen() {
        let text = screenful(&fleet(3, 0), Some("! it is gone"), usize::MAX, (80, 24));
        assert!(text.contains("\n! it is gone\n"), "{text}");
    }

    #[test]
    fn no_line_of_the_table_is_wider_than_a_terminal() {
        let text = table(&fleet(500, 90), usize::MAX);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(COLUMNS), "{widest:?}");
        assert_eq!(beginning("gpu-17.cluster.example", 10), "gpu-17.cl\u{2026}");
        assert_eq!(beginning("gpu-17", 6), "gpu-17");
        assert_eq!(text.matches("! gpu-").count(), 90, "all of them");
    }
}
