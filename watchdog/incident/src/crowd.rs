//! Groups the other workers by what they were doing, so that many workers are a few lines.

use std::sync::Arc;

use crate::schema::{Peer, Timer};
use crate::story::who;

/// Other workers in the same scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crowd {
    /// Their innermost scope; `None` if they were in no scope.
    pub scope: Option<String>,
    /// The workers: `ranks 0-1, 3-63`, `pids 17, 18`.
    pub who: String,
    /// The number of workers.
    pub number: usize,
    /// The shortest and the longest time in the scope, ns.
    pub ages_ns: (u64, u64),
}

/// The other workers grouped by scope, the largest group first.
pub fn crowds(others: &[Arc<Peer>]) -> Vec<Crowd> {
    let mut by_scope: Vec<(Option<&str>, Vec<&Peer>, Vec<u64>)> = Vec::new();
    for peer in others {
        let innermost = innermost(peer);
        let scope = innermost.map(|timer| &*timer.scope);
        let age = innermost.map_or(0, |timer| timer.age_ns);
        match by_scope.iter_mut().find(|(known, ..)| *known == scope) {
            Some((_, peers, ages)) => {
                peers.push(peer);
                ages.push(age);
            }
            None => by_scope.push((scope, vec![peer], vec![age])),
        }
    }
    by_scope.sort_by_key(|(_, peers, _)| std::cmp::Reverse(peers.len()));
    let crowd = |(scope, peers, ages): (Option<&str>, Vec<&Peer>, Vec<u64>)| Crowd {
        scope: scope.map(str::to_owned),
        who: names(&peers),
        number: peers.len(),
        ages_ns: (ages.iter().copied().min().unwrap_or(0), ages.iter().copied().max().unwrap_or(0)),
    };
    by_scope.into_iter().map(crowd).collect()
}

/// The innermost open timer of a worker: the last acquired of the first lane that has any.
pub fn innermost(peer: &Peer) -> Option<&Timer> {
    peer.lanes.iter().find_map(|lane| lane.timers.first())
}

/// `ranks 0-1, 3`, `rank 2, pid 17`.
fn names(peers: &[&Peer]) -> String {
    let mut ranks: Vec<u64> = peers.iter().filter_map(|peer| peer.worker.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let nameless = peers.iter().filter(|peer| peer.worker.rank.is_none());
    let mut names: Vec<String> = nameless.map(|peer| who(&peer.worker)).collect();
    if !ranks.is_empty() {
        let plural = if ranks.len() == 1 { "" } else { "s" };
        names.insert(0, format!("rank{plural} {}", ranges(&ranks)));
    }
    names.join(", ")
}

/// Ascending numbers with ranges: `0-1, 3, 5-7`.
fn ranges(numbers: &[u64]) -> String {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |&(first, last): &(u64, u64)| match last - first {
        0 => format!("{first}"),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    };
    ranges.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ranks_are_one_range() {
        let check = |numbers: &[u64], text: &str| assert_eq!(ranges(numbers), text);
        check(&[0, 1, 3, 5, 6, 7], "0, 1, 3, 5-7");
        check(&[4], "4");
        check(&[], "");
    }

    #[test]
    fn who_did_the_same_is_one_crowd_and_the_largest_comes_first() {
        use crate::schema::{Lane, Worker};
        let peer = |rank, scope: Option<(&str, u64)>| {
            let timer = |(scope, age_ns): (&str, u64)| {
                vec![Timer { scope: scope.to_owned(), age_ns, ..Timer::default() }]
            };
            let timers = scope.map(timer).unwrap_or_default();
            let worker = Worker { rank: Some(rank), ..Worker::default() };
            let lanes = vec![Lane::default(), Lane { timers, ..Lane::default() }];
            Arc::new(Peer { worker, lanes, ..Peer::default() })
        };
        let others = [
            peer(0, None),
            peer(4, Some(("wait", 7))),
            peer(2, Some(("wait", 9))),
            peer(3, Some(("wait", 8))),
        ];
        let crowds = crowds(&others);
        assert_eq!(crowds.len(), 2);
        assert_eq!((crowds[0].scope.as_deref(), &*crowds[0].who), (Some("wait"), "ranks 2-4"));
        assert_eq!((crowds[0].number, crowds[0].ages_ns), (3, (7, 9)));
        assert_eq!((crowds[1].scope.as_deref(), &*crowds[1].who), (None, "rank 0"));
    }
}
