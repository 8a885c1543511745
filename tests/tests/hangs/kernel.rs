//! Hangs that take root to make: a frozen control group.

use hangwatch_tests::freezer::Freezer;
use hangwatch_tests::until;
use hangwatch_wait_graph::End;

use crate::program::{Built, Running};

#[test]
fn a_frozen_process_is_named_with_its_control_group() {
    let Some(mut freezer) = Freezer::new("hangs") else { return };
    let running = Running::start(&Built::of(&["sleep", "100000"]));
    freezer.take(running.pid());
    freezer.freeze();
    let dump = until("it is seen to be frozen", || {
        let dump = running.dump();
        let is_frozen = |node: &hangwatch_wait_graph::Node| matches!(&node.end, Some(End::Frozen(group)) if !group.is_empty());
        dump.waits.graph.nodes.iter().any(is_frozen).then_some(dump)
    });
    freezer.thaw();
    assert!(
        dump.waits.sentence.contains("is frozen with its control group"),
        "{}",
        dump.waits.sentence
    );
}
