//! Workers that do what they please with the segment's file, with their descriptors, threads and
//! program: their lanes stay theirs as long as they live, and nobody else's change.

use std::os::unix::process::ExitStatusExt;

use hangwatch::lane_lock_byte;
use hangwatch::sys::lock::{Holder, holder};
use hangwatch_core::wire::lane::{LaneNames, LaneState, OwnerWord};
use hangwatch_core::wire::segment::Counter;
use hangwatch_process::proc::comm;
use hangwatch_tests::{Actor, Stage, Watchdog, until};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

const SIGKILL: i32 = 9;

/// A worker with a long and a short way to its deadlines, admitted.
fn admitted(stage: &Stage, watchdog: &mut Watchdog) -> Actor {
    let mut actor = stage.actor();
    actor.tell("expires long 60000");
    watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
    actor
}

fn check_reaped(watchdog: &mut Watchdog, actor: &mut Actor) {
    actor.tell("expires hung 50");
    let expiry = watchdog.expiry_of(actor.pid());
    assert_eq!((&expiry["outcome"], &expiry["scope"]), (&"reaped".into(), &"hung".into()));
    assert_eq!(actor.wait().signal(), Some(SIGKILL));
}

/// The watchdog has looked at every lane's lock several times.
fn wait_for_rounds(stage: &Stage) {
    // A round comes every 250 ms, a tick at least every 100 ms: no sooner than these.
    let from = stage.counter(Counter::Ticks);
    until("the watchdog looks again", || (stage.counter(Counter::Ticks) > from + 12).then_some(()));
}

fn check_nobody_left(watchdog: &mut Watchdog) {
    let wrong = watchdog.events().iter().find(|event| {
        matches!(event["event"].as_str(), Some("left" | "signalled" | "expired" | "quarantined"))
    });
    assert_eq!(wrong, None);
}

