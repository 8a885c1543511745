//! What a watchdog that died has left stopped: noted in the segment before it is, found by its successor.
//!
//! A watchdog stops a worker and its descendants to kill them. Its successor goes on where it may and can;
//! where it signals nobody, or removes no descendants, all that are stopped run again before anything
//! else is done to the worker. That is done by a thread of its own, since it reads `/proc`; the note stays in
//! the lane until it is done, so that a further successor finds it.

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

/// How soon it is tried again where `/proc` refuses.
const PAUSE: Duration = Duration::from_millis(20);

/// Starts threads that let stopped workers run again.
pub(super) struct Resumer {
    pub(super) segment: Segment,
    pub(super) event_log: EventLog,
    pub(super) spawner: Spawner,
    /// Those for which there was no thread.
    pub(super) waiting: Vec<Stopped>,
}

/// A worker that was stopped, and the lane in which that is noted.
#[derive(Clone)]
pub(super) struct Stopped {
    worker: Arc<Admitted>,
    lane: u32,
    reach: Reach,
}

impl Tick {
    /// Goes on with what a watchdog before this one has begun with the owner of a lane.
    pub(super) fn take_over_stopped(&mut self, now: Nanos, lane: u32, id: WorkerId) {
        let noted = self.segment.words().lane(lane).noted_stop();
        let reaper = &mut self.dog.reaper;
        // With a reap under way, the note is of this watchdog.
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
        // Never joined: it may be stuck in a `/proc` that hangs.
        if self
            .spawner
            .spawn("hangwatch-resume", move || taken.resume(segment, &event_log))
            .is_err()
        {
            self.waiting.push(stopped);
        }
    }

    /// Tries again to start the threads that could not be started.
    pub(super) fn try_again(&mut self) {
        for stopped in std::mem::take(&mut self.waiting) {
            self.resume(stopped);
        }
    }
}

impl Stopped {
    /// Has it and its descendants run again, however often that has to be tried.
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
