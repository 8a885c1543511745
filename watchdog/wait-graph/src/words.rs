//! The verdict in words: one sentence, and the way as a chain.

use std::fmt::Write as _;

use crate::graph::{
    Edge, End, Medium, Node, NodeId, Place, Resource, Source, Thread, WaitGraph, What,
};
use crate::verdict::{Culprit, Kind, Lost, Verdict};

/// Culprits, or threads of a deadlock, that the sentence names at most.
const NAMED: usize = 4;

/// The verdict in one sentence without a full stop.
///
/// ```
/// use hangwatch_wait_graph::{End, Thread, Verdict, WaitGraph, What, sentence};
///
/// let mut graph = WaitGraph::default();
/// let app = Thread { pid: 7, tid: 7, process: "app".into(), number: 1, threads: 1, ..Thread::default() };
/// let root = graph.add(What::Thread(app), Some(End::Sleeping(Some(3600))));
/// graph.roots.push(root);
/// let verdict = Verdict::of(&graph);
/// assert_eq!(sentence(&graph, &verdict), "app (pid 7) sleeps for 3600 s by its own choice");
/// ```
pub fn sentence(graph: &WaitGraph, verdict: &Verdict) -> String {
    let teller = Teller { graph };
    match &verdict.culprits[..] {
        [] => teller.not_known(verdict),
        [only] => format!("{}{}", teller.culprit(only), teller.waiting(only)),
        several => {
            let named: Vec<String> =
                several.iter().take(NAMED).map(|it| teller.culprit(it)).collect();
            let all = several.len() as u64 + verdict.culprits_left_out;
            let more = all.saturating_sub(named.len() as u64);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            format!("Several hold it up: {}{more}", named.join("; "))
        }
    }
}

/// The way to each culprit, and to where a way was lost, a line each:
/// `make 26343 -> waits for python3 26353 -> reads the output of app 26406`.
pub fn chain(graph: &WaitGraph, verdict: &Verdict) -> Vec<String> {
    let teller = Teller { graph };
    let mut lines: Vec<String> =
        verdict.culprits.iter().map(|culprit| teller.chain(culprit)).collect();
    for Lost { at, way, why } in &verdict.lost {
        lines.push(format!("{} -> ? it {why}", teller.way(*at, way, &[])));
    }
    lines
}

struct Teller<'g> {
    graph: &'g WaitGraph,
}