#[test]
fn who_lost_its_locks_keeps_its_lanes_and_is_reaped_when_it_hangs() {
    for order in ["reopen", "closefds"] {
        let stage = Stage::new("no-locks");
        let mut watchdog = stage.watchdog(&[]);
        let mut actor = admitted(&stage, &mut watchdog);
        let lanes = stage.lanes_in_use();
        let words = stage.words_of(lanes[0]);
        actor.tell(order);
        wait_for_rounds(&stage);
        check_nobody_left(&mut watchdog);
        assert_eq!((stage.lanes_in_use(), stage.words_of(lanes[0])), (lanes, words), "{order}");
        assert_eq!(actor.tell("release long"), "InTime", "{order}");
        check_reaped(&mut watchdog, &mut actor);
        until("its lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    }
}

#[test]
fn who_lost_its_locks_before_any_watchdog_came_is_reported_and_keeps_its_lane() {
    for order in ["reopen", "closefds"] {
        let stage = Stage::new("never-locks");
        let mut actor = stage.actor();
        actor.tell(order);
        actor.tell("expires step 1");
        let mut watchdog = stage.watchdog(&[]);
        let expiry = watchdog.event(|event| event["event"] == "expired");
        assert_eq!(expiry["outcome"], "unattestable", "{order}");
        assert_eq!(actor.tell("release step"), "Reported", "{order}");
        actor.tell("expires again 60000");
        let lanes = stage.lanes_in_use();
        wait_for_rounds(&stage);
        assert_eq!(stage.lanes_in_use(), lanes, "{order}");
        actor.order("exit");
        assert!(actor.wait().success());
        until("its lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    }
}

#[test]
fn who_execs_is_not_signalled_and_its_timers_are_cleared() {
    let stage = Stage::new("exec");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = admitted(&stage, &mut watchdog);
    actor.order("exec");
    let left = watchdog.event(|event| event["event"] == "left");
    assert_eq!((left["pid"].as_u64(), &left["how"]), (Some(actor.pid().into()), &"execd".into()));
    until("its lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    assert!(actor.is_alive());
    assert_eq!(stage.counts().abandoned, 1);
    // The same where no watchdog ever saw it as a worker, and its deadline has passed.
    assert!(watchdog.end().success());
    let mut early = stage.actor();
    early.tell("expires step 1");
    early.order("exec");
    let watchdog = stage.watchdog(&[]);
    until("its lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    assert!(early.is_alive());
    drop(watchdog);
}

/// The lock passes through the exec with the descriptor: the kernel names the process as before.
#[test]
fn who_execs_and_keeps_its_lock_is_not_signalled_and_its_timers_are_cleared() {
    let stage = Stage::new("exec-keeps");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = stage.actor();
    watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
    let lane = stage.lanes_in_use()[0];
    actor.tell("keep");
    actor.tell("expires step 700");
    actor.order("exec");
    let left = watchdog.event(|event| event["event"] == "left");
    assert_eq!((left["pid"].as_u64(), &left["how"]), (Some(actor.pid().into()), &"execd".into()));
    until("its lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    assert!(actor.is_alive());
    let holder = holder(stage.segment.file(), lane_lock_byte(lane)).unwrap();
    assert_eq!(holder, Holder::Process(Pid::from_raw(actor.pid().cast_signed()).unwrap()));
    assert_eq!(stage.counts().abandoned, 1);
    // Others take another lane.
    assert!(stage.actor().end().success());
    watchdog.end();
    check_nobody_signalled(&mut watchdog);
}

/// No watchdog saw the worker before it exec'd: the kernel names it as the lane's owner all the same.
#[test]
fn who_execs_with_its_lock_before_its_admission_is_no_worker() {
    let stage = Stage::new("exec-early");
    let mut actor = stage.actor();
    actor.tell("keep");
    actor.tell("expires step 1");
    actor.order("exec");
    let pid = Pid::from_raw(actor.pid().cast_signed()).unwrap();
    until("it has exec'd", || (comm(pid).unwrap()? == "sleep").then_some(()));
    let mut watchdog = stage.watchdog(&[]);
    until("its lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    assert!(actor.is_alive());
    watchdog.end();
    check_nobody_signalled(&mut watchdog);
}

/// Another member of the job writes a perfect next owner into the lane whose lock the program kept.
#[test]
fn who_has_execd_is_not_admitted_anew_by_a_rewritten_lane() {
    let stage = Stage::new("exec-rewritten");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = stage.actor();
    watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
    let index = stage.lanes_in_use()[0];
    let lane = stage.segment.words().lane(index);
    let identity = lane.identity();
    actor.tell("keep");
    actor.order("exec");
    let pid = Pid::from_raw(actor.pid().cast_signed()).unwrap();
    until("it has exec'd", || (comm(pid).unwrap()? == "sleep").then_some(()));
    for round in 0..3 {
        let epoch = lane.owner().epoch() + 1;
        let forged = OwnerWord::new(LaneState::Attached, epoch, actor.pid());
        stage.arm_overdue(index);
        lane.attach(forged, identity, LaneNames::default());
        lane.raise_high_water(1);
        stage.segment.ring();
        until(&format!("its lane comes back ({round})"), || {
            (lane.owner().state() == Some(LaneState::Free)).then_some(())
        });
        assert!(actor.is_alive());
    }
    watchdog.end();
    check_nobody_signalled(&mut watchdog);
}

#[test]
fn a_program_that_attaches_anew_after_an_exec_is_watched() {
    for keep in ["keep", "look /"] {
        let stage = Stage::new("exec-again");
        let mut watchdog = stage.watchdog(&[]);
        let mut actor = stage.actor();
        watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
        actor.tell(keep);
        actor.tell("again");
        actor.tell("attach");
        actor.tell("expires step 50");
        assert_eq!(watchdog.expiry_of(actor.pid())["outcome"], "reaped");
        assert_eq!(actor.wait().signal(), Some(9));
    }
}

/// Where nothing is placed at random, the next program of a process looks like the last one.
#[test]
fn a_timer_of_before_an_exec_reaps_no_program_that_attaches_after_it() {
    let stage = Stage::new("exec-alike");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = stage.actor();
    watchdog.event(|event| event["event"] == "admitted");
    actor.tell("unrandomised");
    actor.tell("again");
    actor.tell("attach");
    watchdog.event(|event| event["event"] == "admitted");
    actor.tell("expires before 1000");
    actor.tell("again");
    actor.tell("attach");
    actor.tell("expires after 2000");
    assert_eq!(watchdog.expiry_of(actor.pid())["scope"], "after");
    assert_eq!(actor.wait().signal(), Some(9));
}

/// What cannot be read says nothing: here, for want of descriptors.
#[test]
fn a_worker_that_cannot_be_looked_at_is_reported_and_not_signalled() {
    let stage = Stage::new("unverified");
    let mut watchdog = stage.watchdog(&["--evidence", "off"]);
    let mut actor = stage.actor();
    watchdog.event(|event| event["event"] == "admitted" && event["pid"] == actor.pid());
    actor.tell("expires step 1000");
    let limited = |current| {
        let limit = Rlimit { current: Some(current), maximum: Some(4096) };
        prlimit(Some(watchdog.pid()), Resource::Nofile, limit).unwrap()
    };
    let before = limited(3).current.unwrap();
    let said = watchdog
        .event(|event| matches!(event["event"].as_str(), Some("signalled" | "admission_failed")));
    let text = said["error"].as_str().unwrap_or_default();
    assert!(text.contains("not signalled") && text.contains("files"), "{said}");
    assert!(actor.is_alive());
    let limit = Rlimit { current: Some(before.min(4096)), maximum: Some(4096) };
    prlimit(Some(watchdog.pid()), Resource::Nofile, limit).unwrap();
    assert_eq!(watchdog.expiry_of(actor.pid())["outcome"], "reaped");
    assert_eq!(actor.wait().signal(), Some(9));
}

fn check_nobody_signalled(watchdog: &mut Watchdog) {
    assert_eq!(watchdog_said(watchdog, "signalled"), 0);
}

#[test]
fn who_exits_with_timers_armed_is_cleared_without_a_signal() {
    let stage = Stage::new("exits");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = admitted(&stage, &mut watchdog);
    actor.tell("thread other 60000");
    actor.order("exit");
    assert!(actor.wait().success());
    until("its lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
    assert_eq!(stage.counts().abandoned, 2);
    assert!(watchdog.end().success());
    let said = |what: &str| watchdog_said(&mut watchdog, what);
    assert_eq!(["signalled", "expired"].map(said), [0, 0]);
}

fn watchdog_said(watchdog: &mut Watchdog, what: &str) -> usize {
    watchdog.events().iter().filter(|event| event["event"] == what).count()
}

#[test]
fn a_forked_child_writes_into_no_lane_of_its_parent() {
    let stage = Stage::new("forks");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = admitted(&stage, &mut watchdog);
    let lane = stage.lanes_in_use()[0];
    let words = stage.words_of(lane);
    assert_eq!(actor.tell("fork"), "0", "the child attaches anew, acquires and releases");
    assert_eq!(stage.words_of(lane), words);
    until("the child's lane comes back", || (stage.lanes_in_use() == [lane]).then_some(()));
    // The child's descriptors are its own: closing them takes no lock from its parent.
    assert!(actor.tell("spawn").contains("exit status: 0"));
    wait_for_rounds(&stage);
    assert_eq!(stage.words_of(lane), words);
    assert_eq!(actor.tell("release long"), "InTime");
    check_reaped(&mut watchdog, &mut actor);
}

#[test]
fn guards_that_cross_threads_are_enforced_and_released_anywhere() {
    let stage = Stage::new("threads");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = admitted(&stage, &mut watchdog);
    // Made by a thread that has ended, released by the first; made by the first, released elsewhere.
    actor.tell("thread moved 60000");
    assert_eq!(actor.tell("release moved"), "InTime");
    assert_eq!(actor.tell("elsewhere long"), "InTime");
    let counts = stage.counts();
    assert_eq!((counts.acquired, counts.released(), counts.abandoned), (2, 2, 0));
    // A thread that ends with its timer armed ends no deadline.
    actor.tell("thread hung 300");
    let expiry = watchdog.expiry_of(actor.pid());
    assert_eq!((&expiry["outcome"], &expiry["scope"]), (&"reaped".into(), &"hung".into()));
    assert_eq!(actor.wait().signal(), Some(SIGKILL));
}

#[test]
fn a_worker_whose_first_thread_has_ended_keeps_its_lanes() {
    let stage = Stage::new("headless");
    let mut watchdog = stage.watchdog(&[]);
    let mut actor = admitted(&stage, &mut watchdog);
    let first = stage.lanes_in_use();
    actor.tell("headless");
    // The other thread's lane is attested of a process without a first thread.
    actor.tell("expires second 60000");
    wait_for_rounds(&stage);
    let lanes = stage.lanes_in_use();
    assert!(lanes.len() == 2 && lanes.contains(&first[0]), "{lanes:?}");
    check_nobody_left(&mut watchdog);
    assert_eq!(actor.tell("release long"), "InTime");
    // Without locks, too, it runs the program it was admitted with.
    actor.tell("reopen");
    check_reaped(&mut watchdog, &mut actor);
}
