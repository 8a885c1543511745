use super::Verdict::{Missing, Weaker};
use super::*;

/// A host on which all is well.
fn well() -> Facts {
    Facts {
        release: "6.18.5-amd64".to_owned(),
        machine: "x86_64".to_owned(),
        has_proc: true,
        hidepid: None,
        pidfd: Ok(()),
        has_pidfs: true,
        futex: Ok(()),
        memfd: Ok(()),
        wipe_on_fork: Ok(()),
        shm: Some(Shm {
            is_tmpfs: true,
            total_bytes: 1 << 30,
            free_bytes: 1 << 29,
            mode: 0o1777,
            is_read_only: false,
            is_noexec: true,
        }),
        tmpfile: Ok(()),
        may_trace: true,
        may_kill: true,
        may_be_nice: true,
        ptrace_scope: Some(1),
        lock_memory: Ok(()),
        lower_oom_score: Ok(()),
        keep_incidents: Ok(()),
        realtime_limit: 0,
        open_files: Some(1 << 20),
        clock_source: Some("tsc".to_owned()),
        clock_sources: Some("tsc hpet".to_owned()),
        counts_with_processor: true,
        cgroup: Cgroup::V2 { has_freezer: true, has_kill: true },
        in_pid_namespace: false,
        in_user_namespace: false,
        seccomp: Some(0),
        container: None,
        in_service: false,
        ranks_with_shared_store: Vec::new(),
    }
}

#[test]
fn a_good_host_gets_no_advice() {
    for finding in examine(&well()) {
        assert_eq!((finding.verdict, &finding.advice), (Verdict::Works, &None), "{finding:?}");
    }
}

#[test]
fn every_fault_is_found_with_advice() {
    let refused = || Err("Operation not permitted".to_owned());
    let shm = |change: fn(&mut Shm)| {
        move |facts: &mut Facts| change(facts.shm.as_mut().expect("it is there"))
    };
    let check = |change: &dyn Fn(&mut Facts), topic: &str, verdict: Verdict, part: &str| {
        let mut facts = well();
        change(&mut facts);
        let found: Vec<Finding> = examine(&facts)
            .into_iter()
            .filter(|finding| finding.verdict != Verdict::Works)
            .collect();
        assert_eq!(found.len(), 1, "{topic}: {found:?}");
        assert_eq!((found[0].topic, found[0].verdict), (topic, verdict));
        let text = format!("{} -> {}", found[0].found, found[0].advice.as_deref().unwrap());
        assert!(text.contains(part), "{part}: {text}");
    };
    check(&|facts| facts.release = "5.4.0-42".into(), "kernel", Missing, "5.10");
    check(&|facts| facts.has_proc = false, "/proc", Missing, "mount");
    check(&|facts| facts.pidfd = refused(), "pidfd", Missing, "not permitted");
    check(&|facts| facts.has_pidfs = false, "pidfd", Weaker, "6.9");
    check(&|facts| facts.futex = refused(), "futex", Missing, "seccomp");
    check(&|facts| facts.wipe_on_fork = refused(), "fork canary", Missing, "5.10");
    check(&|facts| facts.tmpfile = refused(), "O_TMPFILE", Missing, "not permitted");
    check(&|facts| facts.memfd = refused(), "memfd", Weaker, "memfd_create");
    check(&|facts| facts.shm = None, "/dev/shm", Missing, "mount -t tmpfs");
    check(&shm(|shm| shm.is_read_only = true), "/dev/shm", Missing, "remount,rw");
    check(&shm(|shm| shm.is_tmpfs = false), "/dev/shm", Weaker, "not a tmpfs");
    check(&shm(|shm| shm.free_bytes = 3 << 20), "/dev/shm", Missing, "--lanes 102");
    check(&shm(|shm| shm.mode = 0o777), "/dev/shm", Weaker, "chmod 1777");
    check(&|facts| facts.counts_with_processor = false, "clock", Weaker, "clocksource=tsc");
    check(&|facts| facts.may_kill = false, "other users", Weaker, "CAP_KILL");
    check(&|facts| facts.ptrace_scope = Some(3), "stacks", Weaker, "reboot");
    check(&|facts| facts.open_files = Some(300), "open files", Weaker, "86 workers");
    check(&|facts| facts.lock_memory = refused(), "memory lock", Weaker, "ulimit -l");
    check(&|facts| facts.lower_oom_score = refused(), "OOM score", Weaker, "CAP_SYS_RESOURCE");
    check(&|facts| facts.keep_incidents = refused(), "incidents", Weaker, "--incidents");
    check(&|facts| facts.may_be_nice = false, "real time", Weaker, "RLIMIT_RTPRIO");
    check(&|facts| facts.ranks_with_shared_store = vec![7], "torchrun", Weaker, "--standalone");
    check(&|facts| facts.cgroup = Cgroup::V1, "cgroups", Weaker, "version 1");
    check(&|facts| facts.cgroup = Cgroup::None, "cgroups", Weaker, "mount -t cgroup2");
    check(&|facts| facts.in_pid_namespace = true, "PID namespace", Weaker, "unattestable");
    check(&|facts| facts.in_user_namespace = true, "user namespace", Weaker, "rootless");
}

#[test]
fn without_ptrace_permission_more_depends_on_the_host() {
    let verdict = |topic: &str, change: &dyn Fn(&mut Facts)| {
        let mut facts = well();
        facts.may_trace = false;
        change(&mut facts);
        let found = examine(&facts);
        found.into_iter().find(|finding| finding.topic == topic).expect("a topic").verdict
    };
    assert_eq!(verdict("other users", &|_| ()), Verdict::Weaker);
    assert_eq!(verdict("stacks", &|facts| facts.ptrace_scope = None), Verdict::Works);
    assert_eq!(verdict("stacks", &|facts| facts.ptrace_scope = Some(0)), Verdict::Works);
    assert_eq!(verdict("stacks", &|facts| facts.ptrace_scope = Some(1)), Verdict::Weaker);
    assert_eq!(verdict("stacks", &|facts| facts.ptrace_scope = Some(2)), Verdict::Weaker);
    assert_eq!(verdict("/proc", &|facts| facts.hidepid = Some("2".into())), Verdict::Weaker);
    assert_eq!(verdict("real time", &|facts| facts.realtime_limit = 99), Verdict::Works);
}

#[test]
fn kernels_are_compared_by_number() {
    for (release, known) in [("5.10.0", Some((5, 10))), ("6.9-rc1", Some((6, 9))), ("x", None)] {
        assert_eq!(version(release), known, "{release}");
    }
}
