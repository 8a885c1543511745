//! The rule of who waits for whom, and its walk.
//!
//! Rank *r* waits for *s* in a group if *r* has something outstanding there (enqueued > completed), and *s*
//! has completed less than *r*, or has not entered what *r* is in (enqueued of *s* <= completed of *r*).
//! Whom *r* waits for depends only on how much *r* has completed, so all ranks that have completed as much
//! share one node: the graph grows with the members, not with their pairs.
//!
//! Groups with point-to-point operations are left out: their counters are the rank's own.

use std::collections::{BTreeMap, BTreeSet};

use crate::dump::{Collective, Dump, Group, Membership};

/// Ranks that wait, in one group and having completed as much as each other, for those that are behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting<'a> {
    pub(crate) group: &'a Group,
    /// What they wait in, as far as it is recorded.
    pub(crate) collective: Option<&'a Collective>,
    pub(crate) waiters: BTreeSet<u32>,
    pub(crate) behind: BTreeSet<u32>,
    /// Members without a dump, which alone could explain the wait.
    pub(crate) unknown: BTreeSet<u32>,
}

/// The members of each group, by rank.
pub(crate) type Members<'a> = BTreeMap<&'a Group, BTreeMap<u32, &'a Membership>>;

/// Joins the dumps by group.
pub(crate) fn members(dumps: &[Dump]) -> Members<'_> {
    let mut groups = Members::new();
    for dump in dumps {
        for membership in &dump.memberships {
            groups.entry(&membership.group).or_default().insert(dump.rank, membership);
        }
    }
    groups
}

/// Whether the counters of a group can be compared.
pub(crate) fn is_comparable(members: &BTreeMap<u32, &Membership>) -> bool {
    !members.values().any(|one| one.has_point_to_point)
}

/// Who waits in each group, for whom.
pub(crate) fn waits<'a>(groups: &Members<'a>, missing: &BTreeSet<u32>) -> Vec<Waiting<'a>> {
    let mut all = Vec::new();
    for (group, members) in groups.iter().filter(|(_, members)| is_comparable(members)) {
        let mut waiters: BTreeMap<i64, BTreeSet<u32>> = BTreeMap::new();
        for (&rank, one) in members.iter().filter(|(_, one)| one.enqueued > one.completed) {
            waiters.entry(one.completed).or_default().insert(rank);
        }
        for (completed, waiters) in waiters {
            let is_behind =
                |one: &Membership| one.completed < completed || one.enqueued <= completed;
            let behind: BTreeSet<u32> =
                members.iter().filter(|(_, one)| is_behind(one)).map(|(&rank, _)| rank).collect();
            let unknown = if behind.is_empty() {
                group.ranks.iter().copied().filter(|rank| missing.contains(rank)).collect()
            } else {
                BTreeSet::new()
            };
            if behind.is_empty() && unknown.is_empty() {
                continue;
            }
            let collective = waiters.iter().find_map(|rank| members[rank].outstanding.first());
            all.push(Waiting { group, collective, waiters, behind, unknown });
        }
    }
    all
}

/// Where the waits end: components of ranks that can reach nobody outside of themselves, and are waited
/// for. One rank is at fault; several wait for each other in a cycle.
pub(crate) fn ends(waits: &[Waiting<'_>]) -> Vec<BTreeSet<u32>> {
    let graph = Graph::of(waits);
    let components = graph.components();
    let mut ends = Vec::new();
    for (index, members) in components.members.iter().enumerate() {
        let leaves =
            |&node: &usize| graph.edges[node].iter().any(|&next| components.of[next] != index);
        let ranks: BTreeSet<u32> =
            members.iter().filter_map(|&node| graph.ranks.get(node).copied()).collect();
        let is_waited_for = waits.iter().any(|wait| !wait.behind.is_disjoint(&ranks));
        if !ranks.is_empty() && is_waited_for && !members.iter().any(leaves) {
            ends.push(ranks);
        }
    }
    ends.sort();
    ends
}

/// Ranks first, then one node for each [`Waiting`].
struct Graph {
    ranks: Vec<u32>,
    edges: Vec<Vec<usize>>,
}

struct Components {
    of: Vec<usize>,
    members: Vec<Vec<usize>>,
}

impl Graph {
    fn of(waits: &[Waiting<'_>]) -> Graph {
        let ranks: BTreeSet<u32> = waits
            .iter()
            .flat_map(|wait| wait.waiters.iter().chain(&wait.behind))
            .copied()
            .collect();
        let ranks: Vec<u32> = ranks.into_iter().collect();
        let node = |rank: &u32| ranks.binary_search(rank).expect("collected from the same waits");
        let mut edges = vec![Vec::new(); ranks.len() + waits.len()];
        for (index, wait) in waits.iter().enumerate().filter(|(_, wait)| !wait.behind.is_empty()) {
            let shared = ranks.len() + index;
            for waiter in &wait.waiters {
                edges[node(waiter)].push(shared);
            }
            edges[shared] = wait.behind.iter().map(node).collect();
        }
        Graph { ranks, edges }
    }

    /// Strongly connected components (Tarjan 1972), with a stack of its own instead of recursion.
    fn components(&self) -> Components {
        let count = self.edges.len();
        let (mut order, mut low, mut of) =
            (vec![usize::MAX; count], vec![0; count], vec![usize::MAX; count]);
        let (mut stack, mut members, mut next_order) = (Vec::new(), Vec::<Vec<usize>>::new(), 0);
        for root in 0..count {
            let mut path: Vec<(usize, usize)> = Vec::new();
            if order[root] == usize::MAX {
                path.push((root, 0));
            }
            while let Some(&mut (node, ref mut next)) = path.last_mut() {
                if *next == 0 {
                    (order[node], low[node]) = (next_order, next_order);
                    next_order += 1;
                    stack.push(node);
                }
                let target = self.edges[node].get(*next).copied();
                *next += 1;
                match target {
                    Some(target) if order[target] == usize::MAX => path.push((target, 0)),
                    Some(target) if of[target] == usize::MAX => {
                        low[node] = low[node].min(order[target]);
                    }
                    Some(_) => {}
                    None => {
                        path.pop();
                        if let Some(&(parent, _)) = path.last() {
                            low[parent] = low[parent].min(low[node]);
                        }
                        if low[node] == order[node] {
                            let from = stack
                                .iter()
                                .rposition(|&it| it == node)
                                .expect("it is on the stack");
                            let component = stack.split_off(from);
                            component.iter().for_each(|&it| of[it] = members.len());
                            members.push(component);
                        }
                    }
                }
            }
        }
        Components { of, members }
    }
}
