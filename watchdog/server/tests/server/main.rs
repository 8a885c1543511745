//! Tests the server with real processes: workers that hang, exec, close, stop and die, and watchdogs that are
//! killed. Each child runs this test binary in a role of [`stage`].

mod error_files;
mod figures;
mod stage;

use std::time::Duration;

use hangwatch::{Released, Segment};
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::watchdog::reap::Hold;
use hangwatch_core::wire::lane::TimerSignal;
use hangwatch_core::wire::segment::Counter;
use hangwatch_server::events::{Leaving, What};
use hangwatch_server::{
    Ended, Finding, Holds, OwnProcess, ServeError, Server, ServerOptions, Standby, State, Treatment,
};

use stage::{Actor, Stage, is_expiry, until};

const SIGKILL: i32 = 9;

#[test]
fn only_the_hung_worker_of_four_is_killed() {
    let stage = Stage::new("one-of-four");
    let server = stage.serve(ServerOptions::default());
    let mut workers: Vec<Actor> = (0..4).map(|_| stage.worker()).collect();
    for worker in &mut workers {
        worker.say("expires outer 60000");
    }
    let hung = workers[2].pid();
    workers[2].say("expires forward 50");
    let expiry = stage.expiry();
    assert_eq!(is_expiry(&expiry), "reaped");
    let timer = &expiry.timer;
    assert_eq!(timer.worker.as_ref().unwrap().pid, hung);
    assert!(timer.worker.as_ref().unwrap().command.arguments.len() > 1);
    assert_eq!((timer.scope.as_str(), expiry.signal), ("forward", 9));
    assert_eq!(timer.owner.claimed_pid, hung);
    assert_eq!(workers.remove(2).signal_it_died_of(), Some(SIGKILL));
    for worker in &mut workers {
        assert_eq!(worker.say("release"), "InTime");
    }
    until(|| stage.lanes_taken() == 3);
    assert_eq!(stage.abandoned("outer"), 1);
    assert_eq!(server.stop().ended, Ended::Stopped);
}

#[test]
fn a_worker_of_a_segment_in_shared_memory_is_reaped() {
    let stage = Stage::in_shmem("shmem");
    let server = stage.serve(ServerOptions::default());
    let (mut hung, mut other) = (stage.worker(), stage.worker());
    other.say("expires outer 60000");
    hung.say("expires forward 50");
    assert_eq!(is_expiry(&stage.expiry()), "reaped");
    assert_eq!(hung.signal_it_died_of(), Some(SIGKILL));
    assert_eq!(other.say("release"), "InTime");
    until(|| stage.lanes_taken() == 1);
    server.stop();
}

#[test]
fn server_stopped_during_a_kill_reports_it() {
    for _ in 0..8 {
        let stage = Stage::new("last-reap");
        let server = stage.serve(ServerOptions::default());
        let mut worker = stage.worker();
        worker.say("expires forward 20");
        assert_eq!(worker.signal_it_died_of(), Some(SIGKILL));
        server.stop();
        assert_eq!(is_expiry(&stage.expiry()), "reaped");
    }
}

#[test]
fn worker_that_releases_in_time_is_left_alone() {
    let stage = Stage::new("in-time");
    let server = stage.serve(ServerOptions::default());
    let mut worker = stage.worker();
    worker.say("expires step 300");
    assert_eq!(worker.say("release"), "InTime");
    worker.say("expires sleep 30");
    // The second timer expires after the deadline of the first.
    assert_eq!(stage.expiry().timer.scope, "sleep");
    drop(server);
    assert_eq!(stage.counter(Counter::Expired), 1);
}

#[test]
fn deadline_shorter_than_the_interval_is_kept() {
    let stage = Stage::with_interval("near", Duration::from_secs(10));
    let _server = stage.serve(ServerOptions::default());
    let mut worker = stage.worker();
    worker.say("expires step 5");
    let expiry = stage.expiry();
    assert_eq!(is_expiry(&expiry), "reaped");
    assert!(expiry.late_ns < 5_000_000_000, "the doorbell did not wake the tick: {expiry:?}");
    assert_eq!(worker.signal_it_died_of(), Some(SIGKILL));
}

#[test]
fn worker_that_execs_is_not_signalled_and_frees_its_lane() {
    let stage = Stage::new("exec");
    let _server = stage.serve(ServerOptions::default());
    let mut worker = stage.worker();
    worker.say("expires step 400");
    until(|| stage.workers_admitted() == 1);
    worker.tell("exec");
    let left = stage.event(|what| match what {
        What::Left { worker, how } => Some((worker.pid, *how)),
        What::Expired(expiry) => panic!("signalled or reported: {expiry:?}"),
        _ => None,
    });
    assert_eq!(left, (worker.pid(), Leaving::Execd));
    until(|| stage.lanes_taken() == 0);
    assert!(worker.is_alive());
    assert_eq!(stage.abandoned("step"), 1);
}

