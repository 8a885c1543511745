//! Incidents made up by code, as real ones look: a training job one of whose ranks hangs.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hangwatch_incident::schema::{
    Child, Decision, Descendant, Ending, Evidence, File, Frame, Incident, Lane, Missing, Moment,
    Peer, Process, Record, Suspect, Thread, Timer, VERSION, Worker,
};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// When the incident was, `CLOCK_MONOTONIC`: a day after boot.
pub(crate) const AT: u64 = 86_400 * SECOND;
/// The same, in seconds of UTC.
const AT_UTC: u64 = 1_763_912_653;

/// The directory's name of such an incident.
pub(crate) const ID: &str = "20251123T154413.207000Z-train-4102";

pub(crate) fn moment(monotonic_ns: u64) -> Moment {
    let at = Duration::new(AT_UTC, 207_000_000) + Duration::from_nanos(monotonic_ns);
    let utc = UNIX_EPOCH + at.saturating_sub(Duration::from_nanos(AT));
    Moment { utc: humantime::format_rfc3339_nanos(utc).to_string(), monotonic_ns }
}

/// A thread that times what it does: its lane, record by record.
pub(crate) struct Recorder {
    lane: Lane,
    open: Vec<(u16, String, u64, u64)>,
}

impl Recorder {
    pub(crate) fn new(lane: u32, tid: u64, thread: &str) -> Recorder {
        let lane = Lane { lane, tid, thread: thread.to_owned(), ..Lane::default() };
        Recorder { lane, open: Vec::new() }
    }

    pub(crate) fn begin(&mut self, scope: &str, at_ns: u64, allowance_ns: u64) {
        let timer = self.open.len() as u16;
        self.record("acquire", timer, scope, at_ns, Some(at_ns + allowance_ns));
        self.open.push((timer, scope.to_owned(), at_ns, allowance_ns));
    }

    /// Ends the innermost scope.
    pub(crate) fn end(&mut self, at_ns: u64) {
        let (timer, scope, ..) = self.open.pop().expect("it was begun");
        self.record("release", timer, &scope, at_ns, None);
    }

    /// A scope from then to then.
    fn did(&mut self, scope: &str, from_ns: u64, to_ns: u64, allowance_ns: u64) {
        self.begin(scope, from_ns, allowance_ns);
        self.end(to_ns);
    }

    fn record(&mut self, operation: &str, timer: u16, scope: &str, at_ns: u64, due: Option<u64>) {
        self.lane.records.push(Record {
            at_ns,
            operation: operation.to_owned(),
            lane: self.lane.lane,
            timer,
            scope: scope.to_owned(),
            deadline_ns: due,
        });
    }

    /// The lane at the incident; timers whose deadline has passed are condemned where `condemned`.
    pub(crate) fn lane(mut self, condemned: bool) -> Lane {
        for (timer, scope, acquired, allowance_ns) in self.open.drain(..).rev() {
            let due = acquired + allowance_ns;
            let state = if condemned && due <= AT { "condemned" } else { "armed" };
            self.lane.timers.push(Timer {
                lane: self.lane.lane,
                timer,
                scope,
                kind: "guard".to_owned(),
                state: state.to_owned(),
                acquired: moment(acquired),
                deadline: Some(moment(due)),
                age_ns: AT - acquired,
                allowance_ns,
                task: 0,
            });
        }
        self.lane
    }
}

fn pid(rank: u64) -> u32 {
    4100 + rank as u32
}

fn worker(rank: u64, ranks: u64) -> Worker {
    Worker {
        pid: Some(pid(rank)),
        name: "python3".to_owned(),
        command: ["python3", "-u", "train.py", "--config", "configs/large.yaml"]
            .map(str::to_owned)
            .to_vec(),
        job: "llm-pretrain".to_owned(),
        rank: Some(rank),
        world_size: Some(ranks),
        local_rank: Some(rank % 8),
    }
}

/// How long before the incident the steps were begun in which the job hangs.
const HANGS_SINCE: u64 = 10 * SECOND;

