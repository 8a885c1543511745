//! The checks of permissions and limits of this process.

use super::super::facts::Facts;
use super::{Finding, weaker, works};

/// Descriptors that a watchdog needs besides two for each worker.
const SPARE_DESCRIPTORS: u64 = 128;
/// Lanes of a segment by default.
const LANES: u64 = 256;

pub(super) fn other_users(facts: &Facts) -> Finding {
    match (facts.may_trace, facts.may_kill) {
        (true, true) => works("other users", "their workers can be verified and killed"),
        (trace, _) => weaker(
            "other users",
            if trace {
                "their workers can be verified, but not killed"
            } else {
                "their workers cannot be verified, and are never killed"
            },
            "this user's own workers need nothing; for others grant CAP_SYS_PTRACE and CAP_KILL (see \
             packaging/systemd)",
        ),
    }
}

pub(super) fn stacks(facts: &Facts) -> Finding {
    const TOPIC: &str = "stacks";
    let advice = "sysctl kernel.yama.ptrace_scope=0, or grant CAP_SYS_PTRACE (container: --cap-add \
                  SYS_PTRACE)";
    match (facts.ptrace_scope, facts.may_trace) {
        (Some(3), _) => weaker(
            TOPIC,
            "kernel.yama.ptrace_scope is 3: no process may read another's stack, until a reboot",
            "boot with kernel.yama.ptrace_scope at 1 or less; until then incidents have no stacks",
        ),
        (_, true) => works(TOPIC, "native and Python stacks of all workers can be read"),
        (None | Some(0), false) => {
            works(TOPIC, "native and Python stacks of this user's workers can be read")
        }
        (Some(1), false) => weaker(
            TOPIC,
            "kernel.yama.ptrace_scope is 1: only stacks of descendants of `hangwatch run -- CMD`, and of \
             workers that allow it, can be read",
            "set HANGWATCH_PTRACER=watchdog in the workers' environment (or =any, if another watchdog \
             may take over); or sysctl kernel.yama.ptrace_scope=0, or grant CAP_SYS_PTRACE",
        ),
        (Some(scope), false) => weaker(
            TOPIC,
            format!(
                "kernel.yama.ptrace_scope is {scope}: no stack can be read, incidents have none"
            ),
            advice,
        ),
    }
}

pub(super) fn incidents(facts: &Facts) -> Finding {
    match &facts.keep_incidents {
        Ok(()) => works("incidents", "can be stored in the default directory"),
        Err(error) => weaker(
            "incidents",
            format!("cannot be stored in the default directory: {error}"),
            "choose a directory that this user can write to with --incidents",
        ),
    }
}

pub(super) fn open_files(facts: &Facts) -> Finding {
    const TOPIC: &str = "open files";
    let Some(limit) = facts.open_files else { return works(TOPIC, "without a limit") };
    let workers = limit.saturating_sub(SPARE_DESCRIPTORS) / 2;
    let found = format!("limit {limit}: enough for {workers} workers");
    if workers >= LANES {
        works(TOPIC, found)
    } else {
        let advice = format!(
            "a segment of the default size has {LANES} lanes: raise the hard limit (ulimit -Hn, \
             LimitNOFILE=, --ulimit nofile)"
        );
        weaker(TOPIC, found, advice)
    }
}

pub(super) fn memory(facts: &Facts) -> Finding {
    match &facts.lock_memory {
        Ok(()) => works("memory lock", "the watchdog's memory cannot be swapped out"),
        Err(error) => weaker(
            "memory lock",
            format!("refused: {error}; if memory is short, the watchdog may be late"),
            "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=infinity) or grant CAP_IPC_LOCK",
        ),
    }
}

pub(super) fn oom_score(facts: &Facts) -> Finding {
    match &facts.lower_oom_score {
        Ok(()) => works("OOM score", "if memory runs out, the kernel kills other processes first"),
        Err(error) => weaker(
            "OOM score",
            format!(
                "cannot be lowered: {error}; if memory runs out, the kernel may kill the watchdog"
            ),
            "grant CAP_SYS_RESOURCE, or lower it at the start (OOMScoreAdjust=-900)",
        ),
    }
}

pub(super) fn realtime(facts: &Facts) -> Finding {
    if facts.may_be_nice || facts.realtime_limit > 0 {
        works("real time", "`run --realtime` is allowed")
    } else {
        weaker(
            "real time",
            "`run --realtime` would be refused: on an overloaded machine kills may come late",
            "raise RLIMIT_RTPRIO (LimitRTPRIO=) or grant CAP_SYS_NICE; not used by default",
        )
    }
}
