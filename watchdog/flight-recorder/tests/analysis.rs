//! The verdict over made-up dumps, over pickles as torch writes them, and over labelled hangs where they
//! are at hand.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use hangwatch_flight_recorder::{Analysis, Dump, ReadError, read};
use proptest::prelude::*;

/// A group of a made-up dump: name, members, completed and enqueued collectives.
#[derive(Clone, Debug)]
struct Part {
    name: u32,
    ranks: Vec<u32>,
    completed: i64,
    enqueued: i64,
    entries: Vec<String>,
}

fn part(name: u32, ranks: &[u32], completed: i64, enqueued: i64) -> Part {
    Part { name, ranks: ranks.to_vec(), completed, enqueued, entries: Vec::new() }
}

impl Part {
    fn with(mut self, sequence: i64, operation: &str, sizes: &str) -> Part {
        self.entries.push(entry(self.name, sequence, operation, sizes, false));
        self
    }

    fn with_point_to_point(mut self) -> Part {
        self.entries.push(entry(self.name, 1, "nccl:send 0->1", "[[1]]", true));
        self
    }
}

fn entry(group: u32, sequence: i64, operation: &str, sizes: &str, is_p2p: bool) -> String {
    format!(
        r#"{{"pg_id": {group}, "process_group": ["{group}", "g{group}"], "collective_seq_id": {sequence},
             "profiling_name": "{operation}", "input_sizes": {sizes}, "input_dtypes": ["Float"],
             "is_p2p": {is_p2p}}}"#
    )
}

fn dump(rank: u32, parts: &[Part]) -> Dump {
    let (mut config, mut status, mut entries) = (String::new(), String::new(), String::new());
    for (index, part) in parts.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let Part { name, ranks, completed, enqueued, .. } = part;
        let _ = write!(config, r#"{comma}"{name}": {{"desc": "g{name}", "ranks": "{ranks:?}"}}"#);
        let _ = write!(
            status,
            r#"{comma}"{name}": {{"last_completed_collective": {completed},
               "last_enqueued_collective": {enqueued}}}"#
        );
        for entry in &part.entries {
            let comma = if entries.is_empty() { "" } else { "," };
            let _ = write!(entries, "{comma}{entry}");
        }
    }
    let text = format!(
        r#"{{"version": "2.10", "pg_config": {{{config}}}, "pg_status": {{{status}}},
             "entries": [{entries}]}}"#
    );
    Dump::parse(rank, text.as_bytes()).unwrap()
}

fn at_fault(analysis: &Analysis) -> Vec<Vec<u32>> {
    analysis.at_fault.iter().map(|one| one.ranks.iter().copied().collect()).collect()
}

#[test]
fn the_rank_that_has_not_entered_is_at_fault() {
    let all = [0, 1, 2];
    let analysis = Analysis::of(&[
        dump(0, &[part(0, &all, 4, 5).with(5, "nccl:all_reduce", "[[8]]")]),
        dump(1, &[part(0, &all, 4, 4)]),
        dump(2, &[part(0, &all, 4, 5)]),
    ]);
    assert_eq!(at_fault(&analysis), [[1]]);
    let wait = &analysis.at_fault[0].waits[0];
    assert_eq!((wait.group.as_str(), wait.collective.as_str()), ("g0 (0)", "all_reduce #5"));
    assert_eq!(wait.waiters, BTreeSet::from([0, 2]));
}

#[test]
fn a_rank_that_waits_elsewhere_is_not_at_fault() {
    // 0 waits for 1 in group 1; 1 waits for 2 in group 2; 2 is computing.
    let analysis = Analysis::of(&[
        dump(0, &[part(1, &[0, 1], 7, 8)]),
        dump(1, &[part(1, &[0, 1], 7, 7), part(2, &[1, 2], 3, 4)]),
        dump(2, &[part(2, &[1, 2], 3, 3)]),
    ]);
    assert_eq!(at_fault(&analysis), [[2]]);
}

#[test]
fn several_at_fault_are_all_named_the_most_waited_for_first() {
    let analysis = Analysis::of(&[
        dump(0, &[part(1, &[0, 1], 1, 2)]),
        dump(1, &[part(1, &[0, 1], 1, 1)]),
        dump(2, &[part(2, &[2, 3, 4], 5, 6)]),
        dump(3, &[part(2, &[2, 3, 4], 5, 5)]),
        dump(4, &[part(2, &[2, 3, 4], 5, 6)]),
    ]);
    assert_eq!(at_fault(&analysis), [[3], [1]]);
}

