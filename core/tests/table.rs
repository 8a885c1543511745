//! The table against a model: whatever the operations, it says what a
//! `BTreeSet` of (deadline, id) says.

use std::{collections::BTreeSet, ops::Range};

use hangwatch_core::watchdog::table::{IDLE, Minima};
use proptest::{prelude::*, test_runner::TestCaseResult};

#[derive(Clone, Debug)]
enum Op {
    Set { id: usize, deadline: u64 },
    PopDue { now: u64 },
    ClearBlock { ids: Range<usize> },
}

/// The same table, kept the plain way.
struct Model {
    deadlines: Vec<u64>,
    armed: BTreeSet<(u64, usize)>,
}

impl Model {
    fn new(capacity: usize) -> Self {
        Self { deadlines: vec![IDLE; capacity], armed: BTreeSet::new() }
    }

    fn set(&mut self, id: usize, deadline: u64) -> bool {
        let Some(held) = self.deadlines.get_mut(id) else { return false };
        self.armed.remove(&(*held, id));
        *held = deadline;
        if deadline != IDLE {
            self.armed.insert((deadline, id));
        }
        true
    }

    fn next_deadline(&self) -> u64 {
        self.armed.first().map_or(IDLE, |&(deadline, _)| deadline)
    }

    fn pop_first(&mut self, now: u64) -> Option<(usize, u64)> {
        let &(deadline, id) = self.armed.first().filter(|(deadline, _)| *deadline <= now)?;
        self.set(id, IDLE);
        Some((id, deadline))
    }
}

fn deadline() -> impl Strategy<Value = u64> {
    // Few values, so that ties are common, and both ends of the range.
    prop_oneof![6 => 0..40_u64, 2 => any::<u64>(), 1 => Just(IDLE - 1), 3 => Just(IDLE)]
}

fn op(capacity: usize) -> impl Strategy<Value = Op> {
    let id = 0..capacity + 2; // Some just out of range.
    prop_oneof![
        12 => (id.clone(), deadline()).prop_map(|(id, deadline)| Op::Set { id, deadline }),
        2 => deadline().prop_map(|now| Op::PopDue { now }),
        1 => (id, 0..70_usize).prop_map(|(id, len)| Op::ClearBlock { ids: id..id + len }),
    ]
}

fn apply(op: &Op, table: &mut Minima, model: &mut Model) -> TestCaseResult {
    match op.clone() {
        Op::Set { id, deadline } => {
            prop_assert_eq!(table.set(id, deadline), model.set(id, deadline));
        }
        Op::PopDue { now } => {
            let mut popped = Vec::new();
            let count = table.pop_due(now, |id, deadline| popped.push((id, deadline)));
            prop_assert_eq!(count, popped.len());
            for due in popped {
                prop_assert_eq!(Some(due), model.pop_first(now));
            }
            prop_assert_eq!(None, model.pop_first(now));
        }
        Op::ClearBlock { ids } => {
            table.clear_block(ids.clone());
            for id in ids {
                model.set(id, IDLE);
            }
        }
    }
    Ok(())
}

fn check(capacity: usize, ops: &[Op]) -> TestCaseResult {
    let mut table = Minima::new(capacity);
    let mut model = Model::new(capacity);
    for op in ops {
        apply(op, &mut table, &mut model)?;
        prop_assert_eq!(table.next_deadline(), model.next_deadline(), "after {:?}", op);
    }
    for id in 0..capacity + 2 {
        prop_assert_eq!(table.get(id), model.deadlines.get(id).copied().unwrap_or(IDLE));
    }
    Ok(())
}

fn capacity_and_ops() -> impl Strategy<Value = (usize, Vec<Op>)> {
    let capacity = prop_oneof![
        Just(0_usize),
        Just(1),
        Just(15),
        Just(16),
        Just(17),
        Just(64),
        Just(256),
        Just(257),
        2..5_000_usize
    ];
    capacity.prop_flat_map(|capacity| {
        (Just(capacity), prop::collection::vec(op(capacity), 0..if cfg!(miri) { 20 } else { 200 }))
    })
}

fn config() -> ProptestConfig {
    let cases = if cfg!(miri) { 8 } else { 256 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_table_agrees_with_a_btree_set((capacity, ops) in capacity_and_ops()) {
        check(capacity, &ops)?;
    }
}

#[test]
fn an_id_out_of_range_changes_nothing() {
    let mut table = Minima::new(20);
    assert!(!table.set(20, 5), "20 lies in the last block, but is no id");
    assert!(!table.set(usize::MAX, 5));
    table.clear_block(19..usize::MAX);
    table.clear_block(usize::MAX - 1..usize::MAX);
    assert_eq!((table.next_deadline(), table.get(20)), (IDLE, IDLE));
}

#[test]
fn an_idle_timer_is_never_due() {
    let mut table = Minima::new(100);
    table.set(7, IDLE - 1);
    let mut due = Vec::new();
    table.pop_due(IDLE, |id, deadline| due.push((id, deadline)));
    assert_eq!(due, [(7, IDLE - 1)]);
    assert_eq!(table.first(), None);
}

#[test]
fn equal_deadlines_come_in_order_of_ids() {
    let mut table = Minima::new(1_000);
    for id in (0..1_000).rev() {
        table.set(id, 9);
    }
    let mut ids = Vec::new();
    table.pop_due(9, |id, _| ids.push(id));
    assert!(ids.into_iter().eq(0..1_000));
}
