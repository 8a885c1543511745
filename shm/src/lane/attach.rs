//! How a thread comes to a lane, and what becomes of it when the thread ends.

use crossbeam_utils::Backoff;
use hangwatch_core::shared::wake::Wake;
use hangwatch_core::wire::lane::{Identity, Lane, LaneNames, LaneState, OwnerWord};
use hangwatch_core::wire::ring::RingWriter;
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::stats::ScopeStats;

use super::{LaneOptions, LaneOwner, LanePool};
use crate::error::AttachError;
use crate::labels::Labels;
use crate::lock_bytes::lane_lock_byte;
use crate::mapped::lock;
use crate::sys::claim::Claim;
use crate::sys::{clock, crash, host, lock as locks};
use crate::timing::Timing;

/// How often a claim of a lane that is being recycled is tried.
const CLAIM_TRIES: u32 = 100;

impl LaneOwner {
    /// Claims a free lane for the calling thread, or takes over one whose thread ended: one with the
    /// same options, or any where no lane is free.
    pub(crate) fn claim(
        pool: &'static LanePool,
        options: &'static LaneOptions,
    ) -> Result<LaneOwner, AttachError> {
        if let Some(lane) = LaneOwner::take_over(pool, options, |left| left.options == options) {
            return Ok(lane);
        }
        LaneOwner::claim_free(pool, options)
            .or_else(|error| LaneOwner::take_over(pool, options, |_| true).ok_or(error))
    }

    /// Takes over a lane whose thread ended.
    fn take_over(
        pool: &'static LanePool,
        options: &'static LaneOptions,
        is_wanted: impl Fn(&LaneOwner) -> bool,
    ) -> Option<LaneOwner> {
        loop {
            let mut orphans = lock(&pool.orphans);
            let place = orphans.iter().rposition(&is_wanted)?;
            let left = orphans.remove(place);
            drop(orphans);
            if let Some(lane) = left.hand_over(options) {
                return Some(lane);
            }
        }
    }

    /// Makes the lane the calling thread's. `None` where it is no longer this process's.
    fn hand_over(mut self, options: &'static LaneOptions) -> Option<LaneOwner> {
        self.timing = Timing::new(options.clock);
        self.options = options;
        let identity = identity(self.pool, options, &self.timing);
        let thread = std::thread::current();
        self.owner = self.lane.hand_over(self.owner, identity, names(options, &thread))?;
        self.find_idle();
        let idle = &self.idle;
        let all = 0..self.lane.timers().len() as u16;
        self.inherited = all.filter(|index| !idle.contains(index)).collect();
        self.choose_release();
        self.find_blocks();
        self.pool.mapped.ring();
        Some(self)
    }

    fn claim_free(
        pool: &'static LanePool,
        options: &'static LaneOptions,
    ) -> Result<LaneOwner, AttachError> {
        let _claims = lock(&pool.claims);
        let pid = std::process::id();
        for index in 0..pool.mapped.words.geometry().lanes {
            let lane = pool.mapped.words.lane(index);
            if !is_claimable(lane) {
                continue;
            }
            let try_lock = || {
                locks::try_lock(pool.mapped.fd(), lane_lock_byte(index))
                    .map_err(|source| AttachError::Lock { name: pool.mapped.name.clone(), source })
            };
            if !try_lock()? {
                continue;
            }
            pool.mapped.words.note_lane_used(index);
            crash::point("worker-locked");
            // Where the claim fails, another copy of this library in this process was first, or a
            // watchdog hangs while it recycles the lane. A lock is the process's, so that copy's would
            // fall with an unlock here. It stays locked: for that copy, or for this one's next claim.
            let Some(claimed) = claim_soon(lane, pid) else { continue };
            // Such a copy may also have had the lane between lock and claim, and have unlocked it when
            // it gave it back.
            if !try_lock()? {
                lane.detach(claimed);
                continue;
            }
            options.ptracer.allow(&pool.mapped);
            return Ok(LaneOwner::attach(pool, index, claimed, options));
        }
        Err(AttachError::NoFreeLane {
            name: pool.mapped.name.clone(),
            lanes: pool.mapped.words.geometry().lanes,
        })
    }

