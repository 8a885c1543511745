//! Lanes: who sits in each, from the claim to the recycling, and what the kernel is asked about it.

use super::slot::{Admission, Phase, Request, Slot};
use super::{Expiry, NOT_DEFERRED};
use crate::atomic::add_single_writer;
use crate::crash;
use crate::watchdog::worker::WorkerId;
use crate::wire::lane::{LaneState, OwnerWord};
use crate::wire::segment::Counter;

/// How often the kernel is asked again about a lane nobody could be proved to own, ns.
pub(super) const ASK_AGAIN_NS: u64 = 500_000_000;
/// How many lanes one tick recycles at most: the rest waits for the next.
const RECYCLED_A_TICK: usize = 64;

impl Expiry<'_> {
    /// The kernel's answer about a lane.
    pub fn admit(&mut self, lane: u32, owner: OwnerWord, admission: Admission) {
        let Some(slot) = self.slots.get_mut(lane as usize) else {
            return;
        };
        if slot.owner != owner {
            return; // the answer is about an earlier owner
        }
        match admission {
            Admission::Gone => self.recycle.push((lane, owner)),
            Admission::Worker(worker) if !slot.is_quarantined() => {
                self.slot(lane, Phase::Admitted(worker));
                self.resume_following(lane);
            }
            Admission::Unattestable if matches!(slot.phase, Phase::Unattestable(_)) => {
                slot.phase = Phase::Unattestable(self.now);
            }
            // Once the kernel has said who it is, a later answer that it cannot say changes nothing: the worker
            // may have closed its descriptors since. Before a signal it is verified all the same.
            Admission::Unattestable if matches!(slot.phase, Phase::Admitted(_)) => {}
            Admission::Unattestable if !slot.is_quarantined() => {
                self.slot(lane, Phase::Unattestable(self.now));
            }
            Admission::Worker(_) | Admission::Unattestable | Admission::Unknown => {}
        }
    }

    /// Gives a lane's owner a new standing, and looks at all its timers in the light of it.
    fn slot(&mut self, lane: u32, phase: Phase) {
        self.slots[lane as usize].phase = phase;
        let ids = self.ids(lane);
        self.deferred[ids].fill(NOT_DEFERRED);
        self.refresh_lane(lane);
    }

    /// A worker's process is dead, or has exec'd: its lanes are recycled.
    pub fn worker_gone(&mut self, worker: WorkerId) {
        for (lane, slot) in self.slots.iter().enumerate() {
            if slot.phase == Phase::Admitted(worker) {
                self.recycle.push((lane as u32, slot.owner));
            }
        }
    }

    /// The worker that owns a lane, where the kernel has said so.
    pub fn worker_of(&self, lane: u32) -> Option<WorkerId> {
        match self.slots.get(lane as usize)?.phase {
            Phase::Admitted(worker) => Some(worker),
            _ => None,
        }
    }

    /// Whether a lane is quarantined.
    pub fn is_quarantined(&self, lane: u32) -> bool {
        self.slots.get(lane as usize).is_some_and(Slot::is_quarantined)
    }

    pub(super) fn quarantine(&mut self, lane: u32) {
        if self.slots[lane as usize].is_quarantined() {
            return;
        }
        self.slots[lane as usize].phase = Phase::Quarantined(self.now);
        self.segment.lane(lane).quarantine();
        self.minima.clear_block(self.ids(lane));
        add_single_writer(self.segment.counter(Counter::Quarantined), 1);
        self.requests.push(Request::Quarantined { lane });
    }

    /// A lane's owner word changed.
    pub(super) fn owner_changed(&mut self, lane: u32, owner: OwnerWord) {
        let ids = self.ids(lane);
        self.minima.clear_block(ids.clone());
        self.deferred[ids].fill(NOT_DEFERRED);
        let before = self.slots[lane as usize].owner;
        if before.state() == Some(LaneState::Attached) {
            self.given_back[lane as usize] = (before.pid(), self.now);
        } else if owner.state() == Some(LaneState::Detached) {
            self.given_back[lane as usize] = (owner.pid(), self.now);
        }
        self.slots[lane as usize] = Slot { owner, phase: Phase::Vacant };
        match owner.state() {
            Some(LaneState::Free) => {}
            // Half-way: asked about too, in case its claimant died there.
            Some(LaneState::Claimed) => self.ask(lane),
            Some(LaneState::Attached) => {
                self.ask(lane);
                self.refresh_lane(lane);
            }
            Some(LaneState::Detached | LaneState::Recycling) => self.recycle.push((lane, owner)),
            None => self.quarantine(lane),
        }
    }

    fn ask(&mut self, lane: u32) {
        let slot = &mut self.slots[lane as usize];
        slot.phase = match slot.phase {
            Phase::Quarantined(_) => Phase::Quarantined(self.now),
            Phase::Unattestable(_) => Phase::Unattestable(self.now),
            _ => Phase::Asked(self.now),
        };
        self.requests.push(Request::Admit { lane, owner: slot.owner });
    }

    /// Asks again about lanes whose owner is not proved; about a quarantined one too: it may be dead.
    pub(super) fn ask_again(&mut self) {
        for lane in 0..self.segment.lanes_used() {
            let (Phase::Asked(at) | Phase::Unattestable(at) | Phase::Quarantined(at)) =
                self.slots[lane as usize].phase
            else {
                continue;
            };
            if self.now.since(at) >= ASK_AGAIN_NS {
                self.ask(lane);
            }
        }
    }

    /// Frees lanes whose owners are known to be gone, a bounded number a tick.
    pub(super) fn recycle_some(&mut self) {
        for _ in 0..RECYCLED_A_TICK {
            let Some((lane, owner)) = self.recycle.pop() else {
                return;
            };
            let place = self.segment.lane(lane);
            if self.slots[lane as usize].owner != owner {
                continue;
            }
            // Where a worker claimed a detached lane first, its claim are updates on the next tick.
            let Some(recycling) = place.begin_recycling(owner) else {
                continue;
            };
            crash::point("recycling");
            self.segment.fold_lane(lane);
            crash::point("folded");
            place.end_recycling(recycling);
            crash::point("recycled");
            self.minima.clear_block(self.ids(lane));
            self.slots[lane as usize].phase = Phase::Vacant;
            add_single_writer(self.segment.counter(Counter::Recycled), 1);
        }
    }
}
