//! A thread's lanes: taken when first needed, found again on the hot path, left when it ends.
//!
//! The hot path is one thread-local pointer ([`CURRENT`]) to the lane used last. What it points to is
//! owned by [`LANES`], whose drop at the end of the thread clears it first. A pointer and no
//! `RefCell`, because what a closure returns from inside a `LocalKey` goes through memory: measured,
//! that doubled the cost of an acquire.
//!
//! Whoever uses a lane has it lent ([`Lent`]), and `CURRENT` is empty meanwhile. So a signal handler that
//! interrupts a use and sets a deadline finds that a lane is lent, and gets an error instead of a second
//! reference to the same lane. A release in such a handler ends its timer by the word alone.
#![expect(unsafe_code, reason = "the hot path's pointer to the lane that this thread owns")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

use hangwatch_core::wire::lane::Subject;
use hangwatch_core::wire::meeting::Meeting;
use hangwatch_core::wire::scope::{ScopeId, ScopeName};
use hangwatch_core::wire::time::Nanos;
use hangwatch_core::wire::timer::TimerWord;

use crate::error::{AcquireError, AttachError};
use crate::lane::{Armed, LaneOptions, LaneOwner, LanePool};

thread_local! {
    /// The lane used last; `None` where there is none, where one is lent, or the thread is ending.
    static CURRENT: Cell<Option<OwnedLane>> = const { Cell::new(None) };

    static LANES: RefCell<ThreadLanes> = const {
        RefCell::new(ThreadLanes { lanes: Vec::new(), has_current: false })
    };

    static NAMES: RefCell<HashMap<u64, HashMap<String, ScopeId>>> = RefCell::new(HashMap::new());
}

/// A lane on the heap that this thread alone reaches, by this pointer alone.
#[derive(Clone, Copy)]
struct OwnedLane(NonNull<LaneOwner>);

impl OwnedLane {
    fn new(lane: LaneOwner) -> OwnedLane {
        OwnedLane(NonNull::from(Box::leak(Box::new(lane))))
    }

    /// The lane.
    ///
    /// # Safety
    /// No lane of this thread is lent, and none is while the reference is used.
    #[inline]
    unsafe fn get<'l>(self) -> &'l mut LaneOwner {
        // SAFETY: leaked from a box by `new`, freed only by `into_lane` when the thread ends, after
        // which no copy of the pointer is left; one thread, and by the promise one reference at a time.
        unsafe { &mut *self.0.as_ptr() }
    }

    fn into_lane(self) -> LaneOwner {
        // SAFETY: it came from a box, and whoever calls this has given up every copy of the pointer.
        *unsafe { Box::from_raw(self.0.as_ptr()) }
    }
}

/// A lane in use. `CURRENT` is empty until it is given back.
pub(crate) struct Lent {
    lane: OwnedLane,
    /// What `CURRENT` held, and holds again afterwards.
    current: Option<OwnedLane>,
}

impl Lent {
    /// Lends a lane. `CURRENT` holds `current`, so none is lent.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    fn new(lane: OwnedLane, current: Option<OwnedLane>) -> Lent {
        let _ = CURRENT.try_with(|cell| cell.set(None));
        // A signal handler on this thread sees the lane lent before it is used.
        compiler_fence(Ordering::SeqCst);
        Lent { lane, current }
    }
}

impl Drop for Lent {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        let _ = CURRENT.try_with(|cell| cell.set(self.current));
    }
}

impl Deref for Lent {
    type Target = LaneOwner;

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    fn deref(&self) -> &LaneOwner {
        // SAFETY: lent to this value alone: `CURRENT` is empty, so nothing lends another.
        unsafe { self.lane.get() }
    }
}

impl DerefMut for Lent {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
    fn deref_mut(&mut self) -> &mut LaneOwner {
        // SAFETY: as above.
        unsafe { self.lane.get() }
    }
}

/// All lanes of a thread, of whatever segments. Reached only while none is lent: see [`with_lanes`].
struct ThreadLanes {
    lanes: Vec<OwnedLane>,
    /// Whether `CURRENT` was set: it is empty then only while a lane is lent.
    has_current: bool,
}

impl Drop for ThreadLanes {
    fn drop(&mut self) {
        let _ = CURRENT.try_with(|current| current.set(None));
        for lane in self.lanes.drain(..) {
            lane.into_lane().leave();
        }
    }
}