    fn attach(
        pool: &'static LanePool,
        index: u32,
        claimed: OwnerWord,
        options: &'static LaneOptions,
    ) -> LaneOwner {
        let lane = pool.mapped.words.lane(index);
        let timing = Timing::new(options.clock);
        let identity = identity(pool, options, &timing);
        crash::point("worker-claimed");
        let thread = std::thread::current();
        let attached = lane.attach(claimed, identity, names(options, &thread));
        crash::point("worker-attached");
        pool.mapped.ring();
        let words = pool.mapped.words;
        let mut owned = LaneOwner {
            pool,
            key: pool.mapped.key(),
            canary: pool.mapped.canary,
            index,
            released_here: index,
            options,
            lane,
            owner: attached,
            ring: RingWriter::resume(lane.ring(), lane.head()),
            wake: Wake::new(words.next_wake(), words.fixed().max_interval_ns),
            idle: Vec::with_capacity(lane.timers().len()),
            inherited: Vec::new(),
            high_water: 0,
            blocks: vec![None; words.geometry().scopes as usize].into_boxed_slice(),
            attended: Vec::new(),
            timing,
        };
        owned.find_blocks();
        // Free or detached: every timer is idle, so none has a handle.
        pool.returned.forget(index);
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
                self.pool.mapped.words.timeout(ScopeId(scope)).note_clock(self.timing.kind());
            }
        }
    }

    /// The thread has ended: gives the lane back, or leaves it to the next thread where timers still
    /// have handles (they have moved elsewhere, and their deadlines hold), or where it says which
    /// meetings this process has entered.
    pub(crate) fn leave(mut self) {
        if self.pool.mapped.canary.forked() {
            return; // the parent's lane
        }
        self.find_idle();
        if self.idle.len() < self.lane.timers().len() || !self.attended.is_empty() {
            lock(&self.pool.orphans).push(self);
            return;
        }
        // Under the claims lock: another thread's claim of this lane must not lose its lock to this.
        let _claims = lock(&self.pool.claims);
        if self.lane.owner() != self.owner {
            return; // taken from it: no longer this thread's to unlock
        }
        // Unlocked first: once it is detached, another copy of this library in this process may claim
        // it, and a lock is the process's.
        let _ = locks::unlock(self.pool.mapped.fd(), lane_lock_byte(self.index));
        crash::point("worker-unlocked");
        if self.lane.detach(self.owner) {
            crash::point("worker-detached");
            self.pool.mapped.ring();
        }
    }
}

/// What the calling thread says about itself.
fn identity(pool: &LanePool, options: &LaneOptions, timing: &Timing) -> Identity {
    let claim = Claim::own();
    let plus_one = |number: Option<u32>| number.map_or(0, |number| u64::from(number) + 1);
    Identity {
        tid: u64::from(host::gettid().as_raw_pid().unsigned_abs()),
        start_ticks: claim.start_ticks,
        pidfd_inode: claim.pidfd_inode,
        pid_namespace: claim.pid_namespace,
        attached_at: clock::monotonic_ns(),
        descriptor: std::os::fd::AsRawFd::as_raw_fd(&pool.mapped.fd()).unsigned_abs().into(),
        clock: timing.kind() as u64,
        rank: plus_one(options.labels.rank),
        world_size: options.labels.world_size.map_or(0, u64::from),
        local_rank: plus_one(options.labels.local_rank),
    }
}

fn names<'n>(options: &'n LaneOptions, thread: &'n std::thread::Thread) -> LaneNames<'n> {
    let Labels { job, host, .. } = &options.labels;
    LaneNames { thread: thread.name().unwrap_or(""), job, host }
}

/// Claims a lane whose lock this process has. A watchdog may be about to recycle it, which takes it
/// microseconds; it is not waited for much longer.
fn claim_soon(lane: Lane<'_>, pid: u32) -> Option<OwnerWord> {
    let backoff = Backoff::new();
    for _ in 0..CLAIM_TRIES {
        if let Some(claimed) = lane.claim(pid) {
            return Some(claimed);
        }
        match lane.owner().state() {
            Some(LaneState::Recycling | LaneState::Free | LaneState::Detached) => {
                backoff.snooze();
            }
            _ => return None,
        }
    }
    None
}