/// The lanes of a rank: five steps of about a second, then the one in which it waits; the `odd` one
/// waits for its data, the others for the odd one.
fn lanes(rank: u64, odd: u64, condemned: bool) -> Vec<Lane> {
    let base = u32::try_from(rank).unwrap() * 2;
    let tid = u64::from(pid(rank));
    let mut main = Recorder::new(base, tid, "MainThread");
    // Each rank is as fast as it is, deterministically.
    let jitter = |n: u64| (rank * 37 + n * 101) % 60 * MS;
    for step in 0..5 {
        let from = AT - HANGS_SINCE - (5 - step) * SECOND;
        main.begin("step", from, 60 * SECOND);
        main.did("data", from + MS, from + 60 * MS + jitter(step) / 4, 10 * SECOND);
        main.did("forward", from + 80 * MS, from + 300 * MS + jitter(step), 10 * SECOND);
        let backward = from + 380 * MS;
        main.did("backward", backward, from + 700 * MS + jitter(step + 1), 10 * SECOND);
        main.did("all_reduce", from + 770 * MS, from + 900 * MS, 10 * SECOND);
        main.did("optimizer", from + 905 * MS, from + 990 * MS, 10 * SECOND);
        main.end(from + 995 * MS);
    }
    let from = AT - HANGS_SINCE;
    main.begin("step", from - 2 * MS, 60 * SECOND);
    if rank == odd {
        main.begin("data", from, 10 * SECOND);
    } else {
        main.did("data", from + MS, from + 60 * MS, 10 * SECOND);
        main.did("forward", from + 80 * MS, from + 300 * MS + jitter(7), 10 * SECOND);
        main.did("backward", from + 380 * MS, from + 700 * MS + jitter(8), 10 * SECOND);
        main.begin("all_reduce", from + 770 * MS, if condemned { 9 * SECOND } else { 10 * SECOND });
    }
    let mut lanes = vec![main.lane(condemned)];
    if rank == odd {
        let mut loader = Recorder::new(base + 1, tid + 900, "pin_memory");
        for batch in 0..6 {
            let from = AT - HANGS_SINCE - (6 - batch) * SECOND;
            loader.did("pin", from, from + 40 * MS, 5 * SECOND);
        }
        lanes.push(loader.lane(false));
    }
    lanes
}

fn peer(rank: u64, ranks: u64, odd: u64) -> Arc<Peer> {
    let lanes = lanes(rank, odd, false);
    let timer = &lanes[0].timers[0];
    let doing = format!("in \"{}\" for {} s", timer.scope, timer.age_ns / SECOND);
    Arc::new(Peer { worker: worker(rank, ranks), doing, lanes })
}

/// Rank 2 of so many waits for data that nobody feeds; its own deadline passes first, the others wait
/// for it.
pub(crate) fn ddp(ranks: u64) -> Incident {
    let odd = 2;
    let lanes = lanes(odd, odd, true);
    let decisions = [
        (0, "condemned", "its deadline for \"data\" passed"),
        (2 * MS, "evidence", "captured in full within its budget of 2s"),
        (
            48 * MS,
            "reaped_first",
            "the others of the job wait in \"all_reduce\", and it is the only one that is not there",
        ),
        (48 * MS, "signalled", "SIGKILL was sent through its pidfd"),
        (61 * MS, "reaped", "the kernel says that it has ended"),
    ];
    let decision = |(after, what, why): (u64, &str, &str)| Decision {
        at: moment(AT + after),
        what: what.to_owned(),
        why: why.to_owned(),
    };
    Incident {
        version: VERSION,
        id: ID.to_owned(),
        host: "gpu-node-07".to_owned(),
        segment: "train".to_owned(),
        at: moment(AT),
        worker: worker(odd, ranks),
        timers: vec![lanes[0].timers[0].clone()],
        decisions: decisions.into_iter().map(decision).collect(),
        ending: Some(Ending {
            at: moment(AT + 61 * MS),
            outcome: "reaped".to_owned(),
            signal: 9,
            late_ns: 48 * MS + 176_000,
            wait_channel: None,
        }),
        evidence: evidence(lanes),
        others: (0..ranks).filter(|rank| *rank != odd).map(|rank| peer(rank, ranks, odd)).collect(),
        suspect: Some(Suspect {
            pid: Some(pid(odd)),
            rank: Some(odd),
            scope: "all_reduce".to_owned(),
            why: format!(
                "all {} other workers of the job wait in \"all_reduce\"; this one is not in it, but \
                 in \"data\" for 10 s",
                ranks - 1
            ),
        }),
        ..Incident::default()
    }
}

