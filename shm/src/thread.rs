//! A thread's lanes: taken when first needed, found again on the hot path, left when it ends.
//!
//! The hot path is one thread-local pointer ([`CURRENT`]) to the lane used last. What it points to is
//! owned by [`LANES`], whose drop at the end of the thread clears it first. A pointer and no
//! `RefCell`, because what a closure returns from inside a `LocalKey` goes through memory: measured,
//! that doubled the cost of an acquire.
#![expect(unsafe_code, reason = "the hot path's pointer to the lane that this thread owns")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr::NonNull;

use hangwatch_core::lane::Subject;
use hangwatch_core::scope::ScopeId;
use hangwatch_core::time::Nanos;
use hangwatch_core::timer::TimerWord;

use crate::error::{AcquireError, AttachError};
use crate::lane::{Armed, LaneOptions, LaneOwner};
use crate::registry::Shared;

thread_local! {
    /// The lane used last; `None` where there is none, or the thread is ending.
    static CURRENT: Cell<Option<OwnedLane>> = const { Cell::new(None) };

    static LANES: RefCell<ThreadLanes> = const { RefCell::new(ThreadLanes { lanes: Vec::new() }) };

    static NAMES: RefCell<HashMap<u64, HashMap<String, ScopeId>>> = RefCell::new(HashMap::new());
}

/// A lane on the heap that this thread alone reaches, by this pointer alone.
#[derive(Clone, Copy)]
struct OwnedLane(NonNull<LaneOwner>);

impl OwnedLane {
    fn new(lane: LaneOwner) -> OwnedLane {
        OwnedLane(NonNull::from(Box::leak(Box::new(lane))))
    }

    /// The lane. Callers hold at most one such reference at a time and call nothing with it that
    /// could come back here: neither user code nor a destructor of any.
    #[inline]
    fn get<'l>(self) -> &'l mut LaneOwner {
        // SAFETY: leaked from a box by `new`, freed only by `into_lane` when the thread ends, after
        // which no copy of the pointer is left; one thread, one reference at a time (see above).
        unsafe { &mut *self.0.as_ptr() }
    }

    fn into_lane(self) -> LaneOwner {
        // SAFETY: it came from a box, and whoever calls this has given up every copy of the pointer.
        *unsafe { Box::from_raw(self.0.as_ptr()) }
    }
}

/// All lanes of a thread, of whatever segments.
struct ThreadLanes {
    lanes: Vec<OwnedLane>,
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
    /// Where the lane `index` of the segment is, or else any of it.
    fn find(&self, key: u64, index: Option<u32>) -> Option<OwnedLane> {
        let of_segment = || self.lanes.iter().copied().filter(|lane| lane.get().is_of(key));
        let own = of_segment().find(|lane| Some(lane.get().index) == index);
        own.or_else(|| of_segment().next())
    }

    /// A lane of the segment with an idle timer; claims a further one where there is none.
    fn find_idle(
        &mut self,
        shared: &'static Shared,
        options: &LaneOptions,
    ) -> Result<OwnedLane, AcquireError> {
        self.forget_parents();
        let key = shared.key();
        let mut of_segment = self.lanes.iter().filter(|lane| lane.get().is_of(key));
        if let Some(idle) = of_segment.find(|lane| lane.get().has_idle()) {
            return Ok(*idle);
        }
        let lanes = self.lanes.iter().filter(|lane| lane.get().is_of(key)).count();
        let here = shared.here().map_err(|error| Box::new(error.into()))?;
        let claimed = LaneOwner::claim(here, options).map_err(|source| match lanes {
            0 => AcquireError::Attach(Box::new(source)),
            _ => AcquireError::NoFreeTimer { lanes, source: Box::new(source) },
        })?;
        let claimed = OwnedLane::new(claimed);
        self.lanes.push(claimed);
        if claimed.get().has_idle() {
            return Ok(claimed);
        }
        // Taken over from an ended thread, with every timer armed: kept, and one more is claimed.
        self.find_idle(shared, options)
    }

    /// In a forked child: the lanes are the parent's, and their memory is not mapped here.
    fn forget_parents(&mut self) {
        if self.lanes.iter().any(|lane| lane.get().is_parents()) {
            CURRENT.set(None);
            let parents = self.lanes.extract_if(.., |lane| lane.get().is_parents());
            parents.for_each(|lane| lane.into_lane().leave());
        }
    }
}

/// The lane used last, if it is of the segment.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
fn current(key: u64) -> Option<&'static mut LaneOwner> {
    let lane = CURRENT.try_with(Cell::get).ok()??.get();
    lane.is_of(key).then_some(lane)
}

