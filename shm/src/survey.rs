//! A survey: what a segment holds in numbers, and who is overdue.
//!
//! A picture ([`Segment::picture`]) tells of every lane and timer in words. Whoever looks every second
//! at thousands of timers, and wants their number, takes a survey: of a timer that is not overdue it
//! reads the one word.

use hangwatch_core::atomic::Ordering;
use hangwatch_core::wire::lane::LaneState;
use hangwatch_core::wire::segment::Segment as Words;
use hangwatch_core::wire::time::Nanos;
use hangwatch_core::wire::timer::TimerState;

use crate::observe::{self, ScopeView, TimerView};
use crate::segment::Segment;
use crate::sys::clock;

/// A segment in numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// The segment's name.
    pub segment: String,
    /// When it was taken, `CLOCK_MONOTONIC`.
    pub at: Nanos,
    /// The number of lanes there are.
    pub lane_count: u32,
    /// Lanes that somebody owns.
    pub lanes_taken: usize,
    /// Those of them that are quarantined.
    pub lanes_quarantined: usize,
    /// Timers that are not idle, by state, in the order of [`Survey::STATES`].
    pub timers: [usize; 5],
    /// The timers past their deadline, lane by lane.
    pub overdue: Vec<OverdueView>,
    /// Every scope that was ever interned, with its counts over all lanes.
    pub scopes: Vec<ScopeView>,
    /// How many scope names found no room and were counted as `(other)`.
    pub scopes_overflowed: u64,
    /// The watchdog's counters, by name.
    pub counters: Vec<(&'static str, u64)>,
}

/// A timer past its deadline, and whose it is as far as its owner says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OverdueView {
    /// The job.
    pub job: String,
    /// The rank in the job.
    pub rank: Option<u32>,
    /// The timer.
    pub timer: TimerView,
}

impl Survey {
    /// The states that timers are counted by.
    pub const STATES: [TimerState; 5] = [
        TimerState::Armed,
        TimerState::Paused,
        TimerState::Reported,
        TimerState::Limited,
        TimerState::Condemned,
    ];
}

impl Segment {
    /// Takes a survey of the segment.
    pub fn survey(&self) -> Survey {
        let words = self.words();
        let mut survey = Survey {
            segment: self.name().to_owned(),
            at: Nanos(clock::monotonic_ns()),
            lane_count: words.geometry().lanes,
            lanes_taken: 0,
            lanes_quarantined: 0,
            timers: [0; 5],
            overdue: Vec::new(),
            scopes: observe::scope_views(&words),
            scopes_overflowed: words.scopes_overflowed().load(Ordering::Relaxed),
            counters: observe::counters(&words),
        };
        (0..words.lanes_used()).for_each(|lane| survey.add_lane(&words, lane));
        survey
    }
}

impl Survey {
    fn add_lane(&mut self, words: &Words<'_>, index: u32) {
        let lane = words.lane(index);
        let owner = lane.owner();
        if matches!(owner.state(), Some(LaneState::Free | LaneState::Detached)) {
            return;
        }
        self.lanes_taken += 1;
        self.lanes_quarantined += usize::from(lane.is_quarantined());
        let known = self.overdue.len();
        for timer in 0..lane.high_water() {
            let Some(word) = lane.timer(timer).map(hangwatch_core::wire::timer::Timer::load) else {
                break;
            };
            let state = word.state();
            let Some(place) = Survey::STATES.iter().position(|known| Some(*known) == state) else {
                continue;
            };
            self.timers[place] += 1;
            if state == Some(TimerState::Paused) || word.deadline().begins() > self.at {
                continue;
            }
            if let Some(timer) = observe::timer_view(words, index, timer, self.at) {
                let rank = lane.identity().rank.checked_sub(1).map(|rank| rank as u32);
                self.overdue.push(OverdueView { job: lane.job(), rank, timer });
            }
        }
        if lane.owner() != owner {
            // Whose they were cannot be said.
            self.overdue.truncate(known);
        }
    }
}
