//! The walk over graphs made at random: it ends, finds what is there, and says nothing that is not.

use hangwatch_wait_graph::{
    Edge, End, Kind, NodeId, Resource, Source, Thread, Verdict, WaitGraph, What, chain, sentence,
};
use proptest::prelude::*;
use proptest::sample::Index;

const SOURCES: [Source; 3] = [Source::Kernel, Source::Memory, Source::Inferred];

fn thread(at: usize, processes: usize) -> What {
    let number = u32::try_from(at + 1).unwrap();
    let pid = u32::try_from(1 + at % processes).unwrap();
    What::Thread(Thread {
        pid,
        tid: number,
        process: "app".into(),
        number,
        threads: 2,
        ..Thread::default()
    })
}

fn end(kind: usize) -> Option<End> {
    [
        None,
        Some(End::Computing),
        Some(End::Sleeping(Some(3))),
        Some(End::Waiting("a timer".into())),
        Some(End::Unknown("is lost".into())),
    ][kind]
        .clone()
}

/// Graphs of up to so many nodes, some with edges to nodes that are not there.
fn graphs() -> impl Strategy<Value = WaitGraph> {
    let node = (0..5_usize, any::<bool>());
    let edge = (any::<Index>(), any::<Index>(), 0..3_usize, 0..40_u32);
    let parts = (
        prop::collection::vec(node, 1..24),
        prop::collection::vec(edge, 0..48),
        prop::collection::vec(any::<Index>(), 1..4),
        1..4_usize,
    );
    parts.prop_map(|(nodes, edges, roots, processes)| {
        let mut graph = WaitGraph::default();
        for (at, (kind, is_thread)) in nodes.iter().enumerate() {
            let what =
                if *is_thread { thread(at, processes) } else { What::Outside("a timer".into()) };
            graph.add(what, end(*kind));
        }
        let count = nodes.len();
        let node = |index: &Index| NodeId(u32::try_from(index.index(count)).unwrap());
        for (from, to, source, stray) in &edges {
            let to = if *stray == 0 { NodeId(99) } else { node(to) };
            graph.connect(node(from), to, Resource::Join, SOURCES[*source]);
        }
        graph.roots = roots.iter().map(node).collect();
        graph
    })
}

fn leaves(graph: &WaitGraph, id: NodeId) -> Vec<&Edge> {
    let is_there = |edge: &&Edge| edge.from == id && graph.node(edge.to).is_some();
    graph.edges.iter().filter(is_there).collect()
}

proptest! {
    #[test]
    fn no_culprit_waits_for_anybody_but_its_deadlock(graph in graphs()) {
        let verdict = Verdict::of(&graph);
        for culprit in &verdict.culprits {
            prop_assert!(!culprit.nodes.is_empty());
            for &node in &culprit.nodes {
                let waits = leaves(&graph, node);
                prop_assert_eq!(culprit.cycle.is_empty(), waits.is_empty());
            }
            for pair in culprit.way.windows(2) {
                prop_assert_eq!(pair[0].to, pair[1].from);
            }
        }
        for lost in &verdict.lost {
            prop_assert!(leaves(&graph, lost.at).is_empty());
        }
    }

    #[test]
    fn every_way_ends_somewhere(graph in graphs()) {
        let verdict = Verdict::of(&graph);
        prop_assert!(!verdict.culprits.is_empty() || !verdict.lost.is_empty());
        prop_assert_eq!(verdict.kind == Kind::NotKnown, verdict.culprits.is_empty());
        prop_assert!(!sentence(&graph, &verdict).is_empty());
        let lines = chain(&graph, &verdict).len();
        prop_assert_eq!(lines, verdict.culprits.len() + verdict.lost.len());
    }

    #[test]
    fn the_order_of_edges_does_not_change_who_it_is(graph in graphs(), turn in any::<Index>()) {
        let mut turned = graph.clone();
        if !turned.edges.is_empty() {
            let by = turn.index(turned.edges.len());
            turned.edges.rotate_left(by);
        }
        let who = |graph: &WaitGraph| {
            let verdict = Verdict::of(graph);
            let mut ends: Vec<NodeId> =
                verdict.culprits.iter().filter(|it| it.cycle.is_empty()).map(|it| it.nodes[0]).collect();
            ends.sort();
            (verdict.kind, verdict.culprits.len(), ends)
        };
        prop_assert_eq!(who(&graph), who(&turned));
    }

    #[test]
    fn a_ring_is_found_however_it_is_reached(length in 1..40_usize, tail in 0..20_usize, first in any::<Index>()) {
        let mut graph = WaitGraph::default();
        for at in 0..length + tail {
            graph.add(thread(at, 1), None);
        }
        let id = |at: usize| NodeId(u32::try_from(at).unwrap());
        let turn = first.index(length);
        for at in (0..length).map(|at| (at + turn) % length) {
            graph.connect(id(at), id((at + 1) % length), Resource::Join, Source::Memory);
        }
        for at in length..length + tail {
            let to = if at == length { turn } else { at - 1 };
            graph.connect(id(at), id(to), Resource::Join, Source::Memory);
        }
        graph.roots = vec![id(length + tail - 1)];
        let verdict = Verdict::of(&graph);
        prop_assert_eq!(verdict.kind, Kind::Deadlock);
        prop_assert_eq!(verdict.culprits[0].nodes.len(), length);
        prop_assert_eq!(verdict.culprits[0].waiters as usize, tail);
        for pair in verdict.culprits[0].cycle.windows(2) {
            prop_assert_eq!(pair[0].to, pair[1].from);
        }
    }

    #[test]
    fn a_graph_is_the_same_after_json(graph in graphs()) {
        let text = serde_json::to_string(&graph).unwrap();
        prop_assert_eq!(serde_json::from_str::<WaitGraph>(&text).unwrap(), graph);
    }
}
