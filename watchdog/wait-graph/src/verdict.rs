//! The verdict: where the ways from the roots end.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::components::components;
use crate::graph::{Edge, End, NodeId, Source, WaitGraph, What};

/// Culprits that are kept, at most; the rest is counted.
const CULPRITS: usize = 16;

/// Nodes of a component at which a cycle is looked for, at most.
const TRIED: usize = 64;

/// A sleep from which on nobody sleeps between two turns of a loop, seconds.
const LONG: u64 = 60;

/// What a hang comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Threads wait for each other and for nobody else.
    Deadlock,
    /// All ways end at one.
    Culprit,
    /// The ways end at several.
    Several,
    /// No way ends anywhere that is known.
    #[default]
    NotKnown,
}

/// Where the ways end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verdict {
    /// What it comes to.
    pub kind: Kind,
    /// The ends and the deadlocks, the one that most threads wait for first.
    pub culprits: Vec<Culprit>,
    /// Culprits beyond those listed.
    pub culprits_left_out: u64,
    /// Where a way was lost.
    pub lost: Vec<Lost>,
}

/// An end of a way, or a deadlock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Culprit {
    /// The node; of a deadlock every one in it.
    pub nodes: Vec<NodeId>,
    /// Of a deadlock: the waits around it, each from one of `nodes` to another. Empty of an end.
    pub cycle: Vec<Step>,
    /// From the root that is nearest to it.
    pub way: Vec<Step>,
    /// How many threads wait for it, directly or through others.
    pub waiters: u32,
    /// How sure the way is: the least sure source in it.
    pub source: Source,
}

/// A step of a way: an edge that was followed.
pub type Step = Edge;

/// Where a way was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The last node that is known.
    pub at: NodeId,
    /// From the root that is nearest to it.
    pub way: Vec<Step>,
    /// Why, as a sentence without a subject.
    pub why: String,
}

/// How much an end explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// A deadlock, or an end that nobody chooses.
    Proof,
    /// A thread that sleeps for long or waits for a remote host: it may be meant to.
    Telling,
    /// A rest: a timer, an idle server, a moment's sleep.
    Rest,
    /// Nothing is known.
    Lost,
}

/// A set of nodes that waits for nobody outside of it.
struct Terminal {
    nodes: Vec<usize>,
    is_cycle: bool,
    weight: Weight,
    /// Whether a way leads there that has no inferred step.
    is_sure: bool,
}

impl Verdict {
    /// Follows the ways from the roots.
    ///
    /// Where they end at nothing that explains a hang, the other threads of the roots' processes are looked
    /// at, too; of these only what nobody does by choice counts.
    pub fn of(graph: &WaitGraph) -> Verdict {
        let view = View::of(graph);
        let roots = view.valid(&graph.roots);
        let verdict = view.verdict(&roots);
        if verdict.culprits.iter().any(|it| view.weight_of(it) != Weight::Rest) {
            return verdict;
        }
        let mut wider = view.verdict(&view.siblings(&roots));
        wider.culprits.retain(|it| {
            let computes = matches!(view.end(it.nodes[0].0 as usize), Some(End::Computing));
            view.weight_of(it) == Weight::Proof && !computes
        });
        if wider.culprits.is_empty() {
            return verdict;
        }
        wider.kind = kind_of(&wider.culprits);
        wider
    }

    /// Whether it names somebody.
    pub fn is_known(&self) -> bool {
        self.kind != Kind::NotKnown
    }
}

fn kind_of(culprits: &[Culprit]) -> Kind {
    match culprits {
        [] => Kind::NotKnown,
        [only] if !only.cycle.is_empty() => Kind::Deadlock,
        [_] => Kind::Culprit,
        _ => Kind::Several,
    }
}

/// A graph as the walk sees it: only edges between nodes that are there.
struct View<'g> {
    graph: &'g WaitGraph,
    /// The edges that leave each node.
    leaving: Vec<Vec<&'g Edge>>,
}

