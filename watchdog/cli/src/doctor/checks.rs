//! The checks: what the facts mean for hangwatch. Pure: facts in, findings out.

use super::facts::{Cgroup, Facts, Shm, Tried};

mod rights;

/// What was found about one thing.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Finding {
    /// What it is about.
    pub(super) topic: &'static str,
    pub(super) verdict: Verdict,
    /// What there is, and what that means.
    pub(super) found: String,
    /// What to change; nothing where all is well.
    pub(super) advice: Option<String>,
}

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It works.
    Works,
    /// hangwatch goes without it, and something is lost.
    Weaker,
    /// hangwatch needs it.
    Missing,
}

/// The oldest kernel that has everything needed.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// From here on a pidfd has an inode of its own.
const PIDFS_KERNEL: (u32, u32) = (6, 9);
/// What a segment of the default size takes, bytes.
const SEGMENT_BYTES: u64 = 8 << 20;
/// What a lane of the default size takes, bytes.
const LANE_BYTES: u64 = 30 << 10;

/// All that can be said.
pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    vec![
        kernel(facts),
        proc(facts),
        pidfd(facts),
        needed("futex", &facts.futex, "workers wake the watchdog through it"),
        needed("fork canary", &facts.wipe_on_fork, "MADV_WIPEONFORK tells a forked child"),
        shm(facts),
        needed("O_TMPFILE", &facts.tmpfile, "a segment is made whole or not at all"),
        memfd(facts),
        clock(facts),
        rights::other_users(facts),
        rights::stacks(facts),
        rights::incidents(facts),
        rights::open_files(facts),
        rights::memory(facts),
        rights::oom_score(facts),
        rights::realtime(facts),
        cgroup(facts),
        pid_namespace(facts),
        user_namespace(facts),
        seccomp(facts),
        container(facts),
        torchrun(facts),
    ]
}

fn works(topic: &'static str, found: impl Into<String>) -> Finding {
    Finding { topic, verdict: Verdict::Works, found: found.into(), advice: None }
}

fn weaker(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Weaker, advice: Some(advice.into()), ..works(topic, found) }
}

fn missing(topic: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Missing, ..weaker(topic, found, advice) }
}

