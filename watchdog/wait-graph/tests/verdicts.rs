//! Verdicts over captures of real hangs, as they were recorded.

use hangwatch_wait_graph::{
    End, Kind, Medium, NodeId, Place, Resource, Source, Thread, Verdict, WaitGraph, What, chain,
    sentence,
};

fn thread(process: &str, pid: u32, number: u32, threads: u32) -> Thread {
    let process = process.to_owned();
    Thread {
        pid,
        tid: pid + number - 1,
        name: process.clone(),
        process,
        number,
        threads,
        ..Thread::default()
    }
}

fn at(function: &str, file: &str, line: u32) -> Place {
    Place { function: function.into(), file: Some(file.into()), line: Some(line) }
}

fn mutex(address: u64, name: Option<&str>) -> Resource {
    Resource::Mutex { address, name: name.map(str::to_owned) }
}

/// `make` that runs a script that reads the output of a program that deadlocks.
fn bank() -> WaitGraph {
    let mut graph = WaitGraph::default();
    let make = graph.add(What::Thread(thread("make", 26343, 1, 1)), None);
    let python = graph.add(What::Thread(thread("python3", 26353, 1, 1)), None);
    let main = graph.add(What::Thread(thread("app", 26406, 1, 3)), None);
    let forth = Thread { place: Some(at("move", "src/bank.c", 31)), ..thread("app", 26406, 2, 3) };
    let back = Thread { place: Some(at("move", "src/bank.c", 22)), ..thread("app", 26406, 3, 3) };
    let (forth, back) = (graph.add(What::Thread(forth), None), graph.add(What::Thread(back), None));
    graph.connect(make, python, Resource::Child { of: 1 }, Source::Kernel);
    graph.connect(python, main, Resource::Read(Medium::Pipe), Source::Kernel);
    graph.connect(main, forth, Resource::Join, Source::Memory);
    graph.connect(forth, back, mutex(0x28, Some("accounts[0]")), Source::Memory);
    graph.connect(back, forth, mutex(0x50, Some("accounts[1]")), Source::Memory);
    graph.roots = vec![make];
    graph
}

#[test]
fn two_locks_in_opposite_order_are_a_deadlock_however_far_away() {
    let graph = bank();
    let verdict = Verdict::of(&graph);
    assert_eq!((verdict.kind, verdict.culprits[0].waiters), (Kind::Deadlock, 3));
    assert_eq!(verdict.culprits[0].source, Source::Memory);
    assert_eq!(
        sentence(&graph, &verdict),
        "Deadlock in app (pid 26406): thread 2 holds accounts[1] and wants accounts[0] (move, \
         bank.c:31), thread 3 the other way round (move, bank.c:22); make (pid 26343) waits for it"
    );
    assert_eq!(
        chain(&graph, &verdict),
        [
            "make 26343 -> waits for python3 26353 -> reads the output of app 26406 -> joins thread 2 -> \
          mutex accounts[0] of thread 3 -> mutex accounts[1] of thread 2"
        ]
    );
}

#[test]
fn the_one_that_all_others_wait_for_is_the_culprit() {
    let mut graph = WaitGraph::default();
    let parent = graph.add(What::Thread(thread("sh", 1, 1, 1)), None);
    let child = Thread { place: Some(at("nap", "nap.c", 3)), ..thread("nap", 2, 1, 1) };
    let child = graph.add(What::Thread(child), Some(End::Sleeping(Some(60))));
    graph.connect(parent, child, Resource::Child { of: 1 }, Source::Kernel);
    graph.roots = vec![parent];
    let verdict = Verdict::of(&graph);
    assert_eq!((verdict.kind, verdict.word()), (Kind::Culprit, "culprit"));
    let told =
        "nap (pid 2) sleeps for 60 s by its own choice (nap, nap.c:3); sh (pid 1) waits for it";
    assert_eq!(sentence(&graph, &verdict), told);
}

