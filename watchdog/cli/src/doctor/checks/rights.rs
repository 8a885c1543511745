//! The checks of what this process may do, and how much.

use super::super::facts::Facts;
use super::{Finding, weaker, works};

/// Descriptors that a watchdog needs beside one a worker.
const SPARE_DESCRIPTORS: u64 = 128;
/// Lanes of a segment by default.
const LANES: u64 = 256;

pub(super) fn other_users(facts: &Facts) -> Finding {
    match (facts.may_trace, facts.may_kill) {
        (true, true) => works("other users", "their workers can be attested and signalled"),
        (trace, _) => weaker(
            "other users",
            if trace {
                "their workers can be attested, not signalled"
            } else {
                "their workers cannot be attested, and are never signalled"
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
            "boot with kernel.yama.ptrace_scope at 1 or less; incidents go without stacks",
        ),
        (_, true) => works(TOPIC, "native and Python stacks of every worker may be read"),
        (None | Some(0), false) => {
            works(TOPIC, "native and Python stacks of this user's workers may be read")
        }
        (Some(1), false) => weaker(
            TOPIC,
            "kernel.yama.ptrace_scope is 1: only stacks of what `hangwatch run -- CMD` started may be \
             read, and of workers that allow it",
            "set HANGWATCH_PTRACER=watchdog in the workers' environment (any, where the watchdog may \
             be another later); or sysctl kernel.yama.ptrace_scope=0, or grant CAP_SYS_PTRACE",
        ),
        (Some(scope), false) => weaker(
            TOPIC,
            format!(
                "kernel.yama.ptrace_scope is {scope}: no stack may be read; incidents go without"
            ),
            advice,
        ),
    }
}

pub(super) fn incidents(facts: &Facts) -> Finding {
    match &facts.keep_incidents {
        Ok(()) => works("incidents", "can be kept where they are by default"),
        Err(error) => weaker(
            "incidents",
            format!("cannot be kept where they are by default: {error}"),
            "name a directory that this user may write to with --incidents",
        ),
    }
}

pub(super) fn open_files(facts: &Facts) -> Finding {
    const TOPIC: &str = "open files";
    let Some(limit) = facts.open_files else { return works(TOPIC, "without a limit") };
    let workers = limit.saturating_sub(SPARE_DESCRIPTORS) / 2;
    let found = format!("{limit} at most: enough for {workers} workers");
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
            format!("refused: {error}; where memory is short, the watchdog may be late"),
            "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK=infinity) or grant CAP_IPC_LOCK",
        ),
    }
}

pub(super) fn oom_score(facts: &Facts) -> Finding {
    match &facts.lower_oom_score {
        Ok(()) => works("OOM score", "the kernel takes others first where memory runs out"),
        Err(error) => weaker(
            "OOM score",
            format!("cannot be lowered: {error}; where memory runs out, the watchdog may be taken"),
            "grant CAP_SYS_RESOURCE, or have it lowered at the start (OOMScoreAdjust=-900)",
        ),
    }
}

pub(super) fn realtime(facts: &Facts) -> Finding {
    if facts.may_be_nice || facts.realtime_limit > 0 {
        works("real time", "`run --realtime` is allowed")
    } else {
        weaker(
            "real time",
            "`run --realtime` would be refused: on a starved machine reaps come late",
            "raise RLIMIT_RTPRIO (LimitRTPRIO=) or grant CAP_SYS_NICE; it is not used by default",
        )
    }
}
