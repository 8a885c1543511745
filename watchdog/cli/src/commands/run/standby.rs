//! The standby of `run -- CMD`: a small second process that enforces deadlines if `run` is killed.
//!
//! It is forked before `run` starts the command or a thread, and has its own session: Ctrl-C and signals to
//! `run`'s process group do not reach it. It sleeps until `run` is dead (a pidfd says so). If `run` has sent
//! `OVER` before, it ends. Otherwise it takes over the segment with the same settings, watches until the
//! command and its last worker have ended, and removes the segment. Before the command starts it takes a
//! lock of the segment, so that no other process removes the segment as left over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hangwatch::sys::{file, lock};
use hangwatch::{HEIR_LOCK_BYTE, Segment};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::super::segments::Origin;
use super::super::{Failure, OneLine, complain};
use super::left::{Left, Workers};
use super::reload::Reload;
use super::{LOOK, Outputs};
use crate::cli::Run;
use crate::exit::Exit;
use hangwatch_process::children;
use hangwatch_process::fork::{self, Forked};
use hangwatch_process::relay::{PASSED_ON, Relay};
use hangwatch_process::signals;
use hangwatch_process::start::Announcement;
use hangwatch_server::{State, exit_now};

/// The longest message between `run` and the standby, bytes.
const MESSAGE_BYTES: usize = 512;
/// How long the standby may take to end after `OVER`.
const ENDS: Duration = Duration::from_secs(2);

const READY: &[u8] = b"ready";
const OVER: &str = "over";
const COMMAND: &str = "command ";
const MADE: &str = "made ";
const FOUND: &str = "found ";

/// `run`'s side of the standby. Dropping it ends the standby.
pub(super) struct StandbyProcess {
    socket: Arc<OwnedFd>,
    pid: Pid,
    pidfd: OwnedFd,
    is_there: bool,
}

impl StandbyProcess {
    /// Forks the standby. Only the parent returns.
    ///
    /// # Errors
    /// The standby cannot be started.
    pub(super) fn start(options: &Run) -> io::Result<StandbyProcess> {
        let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        // SEQPACKET: end of file means that no process can send a message any more.
        let (socket, heard) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        let run = process::id();
        let starting = children::starting();
        match fork::fork()? {
            Forked::Child => {
                drop(socket);
                let standby =
                    Waiting { heard, is_over: false, run: own, segment: None, command: None };
                let exit = standby.live(options, run).unwrap_or_else(|error| {
                    complain(&OneLine(&*error));
                    Exit::Failed
                });
                // The child must not return to the caller of `run`.
                exit_now(exit.code());
            }
            Forked::Parent(pid) => {
                starting.has_begun(pid.as_raw_pid().unsigned_abs());
                // The child has not been waited for, so the pid is still its own.
                let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
                Ok(StandbyProcess { socket: Arc::new(socket), pid, pidfd, is_there: true })
            }
        }
    }

    /// Sends the segment's name and waits until the standby has its lock; logs if it does not get it.
    pub(super) fn serves(&self, segment: Segment, origin: Origin) {
        let kind = if origin == Origin::Made { MADE } else { FOUND };
        self.tell(&format!("{kind}{}", segment.name()));
        wait(&[self.socket.as_fd(), self.pidfd.as_fd()], Some(ENDS));
        let mut answer = [0; READY.len()];
        let heard = recv(&self.socket, &mut answer[..], RecvFlags::empty());
        if !heard.is_ok_and(|(length, _)| answer[..length] == *READY) {
            tracing::warn!(
                segment = segment.name(),
                event = "no_standby",
                "the standby is not ready: if this process is killed, its workers may not be watched any more"
            );
        }
    }

    /// How the command's process sends its pid before it executes the command.
    pub(super) fn announcement(&self) -> Announcement {
        Announcement { socket: Arc::clone(&self.socket), say: say_command }
    }

    fn tell(&self, message: &str) {
        // The socket has room for all messages; sending fails only if the standby is dead.
        let _ = send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL);
    }

    /// Whether the standby has ended too early; true only once.
    pub(super) fn has_gone(&mut self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let has_gone =
            self.is_there && waitid(WaitId::Pid(self.pid), options).is_ok_and(|it| it.is_some());
        if has_gone {
            children::ended(self.pid.as_raw_pid().unsigned_abs());
            self.is_there = false;
        }
        has_gone
    }

    /// Lets the standby take over when this process has ended.
    pub(super) fn leave(mut self) {
        self.is_there = false;
    }
}