#[test]
fn several_culprits_are_all_named_the_most_waited_for_first() {
    let mut graph = WaitGraph::default();
    let end = Some(End::Computing);
    let roots: Vec<NodeId> =
        (1..=3).map(|pid| graph.add(What::Thread(thread("w", pid, 1, 1)), None)).collect();
    let one = graph.add(What::Thread(thread("one", 11, 1, 1)), end.clone());
    let two = graph.add(What::Thread(thread("two", 12, 1, 1)), end);
    graph.connect(roots[0], one, Resource::Child { of: 1 }, Source::Kernel);
    graph.connect(roots[1], two, Resource::Child { of: 1 }, Source::Kernel);
    graph.connect(roots[2], two, Resource::Child { of: 1 }, Source::Kernel);
    graph.roots = roots;
    let verdict = Verdict::of(&graph);
    assert_eq!(verdict.kind, Kind::Several);
    assert_eq!(
        sentence(&graph, &verdict),
        "Several hold it up: two (pid 12) computes; one (pid 11) computes"
    );
}

#[test]
fn where_the_way_is_lost_the_step_is_named_and_nobody_is_blamed() {
    let mut graph = WaitGraph::default();
    let parent = graph.add(What::Thread(thread("sh", 1, 1, 1)), None);
    let why = End::Unknown("waits for a System V semaphore, whose holder is not recorded".into());
    let child = graph.add(What::Thread(thread("db", 2, 1, 1)), Some(why));
    graph.connect(parent, child, Resource::Child { of: 1 }, Source::Kernel);
    graph.roots = vec![parent];
    let verdict = Verdict::of(&graph);
    assert_eq!((verdict.kind, verdict.lost.len()), (Kind::NotKnown, 1));
    assert!(!verdict.is_known());
    assert_eq!(
        sentence(&graph, &verdict),
        "Not known why sh (pid 1) waits: db (pid 2) waits for a System V semaphore, whose holder is not \
         recorded"
    );
    assert_eq!(
        sentence(&WaitGraph::default(), &Verdict::default()),
        "Not known: nothing could be looked at"
    );
}

/// A process all of whose threads may be woken by any of them.
fn pool(ends: &[Option<End>]) -> WaitGraph {
    let mut graph = WaitGraph::default();
    let threads = u32::try_from(ends.len()).unwrap();
    let any = What::AnyThread { pid: 7, process: "pool".into() };
    let any = graph.add(any, None);
    for (number, end) in (1..).zip(ends) {
        let node = graph.add(What::Thread(thread("pool", 7, number, threads)), end.clone());
        graph.connect(any, node, Resource::Other("any thread".into()), Source::Inferred);
        if end.is_none() {
            graph.connect(node, any, Resource::Unowned { address: 8 }, Source::Inferred);
        }
    }
    graph.roots = vec![NodeId(1)];
    graph
}

#[test]
fn where_nobody_is_left_to_wake_the_others_it_is_a_deadlock() {
    let graph = pool(&[None]);
    let verdict = Verdict::of(&graph);
    assert_eq!(verdict.kind, Kind::Deadlock);
    assert_eq!(
        sentence(&graph, &verdict),
        "Deadlock in pool (pid 7): it waits for a lock or a wake-up, and nobody else is left who could give \
         it"
    );
    let graph = pool(&[None, None, None]);
    let verdict = Verdict::of(&graph);
    assert_eq!((verdict.kind, verdict.culprits[0].nodes.len()), (Kind::Deadlock, 3));
    assert!(sentence(&graph, &verdict).contains("thread 2 waits for a lock or a wake-up"));
}

#[test]
fn who_computes_or_is_stopped_is_probably_waited_for_and_who_rests_is_not() {
    let graph = pool(&[
        None,
        Some(End::Computing),
        Some(End::Sleeping(Some(1))),
        Some(End::Waiting("x".into())),
    ]);
    let verdict = Verdict::of(&graph);
    assert_eq!((verdict.kind, verdict.culprits[0].source), (Kind::Culprit, Source::Inferred));
    assert_eq!(
        sentence(&graph, &verdict),
        "Probably pool (pid 7), thread 2 computes; thread 1 waits for it"
    );
}

#[test]
fn a_deadlock_of_other_threads_is_found_where_the_main_thread_only_rests() {
    let mut graph = bank();
    graph.edges.retain(|edge| edge.resource != Resource::Join);
    graph.nodes[2].end = Some(End::Waiting("a signal".into()));
    graph.roots = vec![NodeId(2)];
    assert_eq!(Verdict::of(&graph).kind, Kind::Deadlock);
    graph.edges.clear();
    graph.nodes[3].end = Some(End::Sleeping(None));
    graph.nodes[4].end = Some(End::Computing);
    let verdict = Verdict::of(&graph);
    assert_eq!(verdict.culprits[0].nodes, [NodeId(2)], "who sleeps or computes may be meant to");
}