/// Whether inferred steps are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Steps {
    All,
    Known,
}

impl<'g> View<'g> {
    fn of(graph: &'g WaitGraph) -> View<'g> {
        let mut leaving = vec![Vec::new(); graph.nodes.len()];
        for edge in &graph.edges {
            if graph.node(edge.from).is_some() && graph.node(edge.to).is_some() {
                leaving[edge.from.0 as usize].push(edge);
            }
        }
        // The surest first, whatever the order of the capture.
        leaving.iter_mut().for_each(|edges: &mut Vec<&Edge>| edges.sort_by_key(|edge| edge.source));
        View { graph, leaving }
    }

    fn valid(&self, roots: &[NodeId]) -> Vec<usize> {
        let mut seen = BTreeSet::new();
        let is_new = |id: &usize| *id < self.graph.nodes.len() && seen.insert(*id);
        roots.iter().map(|id| id.0 as usize).filter(is_new).collect()
    }

    /// All threads of the processes of these nodes.
    fn siblings(&self, roots: &[usize]) -> Vec<usize> {
        let pid = |at: usize| match &self.graph.nodes[at].what {
            What::Thread(thread) => Some(thread.pid),
            What::AnyThread { .. } | What::Outside(_) => None,
        };
        let pids: BTreeSet<u32> = roots.iter().filter_map(|&root| pid(root)).collect();
        let of_them = |at: &usize| pid(*at).is_some_and(|pid| pids.contains(&pid));
        (0..self.graph.nodes.len()).filter(of_them).collect()
    }

    fn end(&self, at: usize) -> Option<&End> {
        self.graph.nodes[at].end.as_ref()
    }

    fn weight_of(&self, culprit: &Culprit) -> Weight {
        self.weight(culprit.nodes[0].0 as usize, !culprit.cycle.is_empty())
    }

    fn weight(&self, node: usize, is_cycle: bool) -> Weight {
        if is_cycle {
            return Weight::Proof;
        }
        match self.end(node) {
            None | Some(End::Unknown(_)) => Weight::Lost,
            Some(End::Sleeping(Some(LONG..)) | End::Remote(_)) => Weight::Telling,
            Some(End::Waiting(_) | End::Ended | End::Sleeping(_)) => Weight::Rest,
            Some(_) => Weight::Proof,
        }
    }

    fn verdict(&self, roots: &[usize]) -> Verdict {
        let ways = Ways::from(self, roots, Steps::All);
        let sure = Ways::from(self, roots, Steps::Known);
        let terminals = self.terminals(&ways, &sure);
        let of = |weight| terminals.iter().filter(|it| it.weight == weight).count();
        let (proofs, lost) = (of(Weight::Proof), of(Weight::Lost));
        let explains = proofs + of(Weight::Telling) > 0;
        let counts = |it: &&Terminal| match it.weight {
            Weight::Proof => true,
            // One that is only guessed at may be meant to sleep, and be none of those that are lost.
            Weight::Telling => it.is_sure || proofs + lost == 0,
            // A rest that is only guessed at is not what somebody waits for.
            Weight::Rest => it.is_sure && (!explains || self.is_thread(it)),
            Weight::Lost => false,
        };
        let mut culprits: Vec<Culprit> =
            terminals.iter().filter(counts).map(|it| self.culprit(it, &ways, &sure)).collect();
        // Stable: of equals, the nearest to the first root.
        culprits.sort_by_key(|it| std::cmp::Reverse(it.waiters));
        let is_lost = |it: &&Terminal| {
            it.weight == Weight::Lost || it.weight == Weight::Rest && !it.is_sure && !explains
        };
        let lost = terminals.iter().filter(is_lost);
        let lost: Vec<Lost> = lost.take(CULPRITS).map(|it| self.lost(it, &ways)).collect();
        let kind = kind_of(&culprits);
        let culprits_left_out = culprits.len().saturating_sub(CULPRITS) as u64;
        culprits.truncate(CULPRITS);
        Verdict { kind, culprits, culprits_left_out, lost }
    }

    fn is_thread(&self, terminal: &Terminal) -> bool {
        matches!(self.graph.nodes[terminal.nodes[0]].what, What::Thread(_))
    }

    /// The sets that the ways end in, the nearest first.
    fn terminals(&self, ways: &Ways<'_>, sure: &Ways<'_>) -> Vec<Terminal> {
        let targets = |edges: &Vec<&Edge>| edges.iter().map(|edge| edge.to.0 as usize).collect();
        let all: Vec<Vec<usize>> = self.leaving.iter().map(targets).collect();
        let mut terminals = Vec::new();
        for mut nodes in components(&all) {
            nodes.sort_unstable();
            let leaves =
                |&from: &usize| all[from].iter().any(|to| nodes.binary_search(to).is_err());
            if !ways.reaches(nodes[0]) || nodes.iter().any(leaves) {
                continue;
            }
            let is_cycle = !all[nodes[0]].is_empty();
            let is_sure = nodes.iter().any(|&node| sure.reaches(node));
            let weight = self.weight(nodes[0], is_cycle);
            terminals.push(Terminal { nodes, is_cycle, weight, is_sure });
        }
        let nearest = |it: &Terminal| it.nodes.iter().map(|&node| ways.distance(node)).min();
        terminals.sort_by_key(|it| (nearest(it), it.nodes[0]));
        terminals
    }

    fn culprit(&self, it: &Terminal, ways: &Ways<'_>, sure: &Ways<'_>) -> Culprit {
        let ways = if it.is_sure { sure } else { ways };
        let reached = it.nodes.iter().copied().filter(|&node| ways.reaches(node));
        let nearest = reached.min_by_key(|&node| ways.distance(node)).unwrap_or(it.nodes[0]);
        let cycle = if it.is_cycle { self.cycle(&it.nodes, nearest) } else { Vec::new() };
        let in_order: Vec<NodeId> = cycle.iter().map(|edge| edge.from).collect();
        let nodes = if it.is_cycle { in_order } else { vec![id(it.nodes[0])] };
        let first = nodes.first().map_or(nearest, |id| id.0 as usize);
        let way = ways.way_to(if nodes.contains(&id(nearest)) { nearest } else { first });
        let source =
            way.iter().chain(&cycle).map(|step| step.source).max().unwrap_or(Source::Kernel);
        Culprit { waiters: self.waiters(&nodes), nodes, cycle, way, source }
    }

    fn lost(&self, it: &Terminal, ways: &Ways<'_>) -> Lost {
        let at = it.nodes[0];
        let why = match self.end(at) {
            Some(End::Unknown(why)) => why.clone(),
            None => "was not looked at".to_owned(),
            Some(_) => "only rests, and need not be who is waited for".to_owned(),
        };
        Lost { at: id(at), way: ways.way_to(at), why }
    }

    /// The waits of a deadlock: one cycle, where the known edges make one; else a wait of each node in it.
    fn cycle(&self, nodes: &[usize], from: usize) -> Vec<Step> {
        if let Some(cycle) = self.known_cycle(nodes, from) {
            return cycle;
        }
        let mut order = vec![from];
        order.extend(nodes.iter().copied().filter(|&node| node != from));
        order.retain(|&node| !matches!(self.graph.nodes[node].what, What::AnyThread { .. }));
        order
            .iter()
            .filter_map(|&node| self.leaving[node].first())
            .map(|&edge| edge.clone())
            .collect()
    }

    /// The shortest cycle of known edges among the nodes that can be reached from `from`.
    fn known_cycle(&self, nodes: &[usize], from: usize) -> Option<Vec<Step>> {
        let mut first = std::iter::once(from).chain(nodes.iter().copied()).take(TRIED);
        first.find_map(|node| {
            let ways = Ways::around(self, node);
            let known = self.leaving[node].iter().filter(|edge| edge.source != Source::Inferred);
            let closed = known.filter(|edge| ways.reaches(edge.to.0 as usize)).map(|&edge| {
                let mut cycle = vec![edge.clone()];
                cycle.extend(ways.way_back(edge.to.0 as usize));
                cycle
            });
            closed.min_by_key(Vec::len)
        })
    }

    /// How many threads wait for any of these, directly or through others.
    fn waiters(&self, nodes: &[NodeId]) -> u32 {
        let mut arriving = vec![Vec::new(); self.leaving.len()];
        for edge in self.leaving.iter().flatten() {
            arriving[edge.to.0 as usize].push(edge.from.0 as usize);
        }
        let mut seen: BTreeSet<usize> = nodes.iter().map(|id| id.0 as usize).collect();
        let mut open: Vec<usize> = seen.iter().copied().collect();
        while let Some(node) = open.pop() {
            open.extend(arriving[node].iter().copied().filter(|&from| seen.insert(from)));
        }
        let is_thread = |at: &&usize| matches!(self.graph.nodes[**at].what, What::Thread(_));
        let threads = seen.iter().filter(is_thread).count();
        u32::try_from(threads.saturating_sub(nodes.len())).unwrap_or(u32::MAX)
    }
}

fn id(at: usize) -> NodeId {
    NodeId(u32::try_from(at).expect("a capture is bounded far below"))
}

/// The shortest ways from some nodes.
struct Ways<'g> {
    /// By which edge each node was reached first, and after how many steps.
    reached: Vec<Option<(Option<&'g Edge>, usize)>>,
}

impl<'g> Ways<'g> {
    fn from(view: &View<'g>, roots: &[usize], steps: Steps) -> Ways<'g> {
        let mut reached = vec![None; view.leaving.len()];
        let mut open = VecDeque::new();
        for &root in roots {
            reached[root] = Some((None, 0));
            open.push_back((root, 0));
        }
        while let Some((node, distance)) = open.pop_front() {
            for &edge in &view.leaving[node] {
                let to = edge.to.0 as usize;
                if (steps == Steps::Known && edge.source == Source::Inferred)
                    || reached[to].is_some()
                {
                    continue;
                }
                reached[to] = Some((Some(edge), distance + 1));
                open.push_back((to, distance + 1));
            }
        }
        Ways { reached }
    }

    /// The ways *to* a node by known edges: each node's first edge of the shortest.
    fn around(view: &View<'g>, goal: usize) -> Ways<'g> {
        let mut arriving: Vec<Vec<&'g Edge>> = vec![Vec::new(); view.leaving.len()];
        for &edge in view.leaving.iter().flatten() {
            if edge.source != Source::Inferred {
                arriving[edge.to.0 as usize].push(edge);
            }
        }
        let mut reached = vec![None; view.leaving.len()];
        reached[goal] = Some((None, 0));
        let mut open = VecDeque::from([(goal, 0)]);
        while let Some((node, distance)) = open.pop_front() {
            for &edge in &arriving[node] {
                let from = edge.from.0 as usize;
                if reached[from].is_none() {
                    reached[from] = Some((Some(edge), distance + 1));
                    open.push_back((from, distance + 1));
                }
            }
        }
        Ways { reached }
    }

    fn reaches(&self, node: usize) -> bool {
        self.reached[node].is_some()
    }

    fn distance(&self, node: usize) -> usize {
        self.reached[node].map_or(usize::MAX, |(_, distance)| distance)
    }

    fn way_to(&self, node: usize) -> Vec<Step> {
        let mut way = Vec::new();
        let mut at = node;
        while let Some((Some(edge), _)) = self.reached[at] {
            way.push(edge.clone());
            at = edge.from.0 as usize;
        }
        way.reverse();
        way
    }

    fn way_back(&self, node: usize) -> Vec<Step> {
        let mut way = Vec::new();
        let mut at = node;
        while let Some((Some(edge), _)) = self.reached[at] {
            way.push(edge.clone());
            at = edge.to.0 as usize;
        }
        way
    }
}
