//! What the dumps of a job say of its hang.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::dump::{Collective, Dump, Group};
use crate::mismatch::{Mismatch, mismatches};
use crate::waits::{self, Waiting, is_comparable, members};

/// Ranks that wait for others in one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Description and name of the group.
    pub group: String,
    /// What they wait in, such as `all_reduce #9 at train.py:41`; empty where it is not recorded.
    pub collective: String,
    /// Who waits.
    pub waiters: BTreeSet<u32>,
    /// For whom.
    pub behind: BTreeSet<u32>,
}

/// A rank at fault, or several that wait for each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AtFault {
    /// One rank; several where they wait for each other in a cycle.
    pub ranks: BTreeSet<u32>,
    /// Who waits for them, where.
    pub waits: Vec<Wait>,
}

/// The verdict over the dumps of a job.
///
/// ```
/// use hangwatch_flight_recorder::{Analysis, Dump};
///
/// // Rank 0 waits in its second collective; rank 1 has not entered it.
/// let dump = |rank, entered| {
///     let text = format!(
///         r#"{{"version": "2.10", "entries": [],
///              "pg_config": {{"0": {{"name": "0", "desc": "default_pg", "ranks": "[0, 1]"}}}},
///              "pg_status": {{"0": {{"last_enqueued_collective": {entered},
///                                    "last_completed_collective": 1}}}}}}"#
///     );
///     Dump::parse(rank, text.as_bytes()).unwrap()
/// };
/// let analysis = Analysis::of(&[dump(0, 2), dump(1, 1)]);
/// assert!(analysis.at_fault[0].ranks.contains(&1));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Analysis {
    /// Whom others wait for and who waits for nobody, the most-waited-for first; cycles among them.
    pub at_fault: Vec<AtFault>,
    /// Ranks of the job without a dump.
    pub no_dump: BTreeSet<u32>,
    /// Waits that only a rank without a dump can explain; `behind` names these ranks.
    pub waits_for_no_dump: Vec<Wait>,
    /// Collectives that were called differently.
    pub mismatches: Vec<Mismatch>,
    /// Groups left out because they carry point-to-point operations.
    pub left_out: Vec<String>,
    /// Groups whose counters no entry names, over all dumps.
    pub unnamed: usize,
    /// Dumps that were read.
    pub dumps: usize,
    /// Ranks with a collective that has not completed, in whatever group.
    pub waiting: BTreeSet<u32>,
}

impl Analysis {
    /// Joins the dumps of one job.
    pub fn of(dumps: &[Dump]) -> Analysis {
        let groups = members(dumps);
        let no_dump = without_dump(dumps);
        let waits = waits::waits(&groups, &no_dump);
        let mut at_fault: Vec<AtFault> = waits::ends(&waits)
            .into_iter()
            .map(|ranks| AtFault { waits: waits_for(&waits, &ranks), ranks })
            .collect();
        let waiters = |fault: &AtFault| -> usize {
            let all: BTreeSet<&u32> = fault.waits.iter().flat_map(|wait| &wait.waiters).collect();
            all.len()
        };
        at_fault.sort_by_key(|fault| std::cmp::Reverse(waiters(fault)));
        let unexplained = waits.iter().filter(|wait| !wait.unknown.is_empty());
        let left_out = groups.iter().filter(|(_, members)| !is_comparable(members));
        let outstanding =
            |dump: &&Dump| dump.memberships.iter().any(|one| one.enqueued > one.completed);
        Analysis {
            at_fault,
            no_dump,
            waits_for_no_dump: unexplained.map(|wait| shown(wait, &wait.unknown)).collect(),
            mismatches: mismatches(&groups),
            left_out: left_out.map(|(group, _)| name_of(group)).collect(),
            unnamed: dumps.iter().map(|dump| dump.unnamed).sum(),
            dumps: dumps.len(),
            waiting: dumps.iter().filter(outstanding).map(|dump| dump.rank).collect(),
        }
    }
}

/// Ranks of the job that have written no dump: those that a group lists, and gaps below the highest rank.
fn without_dump(dumps: &[Dump]) -> BTreeSet<u32> {
    let seen: BTreeSet<u32> = dumps.iter().map(|dump| dump.rank).collect();
    let groups = dumps.iter().flat_map(|dump| &dump.memberships).map(|one| &one.group);
    let mut known: BTreeSet<u32> = groups.flat_map(|group| group.ranks.iter().copied()).collect();
    if known.is_empty() {
        known.extend(0..seen.last().copied().unwrap_or(0).min(1 << 20));
    }
    known.difference(&seen).copied().collect()
}

fn waits_for(waits: &[Waiting<'_>], ranks: &BTreeSet<u32>) -> Vec<Wait> {
    let touching = waits.iter().filter(|wait| !wait.behind.is_disjoint(ranks));
    touching.map(|wait| shown(wait, &wait.behind)).collect()
}

fn shown(wait: &Waiting<'_>, behind: &BTreeSet<u32>) -> Wait {
    Wait {
        group: name_of(wait.group),
        collective: wait.collective.map(collective).unwrap_or_default(),
        waiters: wait.waiters.clone(),
        behind: behind.clone(),
    }
}

fn name_of(group: &Group) -> String {
    format!("{} ({})", group.description, group.name)
}

fn collective(one: &Collective) -> String {
    let operation = one.operation.rsplit(':').next().unwrap_or(&one.operation);
    let at = if one.line.is_empty() { String::new() } else { format!(" at {}", one.line) };
    format!("{operation} #{}{at}", one.sequence)
}