#[test]
fn ranks_that_take_two_groups_in_opposite_order_are_a_cycle() {
    let analysis = Analysis::of(&[
        dump(0, &[part(1, &[0, 1], 1, 2), part(2, &[0, 1], 1, 1)]),
        dump(1, &[part(1, &[0, 1], 1, 1), part(2, &[0, 1], 1, 2)]),
    ]);
    assert_eq!(at_fault(&analysis), [[0, 1]]);
}

#[test]
fn groups_with_point_to_point_operations_are_left_out() {
    let analysis = Analysis::of(&[
        dump(0, &[part(1, &[0, 1], 1, 9).with_point_to_point()]),
        dump(1, &[part(1, &[0, 1], 1, 1)]),
    ]);
    assert_eq!(at_fault(&analysis), [[0; 0]; 0]);
    assert_eq!(analysis.left_out, ["g1 (1)"]);
}

#[test]
fn a_missing_dump_is_listed_and_blamed_only_where_nothing_else_explains_the_wait() {
    let all = [0, 1, 2, 3];
    let behind = Analysis::of(&[
        dump(0, &[part(0, &all, 4, 5)]),
        dump(1, &[part(0, &all, 4, 4)]),
        dump(2, &[part(0, &all, 4, 5)]),
    ]);
    assert_eq!((at_fault(&behind), &behind.no_dump), (vec![vec![1]], &BTreeSet::from([3])));
    assert_eq!(behind.waits_for_no_dump, []);

    let unexplained = Analysis::of(&[
        dump(0, &[part(0, &all, 4, 5)]),
        dump(1, &[part(0, &all, 4, 5)]),
        dump(2, &[part(0, &all, 4, 5)]),
    ]);
    assert_eq!(at_fault(&unexplained), [[0; 0]; 0]);
    assert_eq!(unexplained.waits_for_no_dump[0].behind, BTreeSet::from([3]));
}

#[test]
fn a_collective_called_with_other_sizes_or_operations_is_a_mismatch() {
    let check = |odd: &str, sizes: &str| {
        let all = [0, 1, 2];
        let usual = || part(0, &all, 4, 5).with(5, "gloo:all_reduce", "[[8]]");
        let analysis = Analysis::of(&[
            dump(0, &[usual()]),
            dump(1, &[part(0, &all, 4, 5).with(5, odd, sizes)]),
            dump(2, &[usual()]),
        ]);
        let mismatch = &analysis.mismatches[0];
        assert_eq!(mismatch.sequence, 5);
        assert_eq!(mismatch.calls[0].ranks, BTreeSet::from([1]), "{odd} {sizes}");
    };
    check("gloo:all_reduce", "[[4]]");
    check("gloo:broadcast", "[[8]]");
    // A gather of different sizes is right.
    let unequal =
        |rank: u32, sizes| dump(rank, &[part(0, &[0, 1], 4, 5).with(5, "gloo:gather", sizes)]);
    let analysis = Analysis::of(&[unequal(0, "[[4]]"), unequal(1, "[[8]]")]);
    assert_eq!(analysis.mismatches, []);
}

#[test]
fn dumps_of_gloo_are_linked_by_their_entries_although_their_groups_have_no_names() {
    // As torch 2.15 writes them in JSON: one nameless group, with ranks of the group made last, and
    // counters as text.
    let gloo = |rank: u32, enqueued: i64, entries: &str| {
        let text = format!(
            r#"{{"version": "2.10", "pg_config": {{"": {{"name": "", "desc": "", "ranks": "[0, 1]"}}}},
                 "pg_status": {{"0": {{"last_enqueued_collective": "{enqueued}",
                                       "last_completed_collective": "5"}}}},
                 "entries": [{entries}]}}"#
        );
        Dump::parse(rank, text.as_bytes()).unwrap()
    };
    let waits = r#"{"pg_id": 0, "process_group": ["0", "default_pg"], "collective_seq_id": 6,
                    "profiling_name": "gloo:all_reduce", "is_p2p": false}"#;
    // Rank 1 holds its interpreter's lock: it has no entries.
    let analysis = Analysis::of(&[gloo(0, 6, waits), gloo(1, 5, ""), gloo(2, 6, waits)]);
    assert_eq!(at_fault(&analysis), [[1]]);
}