impl Drop for StandbyProcess {
    fn drop(&mut self) {
        if !self.is_there {
            return;
        }
        self.tell(OVER);
        let until = Instant::now() + ENDS;
        wait(&[self.pidfd.as_fd()], Some(ENDS));
        while !self.has_gone() && self.is_there {
            if Instant::now() > until {
                // The child has not been waited for, so the pidfd is still its own.
                let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
                wait(&[self.pidfd.as_fd()], Some(ENDS));
                let _ = self.has_gone();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends the own pid to the standby.
///
/// The command's process calls it before it executes the command, so that the standby always knows a running
/// command. Runs between fork and exec, so it must not allocate.
fn say_command(socket: &OwnedFd) {
    let mut message = [0u8; 24];
    let prefix = COMMAND.as_bytes();
    message[..prefix.len()].copy_from_slice(prefix);
    let mut number = rustix::process::getpid().as_raw_pid().unsigned_abs();
    // Digits from the last to the first, without allocation.
    let mut digits = [0u8; 10];
    let mut count = 0;
    while number > 0 {
        digits[count] = b'0' + u8::try_from(number % 10).unwrap_or(0);
        (number, count) = (number / 10, count + 1);
    }
    for (place, digit) in digits[..count].iter().rev().enumerate() {
        message[prefix.len() + place] = *digit;
    }
    // Fails only if there is no standby.
    let _ = send(socket, &message[..prefix.len() + count], SendFlags::NOSIGNAL);
}

/// Whether a SIGHUP came before the standby took over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AskedBefore {
    Yes,
    No,
}

/// The standby while `run` lives.
struct Waiting {
    heard: OwnedFd,
    /// End of file: neither `run` nor a process about to become the command has the other end.
    is_over: bool,
    run: OwnedFd,
    segment: Option<(Segment, Origin)>,
    command: Option<OwnedFd>,
}

impl Waiting {
    fn live(mut self, options: &Run, run: u32) -> Result<Exit, Failure> {
        fork::detach(&[self.heard.as_fd(), self.run.as_fd()])?;
        let _ = rustix::thread::set_name(c"hangwatch-stand");
        // Signals before the takeover are for `run`, which gets them, too.
        signals::accept(Signal::HUP);
        let relay = Relay::install_only(&PASSED_ON)?;
        loop {
            let heard = (!self.is_over).then(|| self.heard.as_fd());
            let watched: Vec<_> = heard.into_iter().chain([self.run.as_fd()]).collect();
            wait(&watched, None);
            // Checked first, so that all messages that `run` sent have arrived.
            let is_dead = is_readable(self.run.as_fd());
            while let Some(message) = self.hear() {
                if message == OVER {
                    return Ok(Exit::Ok);
                }
                self.take(&message);
            }
            if is_dead {
                break;
            }
        }
        let mut is_reload_asked = false;
        while let Some(caught) = relay.next()? {
            is_reload_asked |= caught.signal == Signal::HUP;
        }
        match self.segment {
            Some((segment, origin)) => {
                let reload = if is_reload_asked { AskedBefore::Yes } else { AskedBefore::No };
                self.take_over(options, run, (segment, origin), &relay, reload)
            }
            None => Ok(Exit::Ok), // it died before there was a segment
        }
    }

    fn hear(&mut self) -> Option<String> {
        let mut message = [0; MESSAGE_BYTES];
        let (length, _) = recv(&self.heard, &mut message[..], RecvFlags::empty()).ok()?;
        self.is_over |= length == 0;
        (length > 0).then(|| String::from_utf8_lossy(&message[..length]).into_owned())
    }

    fn take(&mut self, message: &str) {
        if let Some(pid) = message.strip_prefix(COMMAND) {
            let pid = pid.parse().ok().and_then(Pid::from_raw);
            // `None` if the command has already ended.
            self.command = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            return;
        }
        let (name, origin) = match (message.strip_prefix(MADE), message.strip_prefix(FOUND)) {
            (Some(name), _) => (name, Origin::Made),
            (_, Some(name)) => (name, Origin::Found),
            _ => return,
        };
        match Segment::open(name) {
            Ok(segment) => {
                // If another standby holds the lock, that protects the segment as well.
                let _ = lock::try_lock(segment.file(), HEIR_LOCK_BYTE);
                self.segment = Some((segment, origin));
                let _ = send(&self.heard, READY, SendFlags::NOSIGNAL); // fails only if `run` is dead
            }
            Err(error) => {
                complain(&format_args!("the standby of `run` cannot open the segment: {error}"));
            }
        }
    }

    /// Watches in place of `run`, until the command and the last worker have ended.
    fn take_over(
        mut self,
        options: &Run,
        run: u32,
        (segment, origin): (Segment, Origin),
        relay: &Relay,
        asked_before: AskedBefore,
    ) -> Result<Exit, Failure> {
        let name = segment.name();
        let workers = Workers::of(segment).0.len();
        tracing::warn!(
            segment = name,
            event = "took_over",
            run,
            workers,
            "`hangwatch run` was killed or failed: its standby has taken over, until the command and its \
             last worker have ended"
        );
        let outputs = Outputs::bind(options).unwrap_or_else(|error| {
            tracing::error!(segment = name, %error, "the standby cannot serve HTTP");
            Outputs(None)
        });
        let (server, running) = outputs.start(segment, options, hangwatch_server::Standby::Wait)?;
        let notifier = running.notifier.as_ref();
        let mut left = Left::new(segment);
        let (mut options, mut deadlines) = (options.clone(), None);
        let mut reload = Reload::default();
        if asked_before == AskedBefore::Yes {
            reload.ask(&options, &server, notifier);
        }
        loop {
            if matches!(server.health().state, State::Ended(_)) {
                tracing::error!(
                    segment = name,
                    "the standby has failed: the workers are not watched any more"
                );
                return Ok(Exit::Failed);
            }
            let mut told_to_end = false;
            while let Some(caught) = relay.next()? {
                told_to_end |= [Signal::TERM, Signal::INT, Signal::QUIT].contains(&caught.signal);
                if caught.signal == Signal::HUP {
                    reload.ask(&options, &server, notifier);
                }
            }
            reload.look(&mut options, &mut deadlines, &server, notifier);
            // `run` may have died while it started the command.
            while let Some(message) = self.hear() {
                self.take(&message);
            }
            let command = self.command.as_ref().filter(|command| !is_readable(command.as_fd()));
            if told_to_end || (self.is_over && command.is_none() && left.is_over()) {
                break;
            }
            let heard = (!self.is_over).then(|| self.heard.as_fd());
            let watched: Vec<_> = [Some(relay.as_fd()), command.map(AsFd::as_fd), heard]
                .into_iter()
                .flatten()
                .collect();
            wait(&watched, Some(reload.pause(LOOK)));
        }
        server.stop();
        leave(segment, origin);
        Ok(Exit::Ok)
    }
}

/// At the watchdog's end: removes the segment, or logs which workers are left in it.
pub(super) fn leave(segment: Segment, origin: Origin) {
    let workers = Workers::of(segment);
    let name = segment.name();
    if !workers.0.is_empty() {
        tracing::warn!(
            segment = name,
            event = "workers_left",
            workers = workers.0.len(),
            pids = workers.list(),
            "the watchdog ends, but {} still run and are not watched any more; to watch them, start \
             `hangwatch run --segment {name}`",
            workers.count()
        );
        return; // workers may still attach later
    }
    // The name may belong to another segment by now.
    let is_its_own = file::look(name).is_ok_and(|found| found.id() == segment.file().id());
    if origin == Origin::Made
        && is_its_own
        && let Err(error) = Segment::remove(name)
    {
        complain(&error);
    }
}

/// Waits until one of these is readable, or for the given time.
pub(super) fn wait(watched: &[std::os::fd::BorrowedFd<'_>], most: Option<Duration>) {
    let mut polled: Vec<PollFd<'_>> =
        watched.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = most.and_then(|most| Timespec::try_from(most).ok());
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        // Any other error would repeat at once: do not spin.
        Err(_) => std::thread::sleep(Duration::from_millis(10)),
    }
}

pub(super) fn is_readable(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_sends_its_pid() {
        let flags = SocketFlags::CLOEXEC;
        let (socket, heard) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        say_command(&socket);
        let mut message = [0; MESSAGE_BYTES];
        let (length, _) = recv(&heard, &mut message[..], RecvFlags::empty()).unwrap();
        let said = std::str::from_utf8(&message[..length]).unwrap();
        assert_eq!(said, format!("{COMMAND}{}", process::id()));
    }
}
