//! Threads that are waited for at the end, a while: what holds one for ever holds nobody else.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often it is looked whether a thread has ended.
const LOOK: Duration = Duration::from_millis(1);

/// Whether a thread ends within this time. One that does not goes on, and ends with the process.
pub fn ends_within<T>(thread: &JoinHandle<T>, most: Duration) -> bool {
    ends_within_time(|| thread.is_finished(), most)
}

/// Whether something ends within this time.
pub fn ends_within_time(has_ended: impl Fn() -> bool, most: Duration) -> bool {
    // A limit beyond what the clock can say is none.
    let until = Instant::now().checked_add(most);
    while !has_ended() {
        if until.is_some_and(|until| Instant::now() >= until) {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}