#[test]
fn pickles_as_torch_writes_them_are_read_from_a_directory() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (dumps, unread) = read(&[fixtures]).unwrap();
    assert_eq!((dumps.len(), unread.len()), (3, 0));
    let analysis = Analysis::of(&dumps);
    assert_eq!(at_fault(&analysis), [[1]]);
    assert_eq!(analysis.at_fault[0].waits[0].collective, "all_reduce #3 at train.py:41");
}

#[test]
fn files_that_are_no_dumps_are_named_and_two_of_one_rank_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write("_dump_0", r#"{"pg_status": {}}"#);
    write("_dump_1", "no pickle");
    write("_dump_2", r#"{"entries": []}"#);
    write("notes", "no dump");
    let (dumps, unread) = read(&[dir.path().to_owned()]).unwrap();
    assert_eq!((dumps.len(), unread.len()), (1, 2));
    write("trace_rank_0", r#"{"pg_status": {}}"#);
    let twice = read(&[dir.path().to_owned()]).unwrap_err();
    assert!(matches!(twice, ReadError::Twice { rank: 0, .. }), "{twice}");
}

/// Hangs with a label, `Fault ranks: [12, 14]`, where they are at hand.
#[test]
fn labelled_hangs_of_real_jobs_come_out_as_labelled() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fr_traces");
    let Ok(hangs) = fs::read_dir(&shared) else {
        println!("skipped: {} is not here", shared.display());
        return;
    };
    for hang in hangs {
        let hang: PathBuf = hang.unwrap().path();
        let label = fs::read_to_string(hang.join("fault_injection.log")).unwrap();
        let ranks = label.lines().find_map(|line| line.strip_prefix("Fault ranks: ")).unwrap();
        let (dumps, _) = read(std::slice::from_ref(&hang)).unwrap();
        let analysis = Analysis::of(&dumps);
        let found: BTreeSet<u32> =
            analysis.at_fault.iter().flat_map(|one| one.ranks.iter().copied()).collect();
        assert_eq!(format!("{:?}", Vec::from_iter(found)), ranks, "{}", hang.display());
        assert_eq!(analysis.mismatches, [], "{}", hang.display());
    }
}

/// The rule edge by edge, without shared nodes.
fn ends_by_edges(counts: &[Vec<Option<(i64, i64)>>]) -> BTreeSet<u32> {
    let mut edges = vec![BTreeSet::new(); counts.len()];
    for (r, own) in counts.iter().enumerate() {
        for (s, others) in counts.iter().enumerate().filter(|&(s, _)| s != r) {
            let waits = own.iter().zip(others).any(|pair| match pair {
                (Some((done, entered)), Some((other, last))) => {
                    entered > done && (other < done || last <= done)
                }
                _ => false,
            });
            if waits {
                edges[r].insert(s);
            }
        }
    }
    let waited_for: BTreeSet<usize> = edges.iter().flatten().copied().collect();
    waited_for.into_iter().filter(|&s| edges[s].is_empty()).map(|s| s as u32).collect()
}

proptest! {
    #[test]
    fn who_waits_for_nobody_is_the_same_by_single_edges(
        counts in prop::collection::vec(
            prop::collection::vec(prop::option::of((0..4_i64, 0..3_i64)), 3), 1..7
        )
    ) {
        let counts: Vec<Vec<Option<(i64, i64)>>> = counts
            .into_iter()
            .map(|groups| groups.into_iter().map(|it| it.map(|(done, more)| (done, done + more))).collect())
            .collect();
        let member_of = |group: usize| -> Vec<u32> {
            (0..counts.len()).filter(|&r| counts[r][group].is_some()).map(|r| r as u32).collect()
        };
        let dumps: Vec<Dump> = counts.iter().enumerate().map(|(rank, groups)| {
            let parts: Vec<Part> = groups.iter().enumerate().filter_map(|(group, it)| {
                it.map(|(done, entered)| part(group as u32, &member_of(group), done, entered))
            }).collect();
            dump(rank as u32, &parts)
        }).collect();
        let analysis = Analysis::of(&dumps);
        let single: BTreeSet<u32> = analysis.at_fault.iter()
            .filter(|one| one.ranks.len() == 1)
            .flat_map(|one| one.ranks.iter().copied())
            .collect();
        prop_assert_eq!(single, ends_by_edges(&counts));
    }
}
