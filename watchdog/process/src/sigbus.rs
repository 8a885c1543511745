//! A truncated segment must not kill its watchdog.
//!
//! A page whose file was cut short raises SIGBUS when it is touched. The handler here puts a page of
//! zeros in its place and takes note; the watchdog then ends in order (systemd's `sigbus.c` is the
//! precedent). A fault anywhere else goes to whoever handled SIGBUS before.
#![expect(unsafe_code, reason = "a signal handler, and the pages it puts in place")]

use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hangwatch::Segment;
use hangwatch::sys::host::page_size;

/// Segments one process can serve, guarded, at a time; a further one is served unguarded.
const GUARDED: usize = 64;

/// The mappings guarded. A range of length 0 is free.
static RANGES: [Range; GUARDED] = [const { Range::new() }; GUARDED];
/// What handled SIGBUS before, leaked once.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());
static INSTALL: Mutex<()> = Mutex::new(());

struct Range {
    start: AtomicUsize,
    len: AtomicUsize,
    hit: AtomicBool,
}

impl Range {
    const fn new() -> Range {
        Range { start: AtomicUsize::new(0), len: AtomicUsize::new(0), hit: AtomicBool::new(false) }
    }

    fn contains(&self, address: usize) -> bool {
        // Acquire: pairs with the Release in `Guard::new`: the start belongs to the length.
        let len = self.len.load(Ordering::Acquire);
        len != 0 && address.wrapping_sub(self.start.load(Ordering::Relaxed)) < len
    }
}

/// Guards one segment's mapping for as long as it lives. Several may guard the same.
pub struct Guard(Option<&'static Range>);

impl Guard {
    /// Guards `segment`'s mapping.
    pub fn new(segment: Segment) -> io::Result<Guard> {
        let (start, bytes) = (segment.words().address(), segment.words().layout().bytes());
        Guard::over(start..start + bytes)
    }

    /// Guards the mapping at these addresses, which outlives the guard.
    pub fn over(addresses: std::ops::Range<usize>) -> io::Result<Guard> {
        let _install = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
        install()?;
        let Some(range) = RANGES.iter().find(|range| range.len.load(Ordering::Acquire) == 0) else {
            return Ok(Guard(None));
        };
        range.start.store(addresses.start, Ordering::Relaxed);
        range.hit.store(false, Ordering::Relaxed);
        // Release: pairs with the Acquire in `contains`.
        range.len.store(addresses.len(), Ordering::Release);
        Ok(Guard(Some(range)))
    }

    /// Whether a page of the segment was found missing.
    pub fn was_hit(&self) -> bool {
        self.0.is_some_and(|range| range.hit.load(Ordering::Acquire))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(range) = self.0 {
            range.len.store(0, Ordering::Release);
        }
    }
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    if !PREVIOUS.load(Ordering::Acquire).is_null() {
        return Ok(());
    }
    let mut previous = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with no new action, the call only writes the present one.
    let rc = unsafe { libc::sigaction(libc::SIGBUS, std::ptr::null(), previous.as_mut_ptr()) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above wrote it.
    let previous = Box::new(unsafe { previous.assume_init() });
    // Published before the handler can run.
    PREVIOUS.store(Box::into_raw(previous), Ordering::Release);
    // SAFETY: all zeros is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and calls only what a handler
    // may: mmap, sigaction, and the previous handler.
    let rc = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, null_mut()) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a SA_SIGINFO handler.
    let info_ref = unsafe { &*info };
    // A code of 0 or less is a signal someone sent: it has no address.
    let address = if info_ref.si_code > 0 {
        // SAFETY: a SIGBUS of the kernel's carries an address.
        Some(unsafe { info_ref.si_addr() } as usize)
    } else {
        None
    };
    if let Some(address) = address
        && RANGES.iter().any(|range| range.contains(address))
        && put_page(address)
    {
        for range in RANGES.iter().filter(|range| range.contains(address)) {
            // Release: pairs with the Acquire in `was_hit`.
            range.hit.store(true, Ordering::Release);
        }
        return;
    }
    pass_on(signal, info, context);
}

/// Puts a page of zeros where `address` lies. Called in the handler.
fn put_page(address: usize) -> bool {
    let page = page_size() as usize;
    let at = address & !(page - 1);
    // SAFETY: the address lies in a mapping that is guarded, hence the segment's: nothing but its
    // words is replaced, by words that any reader takes.
    let put = unsafe {
        libc::mmap(
            at as *mut libc::c_void,
            page,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        )
    };
    put != libc::MAP_FAILED
}

/// A fault that is not ours: as if this handler were not here.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: null, or leaked by `install` and never changed since.
    let Some(previous) = (unsafe { PREVIOUS.load(Ordering::Acquire).as_ref() }) else { return };
    match previous.sa_sigaction {
        libc::SIG_IGN | libc::SIG_DFL => {
            // Put back, so that the fault, which comes again, does what it did before.
            // SAFETY: `previous` is a valid action.
            let _ = unsafe { libc::sigaction(signal, previous, null_mut()) };
            // SAFETY: a sent signal does not come again of itself; raising it is allowed here.
            unsafe { libc::raise(signal) };
        }
        handler if previous.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: installed with SA_SIGINFO, so it has this signature.
            let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: installed without SA_SIGINFO, so it has this signature.
            let handler =
                unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}
