//! The timer word under loom: an acquire ends exactly once, condemned is final, and details belong
//! to the word they were read with.
#![cfg(loom)]

use hangwatch_core::atomic::{AtomicU64, Ordering};
use hangwatch_core::wire::lane::{AllowedBy, Lane, TimerDetail, TimerKind, TimerSignal};
use hangwatch_core::wire::layout::{Geometry, Layout};
use hangwatch_core::wire::meeting::{GroupId, Meeting};
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::{Released, Timer, TimerState, TimerWord};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

fn units(units: u64) -> Units {
    Units::from_bits(units)
}

trait Condemned {
    fn condemned(self) -> TimerWord;
}

impl Condemned for TimerWord {
    fn condemned(self) -> TimerWord {
        TimerWord::new(TimerState::Condemned, self.deadline(), self.generation())
    }
}

/// The watchdog condemns while `change` happens; both say whether they won, and the word agrees.
fn check_against_condemn(
    change: impl Fn(Timer<'_>, TimerWord) -> bool + Copy + Send + Sync + 'static,
    won_leaves: TimerState,
) {
    loom::model(move || {
        let word = Arc::new(AtomicU64::new(0));
        let armed = Timer(&word).arm(units(5));
        let worker = {
            let word = word.clone();
            thread::spawn(move || {
                let won = change(Timer(&word), armed);
                // A release after a lost change is too late, and cancels nothing.
                let late = if won { None } else { Some(Timer(&word).release(armed)) };
                (won, late)
            })
        };
        let condemned = Timer(&word).condemn(armed);
        let (won, late) = worker.join().unwrap();
        assert!(won != condemned, "exactly one wins: worker {won}, watchdog {condemned}");
        let state = Timer(&word).load().state();
        if condemned {
            assert_eq!((late, state), (Some(Released::TooLate), Some(TimerState::Condemned)));
        } else {
            assert_eq!(state, Some(won_leaves));
        }
    });
}

#[test]
fn of_release_and_condemn_exactly_one_wins() {
    check_against_condemn(
        |timer, armed| timer.release(armed) == Released::InTime,
        TimerState::Idle,
    );
}

#[test]
fn of_extend_and_condemn_exactly_one_wins() {
    check_against_condemn(|timer, armed| timer.extend(armed, 1_000_000).is_ok(), TimerState::Armed);
}

#[test]
fn of_kick_and_condemn_exactly_one_wins_even_to_the_same_deadline() {
    check_against_condemn(
        |timer, armed| timer.rearm(armed, armed.deadline()).is_ok(),
        TimerState::Armed,
    );
}

#[test]
fn of_pause_and_condemn_exactly_one_wins() {
    check_against_condemn(|timer, armed| timer.pause(armed, Nanos(0)).is_ok(), TimerState::Paused);
}

#[test]
fn two_releases_and_a_condemn_end_an_acquire_once() {
    loom::model(|| {
        let word = Arc::new(AtomicU64::new(0));
        let armed = Timer(&word).arm(units(5));
        let release = |word: Arc<AtomicU64>| thread::spawn(move || Timer(&word).release(armed));
        let (first, second) = (release(word.clone()), release(word.clone()));
        let condemned = Timer(&word).condemn(armed);
        let ends = [first.join().unwrap(), second.join().unwrap()];
        let in_time = ends.iter().filter(|end| **end == Released::InTime).count();
        assert_eq!(in_time + usize::from(condemned), 1, "{ends:?}, condemned {condemned}");
        if condemned {
            assert_eq!(ends, [Released::TooLate; 2]);
        }
    });
}

/// A guard's late release in one thread, a reap that fails, and the lane's owner arming what it finds
/// idle: the owner's acquire is never ended by that release.
#[test]
fn a_late_release_after_a_failed_reap_never_ends_the_next_acquire() {
    loom::model(|| {
        let word = Arc::new(AtomicU64::new(0));
        let first = Timer(&word).arm(units(5));
        let late = {
            let word = word.clone();
            thread::spawn(move || Timer(&word).release(first))
        };
        let owner = {
            let word = word.clone();
            thread::spawn(move || {
                let is_idle = Timer(&word).load().state() == Some(TimerState::Idle);
                is_idle.then(|| Timer(&word).arm(units(9)))
            })
        };
        let condemned = Timer(&word).condemn(first);
        if condemned {
            assert!(Timer(&word).give_up(first.condemned()), "only the watchdog leaves it");
        }
        let (released, second) = (late.join().unwrap(), owner.join().unwrap());
        let now = Timer(&word).load();
        match second {
            Some(second) => {
                assert_eq!(now, second, "released {released:?}");
                assert_ne!(released, Released::TooLate);
            }
            None if released == Released::TooLate => {
                assert_eq!(now.state(), Some(TimerState::Reported));
            }
            None => assert_eq!(now.state(), Some(TimerState::Idle)),
        }
        let expected = if condemned { Released::Reported } else { Released::InTime };
        assert!(released == expected || (condemned && released == Released::TooLate));
    });
}

/// A handle that ended while its timer was condemned leaves a note (here: a word) for the owner, which
/// ends the timer itself once the reap has failed: exactly one of the two ends it.
#[test]
fn a_timer_that_is_given_up_is_ended_once() {
    loom::model(|| {
        let word = Arc::new(AtomicU64::new(0));
        let note = Arc::new(AtomicU64::new(0));
        let armed = Timer(&word).arm(units(5));
        assert!(Timer(&word).condemn(armed));
        let handle = {
            let (word, note) = (word.clone(), note.clone());
            thread::spawn(move || {
                let released = Timer(&word).release(armed);
                if released == Released::TooLate {
                    note.fetch_or(1, Ordering::Release);
                }
                released
            })
        };
        let watchdog = {
            let word = word.clone();
            thread::spawn(move || assert!(Timer(&word).give_up(armed.condemned())))
        };
        let by_owner = || {
            let seen = Timer(&word).load();
            seen.state() == Some(TimerState::Reported)
                && note.fetch_and(!1, Ordering::Acquire) == 1
                && Timer(&word).release(seen) == Released::Reported
        };
        let early = by_owner();
        let released = handle.join().unwrap();
        watchdog.join().unwrap();
        let late = by_owner();
        assert!(!(early && late));
        assert_eq!(early || late, released == Released::TooLate, "{released:?}");
        assert_eq!(Timer(&word).load().state(), Some(TimerState::Idle));
    });
}

#[test]
fn what_was_done_in_a_scope_comes_before_its_end() {
    loom::model(|| {
        let word = Arc::new(AtomicU64::new(0));
        let done = Arc::new(UnsafeCell::new(0));
        let armed = Timer(&word).arm(units(5));
        let worker = {
            let (word, done) = (word.clone(), done.clone());
            thread::spawn(move || {
                done.with_mut(|_| ());
                Timer(&word).release(armed)
            })
        };
        if Timer(&word).load().state() == Some(TimerState::Idle) {
            done.with(|_| ()); // loom fails the model where this races with the work
        }
        worker.join().unwrap();
    });
}

fn meeting(number: u16) -> Meeting {
    Meeting { group: GroupId(0), sequence: number.into() }
}

/// The words of the smallest lane, and its layout.
struct OneLane {
    words: Vec<AtomicU64>,
    layout: Layout,
}

impl OneLane {
    fn new() -> Arc<OneLane> {
        let geometry = Geometry { lanes: 1, timers: 1, records: 16, scopes: 2, lane_scopes: 2 };
        let layout = geometry.check().unwrap();
        let lane_words = layout.front_stride() + layout.back_stride();
        let words = (0..lane_words).map(|_| AtomicU64::new(0)).collect();
        Arc::new(OneLane { words, layout })
    }

    fn lane(&self) -> Lane<'_> {
        let (front, back) = self.words.split_at(self.layout.front_stride());
        Lane::new(front, back, &self.layout)
    }

    /// Arms timer 0 as arming `number`, whose deadline, start and scope are that number.
    fn arm(&self, number: u16) -> TimerWord {
        self.lane().write_detail(
            0,
            TimerDetail {
                acquired_at: Nanos(u64::from(number)),
                scope: ScopeId(number),
                signal: TimerSignal::Default,
                kind: TimerKind::Guard,
                allowed_by: AllowedBy::Acquire,
                meeting: Some(meeting(number)),
            },
        );
        self.timer().arm(units(u64::from(number)))
    }

    fn timer(&self) -> Timer<'_> {
        self.lane().timer(0).unwrap()
    }

    /// What the watchdog reads of an armed timer belongs together.
    fn check_detail(&self) {
        let word = self.timer().load();
        if word.state() != Some(TimerState::Armed) {
            return;
        }
        if let Some(detail) = self.lane().read_detail(0, word) {
            assert_eq!(detail.acquired_at.0, word.deadline().bits(), "another arming's start");
            assert_eq!(u64::from(detail.scope.0), word.deadline().bits(), "another arming's scope");
            assert_eq!(detail.meeting, Some(meeting(detail.scope.0)), "another arming's meeting");
        }
    }
}

#[test]
fn details_belong_to_the_arming_they_were_read_with() {
    loom::model(|| {
        let one = OneLane::new();
        let first = one.arm(1);
        let worker = {
            let one = one.clone();
            thread::spawn(move || {
                one.timer().release(first);
                one.arm(2);
            })
        };
        one.check_detail();
        worker.join().unwrap();
        one.check_detail();
    });
}

#[test]
fn details_belong_to_their_arming_when_another_thread_released_the_one_before() {
    loom::model(|| {
        let one = OneLane::new();
        let first = one.arm(1);
        let elsewhere = {
            let one = one.clone();
            thread::spawn(move || one.timer().release(first))
        };
        let owner = {
            let one = one.clone();
            thread::spawn(move || {
                if one.timer().load().state() == Some(TimerState::Idle) {
                    one.arm(2);
                }
            })
        };
        one.check_detail();
        elsewhere.join().unwrap();
        owner.join().unwrap();
    });
}