impl ThreadLanes {
    fn all(&self) -> impl Iterator<Item = (OwnedLane, &mut LaneOwner)> {
        // SAFETY: whoever has a `ThreadLanes` came by `with_lanes`, so no lane is lent. The references
        // are to different lanes.
        self.lanes.iter().map(|lane| (*lane, unsafe { lane.get() }))
    }

    fn set_current(&mut self, lane: OwnedLane) {
        self.has_current = true;
        CURRENT.set(Some(lane));
    }

    /// Where the lane `index` of the segment is, or else any of it.
    fn find(&self, key: u64, index: Option<u32>) -> Option<OwnedLane> {
        let of_segment = || self.all().filter(|(_, lane)| lane.is_of(key));
        let own = of_segment().find(|(_, lane)| Some(lane.index) == index);
        own.or_else(|| of_segment().next()).map(|(lane, _)| lane)
    }

    /// A lane of the segment with an idle timer; claims a further one where there is none.
    fn find_idle(
        &mut self,
        pool: &'static LanePool,
        options: &'static LaneOptions,
    ) -> Result<OwnedLane, AcquireError> {
        self.forget_parents();
        let key = pool.mapped.key();
        let has_idle = |(at, lane): (OwnedLane, &mut LaneOwner)| {
            (lane.is_of(key) && lane.has_idle()).then_some(at)
        };
        let idle = self.all().find_map(has_idle);
        if let Some(idle) = idle {
            return Ok(idle);
        }
        let lanes = self.all().filter(|(_, lane)| lane.is_of(key)).count();
        let here = pool.here().map_err(|error| Box::new(error.into()))?;
        let claimed = LaneOwner::claim(here, options).map_err(|source| match lanes {
            0 => AcquireError::Attach(Box::new(source)),
            _ => AcquireError::NoFreeTimer { lanes, source: Box::new(source) },
        })?;
        self.lanes.push(OwnedLane::new(claimed));
        // It may be taken over from an ended thread, with every timer armed: then one more is claimed.
        self.find_idle(pool, options)
    }

    /// In a forked child: the lanes are the parent's, and their memory is not mapped here.
    fn forget_parents(&mut self) {
        if self.all().any(|(_, lane)| lane.is_parents()) {
            CURRENT.set(None);
            self.has_current = false;
            // SAFETY: as in `all`.
            let is_parents = |lane: &mut OwnedLane| unsafe { lane.get() }.is_parents();
            let parents = self.lanes.extract_if(.., is_parents);
            parents.for_each(|lane| lane.into_lane().leave());
        }
    }
}

/// The lane used last, if it is of the segment.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
fn current(key: u64) -> Option<Lent> {
    lend(|lane| lane.is_of(key))
}

/// The lane used last, if it is wanted and not lent.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
fn lend(is_wanted: impl FnOnce(&LaneOwner) -> bool) -> Option<Lent> {
    let lane = CURRENT.try_with(Cell::get).ok()??;
    // SAFETY: `CURRENT` is not empty, so none is lent; the reference ends with this line.
    let is_wanted = is_wanted(unsafe { lane.get() });
    is_wanted.then(|| Lent::new(lane, Some(lane)))
}

/// Makes sure that this thread has a lane of the segment, and returns the options that the lane has.
pub(crate) fn attach(
    pool: &'static LanePool,
    options: &'static LaneOptions,
) -> Result<&'static LaneOptions, AcquireError> {
    with_lanes(|lanes| {
        lanes.forget_parents();
        if let Some((_, lane)) = lanes.all().find(|(_, lane)| lane.is_of(pool.mapped.key())) {
            return Ok(lane.options);
        }
        let lane = lanes.find_idle(pool, options)?;
        lanes.set_current(lane);
        // SAFETY: as in `ThreadLanes::all`.
        Ok(unsafe { lane.get() }.options)
    })
}

/// Gives back this thread's lanes of the segment.
pub(crate) fn leave(key: u64) -> Result<(), AcquireError> {
    with_lanes(|lanes| {
        lanes.forget_parents();
        CURRENT.set(None);
        lanes.has_current = false;
        // SAFETY: as in `ThreadLanes::all`.
        let is_left = |lane: &mut OwnedLane| unsafe { lane.get() }.is_of(key);
        let left: Vec<OwnedLane> = lanes.lanes.extract_if(.., is_left).collect();
        left.into_iter().for_each(|lane| lane.into_lane().leave());
        Ok(())
    })
}

