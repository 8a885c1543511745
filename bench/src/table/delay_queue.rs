//! `tokio_util`'s `DelayQueue`, on a tokio clock that stands still until a pass
//! moves it.
//!
//! Its resolution is a millisecond, rounded up. The clock is shared by all
//! queues of a thread, so only one at a time is in use.

use std::{
    mem,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, advance},
};
use tokio_util::time::{DelayQueue, delay_queue::Key};

use super::{DeadlineIndex, IDLE, Resolution};

thread_local! {
    static RUNTIME: &'static Runtime = {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime: &'static Runtime = Box::leak(Box::new(runtime.expect("a runtime starts")));
        // Entered for good, so that no call pays for entering.
        mem::forget(runtime.enter());
        runtime
    };
}

/// tokio's queue of delays, with the key of every id.
pub struct Delay {
    queue: DelayQueue<u32>,
    keys: Vec<Option<Key>>,
    deadlines: Vec<u64>,
    start: Instant,
    /// The last `now`.
    now: u64,
    due: Vec<(u64, u32)>,
}

impl DeadlineIndex for Delay {
    const NAME: &'static str = "`DelayQueue`";
    const RESOLUTION: Resolution = Resolution::Millisecond;

    fn new(capacity: usize) -> Self {
        RUNTIME.with(|_| ());
        Self {
            queue: DelayQueue::with_capacity(capacity),
            keys: vec![None; capacity],
            deadlines: vec![IDLE; capacity],
            start: Instant::now(),
            now: 0,
            due: Vec::new(),
        }
    }

    fn set(&mut self, id: usize, deadline: u64) {
        let when = self.start + Duration::from_nanos(deadline.min(IDLE / 2));
        self.deadlines[id] = deadline;
        match &self.keys[id] {
            Some(key) if deadline == IDLE => {
                self.queue.remove(key);
                self.keys[id] = None;
            }
            Some(key) => self.queue.reset_at(key, when),
            None if deadline == IDLE => {}
            None => self.keys[id] = Some(self.queue.insert_at(id as u32, when)),
        }
    }

    fn next_deadline(&mut self) -> u64 {
        let Some(key) = self.queue.peek() else { return IDLE };
        let late = self.queue.deadline(&key).saturating_duration_since(self.start);
        late.as_nanos() as u64
    }

    fn pop_due(&mut self, now: u64, mut sink: impl FnMut(usize, u64)) {
        if now > self.now {
            let step = Duration::from_nanos(now - self.now);
            RUNTIME.with(|runtime| runtime.block_on(advance(step)));
            self.now = now;
        }
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(expired)) = self.queue.poll_expired(&mut context) {
            let id = expired.into_inner();
            self.keys[id as usize] = None;
            self.due.push((mem::replace(&mut self.deadlines[id as usize], IDLE), id));
        }
        self.due.sort_unstable();
        for (deadline, id) in self.due.drain(..) {
            sink(id as usize, deadline);
        }
    }
}
