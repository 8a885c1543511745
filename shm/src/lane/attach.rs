//! How a thread comes to a lane, and what becomes of it when the thread ends.

use hangwatch_core::lane::{Identity, Lane, LaneNames, LaneState, OwnerWord};
use hangwatch_core::ring::RingWriter;
use hangwatch_core::scope::ScopeId;
use hangwatch_core::stats::ScopeStats;
use hangwatch_core::wake::Wake;

use super::{LaneOptions, LaneOwner};
use crate::error::AttachError;
use crate::labels::Labels;
use crate::registry::{Shared, lock};
use crate::segment::lane_lock_byte;
use crate::sys::identity::Claim;
use crate::sys::{clock, crash, host, lock as locks};
use crate::timing::Timing;

impl LaneOwner {
    /// Claims a free lane for the calling thread, or takes over one whose thread ended.
    pub(crate) fn claim(
        shared: &'static Shared,
        options: &LaneOptions,
    ) -> Result<LaneOwner, AttachError> {
        if let Some(orphan) = lock(&shared.orphans).pop() {
            return Ok(orphan);
        }
        let _claims = lock(&shared.claims);
        let pid = std::process::id();
        for index in 0..shared.words.geometry().lanes {
            let lane = shared.words.lane(index);
            if !is_claimable(lane) {
                continue;
            }
            let locked = locks::try_lock(shared.fd(), lane_lock_byte(index))
                .map_err(|source| AttachError::Lock { name: shared.name.clone(), source })?;
            if !locked {
                continue;
            }
            shared.words.note_lane_used(index);
            crash::point("worker-locked");
            if let Some(claimed) = lane.claim(pid) {
                options.ptracer.allow(shared);
                return Ok(LaneOwner::attach(shared, index, claimed, options));
            }
            // Unless another copy of this library in this very process was first: the lock is its too. (A
            // lane that is being recycled names the process that gave it back.)
            let owner = lane.owner();
            let is_taken = matches!(owner.state(), Some(LaneState::Claimed | LaneState::Attached));
            if !(is_taken && owner.pid() == pid) {
                let _ = locks::unlock(shared.fd(), lane_lock_byte(index));
            }
        }
        Err(AttachError::NoFreeLane {
            name: shared.name.clone(),
            lanes: shared.words.geometry().lanes,
        })
    }

    fn attach(
        shared: &'static Shared,
        index: u32,
        claimed: OwnerWord,
        options: &LaneOptions,
    ) -> LaneOwner {
        let lane = shared.words.lane(index);
        let timing = Timing::new(options.clock);
        let claim = Claim::own();
        let plus_one = |number: Option<u32>| number.map_or(0, |number| u64::from(number) + 1);
        let identity = Identity {
            tid: u64::from(host::gettid().as_raw_pid().unsigned_abs()),
            start_ticks: claim.start_ticks,
            pidfd_inode: claim.pidfd_inode,
            pid_namespace: claim.pid_namespace,
            attached_at: clock::monotonic_ns(),
            descriptor: std::os::fd::AsRawFd::as_raw_fd(&shared.fd()).unsigned_abs().into(),
            clock: timing.kind() as u64,
            rank: plus_one(options.labels.rank),
            world_size: options.labels.world_size.map_or(0, u64::from),
            local_rank: plus_one(options.labels.local_rank),
        };
        crash::point("worker-claimed");
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("");
        let Labels { job, host, .. } = &options.labels;
        let attached = lane.attach(claimed, identity, LaneNames { thread: name, job, host });
        crash::point("worker-attached");
        shared.ring();
        let words = shared.words;
        let mut owned = LaneOwner {
            shared,
            key: shared.key(),
            canary: shared.canary,
            index,
            lane,
            owner: attached,
            ring: RingWriter::resume(lane.ring(), lane.head()),
            wake: Wake::new(words.next_wake(), words.fixed().horizon_ns),
            idle: Vec::with_capacity(lane.timers().len()),
            high_water: 0,
            blocks: vec![None; words.geometry().scopes as usize].into_boxed_slice(),
            timing,
        };
        owned.find_blocks();
        // Free or detached: every timer is idle, so none has a handle.
        shared.returned.forget(index);
        owned.idle.extend((0..owned.lane.timers().len() as u16).rev());
        owned
    }

    /// The statistics blocks an earlier owner of a detached lane left: this one goes on with them.
    fn find_blocks(&mut self) {
        for block in self.lane.stats() {
            if let Some(scope) = ScopeStats(block).scope()
                && let Some(known) = self.blocks.get_mut(usize::from(scope))
            {
                *known = Some(block);
                self.shared.words.allowance(ScopeId(scope)).note_clock(self.timing.kind());
            }
        }
    }

    /// The thread has ended: gives the lane back, or leaves it to the next thread where timers still
    /// have handles (they have moved elsewhere, and their deadlines hold).
    pub(crate) fn leave(mut self) {
        if self.shared.canary.forked() {
            return; // the parent's lane
        }
        self.find_idle();
        if self.idle.len() < self.lane.timers().len() {
            lock(&self.shared.orphans).push(self);
            return;
        }
        // Under the claims lock: another thread's claim of this lane must not lose its lock to this.
        let _claims = lock(&self.shared.claims);
        if self.lane.detach(self.owner) {
            crash::point("worker-detached");
            let _ = locks::unlock(self.shared.fd(), lane_lock_byte(self.index));
            self.shared.ring();
        }
    }
}

fn is_claimable(lane: Lane<'_>) -> bool {
    matches!(lane.owner().state(), Some(LaneState::Free | LaneState::Detached))
}
