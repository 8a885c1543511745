//! The output of `hangwatch fleet`: how many targets answered, suspects, workers, targets with errors.
//!
//! The output fits the terminal.

use std::fmt::Write;
use std::time::Duration;

use super::super::demo::screen;
use super::super::status::{brief, shortened};
use hangwatch_http::fleet::Fleet;
use hangwatch_http::fleet::view::{Culprit, Missing, TargetRow, WorkerRow};
use hangwatch_text::count as count_of;

/// The most missing ranks that a line names.
const NAMED_RANKS: usize = 12;
/// The width of output that is not redrawn on a terminal, columns.
const COLUMNS: usize = 80;
/// The most columns that a table uses.
const MOST_COLUMNS: usize = 160;

/// The fleet in at most 80 columns.
pub(super) fn table(fleet: &Fleet, limit: usize) -> String {
    let troubles = troubles(fleet);
    let troubles = troubles.iter().flat_map(|line| screen::wrapped(line, COLUMNS));
    let workers = workers(fleet, limit, COLUMNS);
    lines_of(head(fleet, COLUMNS).into_iter().chain(workers).chain(troubles))
}

/// The fleet for a terminal of this size. If not all fits, errors and the oldest workers are shown.
pub(super) fn screenful(
    fleet: &Fleet,
    trouble: Option<&str>,
    limit: usize,
    (columns, rows): (usize, usize),
) -> String {
    // The cursor needs the last row; the table has a head and a line that counts the workers left out.
    let rows = rows.saturating_sub(1);
    let mut head = head(fleet, columns);
    head.extend(trouble.iter().flat_map(|line| screen::wrapped(line, columns)));
    let mut troubles = troubles(fleet);
    let most = (rows / 3).max(1);
    let wrapped: Vec<String> =
        troubles.iter().flat_map(|line| screen::wrapped(line, columns)).collect();
    if wrapped.len() <= most {
        troubles = wrapped;
    } else if troubles.len() > most {
        // One line each: naming all targets matters more than the whole reasons.
        let more = troubles.len() - (most - 1);
        troubles.truncate(most - 1);
        troubles.push(format!("! ... and {more} more targets with errors"));
    }
    let room = rows.saturating_sub(head.len() + troubles.len() + 2);
    let workers = workers(fleet, limit.min(room), columns);
    lines_of(head.into_iter().chain(workers).chain(troubles))
}

