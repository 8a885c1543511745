#![expect(unsafe_code, reason = "it installs a signal handler")]
//! The last word of a helper that runs out of memory.
//!
//! Rust ends a process that cannot allocate with SIGABRT. The handler says so on the way.

/// A piece of evidence as it is told; the line before it may not be whole.
const LAST_WORD: &[u8] = b"\n{\"missing\":{\"what\":\"memory\",\"why\":\"not captured: memory bound: what \
followed takes more memory than a helper may have (--evidence-mib, and what the watchdog's cgroup has left)\"}}\n";

/// Has the helper say so when it runs out of memory.
pub(super) fn say_when_memory_runs_out() {
    let last_word = || {
        let _ = rustix::io::write(rustix::stdio::stdout(), LAST_WORD);
        // SAFETY: it ends the process, and runs nothing of it before.
        unsafe { libc::_exit(1) }
    };
    // SAFETY: the handler makes two system calls, which it may at any point of the program.
    let installed = unsafe { signal_hook_registry::register(libc::SIGABRT, last_word) };
    let _ = installed; // without it, the helper ends all the same
}
