//! Who is where: the workers of a job seen from a scope, and what one worker has open.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Entry;
use alloc::vec::Vec;

use super::slot::Phase;
use super::{ExpiredTimer, Expiry};
use crate::watchdog::cascade::{Member, Overdue, Stands};
use crate::watchdog::worker::WorkerId;
use crate::wire::clock::ClockKind;
use crate::wire::lane::{JobLabel, LaneState};
use crate::wire::scope::ScopeId;
use crate::wire::time::Nanos;
use crate::wire::timer::{Timer, TimerState};

/// Where something is asked about: a scope, and the job whose workers it is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The job.
    pub job: JobLabel,
    /// The scope.
    pub scope: ScopeId,
}

impl Expiry<'_> {
    /// For each place every attached worker of its job, seen from its scope. A worker is one process,
    /// whatever lanes it has; a lane whose owner is not proved counts as one.
    ///
    /// One look at every lane, however many places.
    pub fn members(&self, now: Nanos, places: &[Place]) -> Vec<Vec<Member>> {
        let mut members = alloc::vec![Vec::new(); places.len()];
        let mut known: BTreeMap<(usize, WorkerId), usize> = BTreeMap::new();
        for lane in self.attached_lanes() {
            let job = self.segment.lane(lane).job_label();
            let (worker, owner) = (self.worker_of(lane), self.slots[lane as usize].owner);
            for (index, place) in places.iter().enumerate().filter(|(_, place)| place.job == job) {
                let stands = match self.stands(now, lane, place.scope) {
                    // Nobody is reaped because the kernel was not asked soon enough who waits for whom.
                    Stands::Outside if self.is_asked(lane) => Stands::Unheard,
                    stands => stands,
                };
                let found: &mut Vec<Member> = &mut members[index];
                let of_lane = Member { worker, lane, owner, stands };
                match worker.map(|worker| known.entry((index, worker))) {
                    Some(Entry::Occupied(at)) => {
                        let before = &mut found[*at.get()];
                        before.stands = joined(before.stands, stands);
                        continue;
                    }
                    Some(Entry::Vacant(at)) => _ = at.insert(found.len()),
                    None => {}
                }
                found.push(of_lane);
            }
        }
        members
    }

    /// The timers a worker has armed, in all its lanes.
    pub fn armed_by(&self, worker: WorkerId) -> Vec<ExpiredTimer> {
        let lanes = self.attached_lanes().filter(|lane| self.worker_of(*lane) == Some(worker));
        let timers = lanes.flat_map(|lane| self.open_timers(lane));
        timers.filter(|timer| timer.word.state() == Some(TimerState::Armed)).collect()
    }

    /// The lanes a worker has.
    pub fn lanes_of(&self, worker: WorkerId) -> impl Iterator<Item = u32> {
        self.attached_lanes().filter(move |lane| self.worker_of(*lane) == Some(worker))
    }

    /// Whether a thread of the process `pid` has given its lane back since then: what it did last stands
    /// in no flight record any more.
    pub fn has_given_back(&self, pid: u32, since: Nanos) -> bool {
        self.given_back.iter().any(|&(of, at)| of == pid && at >= since)
    }

    /// How far two times that workers of this segment wrote may be apart although they are the same, ns:
    /// twice what the worst of their clocks may be off by. Which clock a worker has is its own claim.
    pub fn clock_slack_ns(&self) -> u64 {
        let clock_of = |lane| ClockKind::from_bits(self.segment.lane(lane).identity().clock);
        let tolerances = self.attached_lanes().map(|lane| clock_of(lane).tolerance_ns());
        2 * tolerances.max().unwrap_or(0)
    }

    /// Whether the kernel has been asked who owns a lane, and has not answered.
    fn is_asked(&self, lane: u32) -> bool {
        matches!(self.slots[lane as usize].phase, Phase::Asked(_))
    }

    fn attached_lanes(&self) -> impl Iterator<Item = u32> {
        (0..self.segment.lanes_used()).filter(|lane| {
            let slot = &self.slots[*lane as usize];
            let is_attached = slot.owner.state() == Some(LaneState::Attached);
            is_attached
                && matches!(
                    slot.phase,
                    Phase::Asked(_) | Phase::Admitted(_) | Phase::Unattestable(_)
                )
        })
    }

    /// The timers of a lane that are not idle, as far as its owner leaves them alone meanwhile.
    fn open_timers(&self, lane: u32) -> impl Iterator<Item = ExpiredTimer> {
        let place = self.segment.lane(lane);
        (0..place.high_water()).filter_map(move |index| {
            let word = place.timer(index).map(Timer::load)?;
            word.state().filter(|state| *state != TimerState::Idle)?;
            let detail = place.read_detail(index, word)?;
            let deadline = self.stalls.credited(detail.acquired_at, word.deadline().begins());
            Some(ExpiredTimer { lane, timer: index as u16, word, detail, deadline })
        })
    }

    fn stands(&self, now: Nanos, lane: u32, scope: ScopeId) -> Stands {
        let here = self.open_timers(lane).filter(|timer| timer.detail.scope == scope);
        here.map(|timer| {
            let is_overdue = match timer.word.state() {
                Some(TimerState::Armed) => timer.deadline <= now,
                Some(TimerState::Paused) => false, // its time does not pass
                _ => true,
            };
            let overdue = if is_overdue { Overdue::Yes } else { Overdue::No };
            Stands::Inside { entered_at: timer.detail.acquired_at, overdue }
        })
        .fold(Stands::Outside, joined)
    }
}

/// Where a process is of which two timers, or two threads, say this. It waits since the first of them
/// entered.
fn joined(one: Stands, other: Stands) -> Stands {
    match (one, other) {
        (
            Stands::Inside { entered_at: at, overdue },
            Stands::Inside { entered_at: also_at, overdue: also },
        ) => {
            let overdue = if overdue == Overdue::Yes { overdue } else { also };
            Stands::Inside { entered_at: at.min(also_at), overdue }
        }
        (inside @ Stands::Inside { .. }, _) | (_, inside) => inside,
    }
}