/// A command with a deadline: a shell that waits for a Python program, which hangs.
pub(crate) fn command() -> Incident {
    let thread = |tid, python, channel: &str| Thread {
        tid,
        name: if tid == 17 { "sh" } else { "python3" }.to_owned(),
        state: "S".to_owned(),
        wait_channel: Some(channel.to_owned()),
        python,
        ..Thread::default()
    };
    let frame = Frame {
        function: "load".to_owned(),
        file: Some("/srv/llm/load.py".to_owned()),
        line: Some(3),
        module: None,
    };
    let below = Worker {
        pid: Some(18),
        name: "python3".to_owned(),
        command: ["python3", "load.py"].map(str::to_owned).to_vec(),
        ..Worker::default()
    };
    let seen = Evidence {
        threads: vec![thread(18, Some(vec![frame]), "futex_wait_queue")],
        ..Evidence::default()
    };
    let timer = Timer {
        scope: "nightly".to_owned(),
        kind: "guard".to_owned(),
        state: "condemned".to_owned(),
        acquired: moment(AT - 30 * SECOND),
        deadline: Some(moment(AT)),
        age_ns: 30 * SECOND,
        allowance_ns: 30 * SECOND,
        ..Timer::default()
    };
    Incident {
        version: VERSION,
        id: ID.to_owned(),
        host: "ci-3".to_owned(),
        segment: "exec-16".to_owned(),
        at: moment(AT),
        worker: Worker { pid: Some(17), name: "sh".to_owned(), ..Worker::default() },
        timers: vec![timer],
        ending: Some(Ending {
            at: moment(AT + 50 * MS),
            outcome: "reaped".to_owned(),
            signal: 9,
            late_ns: 48 * MS,
            ..Ending::default()
        }),
        evidence: Evidence {
            level: "full".to_owned(),
            budget_ns: 2 * SECOND,
            taken_ns: 48 * MS,
            threads: vec![thread(17, None, "do_wait")],
            ..Evidence::default()
        },
        descendants: vec![Descendant { worker: below, evidence: seen }],
        descendants_left_out: 2,
        ..Incident::default()
    }
}

/// As [`ddp`], but it is rank 0 whose deadline passed, while it waited for rank 2.
pub(crate) fn innocent(ranks: u64) -> Incident {
    let mut incident = ddp(ranks);
    let lanes = lanes(0, 2, true);
    incident.worker = worker(0, ranks);
    incident.timers = vec![lanes[0].timers[0].clone()];
    incident.evidence.lanes = lanes;
    incident.others = (1..ranks).map(|rank| peer(rank, ranks, 2)).collect();
    incident.decisions.truncate(1);
    incident.decisions[0].why = String::from("its deadline for \"all_reduce\" passed");
    incident.decisions.push(Decision {
        at: moment(AT + MS),
        what: "held_back".to_owned(),
        why: "rank 2 is the suspect and is reaped first; this one has 5s to go on".to_owned(),
    });
    incident.ending = None;
    incident
}