#[test]
fn worker_that_closes_its_descriptors_is_killed_anyway() {
    let stage = Stage::new("close");
    let _server = stage.serve(ServerOptions::default());
    let mut worker = stage.worker();
    worker.say("expires step 300");
    until(|| stage.workers_admitted() == 1);
    worker.say("close");
    assert_eq!(is_expiry(&stage.expiry()), "reaped");
    assert_eq!(worker.signal_it_died_of(), Some(SIGKILL));
}

#[test]
fn worker_that_exits_with_armed_timers_is_forgotten() {
    let stage = Stage::new("exit");
    let _server = stage.serve(ServerOptions::default());
    let mut worker = stage.worker();
    worker.say("expires step 60000");
    worker.tell("exit");
    assert_eq!(worker.signal_it_died_of(), None);
    until(|| stage.lanes_taken() == 0);
    assert_eq!(stage.abandoned("step"), 1);
    assert_eq!(stage.counter(Counter::Expired), 0);
}

#[test]
fn second_server_is_refused_with_the_pid_of_the_first() {
    let stage = Stage::new("second");
    let first = stage.server();
    let check = |expected: u32| match Server::start(stage.segment, ServerOptions::default(), |_| {})
    {
        Err(ServeError::AlreadyServed { pid, .. }) => assert_eq!(pid, Some(expected)),
        other => panic!("{other:?}"),
    };
    check(first.pid());
    drop(first);
    // The same within one process, to which the kernel would grant the lock twice.
    let server = stage.serve(ServerOptions::default());
    check(std::process::id());
    drop(server);
    drop(stage.serve(ServerOptions::default()));
}

#[test]
fn segment_of_a_killed_watchdog_is_adopted_with_its_timers() {
    let stage = Stage::new("adopt");
    let first = stage.server();
    let (mut hung, mut fine) = (stage.worker(), stage.worker());
    hung.say("expires step 400");
    fine.say("expires step 60000");
    first.kill();
    let server = stage.serve(ServerOptions::default());
    let expiry = stage.expiry();
    assert_eq!(expiry.timer.worker.unwrap().pid, hung.pid());
    assert_eq!(hung.signal_it_died_of(), Some(SIGKILL));
    assert_eq!(fine.say("release"), "InTime");
    drop(server);
    assert_eq!(stage.counter(Counter::Adopted), 2);
    assert_eq!(stage.counter(Counter::Condemned), 1);
}

#[test]
fn standby_takes_over_when_the_first_is_killed() {
    let stage = Stage::new("standby");
    let first = stage.server();
    let options = ServerOptions { standby: Standby::Wait, ..ServerOptions::default() };
    let standby = stage.serve(options);
    assert_eq!(standby.health().state, State::Standby);
    let mut worker = stage.worker();
    worker.say("expires step 300");
    first.kill();
    assert_eq!(is_expiry(&stage.expiry()), "reaped");
    assert_eq!(standby.health().state, State::Serving);
    assert_eq!(worker.signal_it_died_of(), Some(SIGKILL));
}

#[test]
fn standby_can_be_stopped_while_it_waits() {
    let stage = Stage::new("standby-stop");
    let first = stage.serve(ServerOptions::default());
    let options = ServerOptions { standby: Standby::Wait, ..ServerOptions::default() };
    let standby = Server::start(stage.segment, options, |_| {}).unwrap();
    assert_eq!(standby.stop().ended, Ended::Stopped);
    assert_eq!(first.stop().ended, Ended::Stopped);
}

#[test]
fn stopped_worker_is_killed_unless_configured_otherwise() {
    let stage = Stage::new("stopped");
    let report = Holds { stopped: Treatment::Report, ..Holds::default() };
    for (holds, expected) in [(Holds::default(), None), (report, Some(Hold::Stopped))] {
        let server = stage.serve(ServerOptions { holds, ..ServerOptions::default() });
        let mut worker = stage.worker();
        worker.say("expires step 200");
        worker.stop();
        let held = stage.event(|what| match what {
            What::Held { hold, .. } => Some(Some(*hold)),
            What::Expired(_) => Some(None),
            _ => None,
        });
        assert_eq!(held, expected);
        if expected.is_none() {
            assert_eq!(worker.signal_it_died_of(), Some(SIGKILL));
        } else {
            // It continues with a full timeout.
            worker.resume();
            assert_eq!(worker.say("release"), "InTime");
        }
        drop(server);
    }
}

#[test]
fn traced_worker_is_reported_and_not_signalled() {
    let stage = Stage::new("traced");
    let _server = stage.serve(ServerOptions::default());
    let mut worker = stage.worker();
    let mut tracer = stage.actor("tracer");
    if tracer.say(&format!("trace {}", worker.pid())) != "traced" {
        println!("skipped: ptrace is not permitted here");
        return;
    }
    worker.say("expires step 50");
    let hold = stage.event(|what| match what {
        What::Held { hold, .. } => Some(*hold),
        What::Expired(expiry) => panic!("{expiry:?}"),
        _ => None,
    });
    assert_eq!(hold, Hold::Traced);
    assert_eq!(worker.say("release"), "InTime");
}

