//! The verdict of a capture: the graph with places from the stacks, and what is said of it.

use hangwatch_incident::schema::{Evidence, Frame, Thread, Waits};
use hangwatch_incident::words;
use hangwatch_wait_graph::{Place, Verdict, WaitGraph, What, chain, sentence};

/// Adds to a graph what stacks tell, and draws the verdict.
pub fn conclude<'e>(
    mut graph: WaitGraph,
    evidence: impl IntoIterator<Item = &'e Evidence>,
) -> Waits {
    let threads: Vec<&Thread> = evidence.into_iter().flat_map(|it| &it.threads).collect();
    for node in &mut graph.nodes {
        let What::Thread(thread) = &mut node.what else { continue };
        let Some(seen) = threads.iter().find(|seen| seen.tid == thread.tid) else { continue };
        thread.place = words::telling_frame(seen).map(place);
        if seen.python.is_some() && !seen.name.is_empty() {
            thread.name.clone_from(&seen.name);
        }
    }
    let verdict = Verdict::of(&graph);
    let (sentence, chain) = (sentence(&graph, &verdict), chain(&graph, &verdict));
    Waits { sentence, chain, verdict, graph }
}

fn place(frame: &Frame) -> Place {
    let file = frame.file.clone().or_else(|| frame.module.clone());
    Place { function: frame.function.clone(), file, line: frame.line }
}

/// The processes that the verdict is about, before stacks tell more: culprits first, then all on the ways.
pub fn on_the_way(graph: &WaitGraph) -> Vec<u32> {
    let verdict = Verdict::of(graph);
    let culprits = verdict.culprits.iter().flat_map(|it| &it.nodes).copied();
    let ways = verdict.culprits.iter().flat_map(|it| it.way.iter().rev());
    let lost = verdict.lost.iter().flat_map(|it| it.way.iter().rev());
    let between = ways.chain(lost).flat_map(|step| [step.to, step.from]);
    let mut pids = Vec::new();
    for id in culprits.chain(between) {
        if let Some(thread) = graph.thread(id)
            && !pids.contains(&thread.pid)
        {
            pids.push(thread.pid);
        }
    }
    pids.extend(graph.pids().into_iter().filter(|pid| !pids.contains(pid)).collect::<Vec<_>>());
    pids
}
