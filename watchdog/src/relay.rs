#![expect(unsafe_code, reason = "to install a signal handler is unsafe; there is one, in `catch`")]
//! The relay: signals that reach hangwatch, kept until they are passed on to the
//! command it runs (see `child`) or end the watchdog.
//!
//! A handler may do next to nothing, so it writes one byte to a pipe, which says what
//! came and from whom; the pipe's other end is polled together with whatever else is
//! waited for. Handlers, unlike a signal mask, are not inherited by the command.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use signal_hook_registry::SigId;

/// What is passed on to a command.
///
/// TSTP and CONT are not among them: from the terminal they reach the command anyway,
/// and stop and continue hangwatch together with it. SIGSTOP and SIGKILL cannot be.
pub const PASSED_ON: [Signal; 7] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// Who sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The kernel, which for INT, QUIT and WINCH means: the terminal, to every process of
    /// its foreground group.
    Kernel,
    /// A process, through `kill(2)` or the like.
    Process,
}

/// One signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caught {
    /// What arrived.
    pub signal: Signal,
    /// Who sent it.
    pub sender: Sender,
}

/// Catches signals from [`Relay::install`] until it is dropped.
///
/// After the drop the signals caught do nothing: their default is not restored.
#[derive(Debug)]
pub struct Relay {
    pipe: OwnedFd,
    handlers: Vec<SigId>,
}

/// Set in a byte of the pipe when the kernel sent the signal; the rest is its number.
const FROM_KERNEL: u8 = 0x80;

impl Relay {
    /// Starts to catch these signals, and `SIGCHLD`.
    ///
    /// A signal that is ignored at this moment stays so, for hangwatch and for the
    /// commands it starts: this is how `nohup`, and a shell that starts a command with
    /// `&`, keep HUP or INT away from it.
    ///
    /// Install it before the command is started, so that no signal is missed.
    ///
    /// # Errors
    ///
    /// No pipe or no handler can be had, or `/proc` is not mounted.
    pub fn install(signals: &[Signal]) -> io::Result<Self> {
        Self::install_only(&[signals, &[Signal::CHILD]].concat())
    }

    /// As [`Relay::install`], but without `SIGCHLD`: for whoever is ended by what it catches.
    ///
    /// A process may have children that it did not start: `sidecar & exec hangwatch run` in a
    /// shell makes the sidecar one.
    ///
    /// # Errors
    ///
    /// As [`Relay::install`].
    pub fn install_only(signals: &[Signal]) -> io::Result<Self> {
        let ignored = ignored()?;
        let (pipe, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let write = Arc::new(write);
        let mut relay = Self { pipe, handlers: Vec::new() };
        let wanted: HashSet<i32> = signals.iter().map(|signal| signal.as_raw()).collect();
        for number in wanted.difference(&ignored) {
            relay.handlers.push(catch(*number, &write)?);
        }
        Ok(relay)
    }

    /// Takes the oldest signal that has arrived and was not taken yet.
    ///
    /// # Errors
    ///
    /// The pipe cannot be read.
    pub fn next(&self) -> io::Result<Option<Caught>> {
        let mut byte = [0];
        loop {
            match rustix::io::read(&self.pipe, &mut byte) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(None),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let sender = if byte[0] & FROM_KERNEL == 0 { Sender::Process } else { Sender::Kernel };
            if let Some(signal) = Signal::from_named_raw(i32::from(byte[0] & !FROM_KERNEL)) {
                return Ok(Some(Caught { signal, sender }));
            }
        }
    }
}

/// Readable when a signal has arrived.
impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for id in self.handlers.drain(..) {
            signal_hook_registry::unregister(id);
        }
    }
}

fn catch(number: i32, pipe: &Arc<OwnedFd>) -> io::Result<SigId> {
    let pipe = Arc::clone(pipe);
    let byte = u8::try_from(number).map_err(io::Error::other)?;
    let handler = move |info: &libc::siginfo_t| {
        let kernel = if info.si_code == libc::SI_KERNEL { FROM_KERNEL } else { 0 };
        // A full pipe holds thousands of signals unread: one more says nothing new.
        let _ = rustix::io::write(&pipe, &[byte | kernel]);
    };
    // SAFETY: the handler makes one write system call, which is async-signal-safe and,
    // made by rustix without libc, leaves errno alone; it neither locks nor allocates,
    // and it cannot panic.
    unsafe { signal_hook_registry::register_sigaction(number, handler) }
}

/// The numbers of the signals this process ignores.
fn ignored() -> io::Result<HashSet<i32>> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| {
        let text = format!("cannot read /proc/self/status: {error}; check that /proc is mounted");
        io::Error::new(error.kind(), text)
    })?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .ok_or_else(|| io::Error::other("/proc/self/status has no readable SigIgn line"))?;
    Ok((1..=64).filter(|number| mask >> (number - 1) & 1 == 1).collect())
}
