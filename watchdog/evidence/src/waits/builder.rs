//! The builder: looks at the processes asked about, and at those that they wait for, and makes the graph.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use hangwatch::sys::proc_file;
use hangwatch_core::wire::signal;
use hangwatch_process::freezer::{self, Frozen};
use hangwatch_wait_graph::{Edge, End, NodeId, Resource, Source, Thread, Verdict, WaitGraph, What};
use rustix::process::Pid;

use super::calls;
use super::holders::Holders;
use super::task::{Call, Process, Task};
use super::tcp::Table;
use super::unix::Sockets;

/// Processes that are looked at, at most.
const PROCESSES: usize = 64;
/// Threads and other nodes, from which on no more processes are looked at.
const NODES: usize = 4096;
/// Edges of the whole graph, at most.
const EDGES: usize = 32_768;
/// Rounds in which deadlocks are confirmed, at most; a thread that ran is in none any more.
const CONFIRMED: usize = 64;

/// Who waits for whom, from the processes `roots` on. Everybody's descriptors are looked at for no longer
/// than `scan`.
pub fn capture(roots: &[u32], scan: Duration) -> WaitGraph {
    let mut builder = Builder { scan, ..Builder::default() };
    for &pid in roots {
        match builder.leader(pid) {
            Some(node) if !builder.graph.roots.contains(&node) => builder.graph.roots.push(node),
            Some(_) => {}
            None => builder.graph.missing.push(format!("process {pid} is gone")),
        }
    }
    while let Some(pid) = builder.to_follow.pop_front() {
        builder.follow(pid);
    }
    builder.finish()
}

/// Where a wait leads.
#[derive(Clone, Debug)]
pub(super) enum Toward {
    /// A process: its main thread.
    Process(u32, Resource, Source),
    /// A process of which any thread may end the wait.
    AnyThread(u32, Resource, Source),
    /// A thread.
    Thread(u32, u32, Resource, Source),
    /// Something outside, with what it is as an end.
    Outside(String, End),
    /// Nobody: an end of the thread itself.
    End(End),
}

impl Toward {
    pub(super) fn unknown(why: impl Into<String>) -> Toward {
        Toward::End(End::Unknown(why.into()))
    }
}

/// A graph in the making, and what has been read for it.
#[derive(Default)]
pub(super) struct Builder {
    graph: WaitGraph,
    /// How long everybody's descriptors are looked at.
    scan: Duration,
    processes: BTreeMap<u32, Option<Process>>,
    /// The nodes that stand for any thread of a process.
    any: HashMap<u32, NodeId>,
    nodes: HashMap<u32, NodeId>,
    to_follow: VecDeque<u32>,
    holders: Option<Holders>,
    /// By network namespace.
    tables: HashMap<String, Table>,
    sockets: HashMap<String, Result<Sockets, String>>,
}

impl Builder {
    /// Everybody's descriptors.
    pub(super) fn holders(&mut self) -> &Holders {
        self.holders.get_or_insert_with(|| Holders::scan(self.scan))
    }

    /// The TCP sockets of a process's network namespace.
    pub(super) fn table(&mut self, pid: u32) -> &Table {
        self.tables.entry(network(pid)).or_insert_with(|| Table::of(pid))
    }

    /// The UNIX sockets of a process's network namespace.
    pub(super) fn sockets(&mut self, pid: u32) -> &Result<Sockets, String> {
        let list = || super::unix::sockets(pid).map_err(|error| error.to_string());
        self.sockets.entry(network(pid)).or_insert_with(list)
    }

    /// The node that stands for a process; looks at the process, where that has not been done.
    fn leader(&mut self, pid: u32) -> Option<NodeId> {
        self.look_at(pid);
        let process = self.processes.get(&pid)?.as_ref()?;
        self.nodes.get(&process.leader()?.tid).copied()
    }

    fn look_at(&mut self, pid: u32) {
        let is_full = self.processes.len() >= PROCESSES || self.graph.nodes.len() >= NODES;
        if self.processes.contains_key(&pid) || is_full {
            return;
        }
        let process = Process::look(pid);
        if let Some(process) = &process {
            for (place, task) in process.tasks.iter().enumerate() {
                let thread = Thread {
                    pid,
                    tid: task.tid,
                    process: process.name.clone(),
                    name: task.name.clone(),
                    number: u32::try_from(place + 1).unwrap_or(u32::MAX),
                    threads: u32::try_from(process.count).unwrap_or(u32::MAX),
                    ..Thread::default()
                };
                let node = self.graph.add(What::Thread(thread), None);
                self.nodes.insert(task.tid, node);
            }
            if process.tasks.len() < process.count {
                let (seen, all) = (process.tasks.len(), process.count);
                let name = &process.name;
                self.graph.missing.push(format!(
                    "only {seen} of the {all} threads of {name} (pid {pid}) were looked at"
                ));
            }
            if process.tasks.iter().any(|task| task.call == Call::Refused) {
                let name = &process.name;
                self.graph.missing.push(format!(
                    "what {name} (pid {pid}) waits for may not be read: that takes its own user, or root"
                ));
            }
            self.to_follow.push_back(pid);
        }
        self.processes.insert(pid, process);
    }

