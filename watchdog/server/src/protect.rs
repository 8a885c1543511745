//! Protects the watchdog's process, and catches panics of its threads.
//!
//! The kernel may refuse a protection; this is reported once and not fatal.
#![expect(unsafe_code, reason = "the scheduler's class, and leaving a process at once")]

use std::any::Any;
use std::cell::RefCell;
use std::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;
use std::{fs, io};

use hangwatch_process::limits;

use super::event_log::{EventLog, Note};
use super::options::{Ask, Protection};

const OOM_SCORE: &str = "/proc/self/oom_score_adj";
/// Low, but not -1000: a watchdog with a memory leak must not use up the host's memory.
const LOW_OOM_SCORE: &str = "-900";

/// Protects the calling thread, which must be the tick's, and its process.
pub(super) fn protect(protection: Protection, event_log: &EventLog) {
    let refused = |what: &str, error: io::Error| {
        event_log.note(Note::Unprotected(format!("{what}: {error}")));
    };
    if let Err(error) = limits::set_timer_slack(NonZeroU64::MIN) {
        refused("no timer slack of 1 ns", error);
    }
    if protection.lock_memory == Ask::Yes
        && let Err(error) = limits::lock_all_memory()
    {
        refused("memory is not locked; raise RLIMIT_MEMLOCK (ulimit -l)", error);
    }
    if protection.lower_oom_score == Ask::Yes
        && let Err(error) = fs::write(OOM_SCORE, LOW_OOM_SCORE)
    {
        refused("the OOM score is not lowered; it takes CAP_SYS_RESOURCE", error);
    }
    if let Some(priority) = protection.realtime_priority
        && let Err(error) = limits::run_realtime(priority)
    {
        refused("no real-time priority; raise RLIMIT_RTPRIO or grant CAP_SYS_NICE", error);
    }
}

/// Exits the process at once, without destructors or exit handlers, which might hang.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: ends the process; no destructor or exit handler runs.
    unsafe { libc::_exit(code.into()) }
}

thread_local! {
    /// The message and place of the last panic of this thread, if it belongs to the watchdog.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_OURS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs `body` and catches a panic.
///
/// # Errors
/// The name of the thread with the message and place of the panic.
pub fn caught<T>(name: &str, body: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = take_hook();
        set_hook(Box::new(move |info| {
            if IS_OURS.get() {
                PANIC.set(Some(info.to_string()));
            } else {
                previous(info);
            }
        }));
    });
    IS_OURS.set(true);
    let result = catch_unwind(AssertUnwindSafe(body));
    IS_OURS.set(false);
    result.map_err(|payload| {
        let said = PANIC.take().unwrap_or_else(|| message_of(&*payload));
        format!("{name}: {said}")
    })
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_is_returned_with_its_place() {
        assert_eq!(caught("tick", || 7), Ok(7));
        let told = caught("tick", || panic!("lost count of {}", 3)).unwrap_err();
        assert!(told.starts_with("tick: "), "{told}");
        assert!(told.contains("lost count of 3") && told.contains("protect.rs"), "{told}");
    }
}