/// Does something with this thread's lanes, unless it has none any more, or one is lent: then a signal
/// handler has interrupted its use.
fn with_lanes<T>(
    what: impl FnOnce(&mut ThreadLanes) -> Result<T, AcquireError>,
) -> Result<T, AcquireError> {
    let done = LANES.try_with(|lanes| {
        let mut lanes = lanes.try_borrow_mut().map_err(|_| AcquireError::Reentered)?;
        if lanes.has_current && CURRENT.get().is_none() {
            return Err(AcquireError::Reentered);
        }
        what(&mut lanes)
    });
    done.unwrap_or_else(|_| Err(Box::new(AttachError::ThreadEnding).into()))
}

/// Arms a timer in one of this thread's lanes, and says what word it left in it. `at` is the time
/// where the caller knows it already.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
pub(crate) fn arm(
    pool: &'static LanePool,
    options: &'static LaneOptions,
    subject: Subject,
    timeout_ns: u64,
    at: Option<Nanos>,
) -> Result<(Armed, TimerWord), AcquireError> {
    // One place makes what is returned: a second one, in the cold path, would put it in memory.
    loop {
        if let Some(mut lane) = current(pool.mapped.key())
            && let Some(idle) = lane.take_idle()
        {
            return Ok(lane.arm(idle, subject, timeout_ns, at));
        }
        make_current(pool, options)?;
    }
}

/// As [`arm`], for a scope whose name the segment's table has no room for.
pub(crate) fn arm_spilled(
    pool: &'static LanePool,
    options: &'static LaneOptions,
    subject: Subject,
    name: &ScopeName,
    timeout_ns: u64,
) -> Result<(Armed, TimerWord), AcquireError> {
    let subject = subject.in_scope(ScopeId::spilled(name));
    loop {
        if let Some(mut lane) = current(pool.mapped.key())
            && let Some(idle) = lane.take_idle()
        {
            lane.write_name(idle, name);
            let armed = lane.arm(idle, subject, timeout_ns, None);
            // A handle of another name may have the same scope.
            lane.write_name(idle, name);
            return Ok(armed);
        }
        make_current(pool, options)?;
    }
}

/// As [`arm`], in a meeting.
pub(crate) fn arm_meeting(
    pool: &'static LanePool,
    options: &'static LaneOptions,
    subject: Subject,
    meeting: Meeting,
    timeout_ns: u64,
) -> Result<(Armed, TimerWord), AcquireError> {
    loop {
        if let Some(mut lane) = current(pool.mapped.key())
            && let Some(idle) = lane.take_idle()
        {
            lane.attend(idle, meeting);
            return Ok(lane.arm(idle, subject.of_meeting(), timeout_ns, None));
        }
        make_current(pool, options)?;
    }
}

/// The lane used last is another segment's, the parent's of a fork, or has no idle timer: finds or
/// claims one that is of the segment and has one.
#[cold]
#[inline(never)]
fn make_current(
    pool: &'static LanePool,
    options: &'static LaneOptions,
) -> Result<(), AcquireError> {
    with_lanes(|lanes| {
        let lane = lanes.find_idle(pool, options)?;
        lanes.set_current(lane);
        Ok(())
    })
}

/// The lane used last, if the timer is one of it and this is no forked child.
///
/// It is for one use: while it is lent, nothing else of this module finds a lane.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
pub(crate) fn lane_of(armed: &Armed) -> Option<Lent> {
    lend(|lane| lane.armed(armed))
}

/// The lane of this thread that updates of `armed` belong in: the timer's own if it is this thread's,
/// else any of the segment. `None` where the thread has none (any more), or one is lent.
///
/// It is for one use: while it is lent, nothing else of this module finds a lane.
pub(crate) fn lane_for(armed: &Armed) -> Option<Lent> {
    let key = armed.pool.mapped.key();
    let own = lend(|lane| lane.is_of(key) && lane.index == armed.subject.lane());
    own.or_else(|| {
        let lane = find(key, armed.subject.lane())?;
        Some(Lent::new(lane, CURRENT.get()))
    })
}