    fn follow(&mut self, pid: u32) {
        let Some(process) = self.processes.get_mut(&pid).and_then(Option::take) else { return };
        let frozen = frozen(pid);
        for task in &process.tasks {
            let ways = match (&frozen, task.state) {
                (Some(group), state) if state != 'Z' => {
                    vec![Toward::End(End::Frozen(group.clone()))]
                }
                _ => self.ways(&process, task),
            };
            let from = self.nodes[&task.tid];
            self.connect(from, pid, &process, ways);
        }
        self.processes.insert(pid, Some(process));
    }

    /// What a thread waits for.
    fn ways(&mut self, process: &Process, task: &Task) -> Vec<Toward> {
        match task.state {
            't' => vec![Toward::End(traced(task))],
            'T' => vec![Toward::End(End::Stopped)],
            'Z' | 'X' => ended(process, task),
            'R' => vec![Toward::End(End::Computing)],
            _ if process.is_kernel => vec![Toward::unknown("is a thread of the kernel")],
            _ => calls::ways(self, process, task),
        }
    }

    fn connect(&mut self, from: NodeId, pid: u32, process: &Process, ways: Vec<Toward>) {
        let alone = ways.len() == 1;
        for way in ways {
            if self.graph.edges.len() >= EDGES {
                self.graph.missing.push("there are more waits than are kept".to_owned());
                return;
            }
            match way {
                Toward::End(end) if alone => self.graph.nodes[from.0 as usize].end = Some(end),
                Toward::End(end) => {
                    let what = name_of(&end);
                    self.outside(from, what, end);
                }
                Toward::Outside(what, end) => self.outside(from, what, end),
                Toward::Thread(of, tid, resource, source) => {
                    self.look_at(of);
                    match self.nodes.get(&tid) {
                        Some(&to) => self.graph.connect(from, to, resource, source),
                        None => self.unseen(from, of),
                    }
                }
                Toward::Process(of, resource, source) => {
                    // The process itself is being looked at.
                    let own = process.leader().filter(|_| of == pid).map(|it| it.tid);
                    let own = own.and_then(|tid| self.nodes.get(&tid).copied());
                    match own.or_else(|| self.leader(of)) {
                        Some(to) => self.graph.connect(from, to, resource, source),
                        None => self.unseen(from, of),
                    }
                }
                Toward::AnyThread(of, resource, source) => {
                    let own = (of == pid).then_some(process);
                    match self.any_thread(of, own) {
                        Some(to) => self.graph.connect(from, to, resource, source),
                        None => self.unseen(from, of),
                    }
                }
            }
        }
    }

    fn outside(&mut self, from: NodeId, what: String, end: End) {
        let to = self.graph.add(What::Outside(what.clone()), Some(end));
        self.graph.connect(from, to, Resource::Other(what), Source::Kernel);
    }

    /// A process that was not looked at: it has ended, or there were too many.
    fn unseen(&mut self, from: NodeId, pid: u32) {
        let why = if self.processes.get(&pid).is_some_and(Option::is_none) {
            "ended meanwhile"
        } else {
            "was not looked at: there are too many processes in the way"
        };
        self.outside(from, format!("process {pid}"), End::Unknown(why.to_owned()));
    }