/// Makes sure that this thread has a lane of the segment.
pub(crate) fn attach(shared: &'static Shared, options: &LaneOptions) -> Result<(), AcquireError> {
    with_lanes(|lanes| {
        lanes.forget_parents();
        if lanes.find(shared.key(), None).is_none() {
            CURRENT.set(Some(lanes.find_idle(shared, options)?));
        }
        Ok(())
    })
}

/// Does something with this thread's lanes, unless it has none any more.
fn with_lanes<T>(
    what: impl FnOnce(&mut ThreadLanes) -> Result<T, AcquireError>,
) -> Result<T, AcquireError> {
    let done = LANES.try_with(|lanes| what(&mut lanes.borrow_mut()));
    done.unwrap_or_else(|_| Err(Box::new(AttachError::ThreadEnding).into()))
}

/// Arms a timer in one of this thread's lanes, and says what word it left in it. `at` is the time
/// where the caller knows it already.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
pub(crate) fn arm(
    shared: &'static Shared,
    options: &'static LaneOptions,
    subject: Subject,
    allowance_ns: u64,
    at: Option<Nanos>,
) -> Result<(Armed, TimerWord), AcquireError> {
    // One place makes what is returned: a second one, in the cold path, would put it in memory.
    loop {
        if let Some(lane) = current(shared.key())
            && let Some(idle) = lane.take_idle()
        {
            return Ok(lane.arm(idle, subject, allowance_ns, at));
        }
        make_current(shared, options)?;
    }
}

/// The lane used last is another segment's, the parent's of a fork, or has no idle timer: finds or
/// claims one that is of the segment and has one.
#[cold]
#[inline(never)]
fn make_current(
    shared: &'static Shared,
    options: &'static LaneOptions,
) -> Result<(), AcquireError> {
    let lane = with_lanes(|lanes| lanes.find_idle(shared, options))?;
    CURRENT.set(Some(lane));
    Ok(())
}

/// The lane used last, if the timer is one of it and this is no forked child.
///
/// The reference is for one use, before anything else of this module is called.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call would copy what it returns")]
pub(crate) fn lane_of(armed: &Armed) -> Option<&'static mut LaneOwner> {
    let lane = CURRENT.try_with(Cell::get).ok()??.get();
    lane.armed(armed).then_some(lane)
}

/// The lane of this thread that news of `armed` belong in: the timer's own if it is this thread's,
/// else any of the segment. `None` where the thread has none (any more).
///
/// The reference is for one use, before anything else of this module is called.
pub(crate) fn lane_for(armed: &Armed) -> Option<&'static mut LaneOwner> {
    let key = armed.shared.key();
    match current(key) {
        Some(lane) if lane.index == armed.subject.lane() => Some(lane),
        _ => find(key, armed.subject.lane()).map(OwnedLane::get),
    }
}

fn find(key: u64, index: u32) -> Option<OwnedLane> {
    LANES.try_with(|lanes| lanes.try_borrow().ok()?.find(key, Some(index))).ok().flatten()
}

/// As [`lane_for`], claiming a lane for a thread that has none, if one can be had.
#[cold]
pub(crate) fn any_lane_for(armed: &Armed, options: &LaneOptions) -> Option<&'static mut LaneOwner> {
    let is_ending = LANES.try_with(|_| ()).is_err();
    if !is_ending && find(armed.shared.key(), armed.subject.lane()).is_none() {
        // A thread without a lane has nowhere to tell it; the timer word is the truth all the same.
        let _ = attach(armed.shared, options);
    }
    lane_for(armed)
}

/// The armed timers of every lane this thread has of the segment.
pub(crate) fn armed_timers(key: u64) -> Vec<(Armed, TimerWord)> {
    let of_lanes = |lanes: &RefCell<ThreadLanes>| {
        let lanes = lanes.borrow();
        let of_segment = lanes.lanes.iter().map(|lane| lane.get()).filter(|lane| lane.is_of(key));
        of_segment.flat_map(|lane| lane.armed_timers().collect::<Vec<_>>()).collect()
    };
    LANES.try_with(of_lanes).unwrap_or_default()
}

/// How many names a thread remembers: a flood of them is looked up in the segment.
const KNOWN_NAMES: usize = 4096;

/// The scope this thread knows as `name` in the segment `key`.
pub(crate) fn known_scope(key: u64, name: &str) -> Option<ScopeId> {
    NAMES.try_with(|names| names.borrow().get(&key)?.get(name).copied()).ok().flatten()
}

/// Remembers a scope's name. (A thread that is ending remembers nothing.)
pub(crate) fn know_scope(key: u64, name: &str, scope: ScopeId) {
    let _ = NAMES.try_with(|names| {
        let mut names = names.borrow_mut();
        let known = names.entry(key).or_default();
        if known.len() < KNOWN_NAMES {
            known.insert(name.to_owned(), scope);
        }
    });
}
