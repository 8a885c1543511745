//! Resumes workers that an earlier watchdog had stopped when it died.
//!
//! A watchdog stops a worker and its descendants before it kills them, and notes this in the lane first. Its
//! successor continues the kill if it can. If it does not signal workers, or does not kill descendants, it
//! resumes all stopped processes before it does anything else to the worker. A thread does this, because it
//! reads `/proc`. The note stays in the lane until it is done, for a further successor.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hangwatch::Segment;
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::time::Nanos;
use hangwatch_process::descendants::{Descendants, Reach, Rights};

use super::event_log::{EventLog, Note};
use super::threads::Spawner;
use super::tick::Tick;
use super::worker::Admitted;

/// How soon another attempt follows if `/proc` cannot be read.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts threads that resume stopped workers.
pub(super) struct Resumer {
    pub(super) segment: Segment,
    pub(super) event_log: EventLog,
    pub(super) spawner: Spawner,
    /// Workers for which no thread could be started yet.
    pub(super) waiting: Vec<Stopped>,
}

/// A stopped worker, and the lane in which this is noted.
#[derive(Clone)]
pub(super) struct Stopped {
    worker: Arc<Admitted>,
    lane: u32,
    reach: Reach,
}

impl Tick {
    /// Continues the kill that an earlier watchdog has begun on the owner of a lane, or resumes the owner.
    pub(super) fn take_over_stopped(&mut self, now: Nanos, lane: u32, id: WorkerId) {
        let noted = self.segment.words().lane(lane).noted_stop();
        let reaper = &mut self.dog.reaper;
        // If a reap is running, the note is from this watchdog.
        if noted == 0 || reaper.state(id).is_some() {
            return;
        }
        if reaper.control_mut().removes_descendants() && reaper.take_over_stopped(now, id, lane) {
            return;
        }
        if let Some(worker) = reaper.control_mut().admitted(id) {
            self.resumer.resume(Stopped { worker, lane, reach: Reach::of_code(noted) });
        }
    }
}

impl Resumer {
    fn resume(&mut self, stopped: Stopped) {
        let (segment, event_log, taken) = (self.segment, self.event_log.clone(), stopped.clone());
        // Never joined: it may hang in `/proc`.
        if self
            .spawner
            .spawn("hangwatch-resume", move || taken.resume(segment, &event_log))
            .is_err()
        {
            self.waiting.push(stopped);
        }
    }

    /// Starts the threads that could not be started before.
    pub(super) fn try_again(&mut self) {
        for stopped in std::mem::take(&mut self.waiting) {
            self.resume(stopped);
        }
    }
}

impl Stopped {
    /// Resumes the worker and its descendants, and retries until it succeeds or the worker is dead.
    fn resume(self, segment: Segment, event_log: &EventLog) {
        let Stopped { worker, lane, reach } = self;
        let (process, pid) = (&worker.process, worker.pid());
        let rights = Rights::Of(Some(worker.origin.users));
        let owner = segment.words().lane(lane).owner();
        let mut is_said = false;
        while !process.pidfd.is_dead() {
            let resumed = Descendants::new(process.pid, &process.pidfd, rights, reach)
                .and_then(|mut descendants| descendants.resume(&process.pidfd));
            match resumed {
                Ok(processes) => {
                    let words = segment.words().lane(lane);
                    if words.owner() == owner {
                        words.note_stop(0);
                    }
                    return event_log.note(Note::Resumed { worker, processes });
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_said, true) {
                        event_log.note(Note::DescendantsUnlisted { pid, error: error.to_string() });
                    }
                    thread::sleep(PAUSE);
                }
            }
        }
    }
}