    /// The node of whichever thread of a process; of one with a single thread, that one.
    fn any_thread(&mut self, pid: u32, own: Option<&Process>) -> Option<NodeId> {
        if let Some(&node) = self.any.get(&pid) {
            return Some(node);
        }
        self.look_at(pid);
        let process = own.or_else(|| self.processes.get(&pid)?.as_ref())?;
        let living = process.tasks.iter().filter(|task| !matches!(task.state, 'Z' | 'X'));
        let tids: Vec<u32> = living.map(|task| task.tid).collect();
        let (name, is_whole) = (process.name.clone(), process.is_whole());
        let nodes: Vec<NodeId> = tids.iter().map(|tid| self.nodes[tid]).collect();
        let handlers = handlers(process.handled);
        if let [only] = nodes[..]
            && is_whole
            && handlers.is_none()
        {
            self.any.insert(pid, only);
            return Some(only);
        }
        let any = self.graph.add(What::AnyThread { pid, process: name }, None);
        self.any.insert(pid, any);
        for to in nodes {
            let resource = Resource::Other("any thread".to_owned());
            self.graph.edges.push(Edge { from: any, to, resource, source: Source::Inferred });
        }
        if let Some(handlers) = handlers {
            let why =
                format!("may be what wakes it: a program that only waits for {handlers} is well");
            self.outside(any, format!("a signal handler of process {pid}"), End::Unknown(why));
        }
        if !is_whole {
            let why = "has threads that could not be looked at".to_owned();
            self.outside(any, format!("another thread of process {pid}"), End::Unknown(why));
        }
        Some(any)
    }

    /// Takes back the waits of threads that have run meanwhile: a graph of several moments may show a
    /// deadlock of threads that go on. Those left slept at one moment, between both looks at all of them.
    fn confirm(&mut self) {
        for _ in 0..CONFIRMED {
            let verdict = Verdict::of(&self.graph);
            let deadlocks = verdict.culprits.iter().filter(|it| !it.cycle.is_empty());
            let moved: Vec<NodeId> = deadlocks
                .flat_map(|it| it.nodes.iter().copied())
                .filter(|&node| !self.sleeps_on(node))
                .collect();
            if moved.is_empty() {
                return;
            }
            for node in moved {
                let why = "ran between two looks: it makes progress".to_owned();
                self.graph.nodes[node.0 as usize].end = Some(End::Unknown(why));
                self.graph.edges.retain(|edge| edge.from != node);
            }
        }
    }

    /// Whether a thread has slept in one call since it was looked at; what is no thread does.
    fn sleeps_on(&self, node: NodeId) -> bool {
        let Some(thread) = self.graph.thread(node) else { return true };
        let process = self.processes.get(&thread.pid).and_then(Option::as_ref);
        let before = process.and_then(|it| it.tasks.iter().find(|task| task.tid == thread.tid));
        let now = Task::look(thread.pid, thread.tid);
        before.zip(now).is_some_and(|(before, (now, _))| now.has_slept_since(before))
    }

    fn finish(mut self) -> WaitGraph {
        self.confirm();
        if let Some(why) = self.holders.and_then(|holders| holders.incomplete) {
            self.graph.missing.push(why);
        }
        self.graph
    }
}

/// What an end is called as something outside of the thread.
/// The handled signals by name, a few of them; `None` where there are none.
fn handlers(handled: u64) -> Option<String> {
    let names = (1..=signal::LAST).filter(|number| handled & 1 << (number - 1) != 0);
    let names: Vec<String> = names.take(3).map(signal::spelled).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn name_of(end: &End) -> String {
    match end {
        End::Waiting(what) | End::Device(what) | End::NobodyThere(what) | End::Remote(what) => {
            what.clone()
        }
        End::Unknown(_) => "something that is not known".to_owned(),
        End::Sleeping(_) => "a time of its own choice".to_owned(),
        _ => "an end".to_owned(),
    }
}

fn network(pid: u32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/net"));
    link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

fn traced(task: &Task) -> End {
    let name = proc_file::text(format!("/proc/{}/comm", task.tracer)).unwrap_or_default();
    End::Traced { by: task.tracer, name: name.trim_end().to_owned() }
}

/// A thread that has ended: its process goes on, or waits for its parent.
fn ended(process: &Process, task: &Task) -> Vec<Toward> {
    let is_alive = |it: &&Task| !matches!(it.state, 'Z' | 'X');
    let others: Vec<&Task> = process.tasks.iter().filter(is_alive).collect();
    if task.tid != process.pid {
        return vec![Toward::End(End::Ended)];
    }
    if others.is_empty() {
        return vec![match process.parent {
            0 => Toward::End(End::Ended),
            parent => Toward::Process(parent, Resource::Reaping, Source::Kernel),
        }];
    }
    let way = |it: &Task| Toward::Thread(process.pid, it.tid, Resource::Join, Source::Kernel);
    others.into_iter().map(way).collect()
}

/// The control group that a process is frozen with.
fn frozen(pid: u32) -> Option<String> {
    let pid = Pid::from_raw(pid.cast_signed())?;
    match freezer::frozen(pid) {
        Ok(Frozen::Yes) => {
            let text = proc_file::text(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).ok()?;
            let path = text.lines().last()?.splitn(3, ':').nth(2)?.to_owned();
            Some(path)
        }
        _ => None,
    }
}
