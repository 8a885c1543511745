//! The verdict of a capture: the graph with places from the stacks, and what is said of it.

use hangwatch_incident::schema::{Evidence, Frame, Thread, Waits};
use hangwatch_incident::words;
use hangwatch_wait_graph::{
    Edge, NodeId, Place, Resource, Source, Verdict, WaitGraph, What, chain, sentence,
};

/// Calls of a stack among which the one is that takes a lock.
const INNERMOST: usize = 12;

/// Adds to a graph what stacks tell, and draws the verdict.
pub fn conclude<'e>(
    mut graph: WaitGraph,
    evidence: impl IntoIterator<Item = &'e Evidence>,
) -> Waits {
    let evidence: Vec<&Evidence> = evidence.into_iter().collect();
    let threads: Vec<&Thread> = evidence.iter().flat_map(|it| &it.threads).collect();
    for node in &mut graph.nodes {
        let What::Thread(thread) = &mut node.what else { continue };
        let Some(seen) = threads.iter().find(|seen| seen.tid == thread.tid) else { continue };
        let named = |frame: &&Frame| !frame.function.starts_with("0x");
        thread.place = words::telling_frame(seen).filter(named).map(place);
        if seen.python.is_some() && !seen.name.is_empty() {
            thread.name.clone_from(&seen.name);
        }
    }
    name_locks(&mut graph, &evidence);
    interpreter_locks(&mut graph, &threads);
    let verdict = Verdict::of(&graph);
    let (sentence, chain) = (sentence(&graph, &verdict), chain(&graph, &verdict));
    Waits { sentence, chain, verdict, graph }
}

/// Names the locks that are variables of a program.
fn name_locks(graph: &mut WaitGraph, evidence: &[&Evidence]) {
    let mut edges = std::mem::take(&mut graph.edges);
    for edge in &mut edges {
        let (Resource::Mutex { address, name } | Resource::RwLock { address, name }) =
            &mut edge.resource
        else {
            continue;
        };
        let tid = graph.thread(edge.from).map(|thread| thread.tid);
        let is_its = |it: &&&Evidence| it.threads.iter().any(|thread| Some(thread.tid) == tid);
        let variables = evidence.iter().find(is_its).map(|it| &it.variables);
        let found = variables.and_then(|all| all.iter().find(|it| it.address == *address));
        *name = found.map(|variable| variable.name.clone());
    }
    graph.edges = edges;
}

/// A thread that takes the interpreter's lock waits for the thread that has it: the kernel sees only that it
/// waits for a moment, again and again.
fn interpreter_locks(graph: &mut WaitGraph, threads: &[&Thread]) {
    let node = |thread: &Thread| graph.thread_node(thread.tid);
    let pid = |id| graph.thread(id).map(|thread| thread.pid);
    let takes = |thread: &&&Thread| {
        let frames = thread.native.as_deref().unwrap_or_default();
        frames.iter().take(INNERMOST).any(|frame| frame.function == "take_gil")
    };
    let holders: Vec<NodeId> = threads
        .iter()
        .filter(|thread| thread.holds_gil == Some(true) && !takes(thread))
        .filter_map(|thread| node(thread))
        .collect();
    let mut edges = Vec::new();
    for from in threads.iter().filter(takes).filter_map(|thread| node(thread)) {
        let others = holders.iter().filter(|&&to| to != from && pid(to) == pid(from));
        edges.extend(others.map(|&to| Edge {
            from,
            to,
            resource: Resource::Gil,
            source: Source::Interpreter,
        }));
    }
    graph.edges.retain(|edge| !edges.iter().any(|gil: &Edge| gil.from == edge.from));
    graph.edges.extend(edges);
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