fn find(key: u64, index: u32) -> Option<OwnedLane> {
    let found = with_lanes(|lanes| {
        let found = lanes.find(key, Some(index));
        if let Some(lane) = found
            && !lanes.has_current
        {
            lanes.set_current(lane);
        }
        Ok(found)
    });
    found.ok().flatten()
}

/// As [`lane_for`], claiming a lane for a thread that has none, if one can be had.
#[cold]
pub(crate) fn any_lane_for(armed: &Armed, options: &'static LaneOptions) -> Option<Lent> {
    let is_ending = LANES.try_with(|_| ()).is_err();
    if !is_ending && find(armed.pool.mapped.key(), armed.subject.lane()).is_none() {
        // A thread without a lane has nowhere to tell it; the timer word is the truth all the same.
        let _ = attach(armed.pool, options);
    }
    lane_for(armed)
}

/// The armed timers of every lane this thread has of the segment.
pub(crate) fn armed_timers(key: u64) -> Vec<(Armed, TimerWord)> {
    let of_lanes = |lanes: &mut ThreadLanes| {
        let of_segment = lanes.all().filter(|(_, lane)| lane.is_of(key));
        Ok(of_segment.flat_map(|(_, lane)| lane.armed_timers().collect::<Vec<_>>()).collect())
    };
    with_lanes(of_lanes).unwrap_or_default()
}

/// How many names a thread remembers: a flood of them is looked up in the segment.
const KNOWN_NAMES: usize = 4096;

/// The scope this thread knows as `name` in the segment `key`.
pub(crate) fn known_scope(key: u64, name: &str) -> Option<ScopeId> {
    // Borrowed only where a signal handler has interrupted `know_scope`.
    let known = |names: &RefCell<HashMap<u64, HashMap<String, ScopeId>>>| {
        names.try_borrow().ok()?.get(&key)?.get(name).copied()
    };
    NAMES.try_with(known).ok().flatten()
}

/// Remembers a scope's name. (A thread that is ending remembers nothing.)
pub(crate) fn know_scope(key: u64, name: &str, scope: ScopeId) {
    let _ = NAMES.try_with(|names| {
        let Ok(mut names) = names.try_borrow_mut() else { return };
        let known = names.entry(key).or_default();
        if known.len() < KNOWN_NAMES {
            known.insert(name.to_owned(), scope);
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{CreateOptions, Released, Segment, Worker};

    /// What a signal handler sees that interrupts an acquire or a release of its thread.
    #[test]
    fn a_handler_that_interrupts_a_use_gets_an_error_and_may_release() {
        let name = format!("test-reentered-{}", std::process::id());
        Segment::create(&name, CreateOptions::default()).unwrap();
        let worker = Worker::attach(name.as_str()).unwrap();
        let long = Duration::from_mins(1);
        let scope = worker.scope("scope").unwrap();
        let (before, beat) =
            (scope.expires(long).unwrap(), worker.heartbeat("beat", long).unwrap());
        {
            let _interrupted = current(worker.attachment.mapped().key()).unwrap();
            assert!(matches!(scope.expires(long), Err(AcquireError::Reentered)));
            assert!(worker.pause("pause", long).is_err());
            assert!(armed_timers(worker.attachment.mapped().key()).is_empty());
            beat.kick().unwrap();
            assert_eq!(before.release(), Released::InTime);
        }
        assert_eq!(armed_timers(worker.attachment.mapped().key()).len(), 1, "the heartbeat");
        let again = scope.expires(long).unwrap();
        assert_eq!([again.release(), beat.release()], [Released::InTime; 2]);
        Segment::remove(&name).unwrap();
    }

    #[test]
    fn a_thread_gives_its_lane_back_and_takes_one_anew() {
        let name = format!("test-leave-{}", std::process::id());
        let segment = Segment::create(&name, CreateOptions::default()).unwrap();
        let worker = Worker::attach(&name).unwrap();
        assert_eq!(segment.picture().lanes.len(), 1);
        worker.leave_thread().unwrap();
        assert_eq!(segment.picture().lanes.len(), 0);
        let guard = worker.expires("again", Duration::from_mins(1)).unwrap();
        worker.leave_thread().unwrap();
        assert_eq!(segment.picture().lanes.len(), 1, "its timer is armed: it stays enforced");
        assert_eq!(guard.release(), Released::InTime);
        Segment::remove(&name).unwrap();
    }
}
