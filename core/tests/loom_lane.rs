//! A lane's owner word under loom: of claim, detach and recycling only one wins, and who wins comes
//! after all that the last owner wrote.
#![cfg(loom)]

use hangwatch_core::atomic::AtomicU64;
use hangwatch_core::wire::lane::{Identity, Lane, LaneNames, LaneState, OwnerWord};
use hangwatch_core::wire::layout::{Geometry, Layout};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

struct OneLane {
    words: Vec<AtomicU64>,
    layout: Layout,
    /// Stands for the statistics: one holder of the lane at a time may touch it. loom fails the
    /// model where two accesses are not ordered.
    held: UnsafeCell<()>,
}

impl OneLane {
    fn new() -> Arc<OneLane> {
        let geometry = Geometry { lanes: 1, timers: 1, records: 16, scopes: 2, lane_scopes: 2 };
        let layout = geometry.check().unwrap();
        let lane_words = layout.front_stride() + layout.back_stride();
        let words = (0..lane_words).map(|_| AtomicU64::new(0)).collect();
        Arc::new(OneLane { words, layout, held: UnsafeCell::new(()) })
    }

    fn lane(&self) -> Lane<'_> {
        let (front, back) = self.words.split_at(self.layout.front_stride());
        Lane::new(front, back, &self.layout)
    }

    fn touch(&self) {
        self.held.with_mut(|_| ());
    }

    fn claim(&self, pid: u32) -> Option<OwnerWord> {
        let claimed = self.lane().claim(pid)?;
        self.touch();
        Some(claimed)
    }

    fn recycle(&self, seen: OwnerWord) -> bool {
        let Some(recycling) = self.lane().begin_recycling(seen) else {
            return false;
        };
        self.touch();
        self.lane().end_recycling(recycling);
        true
    }

    /// Attached by `pid`, then used and given back.
    fn detached(&self, pid: u32) -> OwnerWord {
        let claimed = self.claim(pid).unwrap();
        let attached = self.lane().attach(claimed, Identity::default(), LaneNames::default());
        self.touch();
        assert!(self.lane().detach(attached));
        self.lane().owner()
    }
}

#[test]
fn two_claims_of_a_free_lane_do_not_both_win() {
    loom::model(|| {
        let one = OneLane::new();
        let other = {
            let one = one.clone();
            thread::spawn(move || one.claim(1).is_some())
        };
        let mine = one.claim(2).is_some();
        let theirs = other.join().unwrap();
        assert!(mine != theirs);
    });
}

#[test]
fn a_detached_lane_is_claimed_or_recycled_and_both_come_after_its_last_owner() {
    loom::model(|| {
        let one = OneLane::new();
        let seen = one.detached(1);
        let claimant = {
            let one = one.clone();
            thread::spawn(move || one.claim(2))
        };
        let recycled = one.recycle(seen);
        let claimed = claimant.join().unwrap();
        // A claim may also come after the recycling; it then holds a free lane, alone.
        assert!(claimed.is_some() || recycled);
        let owner = one.lane().owner();
        match claimed {
            Some(claimed) => assert_eq!(owner, claimed, "a claim is not taken away"),
            None => assert_eq!(owner.state(), Some(LaneState::Free)),
        }
    });
}

#[test]
fn a_lane_given_back_while_it_is_watched_is_handed_on_whole() {
    loom::model(|| {
        let one = OneLane::new();
        let claimed = one.claim(1).unwrap();
        let attached = one.lane().attach(claimed, Identity::default(), LaneNames::default());
        let owner = {
            let one = one.clone();
            thread::spawn(move || {
                one.touch();
                assert!(one.lane().detach(attached));
            })
        };
        let seen = one.lane().owner();
        if seen.state() == Some(LaneState::Detached) {
            assert!(one.recycle(seen));
        }
        owner.join().unwrap();
    });
}

#[test]
fn a_recycling_ends_with_the_claim_of_a_dead_owner_and_not_with_a_new_one() {
    loom::model(|| {
        let one = OneLane::new();
        let dead = one.detached(1);
        // Two claimants and the watchdog, which acts on a word that may be old by then.
        let claim = |one: Arc<OneLane>, pid| thread::spawn(move || one.claim(pid).is_some());
        let (first, second) = (claim(one.clone(), 2), claim(one.clone(), 3));
        let recycled = one.recycle(dead);
        let claims = u32::from(first.join().unwrap()) + u32::from(second.join().unwrap());
        assert!(claims <= 1 && (claims == 1 || recycled));
    });
}

#[test]
fn whoever_sees_a_lane_attached_sees_who_attached_it() {
    loom::model(|| {
        let one = OneLane::new();
        let reader = {
            let one = one.clone();
            thread::spawn(move || {
                if one.lane().owner().state() == Some(LaneState::Attached) {
                    assert_eq!(one.lane().identity().start_ticks, 77);
                }
            })
        };
        let claimed = one.lane().claim(7).unwrap();
        let identity = Identity { start_ticks: 77, ..Identity::default() };
        one.lane().attach(claimed, identity, LaneNames::default());
        reader.join().unwrap();
    });
}

#[test]
fn a_lane_handed_over_and_one_given_up_for_dead_have_one_owner() {
    loom::model(|| {
        let one = OneLane::new();
        let claimed = one.claim(1).unwrap();
        let attached = one.lane().attach(claimed, Identity::default(), LaneNames::default());
        let next_thread = {
            let one = one.clone();
            thread::spawn(move || {
                let identity = Identity { tid: 2, ..Identity::default() };
                let handed = one.lane().hand_over(attached, identity, LaneNames::default());
                handed.inspect(|_| one.touch())
            })
        };
        let seen = one.lane().owner();
        let recycled = one.recycle(seen);
        let handed = next_thread.join().unwrap();
        match handed {
            Some(handed) if seen == attached => {
                assert!(!recycled);
                assert_eq!(one.lane().owner(), handed);
            }
            Some(_) => assert!(recycled, "by the word of the new owner"),
            None => assert!(recycled),
        }
    });
}
