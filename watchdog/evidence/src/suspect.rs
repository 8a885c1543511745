//! The suspect: where all workers of a job but one wait in the same scope, that one holds them up.
//!
//! Seen from the scope whose deadline passed first, by the rule of [`hangwatch_core::watchdog::culprit`]: a worker is
//! inside where it has a timer of that scope open, and waits there where that is its innermost, and has
//! been for a while. Anything else names nobody, rather than somebody wrongly.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hangwatch_core::watchdog::culprit::{Culprit, Place, Wait, find_culprit};

use hangwatch_incident::schema::{Peer, Suspect, Timer};

/// How long the others must have waited at most, ns.
const WAITED_NS: u64 = 1_000_000_000;

/// The suspect among these workers of a job; `timers` are those whose deadlines passed, the first
/// first. Who has been in a scope for less than half of what the first of them had, and less than a
/// second, is passing through and does not wait.
pub fn find(job: &str, timers: &[Timer], peers: &[Arc<Peer>]) -> Option<Suspect> {
    let waited_ns = timers.first().map_or(WAITED_NS, |timer| timer.allowance_ns / 2).min(WAITED_NS);
    let peers = peers.iter().map(AsRef::as_ref).filter(|peer: &&Peer| peer.worker.job == job);
    let peers: Vec<&Peer> = peers.collect();
    let crowded = crowded(&peers);
    let innermost = peers.iter().flat_map(|peer| {
        peer.lanes.iter().filter_map(|lane| Some(lane.timers.first()?.scope.as_str()))
    });
    // The innermost scopes too: where the suspect's own deadline of another scope passed first.
    let innermost: Vec<&str> = innermost.collect();
    let scopes = timers.iter().map(|timer| timer.scope.as_str());
    // Each once, and only where exactly one is not in it: workers may be in as many scopes as there are
    // workers.
    let mut asked = HashSet::new();
    let mut scopes = scopes.chain(innermost).filter(|scope| crowded.contains(scope));
    scopes.find_map(|scope| asked.insert(scope).then(|| seen_from(scope, &peers, waited_ns))?)
}

/// The scopes that all workers but one are in.
fn crowded<'p>(peers: &[&'p Peer]) -> HashSet<&'p str> {
    let mut inside: HashMap<&str, usize> = HashMap::new();
    for peer in peers {
        let scopes = peer.lanes.iter().flat_map(|lane| &lane.timers).map(|it| it.scope.as_str());
        for scope in scopes.collect::<HashSet<_>>() {
            *inside.entry(scope).or_default() += 1;
        }
    }
    inside.retain(|_, count| *count + 1 == peers.len());
    inside.into_keys().collect()
}

fn seen_from(scope: &str, peers: &[&Peer], waited_ns: u64) -> Option<Suspect> {
    let place = |peer: &&Peer| {
        let is_in = peer.lanes.iter().flat_map(|lane| &lane.timers).any(|it| it.scope == scope);
        let waits = peer
            .lanes
            .iter()
            .filter_map(|lane| lane.timers.first())
            .any(|innermost| innermost.scope == scope && innermost.age_ns >= waited_ns);
        match (is_in, waits) {
            (false, _) => Place::Outside,
            (true, true) => Place::Inside(Wait::Long),
            (true, false) => Place::Inside(Wait::Short),
        }
    };
    let Culprit::One(suspect) = find_culprit(peers.iter().map(|peer| (*peer, place(peer)))) else {
        return None;
    };
    let waiting = peers.len() - 1;
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
    use hangwatch_incident::schema::{Lane, Worker};

    fn peer(pid: u32, scopes: &[&str]) -> Peer {
        let timer = |scope: &&str| timer(scope, WAITED_NS);
        let lane = Lane { timers: scopes.iter().map(timer).collect(), ..Lane::default() };
        let worker = Worker { pid: Some(pid), ..Worker::default() };
        Peer { worker, lanes: vec![lane], doing: String::new() }
    }

    fn timer(scope: &str, age_ns: u64) -> Timer {
        Timer { scope: scope.to_owned(), age_ns, allowance_ns: WAITED_NS, ..Timer::default() }
    }

    fn check(scope: &str, peers: &[Peer], suspect: Option<u32>) {
        let peers: Vec<Arc<Peer>> = peers.iter().cloned().map(Arc::new).collect();
        let found = find("", &[timer(scope, WAITED_NS)], &peers);
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
    fn who_passes_through_a_scope_does_not_wait_in_it() {
        let mut peers = [peer(1, &["a"]), peer(2, &["a"]), peer(3, &["b"])];
        peers[1].lanes[0].timers[0].age_ns = WAITED_NS / 2;
        check("b", &peers, Some(3));
        peers[1].lanes[0].timers[0].age_ns -= 1;
        check("b", &peers, None);
    }

    #[test]
    fn another_job_is_no_part_of_it() {
        let mut other = peer(9, &["idle"]);
        other.worker.job = "other".to_owned();
        let peers = [peer(1, &["a"]), peer(2, &["a"]), peer(3, &["b"]), other];
        check("a", &peers, Some(3));
    }
}
