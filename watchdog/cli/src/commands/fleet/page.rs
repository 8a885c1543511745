//! What `hangwatch fleet` shows: how many answered, the odd one out, the workers' table, who is in
//! trouble; fitted to its room.

use std::fmt::Write;
use std::time::Duration;

use super::super::demo::screen;
use super::super::status::{brief, shortened};
use hangwatch_http::fleet::Fleet;
use hangwatch_http::fleet::view::{Culprit, Missing, TargetRow, WorkerRow};
use hangwatch_text::count as count_of;

/// How many missing ranks are named.
const NAMED_RANKS: usize = 12;
/// The columns of what is no terminal, or not drawn over.
const COLUMNS: usize = 80;
/// The most that a table makes use of.
const MOST_COLUMNS: usize = 160;

/// The fleet in at most 80 columns.
pub(super) fn table(fleet: &Fleet, limit: usize) -> String {
    let troubles = troubles(fleet);
    let troubles = troubles.iter().flat_map(|line| screen::wrapped(line, COLUMNS));
    let workers = workers(fleet, limit, COLUMNS);
    lines_of(head(fleet, COLUMNS).into_iter().chain(workers).chain(troubles))
}

/// The fleet as a terminal of this many columns and rows shows it: where there is no room for all, it
/// goes to what is wrong first, and to the oldest workers.
pub(super) fn screenful(
    fleet: &Fleet,
    trouble: Option<&str>,
    limit: usize,
    (columns, rows): (usize, usize),
) -> String {
    // The last row is the cursor's; a table has a head, and a line about those that are left out.
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
        // A line each: which they are counts more than the whole reasons.
        let more = troubles.len() - (most - 1);
        troubles.truncate(most - 1);
        troubles.push(format!("! ... and {more} more targets in trouble"));
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

/// The columns of the workers' table, how wide each is; one of none is left out.
struct Widths {
    host: usize,
    job: usize,
    pid: usize,
    scope: usize,
}

impl Widths {
    /// What rank, age and time left take, with the mark and the spaces before them.
    const ALWAYS: usize = 1 + 10 + 7 + 10;
    /// The narrowest a scope gets before others go.
    const LEAST_SCOPE: usize = 10;
    /// Host, job and pid as there is less and less room.
    const CHOICES: [[usize; 3]; 6] =
        [[14, 9, 7], [14, 0, 7], [10, 0, 7], [10, 0, 0], [8, 0, 0], [0, 0, 0]];

    /// What a table of this width has room for. What there is beyond [`COLUMNS`] goes to hosts and
    /// scopes.
    fn of(width: usize) -> Widths {
        let spare = width.clamp(COLUMNS, MOST_COLUMNS) - COLUMNS;
        // Beside the scope's space, one is kept for the rank in a world of 100,000.
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

/// The targets that are not well.
fn troubles(fleet: &Fleet) -> Vec<String> {
    let sick = fleet.targets.iter().filter(|target| target.reason.is_some());
    sick.map(target_line).collect()
}

fn summary(fleet: &Fleet) -> String {
    let count = |status: &str| fleet.targets.iter().filter(|it| it.status == status).count();
    let targets = count_of(fleet.targets.len(), "target");
    let mut text = format!("{targets}: {} answered", count("ok"));
    for (status, name) in
        [("down", "down"), ("slow", "slow"), ("lying", "lying"), ("other_version", "other version")]
    {
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
    if job.is_empty() { "a job without a name".to_owned() } else { format!("job {job}") }
}

fn odd_line(odd: &Culprit) -> String {
    let Culprit { job, rank, host, scope, others, waited_ns } = odd;
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
    fn a_narrow_terminal_loses_lesser_columns_and_neither_ages_nor_reasons() {
        for (columns, titles) in [
            (80, "HOST RANK JOB PID SCOPE AGE LEFT"),
            (60, "HOST RANK PID SCOPE AGE LEFT"),
            (50, "HOST RANK SCOPE AGE LEFT"),
            (40, "RANK SCOPE AGE LEFT"),
        ] {
            let notice = Some("! it cannot be read; those of before are asked");
            let text = screenful(&fleet(3, 1), notice, usize::MAX, (columns, 30));
            let told = format!("{columns}:\n{text}");
            assert!(text.lines().all(|line| line.chars().count() <= columns), "{told}");
            let head = text.lines().find(|line| line.contains("SCOPE")).unwrap();
            assert_eq!(head.split_whitespace().collect::<Vec<_>>().join(" "), titles, "{told}");
            assert_eq!(text.lines().filter(|line| line.ends_with(" -1h00m")).count(), 3, "{told}");
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(flat.contains("those of before are asked"), "{told}");
            assert!(flat.contains("and some more words"), "{told}");
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
