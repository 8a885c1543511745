//! The clerk: the thread that asks the kernel who owns a lane, and hears when a process dies.
//!
//! Lock queries and `/proc` are slow, so none of it is in the tick. One lane is admitted at a time.
//! What may wait for a hung process's memory is the [`inspector`](super::inspector)'s.

mod admission;
mod inbox;
mod roster;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, atomic::Ordering};

use hangwatch::sys::Pid;
use hangwatch::sys::freezer::{Freezers, Frozen};
use hangwatch::sys::lock::{Holder, holder};
use hangwatch::sys::process::{State, image, standing};
use hangwatch::sys::{clock, crash};
use hangwatch::{Segment, lane_lock_byte};
use hangwatch_core::expiry::{Admission, WorkerId};
use hangwatch_core::reap::Hold;
use hangwatch_core::time::Nanos;
use rustix::event::{Timespec, epoll};

use self::inbox::Inbox;
use self::roster::Roster;
use super::control::Control;
use super::facts::Admitted;
use super::inspector::Inspection;
use super::journal::{Journal, Note};
use super::messages::{Answer, Answers, Question};
use super::options::{Holds, Treatment};
use super::seating::Seating;
use super::tracers::Tracers;
use super::vigil::FileVigil;
use super::wake_up::WakeUp;

/// How often lanes are looked at again, ns.
const ROUND_NS: u64 = 500_000_000;
/// How many lanes a round looks at: 16 lock queries a second, 2 us each. It only frees lanes sooner;
/// before a signal, the lock is asked about anyway.
const LANES_A_ROUND: usize = 8;
/// Rounds between two looks at the segment's file.
const ROUNDS_A_VIGIL: u32 = 2;
/// The epoll data of the wake-up descriptor; workers count from 1.
const WAKE_UP: u64 = 0;

/// How the tick asks the clerk.
pub(super) struct Desk {
    // Dropped in this order: woken, the clerk finds that there is nobody to ask any more.
    questions: SyncSender<Question>,
    wake_up: WakeUp,
}

impl Desk {
    /// Asks; false where there is no room, and the question must be asked again.
    pub(super) fn ask(&self, question: Question) -> bool {
        self.questions.try_send(question).is_ok() && self.wake_up.wake()
    }
}

/// The clerk's own things.
pub(super) struct Clerk {
    pub(super) segment: Segment,
    pub(super) control: Arc<Control>,
    pub(super) journal: Journal,
    pub(super) answers: Answers,
    inspections: SyncSender<Inspection>,
    inbox: Inbox,
    /// Readable when the desk asked, or is gone.
    called: Arc<OwnedFd>,
    epoll: OwnedFd,
    roster: Roster,
    /// By whom a worker may be traced without being held up.
    tracers: Tracers,
    freezers: Freezers,
    vigil: FileVigil,
    /// Where the next round goes on.
    next_lane: u32,
    said_no_descriptors: bool,
}

/// What a clerk is made of.
pub(super) struct ClerkParts {
    pub(super) segment: Segment,
    pub(super) control: Arc<Control>,
    pub(super) journal: Journal,
    pub(super) answers: Answers,
    pub(super) inspections: SyncSender<Inspection>,
    pub(super) seating: Seating,
    pub(super) tracers: Tracers,
}