impl Teller<'_> {
    fn not_known(&self, verdict: &Verdict) -> String {
        let Some(lost) = verdict.lost.first() else {
            return "Not known: nothing could be looked at".to_owned();
        };
        let root = lost.way.first().map_or(lost.at, |step| step.from);
        let whose = self.name(root);
        if root == lost.at {
            return format!("Not known why {whose} waits{}: it {}", self.place(root), lost.why);
        }
        let at = self.name(lost.at);
        format!("Not known why {whose} waits: {at}{} {}", self.place(lost.at), lost.why)
    }

    /// Who waits for a culprit, where it is not the root itself.
    fn waiting(&self, culprit: &Culprit) -> String {
        let Some(first) = culprit.way.first().filter(|first| !culprit.nodes.contains(&first.from))
        else {
            return String::new();
        };
        let is_subject = |id| culprit.nodes.iter().any(|&node| self.subject(node, culprit) == id);
        if is_subject(first.from) {
            return String::new();
        }
        let (whose, own) = (self.thread(first.from), self.thread(culprit.nodes[0]));
        let is_inside = whose.zip(own).is_some_and(|(a, b)| a.pid == b.pid);
        let name = if is_inside { self.short(first.from) } else { self.name(first.from) };
        format!("; {name} waits for it")
    }

    fn culprit(&self, culprit: &Culprit) -> String {
        if !culprit.cycle.is_empty() {
            return self.deadlock(culprit);
        }
        let node = culprit.nodes[0];
        let subject = self.subject(node, culprit);
        let probably = if culprit.source == Source::Inferred { "Probably " } else { "" };
        let what = self.end(node, subject);
        format!("{probably}{} {what}{}", self.name(subject), self.place(subject))
    }

    /// Of whom the sentence is: something outside is told of the thread that waits for it.
    fn subject(&self, node: NodeId, culprit: &Culprit) -> NodeId {
        match culprit.way.last() {
            Some(last) if self.thread(node).is_none() => last.from,
            _ => node,
        }
    }

    fn end(&self, node: NodeId, subject: NodeId) -> String {
        let pid = self.thread(subject).map_or(0, |thread| thread.pid);
        match self.graph.node(node).and_then(|node| node.end.as_ref()) {
            Some(End::Computing) => "computes".to_owned(),
            Some(End::Sleeping(Some(seconds))) => {
                format!("sleeps for {seconds} s by its own choice")
            }
            Some(End::Sleeping(None)) => "sleeps by its own choice".to_owned(),
            Some(End::Waiting(what)) => format!("waits for {what}"),
            Some(End::Device(what)) => format!("is held by {what}"),
            Some(End::Stopped) => {
                format!("is stopped by a signal (kill -CONT {pid} lets it go on)")
            }
            Some(End::Traced { by, name }) => {
                format!("is stopped by {name} (pid {by}), which traces it")
            }
            Some(End::Frozen(cgroup)) => format!("is frozen with its control group {cgroup}"),
            Some(End::Remote(address)) => format!("waits for the remote host {address}"),
            Some(End::OwnerGone { owner }) => format!(
                "waits for a lock that thread {owner} took, which is not there any more: it ended, or \
                 was not copied by a fork"
            ),
            Some(End::NobodyThere(what)) => format!("waits for ever: {what}"),
            Some(End::Ended) => "has ended".to_owned(),
            Some(End::Unknown(why)) => why.clone(),
            None => "was not looked at".to_owned(),
        }
    }

    fn deadlock(&self, culprit: &Culprit) -> String {
        let cycle = &culprit.cycle;
        let pids: Vec<Option<u32>> =
            cycle.iter().map(|step| self.thread(step.from).map(|thread| thread.pid)).collect();
        let is_one = pids.iter().all(|pid| *pid == pids[0]);
        let place =
            if is_one { format!(" in {}", self.process(cycle[0].from)) } else { String::new() };
        let name = |id| if is_one { self.short(id) } else { self.name(id) };
        let told = if cycle.iter().any(|step| step.source == Source::Inferred) {
            self.nobody_left(cycle, &name)
        } else if let [only] = &cycle[..] {
            let is_alone = self.thread(only.from).is_some_and(|it| it.threads <= 1);
            let who = if is_alone { "it".to_owned() } else { name(only.from) };
            format!("{who} {}{}", self.wants_itself(only), self.place(only.from))
        } else if let Some(crossed) = self.crossed(cycle, &name) {
            crossed
        } else {
            self.around(cycle, &name)
        };
        format!("Deadlock{place}: {told}")
    }

    /// Two threads that hold each what the other wants.
    fn crossed(&self, cycle: &[Edge], name: &impl Fn(NodeId) -> String) -> Option<String> {
        let [one, other] = cycle else { return None };
        let (wanted, held) = (lock(&one.resource)?, lock(&other.resource)?);
        Some(format!(
            "{} holds {held} and wants {wanted}{}, {} the other way round{}",
            name(one.from),
            self.place(one.from),
            name(other.from),
            self.place(other.from),
        ))
    }

    fn around(&self, cycle: &[Edge], name: &impl Fn(NodeId) -> String) -> String {
        let step = |step: &Edge| {
            let (from, place) = (name(step.from), self.place(step.from));
            format!("{from}{place} {}", self.waits(step, &name(step.to)))
        };
        few(cycle.iter().map(step))
    }

    fn nobody_left(&self, cycle: &[Edge], name: &impl Fn(NodeId) -> String) -> String {
        if let [only] = cycle {
            let what = alone(&only.resource);
            let thread = self.thread(only.from);
            let who = if thread.is_some_and(|it| it.threads <= 1) {
                "it".to_owned()
            } else {
                name(only.from)
            };
            return format!(
                "{who} waits for {what}{}, and nobody else is left who could give it",
                self.place(only.from)
            );
        }
        let step = |step: &Edge| {
            let (from, place) = (name(step.from), self.place(step.from));
            let what = match step.source {
                Source::Inferred => format!("waits for {}", alone(&step.resource)),
                _ => self.waits(step, &name(step.to)),
            };
            format!("{from} {what}{place}")
        };
        format!("{}, and nobody else is left who could go on", few(cycle.iter().map(step)))
    }

    fn wants_itself(&self, step: &Edge) -> String {
        match lock(&step.resource) {
            Some(lock) => format!("wants {lock}, which it holds itself"),
            None => match step.resource {
                Resource::Read(medium) => {
                    format!("reads from a {} that only it could write to", words_of(medium))
                }
                Resource::Write(medium) => {
                    format!("writes to a full {} that only it could read from", words_of(medium))
                }
                _ => self.waits(step, "itself"),
            },
        }
    }

    fn chain(&self, culprit: &Culprit) -> String {
        let first = culprit.nodes[0];
        self.way(first, &culprit.way, &culprit.cycle)
    }

    /// A way as a chain that ends at `last`, and goes on around a cycle, where there is one.
    fn way(&self, last: NodeId, way: &[Edge], cycle: &[Edge]) -> String {
        let from = way.first().map_or(last, |step| step.from);
        let mut text = self.label(from, None);
        // Once a deadlock's known cycle is entered, it is told whole.
        let is_ring = cycle.windows(2).all(|pair| pair[0].to == pair[1].from)
            && cycle.last().zip(cycle.first()).is_some_and(|(last, first)| last.to == first.from);
        let ring = if is_ring { cycle } else { &[] };
        if !is_ring && way.is_empty() {
            let told = cycle.iter().map(|step| {
                let label = self.label(step.to, Some(step.from));
                format!("{}: {}", self.label(step.from, None), self.waits_in_chain(step, &label))
            });
            return few(told);
        }
        for step in way.iter().chain(ring) {
            let label = self.label(step.to, Some(step.from));
            let how = if step.source == Source::Inferred { " (inferred)" } else { "" };
            let _ = write!(text, " -> {}{how}", self.waits_in_chain(step, &label));
        }
        if cycle.is_empty()
            && let Some(end) = self.graph.node(last).and_then(|node| node.end.as_ref())
            && self.thread(last).is_some()
            && !matches!(end, End::Unknown(_))
        {
            let _ = write!(text, " -> {}", self.end(last, last));
        }
        text
    }

    fn waits(&self, step: &Edge, whom: &str) -> String {
        match lock(&step.resource) {
            Some(lock) => format!("wants {lock}, which {whom} holds"),
            None => self.waits_in_chain(step, whom),
        }
    }

    fn waits_in_chain(&self, step: &Edge, whom: &str) -> String {
        if matches!(self.graph.node(step.to), Some(Node { what: What::Outside(_), .. })) {
            return format!("waits for {whom}");
        }
        match &step.resource {
            Resource::Mutex { name, .. } => format!("mutex{} of {whom}", named(name.as_deref())),
            Resource::RwLock { name, .. } => {
                format!("read-write lock{} of {whom}", named(name.as_deref()))
            }
            Resource::Unowned { .. } => format!("a lock or condition that {whom} may release"),
            Resource::Lock(kind) => format!("{kind} of {whom}"),
            Resource::Gil => format!("the GIL of {whom}"),
            Resource::Join => format!("joins {whom}"),
            Resource::Child { of } if *of > 1 => format!("waits for any of its children: {whom}"),
            Resource::Child { .. } => format!("waits for {whom}"),
            Resource::Vfork => format!("waits until its child executes a program: {whom}"),
            Resource::Read(Medium::Pipe | Medium::Fifo) => format!("reads the output of {whom}"),
            Resource::Read(Medium::Terminal) => format!("reads from the terminal of {whom}"),
            Resource::Read(_) => format!("waits for data from {whom}"),
            Resource::Write(Medium::Terminal) => format!("writes to the terminal of {whom}"),
            Resource::Write(_) => format!("writes to {whom}, which does not read"),
            Resource::Accept(_) => format!("waits for {whom} to accept its connection"),
            Resource::Open(_) => format!("waits for {whom} to open the other end"),
            Resource::File(lock) => format!("{} on {} of {whom}", lock.kind, lock.path),
            Resource::WakeUp => format!("a wake-up by {whom}"),
            Resource::Server(system) => format!("the file system {system}, served by {whom}"),
            Resource::Reaping => format!("is a zombie until it is waited for by {whom}"),
            Resource::Other(what) => format!("{what} of {whom}"),
        }
    }

    fn thread(&self, id: NodeId) -> Option<&Thread> {
        self.graph.thread(id)
    }

    fn process(&self, id: NodeId) -> String {
        match self.graph.node(id).map(|node| &node.what) {
            Some(What::Thread(Thread { process, pid, rank, .. })) => {
                let rank = rank.map_or_else(String::new, |rank| format!("rank {rank}, "));
                format!("{process} ({rank}pid {pid})")
            }
            Some(What::AnyThread { pid, process }) => format!("{process} (pid {pid})"),
            Some(What::Outside(what)) => what.clone(),
            None => "?".to_owned(),
        }
    }

    /// `app (pid 7), thread 3`.
    fn name(&self, id: NodeId) -> String {
        match self.thread(id) {
            Some(thread) if thread.threads > 1 => {
                format!("{}, {}", self.process(id), self.short(id))
            }
            _ => self.process(id),
        }
    }

    /// `thread 3`, with its name where that is one of its own.
    fn short(&self, id: NodeId) -> String {
        let Some(thread) = self.thread(id) else { return self.process(id) };
        let is_own = !thread.name.is_empty() && thread.name != thread.process;
        let name = if is_own { format!(" \"{}\"", thread.name) } else { String::new() };
        format!("thread {}{name}", thread.number)
    }

    /// In a chain: `app 7`, or `thread 3` where the process is that of the step before.
    fn label(&self, id: NodeId, before: Option<NodeId>) -> String {
        let pid_of = |id: NodeId| match self.graph.node(id).map(|node| &node.what) {
            Some(What::Thread(thread)) => Some(thread.pid),
            Some(What::AnyThread { pid, .. }) => Some(*pid),
            _ => None,
        };
        let is_inside = before.is_some_and(|before| pid_of(before) == pid_of(id));
        match self.graph.node(id).map(|node| &node.what) {
            Some(What::Thread(thread)) if is_inside => format!("thread {}", thread.number),
            Some(What::Thread(Thread { process, pid, threads, number, .. })) => {
                let is_main = *threads <= 1 || *number == 1;
                let which = if is_main { String::new() } else { format!(" thread {number}") };
                format!("{process} {pid}{which}")
            }
            Some(What::AnyThread { .. }) if is_inside => "any other thread".to_owned(),
            Some(What::AnyThread { pid, process }) => format!("any thread of {process} {pid}"),
            Some(What::Outside(what)) => what.clone(),
            None => "?".to_owned(),
        }
    }

    fn place(&self, id: NodeId) -> String {
        let place = self.thread(id).and_then(|thread| thread.place.as_ref());
        place.map_or_else(String::new, |place| format!(" ({})", at(place)))
    }
}

