//! Signal dispositions and masks: what this process was started with, what it changes, what a command
//! begins with.
//!
//! The main type is [`AtStart`]. It is recorded before the Rust runtime runs, which ignores SIGPIPE.
//! `relay` catches signals, `start` gives a command what this process was started with.
#![expect(unsafe_code, reason = "dispositions, masks and a constructor before main")]

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{DumpableBehavior, Signal};

/// The signals from 1 to this one exist.
const LAST: i32 = 64;

static IGNORED: AtomicU64 = AtomicU64::new(0);
static BLOCKED: AtomicU64 = AtomicU64::new(0);
static IS_RECORDED: AtomicBool = AtomicBool::new(false);

/// Runs before the Rust runtime does.
#[used]
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    IGNORED.store(ignored_now(), Ordering::Relaxed);
    BLOCKED.store(blocked_now(), Ordering::Relaxed);
    // Release: pairs with the Acquire in `AtStart::of_this_process`.
    IS_RECORDED.store(true, Ordering::Release);
}

/// The signals that this process was started with: which it ignored, and which were blocked.
///
/// Bit N - 1 of a mask stands for signal N.
#[derive(Clone, Copy, Debug)]
pub struct AtStart {
    ignored: u64,
    blocked: u64,
}

impl AtStart {
    /// As this process was started.
    pub fn of_this_process() -> AtStart {
        // Acquire: pairs with the Release in `record`.
        if !IS_RECORDED.load(Ordering::Acquire) {
            record();
        }
        let [ignored, blocked] = [&IGNORED, &BLOCKED].map(|mask| mask.load(Ordering::Relaxed));
        AtStart { ignored, blocked }
    }

    /// Gives the calling process these dispositions and its thread this mask. For a child between fork
    /// and exec: it makes system calls only.
    ///
    /// Handlers go before the mask does: a signal that arrived in between ends the child.
    pub fn restore(self) {
        for number in 1..=LAST {
            set_disposition(number, self.ignored & bit(number) != 0);
        }
        set_mask(self.blocked);
    }
}

/// Counts a signal as not ignored at the start: what runs this process ignores it by itself.
pub fn was_not_ignored(number: i32) {
    let _ = AtStart::of_this_process();
    IGNORED.fetch_and(!bit(number), Ordering::Relaxed);
}

/// Whether a signal is ignored at this moment.
pub fn is_ignored(number: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only, and the result is as large as the kernel writes.
    let rc = unsafe { libc::sigaction(number, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: filled in, or all zeros, which is a valid action.
    rc == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Has this process ignore a signal. A command that `start` starts does not inherit it.
pub fn ignore(signal: Signal) {
    set_disposition(signal.as_raw(), true);
}

/// Lets this process take every signal, whoever started it with some of them blocked, and wait for its
/// children.
pub fn accept_all() {
    accept_children();
    set_mask(0);
}

/// Lets this process take a signal that it was started with ignored (`nohup`). A command that `start` starts
/// has it ignored all the same.
pub fn accept(signal: Signal) {
    if is_ignored(signal.as_raw()) {
        set_disposition(signal.as_raw(), false);
    }
}

/// Lets this process wait for its children, which it cannot while SIGCHLD is ignored.
pub fn accept_children() {
    if is_ignored(libc::SIGCHLD) {
        set_disposition(libc::SIGCHLD, false);
    }
}

/// Unblocks a signal for the calling thread, and for those it starts later.
pub fn unblock(number: i32) {
    set_mask(blocked_now() & !bit(number));
}

/// Blocks every signal for the calling thread, until it is dropped.
pub struct AllBlocked(u64);

impl Default for AllBlocked {
    fn default() -> AllBlocked {
        AllBlocked::new()
    }
}

impl AllBlocked {
    /// From now on.
    pub fn new() -> AllBlocked {
        let before = blocked_now();
        set_mask(u64::MAX);
        AllBlocked(before)
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        set_mask(self.0);
    }
}

/// Ends this process by a signal, so that its parent sees that signal in the wait status, without a core
/// dump. Returns where the signal does not end this process, as the first of a PID namespace.
pub fn die_of(number: u8) {
    let number = i32::from(number);
    // The core would be this process's, not the command's.
    if rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).is_err() {
        return;
    }
    set_disposition(number, false);
    unblock(number);
    // SAFETY: no handler is left for it to run.
    unsafe { libc::raise(number) };
}

fn set_disposition(number: i32, is_ignored: bool) {
    // SAFETY: all zeros is a valid action: no flags, an empty mask, the default disposition.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = if is_ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: no handler is installed. KILL, STOP and the two of the C library's own are refused.
    unsafe { libc::sigaction(number, &raw const action, std::ptr::null_mut()) };
}

fn ignored_now() -> u64 {
    (1..=LAST).filter(|&number| is_ignored(number)).map(bit).sum()
}

fn blocked_now() -> u64 {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: asks only, and the result is as large as is written.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), set.as_mut_ptr()) };
    // SAFETY: filled in, or all zeros, which is an empty set.
    let set = unsafe { set.assume_init() };
    // SAFETY: the set is initialised, and the numbers exist.
    (1..=LAST).filter(|&n| unsafe { libc::sigismember(&raw const set, n) } == 1).map(bit).sum()
}

fn set_mask(mask: u64) {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: makes an empty set of it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for number in (1..=LAST).filter(|&number| mask & bit(number) != 0) {
        // SAFETY: the set is initialised; the two of the C library's own are refused.
        unsafe { libc::sigaddset(set.as_mut_ptr(), number) };
    }
    // SAFETY: the set is initialised, and the old one is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set.as_ptr(), std::ptr::null_mut()) };
}

fn bit(number: i32) -> u64 {
    1 << (number - 1)
}