/// One worker, of which nothing could be captured.
pub(crate) fn lonely() -> Incident {
    let mut main = Recorder::new(0, 7, "main");
    main.begin("handle request", AT - 300 * MS, 250 * MS);
    let lanes = vec![main.lane(true)];
    let missing = |what: &str, why: &str| Missing { what: what.to_owned(), why: why.to_owned() };
    Incident {
        version: VERSION,
        host: "web-1".to_owned(),
        segment: "web".to_owned(),
        at: moment(AT),
        worker: Worker { pid: Some(31), name: "server".to_owned(), ..Worker::default() },
        timers: lanes[0].timers.clone(),
        ending: Some(Ending {
            at: moment(AT + MS),
            outcome: "reported".to_owned(),
            late_ns: 210_000,
            ..Ending::default()
        }),
        evidence: Evidence {
            level: "full".to_owned(),
            budget_ns: 2 * SECOND,
            taken_ns: 900_000,
            lanes,
            missing: vec![
                missing(
                    "native",
                    "ptrace was refused (EPERM): run the watchdog as the same user, or \
                                   with CAP_SYS_PTRACE",
                ),
                missing("kernel_stack", "/proc/31/stack is root's alone"),
            ],
            ..Evidence::default()
        },
        ..Incident::default()
    }
}

/// Every name tries to be more than a name, stacks are deep, words are long.
pub(crate) fn hostile() -> Incident {
    let mut incident = ddp(4);
    let script = "<script>document.title='owned'</script>";
    let image = "\"><img src=x onerror=alert(1)>";
    let escape = "\u{1b}[2J\u{1b}]0;owned\u{7}\u{202e}gnp.exe\r\nroot# ";
    let long = "model.layers.".repeat(40);
    incident.host = format!("{image}{escape}");
    incident.segment = script.into();
    incident.worker.name = format!("{escape}{script}");
    incident.worker.job.clone_from(&long);
    incident.worker.command = vec![script.to_owned(), long.clone(), escape.to_owned()];
    incident.timers[0].scope = format!("{long}{script}");
    for lane in &mut incident.evidence.lanes {
        lane.thread = format!("{script}{escape}");
        let scopes = lane.timers.iter_mut().map(|timer| &mut timer.scope);
        for scope in scopes.chain(lane.records.iter_mut().map(|record| &mut record.scope)) {
            *scope = format!("{scope}{long}{script}{escape}");
        }
    }
    let frame = |n: u32| Frame {
        function: format!("{script}frame_{n}<{long}>"),
        file: Some(format!("/srv/{long}/{image}.py")),
        line: Some(n),
        module: None,
    };
    incident.evidence.threads[0].python = Some((0..200).map(frame).collect());
    incident.evidence.threads[1].name = escape.into();
    incident.evidence.missing =
        vec![Missing { what: image.to_owned(), why: format!("{escape}{script}") }];
    for peer in &mut incident.others {
        Arc::make_mut(peer).doing = format!("{script}{escape}{long}");
    }
    let process = incident.evidence.process.as_mut().unwrap();
    process.environment = vec![format!("A={script}{escape}{long}")];
    process.children[0].name = escape.into();
    incident.decisions[0].why = format!("{script}{escape}{long}");
    incident.suspect.as_mut().unwrap().why = format!("{script}{escape}");
    incident
}

fn evidence(lanes: Vec<Lane>) -> Evidence {
    let mut lanes = lanes;
    lanes[0].records_lost = 118_204;
    Evidence {
        level: "full".to_owned(),
        budget_ns: 2 * SECOND,
        taken_ns: 46 * MS,
        stopped_ns: Some(3 * MS),
        missing: vec![Missing {
            what: "kernel_stack".to_owned(),
            why: "/proc/4102/stack is root's alone; run the watchdog as root to have it".to_owned(),
        }],
        lanes,
        process: Some(process()),
        threads: threads(),
        threads_left_out: 0,
        variables: Vec::new(),
    }
}

fn frames(frames: &[(&str, &str, u32)]) -> Vec<Frame> {
    let frame = |(function, file, line): &(&str, &str, u32)| Frame {
        function: (*function).to_owned(),
        file: Some((*file).to_owned()),
        line: (*line > 0).then_some(*line),
        module: None,
    };
    frames.iter().map(frame).collect()
}

