//! The checks: judge the facts. Pure: facts in, findings out.

use super::facts::{Cgroup, Facts, Shm, Tried};

mod rights;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct Finding {
    /// The subject of the check.
    pub(super) topic: &'static str,
    pub(super) verdict: Verdict,
    /// What was found, and what it means.
    pub(super) found: String,
    /// What to change; `None` if nothing.
    pub(super) advice: Option<String>,
}

/// The verdict of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It works.
    Works,
    /// hangwatch works without it, with a disadvantage.
    Weaker,
    /// hangwatch needs it.
    Missing,
}

/// The oldest kernel that has everything needed.
const OLDEST_KERNEL: (u32, u32) = (5, 10);
/// The first kernel with a unique inode for each pidfd.
const PIDFS_KERNEL: (u32, u32) = (6, 9);
/// The size of a segment by default, bytes.
const SEGMENT_BYTES: u64 = 8 << 20;
/// The size of a lane by default, bytes.
const LANE_BYTES: u64 = 30 << 10;

/// Runs all checks.
pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    vec![
        kernel(facts),
        proc(facts),
        pidfd(facts),
        needed("futex", &facts.futex, "workers wake the watchdog through it"),
        needed("fork canary", &facts.wipe_on_fork, "MADV_WIPEONFORK tells a forked child"),
        shm(facts),
        needed("O_TMPFILE", &facts.tmpfile, "segments are created completely or not at all"),
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

/// Checks a feature that every kernel since 5.10 has, unless something forbids it.
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
        return missing(
            "/proc",
            "belongs to another PID namespace: no worker can be verified",
            advice,
        );
    }
    match &facts.hidepid {
        Some(how) if !facts.may_trace => weaker(
            "/proc",
            format!("hidepid={how}: workers of other users cannot be verified"),
            "grant CAP_SYS_PTRACE, or remount /proc with hidepid=0 or gid= of the watchdog's group",
        ),
        _ => works("/proc", "shows the processes of this PID namespace"),
    }
}

fn pidfd(facts: &Facts) -> Finding {
    match (&facts.pidfd, facts.has_pidfs) {
        (Err(error), _) => missing(
            "pidfd",
            format!("refused: {error}; no process can be signalled safely"),
            "needs Linux 5.10, and a seccomp profile that allows pidfd_open",
        ),
        (Ok(()), true) => works("pidfd", "with unique inodes: processes cannot be confused"),
        (Ok(()), false) => {
            let (major, minor) = PIDFS_KERNEL;
            weaker(
                "pidfd",
                "without unique inodes: after a restart of the watchdog, processes are identified by their \
                 start time",
                format!("use Linux {major}.{minor} or newer"),
            )
        }
    }
}

fn shm(facts: &Facts) -> Finding {
    const TOPIC: &str = "/dev/shm";
    let Some(shm) = facts.shm else {
        return missing(
            TOPIC,
            "does not exist",
            "mount it: mount -t tmpfs -o mode=1777 tmpfs /dev/shm",
        );
    };
    let Shm { is_tmpfs, total_bytes, free_bytes, mode, is_read_only, is_noexec } = shm;
    let mib = |bytes: u64| bytes >> 20;
    let noexec = if is_noexec { ", noexec (no problem)" } else { "" };
    let found =
        format!("{} of {} MiB free, mode {mode:o}{noexec}", mib(free_bytes), mib(total_bytes));
    let remount = "mount -o remount,size=64m /dev/shm; in a container --shm-size=64m";
    if is_read_only {
        missing(TOPIC, "is read-only", "mount -o remount,rw /dev/shm")
    } else if !is_tmpfs {
        let advice = "mount it: mount -t tmpfs -o mode=1777 tmpfs /dev/shm";
        weaker(
            TOPIC,
            format!("is not a tmpfs: every record may be written to a disk; {found}"),
            advice,
        )
    } else if free_bytes < SEGMENT_BYTES {
        let lanes = free_bytes / LANE_BYTES;
        let found =
            format!("{found}: a segment of the default size needs {} MiB", mib(SEGMENT_BYTES));
        missing(TOPIC, found, format!("free some space, or {remount}; or run with --lanes {lanes}"))
    } else if mode != 0o1777 {
        let found = format!(
            "{found}: only with 1777 can every user create segments and remove only their own"
        );
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
            format!("refused: {error}; not needed yet"),
            "a seccomp profile that allows memfd_create",
        ),
    }
}

fn clock(facts: &Facts) -> Finding {
    let source = facts.clock_source.as_deref().unwrap_or("unknown");
    if facts.counts_with_processor {
        return works(
            "clock",
            format!("{source}: an acquire and its release cost little more than one clock read"),
        );
    }
    let others = facts.clock_sources.as_deref().unwrap_or_default();
    let advice = if others.split_whitespace().any(|other| other == "tsc") {
        "the processor has a counter that the kernel does not use: boot with clocksource=tsc if it is \
         stable; or let workers use the coarse clock"
    } else {
        "the machine or its hypervisor offers no counter: let workers use the coarse clock if 4 ms \
         resolution is enough"
    };
    let found = format!(
        "{source}: the processor's counter cannot be used; an acquire and its release read the system \
         clock twice, and cost about twice as much"
    );
    weaker("clock", found, advice)
}

fn cgroup(facts: &Facts) -> Finding {
    const TOPIC: &str = "cgroups";
    match facts.cgroup {
        Cgroup::V2 { has_freezer: true, has_kill: true } => works(
            TOPIC,
            "version 2: frozen workers are recognised, and a cgroup can be killed at once",
        ),
        Cgroup::V2 { has_freezer, .. } => weaker(
            TOPIC,
            if has_freezer {
                "version 2 without cgroup.kill: descendants are killed one by one"
            } else {
                "version 2, but only its root is visible: frozen workers may not be recognised"
            },
            "Linux 5.14 or newer, and the host's /sys/fs/cgroup in the container",
        ),
        Cgroup::V1 => weaker(
            TOPIC,
            "version 1: frozen workers are recognised, but a cgroup cannot be killed at once",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
        Cgroup::None => weaker(
            TOPIC,
            "none is mounted: a frozen worker is killed like any other",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        ),
    }
}

fn pid_namespace(facts: &Facts) -> Finding {
    if facts.in_pid_namespace {
        weaker(
            "PID namespace",
            "not the host's: only workers in this namespace or below it can be killed",
            "run the watchdog in its workers' namespace (shareProcessNamespace: true, --pid=container:NAME or \
             --pid=host); other workers are reported as unattestable",
        )
    } else {
        works("PID namespace", "the host's: workers in all containers are visible")
    }
}

fn user_namespace(facts: &Facts) -> Finding {
    if facts.in_user_namespace {
        weaker(
            "user namespace",
            "not the host's: capabilities apply only to users mapped here",
            "nothing, if all workers run in it (rootless containers)",
        )
    } else {
        works("user namespace", "the host's")
    }
}

fn seccomp(facts: &Facts) -> Finding {
    match facts.seccomp {
        Some(2) => {
            works("seccomp", "a filter is in force; the checks above tried what hangwatch needs")
        }
        Some(0) => works("seccomp", "no filter"),
        _ => works("seccomp", "unknown; the checks above tried what hangwatch needs"),
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