impl Clerk {
    /// A clerk, and the desk to ask it at.
    pub(super) fn new(parts: ClerkParts) -> io::Result<(Clerk, Desk)> {
        let ClerkParts { segment, control, journal, answers, inspections, .. } = parts;
        let lanes = segment.geometry().lanes as usize;
        let room = lanes * 2 + 64;
        let (sender, questions) = std::sync::mpsc::sync_channel(room);
        let (wake_up, called) = WakeUp::new()?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &called, epoll::EventData::new_u64(WAKE_UP), epoll::EventFlags::IN)?;
        let desk = Desk { questions: sender, wake_up };
        let clerk = Clerk {
            vigil: FileVigil::new(segment),
            segment,
            control,
            journal,
            answers,
            inspections,
            inbox: Inbox::new(questions, room),
            called,
            epoll,
            roster: Roster::new(parts.seating),
            tracers: parts.tracers,
            freezers: Freezers::default(),
            next_lane: 0,
            said_no_descriptors: false,
        };
        Ok((clerk, desk))
    }

    /// Works until nobody asks any more.
    pub(super) fn run(mut self) {
        let mut rounds = 0u32;
        let mut round_at = Nanos(clock::monotonic_ns()).plus(ROUND_NS);
        loop {
            // With questions left it only looks up: deaths are heard between any two answers.
            self.wait(if self.inbox.is_empty() { round_at } else { Nanos(0) });
            if self.inbox.collect().is_err() {
                return;
            }
            if let Some(question) = self.inbox.next() {
                self.answer(question);
            }
            if clock::monotonic_ns() >= round_at.0 {
                round_at = Nanos(clock::monotonic_ns()).plus(ROUND_NS);
                self.look_round();
                if rounds.is_multiple_of(ROUNDS_A_VIGIL) {
                    self.keep_vigil();
                }
                rounds = rounds.wrapping_add(1);
            }
        }
    }

    /// Waits for a question, a death or the next round.
    fn wait(&mut self, until: Nanos) {
        let left_ns = until.since(Nanos(clock::monotonic_ns()));
        let timeout = Timespec {
            tv_sec: (left_ns / 1_000_000_000).cast_signed(),
            tv_nsec: (left_ns % 1_000_000_000).cast_signed(),
        };
        let mut buffer = [MaybeUninit::<epoll::Event>::uninit(); 64];
        let dead: Vec<u64> = match epoll::wait(&self.epoll, &mut buffer, Some(&timeout)) {
            Ok((events, _)) => events.iter().map(|event| event.data.u64()).collect(),
            // Interrupted; any other refusal would come again at once.
            Err(rustix::io::Errno::INTR) => return,
            Err(_) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
                return;
            }
        };
        for which in dead {
            if which == WAKE_UP {
                let _ = rustix::io::read(&self.called, &mut [0u8; 8]);
            } else {
                self.died(WorkerId(which));
            }
        }
    }

    fn died(&mut self, id: WorkerId) {
        if let Some(worker) = self.roster.remove(id) {
            let _ = epoll::delete(&self.epoll, worker.process.pidfd.as_fd());
            self.control.workers.store(self.roster.len(), Ordering::Relaxed);
            self.answers.tell(Answer::Died { worker: id });
        }
    }

    /// Takes in a process that was attested: the one known already, or a new one.
    fn enrol(&mut self, process: hangwatch::sys::identity::Process) -> Option<Arc<Admitted>> {
        let image = image(process.pid).ok().flatten();
        if let Some(known) = self.roster.find(process.identity) {
            // Without an image it is about to die, which its pidfd will tell.
            if known.image.is_none() || image.is_none() || known.image == image {
                return Some(known);
            }
            // It has exec'd since, and attached anew.
            self.forget_execd(known.id);
        }
        let users = standing(process.pid).ok().flatten().map(|seen| seen.users);
        let worker = self.roster.add(process, image, users);
        let data = epoll::EventData::new_u64(worker.id.0);
        let pidfd = worker.process.pidfd.as_fd();
        if epoll::add(&self.epoll, pidfd, data, epoll::EventFlags::IN).is_err() {
            self.roster.remove(worker.id);
            return None; // not to be heard dying: asked again
        }
        self.control.workers.store(self.roster.len(), Ordering::Relaxed);
        let _ = self.inspections.try_send(Inspection::Describe(Arc::clone(&worker)));
        Some(worker)
    }

    fn forget_execd(&mut self, id: WorkerId) {
        if let Some(worker) = self.roster.remove(id) {
            let _ = epoll::delete(&self.epoll, worker.process.pidfd.as_fd());
        }
        self.control.workers.store(self.roster.len(), Ordering::Relaxed);
        self.answers.tell(Answer::Execd { worker: id });
    }

    fn answer(&mut self, question: Question) {
        crash::point("clerk");
        match question {
            Question::Admit { lane, owner } => self.admit(lane, owner),
            Question::Standing { worker } => {
                let Some(admitted) = self.roster.get(worker) else { return };
                if has_execd(&admitted) {
                    return self.forget_execd(worker);
                }
                let hold = self.hold_of(&admitted);
                let at = Nanos(clock::monotonic_ns());
                self.answers.tell(Answer::Standing { worker, at, hold });
            }
            Question::Unlocked { lane, owner, worker } => {
                if let Some(worker) = self.roster.get(worker) {
                    let _ = self.inspections.try_send(Inspection::Worker { lane, owner, worker });
                }
            }
        }
    }

    /// What holds a worker up that is not its own doing, as far as that is not to be reaped; and
    /// whether it is another user's by now, which a watchdog that may signal anybody must ask itself.
    /// What cannot be seen does not hold.
    fn hold_of(&mut self, worker: &Admitted) -> Option<Hold> {
        let pid = worker.process.pid;
        let Holds { stopped, traced, frozen } = self.control.holds.get();
        if let Some(seen) = standing(pid).ok().flatten() {
            if worker.users.is_some_and(|users| !users.may_signal(seen.users)) {
                return Some(Hold::OtherUser);
            }
            let is_debugger = |tracer: Pid| !self.tracers.are_helpers(tracer);
            if traced == Treatment::Report && seen.tracer.is_some_and(is_debugger) {
                return Some(Hold::Traced);
            }
            if stopped == Treatment::Report && seen.state == State::Stopped {
                return Some(Hold::Stopped);
            }
        }
        if frozen == Treatment::Report
            && self.freezers.frozen(pid).is_ok_and(|is| is == Frozen::Yes)
        {
            return Some(Hold::Frozen);
        }
        None
    }

    /// Looks at some admitted lanes: one whose lock is free belongs to a worker that has exec'd, or
    /// closed its descriptors.
    fn look_round(&mut self) {
        let used = self.segment.words().lanes_used();
        for _ in 0..LANES_A_ROUND.min(used as usize) {
            let lane = self.next_lane % used;
            self.next_lane = lane + 1;
            let Some((owner, id)) = self.roster.owner_of(lane) else { continue };
            if self.segment.words().lane(lane).owner() != owner {
                self.roster.vacate(lane);
                continue;
            }
            let Some(worker) = self.roster.get(id) else { continue };
            let held = holder(self.segment.file(), lane_lock_byte(lane));
            if !worker.is_self() && matches!(held, Ok(Holder::Free)) {
                let _ = self.inspections.try_send(Inspection::Worker { lane, owner, worker });
            }
        }
    }

    fn keep_vigil(&mut self) {
        let trusted = clock::counter_is_system_clock_now();
        self.control.counter_is_clock.store(trusted, Ordering::Relaxed);
        for finding in self.vigil.look() {
            self.journal.note(Note::File(finding));
            if finding == super::vigil::Finding::Truncated {
                self.control.truncated.store(true, Ordering::Release);
                self.answers.attention.call();
            }
        }
    }

    fn tell_admission(
        &mut self,
        question: (u32, hangwatch_core::lane::OwnerWord),
        admission: Admission,
        worker: Option<Arc<Admitted>>,
        facts: Arc<super::facts::LaneFacts>,
    ) {
        let (lane, owner) = question;
        match &worker {
            Some(worker) => self.roster.seat(lane, owner, worker.id),
            None => self.roster.vacate(lane),
        }
        self.answers.tell(Answer::Admission { lane, owner, admission, worker, facts });
    }
}

/// Whether the worker runs another program than it was admitted with, though its lane's lock stands:
/// it let its descriptor pass through the exec.
fn has_execd(worker: &Admitted) -> bool {
    let now = image(worker.process.pid).ok().flatten();
    let is_other = worker.image.is_some_and(|admitted| now.is_some_and(|now| now != admitted));
    // Asked last: what was read before was read of it.
    is_other && !worker.process.pidfd.is_dead()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::TryRecvError;

    use rustix::event::{PollFd, PollFlags};

    use super::*;

    #[test]
    fn a_clerk_woken_by_the_desks_end_finds_nobody_to_ask() {
        for _ in 0..1000 {
            let (questions, asked) = std::sync::mpsc::sync_channel(1);
            let (wake_up, called) = WakeUp::new().unwrap();
            let desk = Desk { questions, wake_up };
            let tick = std::thread::spawn(move || drop(desk));
            let mut polled = [PollFd::new(&called, PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut polled, None).unwrap(), 1);
            assert_eq!(asked.try_recv().unwrap_err(), TryRecvError::Disconnected);
            tick.join().unwrap();
        }
    }
}