/// `transfer, bank.c:31`.
fn at(place: &Place) -> String {
    let file = place.file.as_deref().map(|file| file.rsplit('/').next().unwrap_or(file));
    match (file, place.line) {
        (Some(file), Some(line)) => format!("{}, {file}:{line}", place.function),
        (Some(file), None) => format!("{}, {file}", place.function),
        (None, _) => place.function.clone(),
    }
}

fn named(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(" {name}"))
}

/// A lock by its name or address.
fn lock(resource: &Resource) -> Option<String> {
    match resource {
        Resource::Mutex { name: Some(name), .. } | Resource::RwLock { name: Some(name), .. } => {
            Some(name.clone())
        }
        Resource::Mutex { address, .. } => Some(format!("the mutex at {address:#x}")),
        Resource::RwLock { address, .. } => Some(format!("the read-write lock at {address:#x}")),
        Resource::Lock(kind) => Some(kind.clone()),
        Resource::File(lock) => Some(format!("the {} on {}", lock.kind, lock.path)),
        Resource::Gil => Some("the GIL".to_owned()),
        _ => None,
    }
}

/// What is waited for where nobody in particular has it.
fn alone(resource: &Resource) -> &'static str {
    match resource {
        Resource::WakeUp | Resource::Read(_) => "a wake-up",
        Resource::Write(_) => "room to write to",
        Resource::Child { .. } => "its children",
        _ => "a lock or a wake-up",
    }
}

fn words_of(medium: Medium) -> &'static str {
    match medium {
        Medium::Pipe => "pipe",
        Medium::Fifo => "named pipe",
        Medium::UnixSocket | Medium::Tcp => "socket",
        Medium::Terminal => "terminal",
    }
}

fn few(parts: impl Iterator<Item = String>) -> String {
    let mut parts: Vec<String> = parts.collect();
    let more = parts.len().saturating_sub(NAMED);
    parts.truncate(NAMED);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    parts.join(", ") + &more
}

impl Verdict {
    /// Its kind in a word, as tables and JSON name it.
    pub fn word(&self) -> &'static str {
        match self.kind {
            Kind::Deadlock => "deadlock",
            Kind::Culprit => "culprit",
            Kind::Several => "several",
            Kind::NotKnown => "not_known",
        }
    }
}
