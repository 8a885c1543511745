//! A debugger of a test's own: the calling thread traces a process and halts it.
#![expect(unsafe_code, reason = "ptrace, which no safe crate offers")]

use std::io;
use std::marker::PhantomData;
use std::ptr::null_mut;

/// A traced process. It goes on when this is dropped. Belongs to the thread that made it: the kernel
/// lets no other one trace.
pub struct Tracer {
    pid: libc::pid_t,
    thread: PhantomData<*const ()>,
}

impl Tracer {
    /// Traces a process, which goes on running; says why `test` is skipped where that may not be.
    ///
    /// # Panics
    /// Where the pid is none.
    pub fn seize(test: &str, pid: u32) -> Option<Tracer> {
        let pid = libc::pid_t::try_from(pid).unwrap();
        match ptrace(libc::PTRACE_SEIZE, pid) {
            Ok(()) => Some(Tracer { pid, thread: PhantomData }),
            Err(error) => {
                println!("skipped: {test} may not trace: {error}");
                None
            }
        }
    }

    /// Halts its first thread, as at a breakpoint.
    ///
    /// # Panics
    /// Where the kernel refuses.
    pub fn halt(&self) {
        ptrace(libc::PTRACE_INTERRUPT, self.pid).unwrap();
        // SAFETY: waits for the stop; no status is asked for.
        let waited = unsafe { libc::waitpid(self.pid, null_mut(), libc::__WALL) };
        assert_eq!(waited, self.pid, "{}", io::Error::last_os_error());
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // Refused where it is dead, or was never halted: then it goes on with the end of this thread.
        let _ = ptrace(libc::PTRACE_DETACH, self.pid);
    }
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t) -> io::Result<()> {
    let null = null_mut::<libc::c_void>();
    // SAFETY: none of these requests takes an address.
    let rc = unsafe { libc::ptrace(request, pid, null, null) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