fn is_claimable(lane: Lane<'_>) -> bool {
    matches!(lane.owner().state(), Some(LaneState::Free | LaneState::Detached))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::file;
    use crate::{CreateOptions, Geometry, Segment, Worker};
    use hangwatch_test_children::is_locked;

    /// A second copy of the library: a descriptor and a mapping of its own.
    struct Copy {
        file: &'static file::SegmentFile,
        words: hangwatch_core::wire::segment::Segment<'static>,
    }

    impl Copy {
        fn open(name: &str) -> Copy {
            let file: &'static file::SegmentFile = Box::leak(Box::new(file::open(name).unwrap()));
            let words = file.map().unwrap().leak();
            Copy { file, words: hangwatch_core::wire::segment::Segment::open(words).unwrap() }
        }

        /// Claims lane 0 and gives it back; whether the process had its lock meanwhile. `None` where it
        /// cannot be had.
        fn claim(&self) -> Option<bool> {
            let (lane, byte) = (self.words.lane(0), lane_lock_byte(0));
            let try_lock = || locks::try_lock(self.file, byte).unwrap();
            if !is_claimable(lane) || !try_lock() {
                return None;
            }
            let claimed = lane.claim(std::process::id()).filter(|_| try_lock())?;
            let attached = lane.attach(claimed, Identity::default(), LaneNames::default());
            // Long enough for a late unlock to fall into it.
            let was_locked = (0..20).all(|_| is_locked(self.file, byte));
            locks::unlock(self.file, byte).unwrap();
            lane.detach(attached).then_some(was_locked).inspect(|_| self.wait_for_the_other())
        }
    }

    impl Copy {
        /// Until the other copy has had the lane, or does not come.
        fn wait_for_the_other(&self) {
            let (lane, given_back) = (self.words.lane(0), self.words.lane(0).owner());
            let until = Instant::now() + Duration::from_millis(200);
            while lane.owner() == given_back && Instant::now() < until {
                std::hint::spin_loop();
            }
        }
    }

    #[test]
    fn two_copies_of_the_library_in_one_process_lose_no_lock() {
        let name = format!("test-two-copies-{}", std::process::id());
        let geometry = Geometry { lanes: 1, timers: 1, records: 16, scopes: 2, lane_scopes: 2 };
        Segment::create(&name, CreateOptions { geometry, ..CreateOptions::default() }).unwrap();
        let copy = Copy::open(&name);
        let is_over = AtomicBool::new(false);
        let claims = std::thread::scope(|scope| {
            let churns = || {
                while !is_over.load(Ordering::Relaxed) {
                    let attach = || Worker::attach(name.as_str()).is_ok();
                    std::thread::scope(|scope| scope.spawn(attach).join().unwrap());
                }
            };
            scope.spawn(churns);
            let until = Instant::now() + Duration::from_secs(2);
            let tries = std::iter::repeat_with(|| copy.claim());
            let tries = tries.take_while(|_| Instant::now() < until);
            let claims: Vec<bool> = tries.flatten().take(20_000).collect();
            is_over.store(true, Ordering::Relaxed);
            claims
        });
        Segment::remove(&name).unwrap();
        assert!(!claims.is_empty(), "the copy never got the lane");
        let lost = claims.iter().filter(|was_locked| !**was_locked).count();
        assert_eq!(lost, 0, "of {} claims", claims.len());
    }

    #[test]
    fn an_open_that_fails_takes_no_lock_from_a_second_copy() {
        let name = format!("test-failed-open-{}", std::process::id());
        hangwatch_test_children::fork({
            let name = name.clone();
            move || i32::from(Segment::create(&name, CreateOptions::default()).is_err())
        })
        .exit_status();
        let copy = Copy::open(&name);
        let byte = lane_lock_byte(0);
        assert!(locks::try_lock(copy.file, byte).unwrap());
        let header = copy.file.map().unwrap();
        header.words()[0].store(0, Ordering::Relaxed);
        assert!(Segment::open(&name).is_err());
        assert!(crate::Observer::open(&name).is_err());
        assert!(is_locked(copy.file, byte), "the failed open closed its descriptor");
        Segment::remove(&name).unwrap();
    }
}
