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

/// The mappings guarded: a list that only grows, since the handler walks it at any time.
static RANGES: AtomicPtr<Range> = AtomicPtr::new(null_mut());
/// What handled SIGBUS before, leaked once.
static PREVIOUS: AtomicPtr<libc::sigaction> = AtomicPtr::new(null_mut());
static INSTALL: Mutex<()> = Mutex::new(());

/// A mapping; one of length 0 is free for the next guard.
struct Range {
    start: AtomicUsize,
    len: AtomicUsize,
    hit: AtomicBool,
    next: Option<&'static Range>,
}

impl Range {
    fn contains(&self, address: usize) -> bool {
        // Acquire: pairs with the Release in `Guard::over`: the start belongs to the length.
        let len = self.len.load(Ordering::Acquire);
        len != 0 && address.wrapping_sub(self.start.load(Ordering::Relaxed)) < len
    }
}

/// All ranges, those that are free included. Called in the handler, too.
fn ranges() -> impl Iterator<Item = &'static Range> {
    // SAFETY: null, or a range that `Guard::over` leaked before it published it.
    // Acquire: pairs with the Release there: the range is whole.
    let first = unsafe { RANGES.load(Ordering::Acquire).as_ref() };
    std::iter::successors(first, |range: &&'static Range| range.next)
}

/// Guards one segment's mapping for as long as it lives. Several may guard the same.
pub struct Guard(&'static Range);

impl Guard {
    /// Guards `segment`'s mapping.
    ///
    /// # Errors
    /// As [`Guard::over`].
    pub fn new(segment: Segment) -> io::Result<Guard> {
        let (start, bytes) = (segment.words().address(), segment.words().layout().bytes());
        Guard::over(start..start + bytes)
    }

    /// Guards the mapping at these addresses, which outlives the guard.
    ///
    /// # Errors
    /// The handler of SIGBUS cannot be installed.
    pub fn over(addresses: std::ops::Range<usize>) -> io::Result<Guard> {
        let _install = INSTALL.lock().unwrap_or_else(PoisonError::into_inner);
        install()?;
        let free = ranges().find(|range| range.len.load(Ordering::Acquire) == 0);
        let range = free.unwrap_or_else(|| {
            let range: &'static Range = Box::leak(Box::new(Range {
                start: AtomicUsize::new(0),
                len: AtomicUsize::new(0),
                hit: AtomicBool::new(false),
                next: ranges().next(),
            }));
            // Release: pairs with the Acquire in `ranges`.
            RANGES.store(std::ptr::from_ref(range).cast_mut(), Ordering::Release);
            range
        });
        range.start.store(addresses.start, Ordering::Relaxed);
        range.hit.store(false, Ordering::Relaxed);
        // Release: pairs with the Acquire in `contains`.
        range.len.store(addresses.len(), Ordering::Release);
        Ok(Guard(range))
    }

    /// Whether a page of the segment was found missing.
    pub fn was_hit(&self) -> bool {
        self.0.hit.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.len.store(0, Ordering::Release);
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
        && ranges().any(|range| range.contains(address))
        && put_page(address)
    {
        for range in ranges().filter(|range| range.contains(address)) {
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

#[cfg(test)]
mod tests {
    use hangwatch::sys::mapping::Mapping;

    use super::*;

    /// The fault: there was room for 64, and the next was not guarded and nobody said so.
    #[test]
    fn a_hundred_segments_of_one_process_are_guarded_each() {
        let page = page_size() as usize;
        let guarded: Vec<(Mapping, std::fs::File, Guard)> = (0..100)
            .map(|_| {
                let file = tempfile::tempfile_in("/dev/shm").unwrap();
                file.set_len(page as u64).unwrap();
                let mapping = Mapping::new(&file, page).unwrap();
                let start = mapping.words().as_ptr().addr();
                let guard = Guard::over(start..start + page).unwrap();
                (mapping, file, guard)
            })
            .collect();
        for (mapping, file, guard) in &guarded {
            assert!(!guard.was_hit());
            file.set_len(0).unwrap();
            assert_eq!(mapping.words()[0].load(Ordering::Relaxed), 0, "a page of zeros");
            assert!(guard.was_hit());
        }
    }
}
