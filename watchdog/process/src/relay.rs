#![expect(
    unsafe_code,
    reason = "to install a signal handler is unsafe, and to name a real-time signal"
)]
//! The relay: signals that reach hangwatch, kept until they are passed on to the
//! command it runs (see `child`) or end the watchdog.
//!
//! A handler may do next to nothing, so it sets the signal's bit and writes one byte to a pipe, whose
//! other end is polled together with whatever else is waited for. A signal that arrives again before it
//! was taken counts once, as in the kernel. Handlers, unlike a signal mask, are not inherited by the
//! command.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use signal_hook_registry::SigId;

use crate::signals;

/// What is passed on to a command, beside the real-time signals: every signal that would end this process
/// and leave the command behind, except the faults (SEGV, BUS, ILL, FPE, TRAP, SYS, ABRT) and PIPE, which
/// this process ignores.
///
/// TSTP and CONT are not among them: from the terminal they reach the command anyway,
/// and stop and continue hangwatch together with it. SIGSTOP and SIGKILL cannot be.
pub const PASSED_ON: [Signal; 15] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
    Signal::ALARM,
    Signal::VTALARM,
    Signal::PROF,
    Signal::XCPU,
    Signal::XFSZ,
    Signal::IO,
    Signal::POWER,
    Signal::STKFLT,
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
    arrived: Arc<Arrived>,
    handlers: Vec<SigId>,
}

/// What has arrived and was not taken yet: bit N - 1 stands for signal N.
#[derive(Debug, Default)]
struct Arrived {
    from_kernel: AtomicU64,
    from_processes: AtomicU64,
}

impl Arrived {
    fn of(&self, sender: Sender) -> &AtomicU64 {
        match sender {
            Sender::Kernel => &self.from_kernel,
            Sender::Process => &self.from_processes,
        }
    }

    fn take(&self) -> Option<Caught> {
        for sender in [Sender::Process, Sender::Kernel] {
            let bits = self.of(sender);
            // Relaxed: a signal whose bit is not seen yet has its byte in the pipe.
            let lowest = bits.load(Ordering::Relaxed).trailing_zeros();
            if lowest < u64::BITS {
                bits.fetch_and(!(1 << lowest), Ordering::Relaxed);
                return Some(Caught { signal: signal(lowest.cast_signed() + 1), sender });
            }
        }
        None
    }
}

impl Relay {
    /// Starts to catch these signals, the real-time signals, and `SIGCHLD`: for whoever runs a command.
    ///
    /// A signal that is ignored at this moment stays so, for hangwatch and for the
    /// commands it starts: this is how `nohup`, and a shell that starts a command with
    /// `&`, keep HUP or INT away from it. `SIGCHLD` is caught all the same: without it nobody could wait
    /// for a command. A signal that is blocked at this moment is unblocked.
    ///
    /// From now on this process ignores TTIN and TTOU: a command in the background that uses its terminal
    /// is stopped, and its watchdog must not be stopped with it.
    ///
    /// Install it before the command is started, so that no signal is missed.
    ///
    /// # Errors
    ///
    /// No pipe or no handler can be had.
    pub fn install(signals: &[Signal]) -> io::Result<Self> {
        signals::ignore(Signal::TTIN);
        signals::ignore(Signal::TTOU);
        signals::accept_children();
        let real_time = (libc::SIGRTMIN()..=libc::SIGRTMAX()).map(signal);
        let all: Vec<Signal> =
            signals.iter().copied().chain(real_time).chain([Signal::CHILD]).collect();
        Self::install_only(&all)
    }

    /// As [`Relay::install`], of these signals alone: for whoever is ended by what it catches.
    ///
    /// A process may have children that it did not start: `sidecar & exec hangwatch run` in a
    /// shell makes the sidecar one.
    ///
    /// # Errors
    ///
    /// As [`Relay::install`].
    pub fn install_only(signals: &[Signal]) -> io::Result<Self> {
        let (pipe, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let write = Arc::new(write);
        let mut relay = Self { pipe, arrived: Arc::default(), handlers: Vec::new() };
        let wanted: BTreeSet<i32> = signals.iter().map(|signal| signal.as_raw()).collect();
        for number in wanted.into_iter().filter(|&number| !signals::is_ignored(number)) {
            relay.handlers.push(catch(number, &write, &relay.arrived)?);
            signals::unblock(number);
        }
        Ok(relay)
    }

    /// Takes a signal that has arrived and was not taken yet.
    ///
    /// # Errors
    ///
    /// The pipe cannot be read.
    pub fn next(&self) -> io::Result<Option<Caught>> {
        let mut bytes = [0; 64];
        loop {
            if let Some(caught) = self.arrived.take() {
                return Ok(Some(caught));
            }
            // A bit is set before its byte is written: with no byte left, none is missed.
            match rustix::io::read(&self.pipe, &mut bytes) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(None),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
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

fn catch(number: i32, pipe: &Arc<OwnedFd>, arrived: &Arc<Arrived>) -> io::Result<SigId> {
    let (pipe, arrived) = (Arc::clone(pipe), Arc::clone(arrived));
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let handler = move |info: &libc::siginfo_t| {
        // SAFETY: the field is there, whatever it means for this signal.
        let by_own_write = number == libc::SIGXFSZ && unsafe { info.si_pid() } == own;
        if by_own_write {
            return;
        }
        let from_kernel = info.si_code == libc::SI_KERNEL;
        let sender = if from_kernel { Sender::Kernel } else { Sender::Process };
        arrived.of(sender).fetch_or(1 << (number - 1), Ordering::Relaxed);
        // A full pipe is readable already.
        let _ = rustix::io::write(&pipe, &[0]);
    };
    // SAFETY: the handler stores a bit and makes one write system call, which is async-signal-safe and,
    // made by rustix without libc, leaves errno alone; it neither locks nor allocates,
    // and it cannot panic.
    unsafe { signal_hook_registry::register_sigaction(number, handler) }
}

/// The signal of this number, which exists.
fn signal(number: i32) -> Signal {
    // SAFETY: only numbers that a handler was installed for come here, which those that the C library
    // keeps for itself cannot be.
    Signal::from_named_raw(number).unwrap_or_else(|| unsafe { Signal::from_raw_unchecked(number) })
}
