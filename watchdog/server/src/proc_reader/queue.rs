//! The queue of inspections, and which processes are being inspected.
//!
//! A process is inspected by one thread at a time, and its next inspection goes to the end of the queue. So
//! a process that delays its inspection delays no other process's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use hangwatch_core::wire::time::Nanos;

use super::Inspection;

/// Maximum number of threads. Each process that blocks its inspection forever takes one.
const MOST_THREADS: usize = 32;
/// How long an inspection waits until another thread is started for it, ns.
const PATIENCE_NS: u64 = 100_000_000;

/// Identifies an inspection. The same one is queued only once, which bounds the queue by the number of lanes
/// and workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Owner(u32),
    Unlocked(u32),
    Describe(u64),
}

/// The queue. Threads wait for `wake_fd`.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake_fd: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Inspection>,
    keys: BTreeSet<Key>,
    /// The processes under inspection: since when, and the inspections that wait for the end.
    under_way: BTreeMap<i32, (Nanos, VecDeque<Inspection>)>,
    threads: usize,
    idle: usize,
    /// When a thread last took an inspection.
    taken_at: Nanos,
    is_closed: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an inspection unless the same one is queued.
    pub(super) fn add(&self, now: Nanos, inspection: Inspection) {
        let mut state = self.state();
        if state.keys.insert(inspection.key()) {
            if state.waiting.is_empty() {
                state.taken_at = now;
            }
            state.waiting.push_back(inspection);
            self.wake_fd.notify_one();
        }
    }

    /// Whether to start another thread: all are blocked, or there is none, and there are fewer than `most`. The
    /// thread is counted; the caller starts it, or calls [`failed_to_start`](Self::failed_to_start).
    pub(super) fn wants_thread(&self, now: Nanos, most: usize) -> bool {
        let mut state = self.state();
        let are_blocked = state.idle == 0
            && !state.waiting.is_empty()
            && now.since(state.taken_at) >= PATIENCE_NS;
        let wants = state.threads == 0 || (are_blocked && state.threads < most.min(MOST_THREADS));
        state.threads += usize::from(wants);
        wants
    }

    pub(super) fn failed_to_start(&self) {
        self.state().threads -= 1;
    }

    /// Whether an inspection waits for a thread.
    pub(super) fn has_waiting(&self) -> bool {
        !self.state().waiting.is_empty()
    }

    /// Returns the processes whose inspection has taken longer than this, ns.
    pub(super) fn slow_processes(&self, now: Nanos, longer_than_ns: u64) -> Vec<i32> {
        let state = self.state();
        let slow =
            state.under_way.iter().filter(|(_, (since, _))| now.since(*since) > longer_than_ns);
        slow.map(|(pid, _)| *pid).collect()
    }

    /// Waits for the next inspection; `None` after `close`.
    pub(super) fn next(&self, now: impl Fn() -> Nanos) -> Option<Inspection> {
        let mut state = self.state();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(inspection) = state.waiting.pop_front() {
                state.keys.remove(&inspection.key());
                state.taken_at = now();
                return Some(inspection);
            }
            state.idle += 1;
            state = self.wake_fd.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Starts the inspection of a process. If another thread inspects it, the inspection is kept until that one
    /// ends, and `None` is returned.
    pub(super) fn begin(&self, now: Nanos, pid: i32, inspection: Inspection) -> Option<Inspection> {
        let mut state = self.state();
        let Some((_, behind)) = state.under_way.get_mut(&pid) else {
            state.under_way.insert(pid, (now, VecDeque::new()));
            return Some(inspection);
        };
        let key = inspection.key();
        if !behind.iter().any(|other| other.key() == key) {
            behind.push_back(inspection);
        }
        None
    }

    /// Ends the inspection of a process and queues the inspections that waited for it.
    pub(super) fn end(&self, pid: i32) {
        let mut state = self.state();
        let Some((_, behind)) = state.under_way.remove(&pid) else { return };
        for inspection in behind {
            if state.keys.insert(inspection.key()) {
                state.waiting.push_back(inspection);
            }
        }
        self.wake_fd.notify_one();
    }

    /// Ends all inspections. Threads that are blocked are left behind.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.waiting.clear();
        self.wake_fd.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(lane: u32) -> Inspection {
        Inspection::Owner { lane }
    }

    fn lane_of(inspection: Option<Inspection>) -> u32 {
        match inspection {
            Some(Inspection::Owner { lane }) => lane,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn blocked_process_delays_no_other_inspection() {
        let (queue, at) = (Queue::default(), || Nanos(1));
        (0..41).for_each(|lane| queue.add(at(), owner(lane)));
        queue.add(at(), owner(40));
        // All lanes but the last belong to process 7, and its first inspection never ends.
        assert!(queue.begin(at(), 7, queue.next(at).unwrap()).is_some());
        for _ in 1..40 {
            assert!(queue.begin(at(), 7, queue.next(at).unwrap()).is_none());
        }
        assert_eq!(lane_of(queue.begin(at(), 8, queue.next(at).unwrap())), 40);
        assert!(!queue.has_waiting(), "the same inspection was queued once");
        queue.add(at(), owner(1));
        queue.end(7);
        let rest: Vec<u32> = (1..40).map(|_| lane_of(queue.next(at))).collect();
        assert_eq!(rest.len(), 39);
        assert!(!queue.has_waiting());
    }

    #[test]
    fn threads_are_added_up_to_a_limit_while_all_are_blocked() {
        let queue = Queue::default();
        assert!(queue.wants_thread(Nanos(0), 1), "the first");
        queue.add(Nanos(0), owner(0));
        assert!(!queue.wants_thread(Nanos(PATIENCE_NS - 1), usize::MAX));
        let more = (0..100).filter(|_| queue.wants_thread(Nanos(PATIENCE_NS), usize::MAX)).count();
        assert_eq!(more, MOST_THREADS - 1);
        assert_eq!(queue.slow_processes(Nanos(5), 1), [0; 0]);
        queue.begin(Nanos(0), 3, queue.next(|| Nanos(1)).unwrap());
        assert_eq!(queue.slow_processes(Nanos(5), 1), [3]);
    }

    #[test]
    fn closed_queue_returns_nothing() {
        let queue = Queue::default();
        queue.add(Nanos(0), owner(0));
        queue.close();
        assert!(queue.next(|| Nanos(1)).is_none());
    }
}
