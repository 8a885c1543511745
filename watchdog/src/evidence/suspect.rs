//! The suspect: where all workers of a job but one wait in the same scope, that one holds them up.
//!
//! Seen from the scope whose deadline passed first: whoever of the job has no timer of that scope open
//! is outside. Exactly one outside, and at least two inside it in their innermost scope: that one is
//! the suspect. Anything else names nobody, rather than somebody wrongly.

use crate::incident::schema::{Peer, Suspect};

/// The suspect among these workers; `scopes` are those whose deadlines passed, the first first.
pub fn find<'s>(
    job: &str,
    scopes: impl IntoIterator<Item = &'s str>,
    peers: &'s [Peer],
) -> Option<Suspect> {
    let peers: Vec<&Peer> = peers.iter().filter(|peer| peer.worker.job == job).collect();
    let innermost = peers.iter().flat_map(|peer| {
        peer.lanes.iter().filter_map(|lane| Some(lane.timers.first()?.scope.as_str()))
    });
    // The innermost scopes too: where the suspect's own deadline of another scope passed first.
    let innermost: Vec<&str> = innermost.collect();
    scopes.into_iter().chain(innermost).find_map(|scope| seen_from(scope, &peers))
}

fn seen_from(scope: &str, peers: &[&Peer]) -> Option<Suspect> {
    let is_in = |peer: &Peer| {
        peer.lanes.iter().flat_map(|lane| &lane.timers).any(|timer| timer.scope == scope)
    };
    let waits = |peer: &Peer| {
        peer.lanes.iter().any(|lane| lane.timers.first().is_some_and(|timer| timer.scope == scope))
    };
    let mut outside = peers.iter().filter(|peer| !is_in(peer));
    let (Some(suspect), None) = (outside.next(), outside.next()) else {
        return None;
    };
    let waiting = peers.iter().filter(|peer| waits(peer)).count();
    if waiting < 2 || waiting + 1 < peers.len() {
        return None;
    }
    Some(Suspect {
        pid: suspect.worker.pid,
        rank: suspect.worker.rank,
        scope: scope.to_owned(),
        why: format!(
            "all {waiting} other workers of the job wait in {scope:?}; this one is not in it, but {}",
            suspect.doing
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::schema::{Lane, Timer, Worker};

    fn peer(pid: u32, scopes: &[&str]) -> Peer {
        let timer = |scope: &&str| Timer { scope: (*scope).to_owned(), ..Timer::default() };
        let lane = Lane { timers: scopes.iter().map(timer).collect(), ..Lane::default() };
        let worker = Worker { pid: Some(pid), ..Worker::default() };
        Peer { worker, lanes: vec![lane], doing: String::new() }
    }

    fn check(scope: &str, peers: &[Peer], suspect: Option<u32>) {
        let found = find("", [scope], peers);
        assert_eq!(found.and_then(|found| found.pid), suspect, "{peers:?}");
    }

    #[test]
    fn the_odd_one_out_is_the_suspect() {
        let waiting = || ["barrier", "step"];
        let three = [peer(1, &waiting()), peer(2, &waiting()), peer(3, &waiting())];
        let with = |other: Peer| [&three[..], &[other]].concat();
        check("barrier", &with(peer(4, &["load", "step"])), Some(4));
        check("barrier", &with(peer(4, &[])), Some(4));
        // Its own deadline came first.
        check("load", &with(peer(4, &["load", "step"])), Some(4));
        check("barrier", &with(peer(4, &waiting())), None);
        check("step", &with(peer(4, &waiting())), None);
    }

    #[test]
    fn nobody_is_named_where_it_cannot_be_told() {
        check("a", &[peer(1, &["a"]), peer(2, &["b"])], None);
        check("a", &[peer(1, &["a"]), peer(2, &["a"]), peer(3, &[]), peer(4, &[])], None);
        check("a", &[peer(1, &["x", "a"]), peer(2, &["y", "a"]), peer(3, &["b"])], None);
        check("a", &[], None);
    }

    #[test]
    fn another_job_is_no_part_of_it() {
        let mut other = peer(9, &["idle"]);
        other.worker.job = "other".to_owned();
        let peers = [peer(1, &["a"]), peer(2, &["a"]), peer(3, &["b"]), other];
        check("a", &peers, Some(3));
    }
}