fn threads() -> Vec<Thread> {
    let python = "/usr/lib/python3.11";
    let torch = "/opt/venv/lib/python3.11/site-packages/torch/utils/data";
    let main = Thread {
        tid: 4102,
        inner_tid: Some(4102),
        name: "python3".to_owned(),
        state: "S".to_owned(),
        wait_channel: Some("futex_wait_queue".to_owned()),
        system_call: Some(
            "futex(0x7f1c2c000b60, FUTEX_WAIT_BITSET|FUTEX_CLOCK_REALTIME, 0, NULL)".to_owned(),
        ),
        python: Some(frames(&[
            ("Condition.wait", &format!("{python}/threading.py"), 320),
            ("Queue.get", &format!("{python}/queue.py"), 171),
            (
                "_MultiProcessingDataLoaderIter._try_get_data",
                &format!("{torch}/dataloader.py"),
                1133,
            ),
            ("_MultiProcessingDataLoaderIter._next_data", &format!("{torch}/dataloader.py"), 1325),
            ("_BaseDataLoaderIter.__next__", &format!("{torch}/dataloader.py"), 633),
            ("train_epoch", "/srv/llm/train.py", 212),
            ("main", "/srv/llm/train.py", 388),
            ("<module>", "/srv/llm/train.py", 401),
        ])),
        native: Some(frames(&[
            ("__futex_abstimed_wait_common64", "./nptl/futex-internal.c", 57),
            ("__new_sem_wait_slow64.constprop.0", "./nptl/sem_waitcommon.c", 183),
            ("PyThread_acquire_lock_timed", "Python/thread_pthread.h", 484),
            ("acquire_timed", "Modules/_threadmodule.c", 98),
            ("_PyEval_EvalFrameDefault", "Python/ceval.c", 4769),
        ])),
        holds_gil: Some(false),
        ..Thread::default()
    };
    let other = |tid: u32, name: &str, function: &str, line: u32| Thread {
        tid,
        name: name.to_owned(),
        state: "S".to_owned(),
        wait_channel: Some("futex_wait_queue".to_owned()),
        python: Some(frames(&[(function, &format!("{torch}/_utils/pin_memory.py"), line)])),
        ..Thread::default()
    };
    vec![
        main,
        other(5002, "pin_memory", "_pin_memory_loop", 54),
        other(5003, "pt_autograd_0", "wait", 12),
        Thread {
            tid: 5004,
            name: "cuda-EvtHandlr".to_owned(),
            state: "S".to_owned(),
            wait_channel: Some("do_sys_poll".to_owned()),
            native: Some(frames(&[("__GI___poll", "../sysdeps/unix/sysv/linux/poll.c", 29)])),
            ..Thread::default()
        },
    ]
}

fn process() -> Process {
    let child = |pid, state: &str| Child {
        pid,
        name: "pt_data_worker".to_owned(),
        state: state.to_owned(),
    };
    let file = |descriptor, target: &str| File { descriptor, target: target.to_owned() };
    Process {
        executable: Some("/usr/bin/python3.11".to_owned()),
        directory: Some("/srv/llm".to_owned()),
        parent: Some(4090),
        cgroups: vec!["0::/system.slice/slurmstepd.scope/job_771/step_0".to_owned()],
        environment: vec!["RANK=2".to_owned(), "WANDB_API_KEY=(redacted)".to_owned()],
        resident_bytes: Some(23_622_320_128),
        virtual_bytes: Some(98_784_247_808),
        swap_bytes: Some(0),
        files: vec![
            file(0, "/dev/null"),
            file(1, "pipe:[88120]"),
            file(7, "/dev/nvidia2"),
            file(9, "socket: tcp 10.0.0.7:41234 -> 10.0.0.5:29500, established"),
        ],
        files_left_out: 0,
        signals_caught: vec!["SIGINT".to_owned(), "SIGCHLD".to_owned()],
        children: vec![child(4602, "S"), child(4603, "Z")],
        ..Process::default()
    }
}
