//! Reads that may never end (of the `/proc` of a hung process), each waited for a little while.
//!
//! A reading that takes longer goes on in its thread, and is asked for its answer the next time. So many
//! threads may wait at a time; beyond that nothing is read.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel, sync_channel};
use std::thread;
use std::time::Duration;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(250);
/// Readings that may be under way at a time, each in a thread of its own.
const MOST_UNDER_WAY: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// Reads things of type `T`, each by its key.
#[derive(Debug)]
pub struct Bounded<K, T> {
    /// The thread that has answered everything so far.
    thread: Option<Sender<Job>>,
    /// Readings that were not waited for.
    under_way: HashMap<K, Receiver<T>>,
    /// What they have read since, until it is asked for; no more than readings may be under way.
    late: HashMap<K, T>,
}

impl<K, T> Default for Bounded<K, T> {
    fn default() -> Self {
        Bounded { thread: None, under_way: HashMap::new(), late: HashMap::new() }
    }
}

impl<K: Eq + Hash, T: Send + 'static> Bounded<K, T> {
    /// What `read` returns, or what an earlier reading of the same key has returned since; `None` where that
    /// is not known yet, or no thread can be had.
    pub fn read(&mut self, key: K, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        self.take_late_answers();
        if let Some(late) = self.late.remove(&key) {
            return Some(late);
        }
        if self.under_way.contains_key(&key) || self.under_way.len() >= MOST_UNDER_WAY {
            return None;
        }
        let (tell, answer) = sync_channel(1);
        let job = Box::new(move || {
            let _ = tell.send(read()); // nobody may want it any more
        });
        self.thread()?.send(job).ok()?;
        match answer.recv_timeout(PATIENCE) {
            Ok(read) => Some(read),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                self.thread = None; // it may never come back: the next reading gets another
                self.under_way.insert(key, answer);
                None
            }
        }
    }

    fn take_late_answers(&mut self) {
        for (key, answer) in std::mem::take(&mut self.under_way) {
            match answer.try_recv() {
                Err(TryRecvError::Empty) => drop(self.under_way.insert(key, answer)),
                Ok(read) if self.late.len() < MOST_UNDER_WAY => drop(self.late.insert(key, read)),
                Ok(_) | Err(TryRecvError::Disconnected) => {}
            }
        }
    }

    fn thread(&mut self) -> Option<&Sender<Job>> {
        if self.thread.is_none() {
            let (sender, jobs) = channel::<Job>();
            let body = move || jobs.iter().for_each(|job| job());
            // Never joined: it may be stuck.
            thread::Builder::new().name("hangwatch-read".to_owned()).spawn(body).ok()?;
            self.thread = Some(sender);
        }
        self.thread.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_reading_that_never_ends_holds_nobody_up() {
        let mut bounded = Bounded::default();
        assert_eq!(bounded.read(0, || "quick"), Some("quick"));
        let (go_on, wait) = channel::<()>();
        let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
        let hang = || {
            let wait = std::sync::Arc::clone(&wait);
            move || {
                let _ = wait.lock().unwrap().recv();
                "late"
            }
        };
        // More than may wait: those beyond that are not read at all.
        for key in 1..=20 {
            assert_eq!(bounded.read(key, hang()), None);
        }
        assert_eq!(bounded.under_way.len(), MOST_UNDER_WAY);
        assert_eq!(bounded.read(0, || "quick"), None);
        drop(go_on);
        let until = Instant::now() + Duration::from_mins(1);
        while bounded.read(1, || "anew") != Some("late") {
            assert!(Instant::now() < until, "it never comes");
            thread::sleep(Duration::from_millis(1));
        }
        while bounded.read(0, || "quick") != Some("quick") {
            assert!(Instant::now() < until, "there is no room again");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