#[test]
fn worker_in_the_servers_own_process_is_reported() {
    let stage = Stage::new("own");
    let _server = stage.serve(ServerOptions::default());
    assert_eq!(ServerOptions::default().own_process, OwnProcess::Exclude);
    let worker = hangwatch::WorkerOptions::new().attach_to(stage.segment).unwrap();
    let guard = worker.expires("own", Duration::from_millis(20)).unwrap();
    let expiry = stage.expiry();
    assert_eq!((is_expiry(&expiry), expiry.signal), ("reported", 0));
    assert_eq!(expiry.timer.worker.unwrap().pid, std::process::id());
    assert_eq!(guard.release(), Released::Reported);
}

#[test]
fn worker_that_ignores_sigterm_is_killed_after_its_grace() {
    let stage = Stage::new("grace");
    let policy = Policy {
        signal: TimerSignal::Signal(15),
        grace_ns: 50_000_000,
        least_grace_ns: 50_000_000,
        ..Policy::default()
    };
    let _server = stage.serve(ServerOptions { policy, ..ServerOptions::default() });
    let (mut deaf, mut polite) = (stage.worker(), stage.worker());
    deaf.say("ignore 15");
    deaf.say("expires deaf 20");
    let expiry = stage.expiry();
    assert_eq!((is_expiry(&expiry), expiry.signal), ("reaped", 9));
    assert_eq!(deaf.signal_it_died_of(), Some(SIGKILL));
    polite.say("expires polite 20");
    let expiry = stage.expiry();
    assert_eq!((is_expiry(&expiry), expiry.signal), ("reaped", 15));
    assert_eq!(polite.signal_it_died_of(), Some(15));
}

#[test]
fn kill_limiter_stops_kills_until_it_is_released() {
    let stage = Stage::new("brake");
    let policy = Policy { max_reaps: Some(1), ..Policy::default() };
    let server = stage.serve(ServerOptions { policy, ..ServerOptions::default() });
    let mut workers: Vec<Actor> = (0..3).map(|_| stage.worker()).collect();
    workers[0].say("expires first 20");
    assert_eq!(is_expiry(&stage.expiry()), "reaped");
    workers[1].say("expires second 20");
    assert_eq!(is_expiry(&stage.expiry()), "braked");
    until(|| server.health().braked);
    assert_eq!(workers[1].say("release"), "Reported");
    server.release_limiter();
    until(|| !server.health().braked);
    workers[2].say("expires third 20");
    assert_eq!(is_expiry(&stage.expiry()), "reaped");
}

#[test]
fn truncated_segment_ends_the_server_but_not_its_process() {
    let stage = Stage::new("truncated");
    let server = stage.serve(ServerOptions::default());
    until(|| server.health().ticks > 1);
    let file = std::fs::OpenOptions::new().write(true).open(stage.path()).unwrap();
    file.set_len(0).unwrap();
    let finding = stage.event(|what| match what {
        What::File(finding) => Some(*finding),
        _ => None,
    });
    assert_eq!(finding, Finding::Truncated);
    assert_eq!(server.wait(), Ended::Truncated);
    assert_eq!(server.stop().ended, Ended::Truncated);
}

#[test]
fn removed_segment_is_reported_once_and_still_served() {
    let stage = Stage::new("removed");
    let _server = stage.serve(ServerOptions::default());
    let mut worker = stage.worker();
    Segment::remove(stage.segment.name()).unwrap();
    stage.event(|what| matches!(what, What::File(Finding::Removed)).then_some(()));
    worker.say("expires step 20");
    assert_eq!(is_expiry(&stage.expiry()), "reaped");
}

#[test]
fn calibration_is_published_if_the_clock_source_is_the_counter() {
    if !hangwatch::sys::clock::counter_is_system_clock_now() {
        println!("skipped: the kernel's clock source is not the counter");
        return;
    }
    let stage = Stage::new("calibration");
    let _server = stage.serve(ServerOptions::default());
    until(|| {
        let sample = hangwatch::sys::clock::sample_pair();
        let calibration = stage.segment.words().calibration();
        calibration.is_some_and(|made| {
            let told = made.time(sample.counter).0;
            made.multiplier != 0 && told.abs_diff(sample.monotonic_ns) < 100_000
        })
    });
}

#[test]
fn log_that_never_returns_does_not_keep_the_server_from_ending() {
    let stage = Stage::new("mute-log");
    let server = Server::start(stage.segment, ServerOptions::default(), |_| {
        loop {
            std::thread::park();
        }
    });
    assert_eq!(server.unwrap().stop().ended, Ended::Stopped);
    drop(stage.serve(ServerOptions::default()));
}

#[test]
fn server_ends_when_its_log_panics() {
    let stage = Stage::new("no-log");
    let server = Server::start(stage.segment, ServerOptions::default(), |_| panic!("no log"));
    assert_eq!(server.unwrap().wait(), Ended::Panicked);
}
