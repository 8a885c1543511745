//! A thread's lanes: taken when first needed, found again on the hot path, left when it ends.

use std::cell::RefCell;
use std::collections::HashMap;

use hangwatch_core::lane::{TimerKind, TimerSignal};
use hangwatch_core::scope::ScopeId;

use crate::error::AcquireError;
use crate::lane::{Armed, LaneOptions, LaneOwner};
use crate::segment::Shared;

thread_local! {
    static LANES: RefCell<ThreadLanes> = const { RefCell::new(ThreadLanes { lanes: Vec::new(), last: 0 }) };
}

thread_local! {
    static NAMES: RefCell<HashMap<u64, HashMap<String, ScopeId>>> = RefCell::new(HashMap::new());
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

/// All lanes of a thread, of whatever segments; the one used last is looked at first.
struct ThreadLanes {
    lanes: Vec<LaneOwner>,
    last: usize,
}

impl Drop for ThreadLanes {
    fn drop(&mut self) {
        for lane in self.lanes.drain(..) {
            lane.leave();
        }
    }
}

impl ThreadLanes {
    /// Whether `lane` is of the segment `key`, in this very process.
    #[inline]
    fn is_of(lane: &LaneOwner, key: u64) -> bool {
        lane.shared.key() == key && !lane.shared.canary.forked()
    }

    /// A lane of the segment: the last one used, or any other of it.
    #[inline]
    fn find(&mut self, key: u64) -> Option<&mut LaneOwner> {
        let last = self.last;
        if self.lanes.get(last).is_some_and(|lane| Self::is_of(lane, key)) {
            return self.lanes.get_mut(last);
        }
        let place = self.lanes.iter().position(|lane| Self::is_of(lane, key))?;
        self.last = place;
        self.lanes.get_mut(place)
    }

    /// A lane of the segment with an idle timer; claims a further one where there is none.
    #[cold]
    fn find_idle(
        &mut self,
        shared: &'static Shared,
        options: &LaneOptions,
    ) -> Result<&mut LaneOwner, AcquireError> {
        self.forget_parents();
        let key = shared.key();
        let idle = self.lanes.iter_mut().position(|lane| Self::is_of(lane, key) && lane.has_idle());
        if let Some(place) = idle {
            self.last = place;
            return Ok(&mut self.lanes[place]);
        }
        let lanes = self.lanes.iter().filter(|lane| Self::is_of(lane, key)).count();
        let here = shared.here().map_err(crate::AttachError::from)?;
        let mut claimed = LaneOwner::claim(here, options).map_err(|source| match lanes {
            0 => AcquireError::Attach(source),
            _ => AcquireError::NoFreeTimer { lanes, source: Box::new(source) },
        })?;
        let has_idle = claimed.has_idle();
        self.lanes.push(claimed);
        if !has_idle {
            // Taken over from an ended thread, with every timer armed: kept, and one more is claimed.
            return self.find_idle(shared, options);
        }
        self.last = self.lanes.len() - 1;
        Ok(&mut self.lanes[self.last])
    }

    /// In a forked child: the lanes are the parent's, and their memory is not mapped here.
    fn forget_parents(&mut self) {
        if self.lanes.iter().any(|lane| lane.shared.canary.forked()) {
            self.lanes.retain(|lane| !lane.shared.canary.forked());
            self.last = 0;
        }
    }
}

/// Makes sure that this thread has a lane of the segment.
pub(crate) fn attach(shared: &'static Shared, options: &LaneOptions) -> Result<(), AcquireError> {
    LANES.with_borrow_mut(|lanes| {
        if lanes.find(shared.key()).is_none() {
            lanes.find_idle(shared, options)?;
        }
        Ok(())
    })
}

/// Arms a timer in one of this thread's lanes.
#[inline]
pub(crate) fn arm(
    shared: &'static Shared,
    options: &LaneOptions,
    scope: ScopeId,
    kind: TimerKind,
    signal: TimerSignal,
    allowance_ns: u64,
) -> Result<Armed, AcquireError> {
    LANES.with_borrow_mut(|lanes| {
        if let Some(lane) = lanes.find(shared.key())
            && let Some(armed) = lane.arm(scope, kind, signal, allowance_ns)
        {
            return Ok(armed);
        }
        let lane = lanes.find_idle(shared, options)?;
        lane.arm(scope, kind, signal, allowance_ns).ok_or(AcquireError::NotArmed)
    })
}

/// Runs `f` with the lane of this thread that news of `armed` belong in: the timer's own if it is
/// this thread's, else any of the segment. `None` where the thread has none (any more).
#[inline]
pub(crate) fn with_lane_for<T>(armed: &Armed, f: impl FnOnce(&mut LaneOwner) -> T) -> Option<T> {
    LANES
        .try_with(|lanes| {
            let mut lanes = lanes.try_borrow_mut().ok()?;
            let key = armed.shared.key();
            let lane = lanes.find(key)?;
            if lane.index == armed.lane {
                return Some(f(lane));
            }
            let own = lanes
                .lanes
                .iter()
                .position(|lane| ThreadLanes::is_of(lane, key) && lane.index == armed.lane);
            let place = own.unwrap_or(lanes.last);
            lanes.lanes.get_mut(place).map(f)
        })
        .ok()
        .flatten()
}

/// As [`with_lane_for`], claiming a lane for a thread that has none, if one can be had.
pub(crate) fn with_a_lane_for<T>(
    armed: &Armed,
    options: &LaneOptions,
    f: impl FnOnce(&mut LaneOwner) -> T,
) -> Option<T> {
    let has_lane = LANES
        .try_with(|lanes| {
            lanes.try_borrow_mut().is_ok_and(|mut lanes| lanes.find(armed.shared.key()).is_some())
        })
        .unwrap_or(true);
    if !has_lane {
        // A thread without a lane has nowhere to tell it; the timer word is the truth all the same.
        let _ = attach(armed.shared, options);
    }
    with_lane_for(armed, f)
}
