//! Crash points: named places at which a test makes this process die or stop.
//!
//! Nothing of it is there without the feature `crash-points`. With it,
//! `HANGWATCH_CRASH_AT=NAME[:COUNT]` names the point and which passing of it (1,
//! the first, by default), and `HANGWATCH_CRASH_BY` what happens there: `kill`
//! (SIGKILL, the default), `stop` (SIGSTOP), `abort`, `panic`, or `hang`: this thread alone goes on
//! no further.

/// Passes the point `name`. Costs nothing without the feature.
#[cfg(not(feature = "crash-points"))]
#[inline]
pub fn point(_name: &'static str) {}

/// Passes the point `name`, or does not survive it.
#[cfg(feature = "crash-points")]
pub fn point(name: &'static str) {
    on::point(name);
}

/// Has the points within core pass here too. Nothing without the feature.
pub fn cover_core() {
    #[cfg(feature = "crash-points")]
    hangwatch_core::crash::install(point);
}

#[cfg(feature = "crash-points")]
mod on {
    use std::env;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    struct Plan {
        name: String,
        by: String,
        /// Passings left until it happens.
        left: AtomicU64,
    }

    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();

    fn plan() -> Option<Plan> {
        let at = env::var("HANGWATCH_CRASH_AT").ok()?;
        let (name, count) = at.split_once(':').unwrap_or((&at, "1"));
        let left = AtomicU64::new(count.parse().ok().filter(|&count| count > 0)?);
        let by = env::var("HANGWATCH_CRASH_BY").unwrap_or_default();
        Some(Plan { name: name.to_owned(), by, left })
    }

    /// Sent to the process, the signal could stop another thread first, and this one a little later.
    #[expect(unsafe_code, reason = "no safe crate sends a signal to one thread")]
    fn stop_here() {
        // SAFETY: no memory is involved.
        unsafe { libc::raise(libc::SIGSTOP) };
    }

    pub(super) fn point(name: &'static str) {
        let Some(plan) = PLAN.get_or_init(plan) else { return };
        // Relaxed: only which passing it is counts.
        if plan.name != name || plan.left.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        match plan.by.as_str() {
            "stop" => stop_here(),
            "hang" => loop {
                std::thread::park();
            },
            "abort" => std::process::abort(),
            "panic" => panic!("the crash point {name} was passed"),
            _ => drop(kill_process(getpid(), Signal::KILL)),
        }
    }
}