/// Something every kernel that is new enough has, unless something forbids it.
fn needed(topic: &'static str, tried: &Tried, what_for: &str) -> Finding {
    match tried {
        Ok(()) => works(topic, what_for),
        Err(error) => missing(
            topic,
            format!("refused: {error}"),
            "needs Linux 5.10, and a seccomp profile that allows it",
        ),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Finding {
    let found = format!("Linux {} on {}", facts.release, facts.machine);
    match version(&facts.release) {
        Some(version) if version < OLDEST_KERNEL => {
            missing("kernel", found, "needs Linux 5.10 or newer")
        }
        _ => works("kernel", found),
    }
}

fn proc(facts: &Facts) -> Finding {
    if !facts.has_proc {
        let advice = "mount it: mount -t proc proc /proc, or unshare with --mount-proc";
        return missing("/proc", "is not this PID namespace's: no worker can be attested", advice);
    }
    match &facts.hidepid {
        Some(how) if !facts.may_trace => weaker(
            "/proc",
            format!("hidepid={how}: the workers of other users cannot be attested"),
            "grant CAP_SYS_PTRACE, or remount /proc with hidepid=0 or gid= of the watchdog's group",
        ),
        _ => works("/proc", "shows the processes of this PID namespace"),
    }
}

fn pidfd(facts: &Facts) -> Finding {
    match (&facts.pidfd, facts.has_pidfs) {
        (Err(error), _) => missing(
            "pidfd",
            format!("refused: {error}; nobody can be signalled safely"),
            "needs Linux 5.10, and a seccomp profile that allows pidfd_open",
        ),
        (Ok(()), true) => {
            works("pidfd", "with inodes of their own: processes are told apart for ever")
        }
        (Ok(()), false) => {
            let (major, minor) = PIDFS_KERNEL;
            weaker(
                "pidfd",
                "without inodes of their own: across a watchdog's restart, processes are told apart by \
                 their start time",
                format!("Linux {major}.{minor} or newer has them"),
            )
        }
    }
}

fn shm(facts: &Facts) -> Finding {
    const TOPIC: &str = "/dev/shm";
    let Some(shm) = facts.shm else {
        return missing(
            TOPIC,
            "is not there",
            "mount it: mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
        );
    };
    let Shm { is_tmpfs, total_bytes, free_bytes, mode, is_read_only, is_noexec } = shm;
    let mib = |bytes: u64| bytes >> 20;
    let noexec = if is_noexec { ", noexec (which does not matter)" } else { "" };
    let found =
        format!("{} of {} MiB free, mode {mode:o}{noexec}", mib(free_bytes), mib(total_bytes));
    let remount = "mount -o remount,size=64m /dev/shm; in a container --shm-size=64m";
    if is_read_only {
        missing(TOPIC, "is read-only", "mount -o remount,rw /dev/shm")
    } else if !is_tmpfs {
        let advice = "mount it: mount -t tmpfs -o mode=1777 tmpfs /dev/shm";
        weaker(TOPIC, format!("is no tmpfs: every record may go to a disk; {found}"), advice)
    } else if free_bytes < SEGMENT_BYTES {
        let lanes = free_bytes / LANE_BYTES;
        let found =
            format!("{found}: a segment of the default size takes {} MiB", mib(SEGMENT_BYTES));
        missing(TOPIC, found, format!("free some, or {remount}; or run with --lanes {lanes}"))
    } else if mode != 0o1777 {
        let found =
            format!("{found}: with 1777 every user may have segments, and remove only its own");
        weaker(TOPIC, found, "chmod 1777 /dev/shm")
    } else {
        works(TOPIC, found)
    }
}

fn memfd(facts: &Facts) -> Finding {
    match &facts.memfd {
        Ok(()) => works("memfd", "is allowed"),
        Err(error) => weaker(
            "memfd",
            format!("refused: {error}; it is not needed yet"),
            "a seccomp profile that allows memfd_create",
        ),
    }
}

fn clock(facts: &Facts) -> Finding {
    let source = facts.clock_source.as_deref().unwrap_or("unknown");
    if facts.counts_with_processor {
        return works(
            "clock",
            format!("{source}: an acquire with its release costs little more than one clock read"),
        );
    }
    let others = facts.clock_sources.as_deref().unwrap_or_default();
    let advice = if others.split_whitespace().any(|other| other == "tsc") {
        "the processor has a counter that the kernel does not use: boot with clocksource=tsc if it is \
         stable; or let workers use the coarse clock"
    } else {
        "the machine, or its hypervisor, offers no counter: let workers use the coarse clock where 4 ms \
         will do"
    };
    let found = format!(
        "{source}: the processor's counter cannot be used; an acquire with its release takes two reads \
         of the system clock, and costs about twice as much"
    );
    weaker("clock", found, advice)
}

fn cgroup(facts: &Facts) -> Finding {
    const TOPIC: &str = "cgroups";
    match facts.cgroup {
        Cgroup::V2 { has_freezer: true, has_kill: true } => {
            works(TOPIC, "version 2: who is frozen is seen, and a group can be killed at once")
        }
        Cgroup::V2 { has_freezer, .. } => weaker(
            TOPIC,
            if has_freezer {
                "version 2 without cgroup.kill: descendants are ended one by one"
            } else {
                "version 2, of which only the root is to be seen: who is frozen may not be told"
            },
            "Linux 5.14 or newer, and the host's /sys/fs/cgroup in the container",
        ),
        Cgroup::V1 => weaker(
            TOPIC,
            "version 1: who is frozen is seen, a group cannot be killed at once",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        Cgroup::None => weaker(
            TOPIC,
            "none is mounted: a worker in a frozen group is reaped like any other",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        ),
    }
}

fn pid_namespace(facts: &Facts) -> Finding {
    if facts.in_pid_namespace {
        weaker(
            "PID namespace",
            "not the host's: only workers in this namespace, or below it, can be signalled",
            "run it beside its workers (shareProcessNamespace: true, --pid=container:NAME or \
             --pid=host); others are reported as unattestable",
        )
    } else {
        works("PID namespace", "the host's: workers in every container are seen")
    }
}

fn user_namespace(facts: &Facts) -> Finding {
    if facts.in_user_namespace {
        weaker(
            "user namespace",
            "not the host's: capabilities hold for the users mapped here only",
            "nothing, if all workers run in it (rootless containers)",
        )
    } else {
        works("user namespace", "the host's")
    }
}

fn seccomp(facts: &Facts) -> Finding {
    match facts.seccomp {
        Some(2) => works("seccomp", "a filter is in force; what hangwatch needs was tried above"),
        Some(0) => works("seccomp", "no filter"),
        _ => works("seccomp", "not told; what hangwatch needs was tried above"),
    }
}

fn torchrun(facts: &Facts) -> Finding {
    let ranks = &facts.ranks_with_shared_store;
    if ranks.is_empty() {
        return works("torchrun", "no job here restarts its ranks with an old store");
    }
    let pids: Vec<String> = ranks.iter().map(ToString::to_string).collect();
    weaker(
        "torchrun",
        format!(
            "all attempts of a job share one store (processes {}): on torch 2.x a restarted rank may read \
             the addresses of dead ranks, and fail",
            pids.join(", ")
        ),
        "set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 for torchrun, with --standalone or --rdzv_backend c10d; \
         `hangwatch run --auto` sets it",
    )
}

fn container(facts: &Facts) -> Finding {
    let service = if facts.in_service { ", as a service of systemd" } else { "" };
    match facts.container {
        Some(what) => works(
            "container",
            format!("{what}{service}; workers in other containers must share its /dev/shm"),
        ),
        None => works("container", format!("none{service}")),
    }
}

#[cfg(test)]
mod tests;