fn lines_of(lines: impl Iterator<Item = String>) -> String {
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

/// How many targets answered, the suspects, the missing ranks.
fn head(fleet: &Fleet, columns: usize) -> Vec<String> {
    let lines = std::iter::once(summary(fleet))
        .chain(fleet.odd.iter().map(odd_line))
        .chain(fleet.missing.iter().map(missing_line));
    lines.flat_map(|line| screen::wrapped(&line, columns)).collect()
}

/// The widths of the columns of the workers' table; a column of width 0 is left out.
struct Widths {
    host: usize,
    job: usize,
    pid: usize,
    scope: usize,
}

impl Widths {
    /// The width of rank, age and time left, with the mark and the spaces before them.
    const ALWAYS: usize = 1 + 10 + 7 + 10;
    /// The least width of the scope; then other columns are left out.
    const LEAST_SCOPE: usize = 10;
    /// Widths of host, job and pid, from wide to narrow terminals.
    const CHOICES: [[usize; 3]; 6] =
        [[14, 9, 7], [14, 0, 7], [10, 0, 7], [10, 0, 0], [8, 0, 0], [0, 0, 0]];

    /// The widths for a table of this width. Columns beyond [`COLUMNS`] go to hosts and scopes.
    fn of(width: usize) -> Widths {
        let spare = width.clamp(COLUMNS, MOST_COLUMNS) - COLUMNS;
        // Two spaces: one before the scope, one for ranks in a world of 100,000.
        let room = width.min(COLUMNS).saturating_sub(Widths::ALWAYS + 2);
        let left = |choice: &[usize; 3]| {
            let taken: usize = choice.iter().filter(|width| **width > 0).map(|it| it + 1).sum();
            room.checked_sub(taken).filter(|left| *left >= Widths::LEAST_SCOPE)
        };
        let found = Widths::CHOICES.iter().find_map(|choice| Some((choice, left(choice)?)));
        let (&[host, job, pid], scope) = found.unwrap_or((&[0; 3], Widths::LEAST_SCOPE));
        Widths {
            host: if host > 0 { host + spare / 2 } else { 0 },
            job,
            pid,
            scope: scope + spare / 2,
        }
    }

    /// A line of the table: mark, host, rank, job, pid, scope, age, time left.
    fn line(&self, mark: char, texts: [&str; 7]) -> String {
        let left = |text: &str, width: usize| match width {
            0 => String::new(),
            _ => format!(" {:<width$}", beginning(text, width)),
        };
        let [host, rank, job, pid, scope, age, time_left] = texts;
        let (host, job) = (left(host, self.host), left(job, self.job));
        let pid = if self.pid > 0 { format!(" {pid:>7}") } else { String::new() };
        let scope = format!(" {:<within$}", shortened(scope, self.scope), within = self.scope);
        let line = format!("{mark}{host} {rank:>9}{job}{pid}{scope} {age:>6} {time_left:>9}");
        line.trim_end().to_owned()
    }
}

/// The workers, the oldest first.
fn workers(fleet: &Fleet, limit: usize, columns: usize) -> Vec<String> {
    if fleet.workers.is_empty() {
        return Vec::new();
    }
    let widths = Widths::of(columns);
    let titles = ["HOST", "RANK", "JOB", "PID", "SCOPE", "AGE", "LEFT"];
    let mut lines = vec![widths.line(' ', titles)];
    lines.extend(fleet.workers.iter().take(limit).map(|it| worker_line(it, &widths)));
    let left_out = fleet.workers.len().saturating_sub(limit);
    if left_out > 0 {
        lines.push(format!("  ... and {left_out} more"));
    }
    lines
}

/// The targets with errors.
fn troubles(fleet: &Fleet) -> Vec<String> {
    let sick = fleet.targets.iter().filter(|target| target.reason.is_some());
    sick.map(target_line).collect()
}

fn summary(fleet: &Fleet) -> String {
    let count = |status: &str| fleet.targets.iter().filter(|it| it.status == status).count();
    let targets = count_of(fleet.targets.len(), "target");
    let mut text = format!("{targets}: {} answered", count("ok"));
    for (status, name) in [
        ("down", "down"),
        ("slow", "slow"),
        ("lying", "malformed response"),
        ("other_version", "other version"),
    ] {
        if count(status) > 0 {
            let _ = write!(text, ", {} {name}", count(status));
        }
    }
    let overdue = fleet.workers.iter().filter(|worker| worker.left_ns.is_some_and(|ns| ns < 0));
    let workers = count_of(fleet.workers.len(), "worker");
    let _ = write!(text, "; {workers}, {} overdue", overdue.count());
    text
}

fn named(job: &str) -> String {
    if job.is_empty() { "an unnamed job".to_owned() } else { format!("job {job}") }
}

fn odd_line(odd: &Culprit) -> String {
    let Culprit { job, rank, host, scope, others, waited_ns } = odd;
    let host = host
        .as_ref()
        .map_or("a host that did not answer".to_owned(), |host| format!("host {host}"));
    let waited = brief(Duration::from_nanos(*waited_ns));
    let job = named(job);
    format!(
        "> suspect: rank {rank} of {job} on {host}: the other {others} have been in {scope:?} for {waited} or longer"
    )
}

fn missing_line(missing: &Missing) -> String {
    let Missing { job, world_size, ranks, count } = missing;
    let named_ranks: Vec<String> =
        ranks.iter().take(NAMED_RANKS).map(ToString::to_string).collect();
    let more = if *count > NAMED_RANKS { ", ..." } else { "" };
    let (job, ranks) = (named(job), named_ranks.join(", "));
    format!(
        "? {count} of {world_size} ranks of {job} are missing from the hosts that answered: {ranks}{more}"
    )
}

fn worker_line(worker: &WorkerRow, widths: &Widths) -> String {
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
    let pid = worker.pid.to_string();
    widths.line(mark, [&worker.host, &rank, &worker.job, &pid, scope, &age, &left])
}

fn target_line(target: &TargetRow) -> String {
    let status = match target.status {
        "ok" => "unhealthy",
        "lying" => "malformed response",
        "other_version" => "other version",
        status => status,
    };
    let reason = target.reason.as_deref().unwrap_or_default();
    format!("! {:<14} {status}: {reason}", beginning(&target.target, 30))
}

/// Shortens a long name to its beginning, which says more of a host name than its end.
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
        let odd = Culprit {
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
    fn a_screenful_fits_and_keeps_suspects_and_errors() {
        for (workers, sick) in [(0, 0), (3, 1), (500, 0), (500, 1), (500, 90), (0, 90)] {
            for (columns, rows) in [(80, 24), (40, 16), (200, 60)] {
                let text = screenful(&fleet(workers, sick), None, usize::MAX, (columns, rows));
                let told = format!("{workers} {sick} {columns} {rows}:\n{text}");
                assert!(text.lines().count() < rows, "{told}");
                assert!(text.contains("> suspect: "), "{told}");
                assert_eq!(text.contains("\n! gpu-0"), sick > 0, "{told}");
                assert_eq!(text.contains("more targets with errors"), sick > 30, "{told}");
                assert_eq!(text.contains("0/100000"), workers > 0, "{told}");
            }
        }
    }

    #[test]
    fn a_narrow_terminal_keeps_ages_and_reasons() {
        for (columns, titles) in [
            (80, "HOST RANK JOB PID SCOPE AGE LEFT"),
            (60, "HOST RANK PID SCOPE AGE LEFT"),
            (50, "HOST RANK SCOPE AGE LEFT"),
            (40, "RANK SCOPE AGE LEFT"),
        ] {
            let notice = Some("! it cannot be read; using the targets read before");
            let text = screenful(&fleet(3, 1), notice, usize::MAX, (columns, 30));
            let told = format!("{columns}:\n{text}");
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{told}");
            let head = text.lines().find(|line| line.contains("SCOPE")).unwrap();
            assert_eq!(head.split_whitespace().collect::<Vec<_>>().join(" "), titles, "{told}");
            assert_eq!(text.lines().filter(|line| line.ends_with(" -1h00m")).count(), 3, "{told}");
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains("using the targets read before"), "{told}");
            assert!(flat.contains("and some more words"), "{told}");
        }
    }

    #[test]
    fn an_error_of_a_target_file_is_shown() {
        let text = screenful(&fleet(3, 0), Some("! it is gone"), usize::MAX, (80, 24));
        assert!(text.contains("\n! it is gone\n"), "{text}");
    }

    #[test]
    fn table_lines_fit_80_columns() {
        let text = table(&fleet(500, 90), usize::MAX);
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(COLUMNS), "{widest:?}");
        assert_eq!(beginning("gpu-17.cluster.example", 10), "gpu-17.cl\u{2026}");
        assert_eq!(beginning("gpu-17", 6), "gpu-17");
        assert_eq!(text.matches("! gpu-").count(), 90, "all of them");
    }
}
