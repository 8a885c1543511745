//! A worker on a real segment, without a watchdog: what it writes is what an observer sees.

use std::time::Duration;

use hangwatch::{
    AcquireError, AttachError, Condemned, CreateOptions, Geometry, Guard, Heartbeat, Nanos,
    Ptracer, Released, Scope, Segment, Worker, WorkerOptions,
};
use hangwatch_core::wire::lane::{Identity, LaneNames, TimerKind};
use hangwatch_core::wire::timer::TimerState;

const LONG: Duration = Duration::from_mins(1);

/// A segment of its own for a test, removed at its end.
struct Named(String);

impl Named {
    fn new(test: &str, geometry: Geometry) -> Named {
        let name = format!("test-{test}-{}", std::process::id());
        Segment::create(&name, CreateOptions { geometry, ..CreateOptions::default() }).unwrap();
        Named(name)
    }

    fn small(test: &str) -> Named {
        Named::new(test, Geometry { lanes: 4, timers: 4, records: 16, scopes: 4, lane_scopes: 4 })
    }

    fn armed(&self) -> Vec<String> {
        let seen = Segment::observe(&self.0).unwrap();
        let mut armed: Vec<String> = seen
            .lanes
            .iter()
            .flat_map(|lane| &lane.timers)
            .map(|timer| format!("{} {:?}", timer.scope, timer.state))
            .collect();
        armed.sort();
        armed
    }

    fn counts(&self, scope: &str) -> hangwatch_core::wire::stats::Counts {
        let seen = Segment::observe(&self.0).unwrap();
        seen.scopes.into_iter().find(|view| view.name == scope).expect("it was interned").counts
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        Segment::remove(&self.0).unwrap();
    }
}

#[test]
fn handles_cross_threads() {
    fn check<T: Send + Sync>() {}
    check::<Guard>();
    check::<Heartbeat>();
    check::<hangwatch::Pause>();
    check::<Worker>();
    check::<Scope>();
    check::<Segment>();
}

#[test]
fn nested_guards_are_all_live_and_end_on_drop() {
    let named = Named::small("nested");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let outer = worker.expires("outer", LONG).unwrap();
    {
        let inner = worker.expires("inner", LONG).unwrap();
        assert!(inner.remaining().unwrap() <= LONG + Duration::from_millis(1));
        assert_eq!(named.armed(), ["inner Armed", "outer Armed"]);
    }
    assert_eq!(named.armed(), ["outer Armed"]);
    assert_eq!(outer.release(), Released::InTime);
    assert_eq!(named.armed(), [""; 0]);
    let counts = named.counts("inner");
    assert_eq!((counts.acquired, counts.released()), (1, 1));
}

#[test]
fn an_extension_moves_the_deadline_on() {
    let named = Named::small("extend");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let guard = worker.expires("scope", LONG).unwrap();
    guard.extend(LONG).unwrap();
    assert!(guard.remaining().unwrap() > LONG);
    assert!(matches!(guard.extend(Duration::ZERO), Err(AcquireError::Zero)));
}

#[test]
fn the_keyed_rule_is_upstreams() {
    let named = Named::small("keyed");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    assert_eq!(worker.release("epoch").unwrap(), Released::NotArmed, "nothing is nothing");
    worker.acquire("epoch", LONG).unwrap();
    worker.acquire("epoch", LONG * 2).unwrap();
    assert_eq!(named.armed(), ["epoch Armed"], "replaced, not added");
    let seen = Segment::observe(&named.0).unwrap();
    assert!(seen.lanes[0].timers[0].left_ns.unwrap() > 60_000_000_000);
    let released = std::thread::spawn(move || worker.release("epoch").unwrap()).join().unwrap();
    assert_eq!(released, Released::InTime, "per process, from any thread");
    assert_eq!(worker.release("epoch").unwrap(), Released::NotArmed);
    assert_eq!(named.counts("epoch").acquired, 1);
}

#[test]
fn a_heartbeat_rests_and_goes_on() {
    let named = Named::small("beat");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let beat = worker.heartbeat("loop", LONG).unwrap();
    beat.kick().unwrap();
    beat.pause("waiting for work").unwrap();
    assert_eq!(named.armed(), ["loop Paused"]);
    assert!(matches!(beat.kick(), Err(AcquireError::NotArmed)));
    beat.resume().unwrap();
    assert_eq!(named.armed(), ["loop Armed"]);
    drop(beat);
    assert_eq!(named.armed(), [""; 0]);
}

#[test]
fn a_guard_released_by_another_thread_frees_its_timer() {
    let named = Named::small("moved");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    for _ in 0..20 {
        let guard = worker.expires("moved", LONG).unwrap();
        std::thread::spawn(move || drop(guard)).join().unwrap();
    }
    assert_eq!(named.armed(), [""; 0]);
    assert_eq!(named.counts("moved").released(), 20);
    let lanes = Segment::observe(&named.0).unwrap().lanes.len();
    assert_eq!(lanes, 1, "the threads gave their lanes back");
}

#[test]
fn a_guard_outlives_the_thread_that_acquired_it() {
    let named = Named::small("outlives");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let guard =
        std::thread::spawn(move || worker.expires("outlives", LONG).unwrap()).join().unwrap();
    assert_eq!(named.armed(), ["outlives Armed"], "its deadline still holds");
    assert_eq!(guard.release(), Released::InTime);
}

#[test]
fn a_thread_takes_further_lanes_until_there_is_none() {
    let named = Named::small("further");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let guards: Vec<Guard> = (0..16).map(|_| worker.expires("many", LONG).unwrap()).collect();
    let error = worker.expires("many", LONG).unwrap_err();
    assert!(matches!(error, AcquireError::NoFreeTimer { lanes: 4, .. }), "{error}");
    drop(guards);
    let again: Vec<Guard> = (0..16).map(|_| worker.expires("many", LONG).unwrap()).collect();
    assert_eq!(again.len(), 16, "every timer came back");
    let other = std::thread::spawn({
        let name = named.0.clone();
        move || Worker::attach(name.as_str()).err()
    });
    assert!(matches!(other.join().unwrap(), Some(AttachError::NoFreeLane { lanes: 4, .. })));
}

#[test]
fn scope_names_beyond_the_table_cost_no_deadline() {
    let named = Named::small("names");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    for index in 0..10 {
        drop(worker.expires(&format!("scope {index}"), LONG).unwrap());
    }
    let seen = Segment::observe(&named.0).unwrap();
    assert_eq!(seen.scopes.len(), 4);
    assert_eq!(seen.scopes_overflowed, 7);
    let acquired: u64 = seen.scopes.iter().map(|scope| scope.counts.acquired).sum();
    assert_eq!(acquired, 10);
    assert!(matches!(worker.expires("", LONG), Err(AcquireError::EmptyScope)));
}

#[test]
fn names_beyond_the_table_are_told_of_armed_timers() {
    let named = Named::small("spilled");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let armed = || named.armed().join(", ").replace(" Armed", "");
    for index in 0..10 {
        drop(worker.expires(&format!("scope {index}"), LONG).unwrap());
    }
    let by_name = worker.expires("GET /by-name", LONG).unwrap();
    let handle = worker.scope("GET /by-handle").unwrap();
    let by_handle = handle.expires(LONG).unwrap();
    let beat = worker.heartbeat("GET /heartbeat", LONG).unwrap();
    beat.kick().unwrap();
    worker.acquire("GET /keyed", LONG).unwrap();
    let all = ["GET /by-handle", "GET /by-name", "GET /heartbeat", "GET /keyed"];
    assert_eq!(armed(), all.join(", "));
    drop((by_name, by_handle, beat));
    worker.release("GET /keyed").unwrap();
    // The same timers again, for others.
    let guards: Vec<_> = all
        .iter()
        .map(|name| worker.expires(name.strip_prefix("GET /").unwrap(), LONG).unwrap())
        .collect();
    assert_eq!(armed(), "by-handle, by-name, heartbeat, keyed");
    drop(guards);
    let again = handle.expires(LONG).unwrap();
    assert_eq!(armed(), "GET /by-handle");
    drop(again);
}

#[test]
fn a_timer_says_which_task_acquired_it() {
    let named = Named::small("task");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let tasks = || {
        let seen = Segment::observe(&named.0).unwrap();
        let timers = seen.lanes.iter().flat_map(|lane| &lane.timers);
        timers.map(|timer| (timer.scope.clone(), timer.task)).collect::<Vec<_>>()
    };
    let guard = worker.expires("a", LONG).unwrap();
    assert_eq!(tasks(), [("a".to_owned(), 0)]);
    guard.note_task(u32::MAX);
    guard.extend(LONG).unwrap();
    assert_eq!(tasks(), [("a".to_owned(), u32::MAX)]);
    drop(guard);
    let _other = worker.expires("b", LONG).unwrap();
    assert_eq!(tasks(), [("b".to_owned(), 0)], "the same timer, acquired by no task");
}

#[test]
fn absurd_times_are_refused() {
    let named = Named::small("absurd");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    assert!(matches!(worker.expires("s", Duration::ZERO), Err(AcquireError::Zero)));
    assert!(matches!(worker.expires("s", Duration::MAX), Err(AcquireError::Absurd { .. })));
    drop(worker.expires("s", hangwatch::MAX_TIMEOUT).unwrap());
    assert_eq!(named.armed(), [""; 0], "a refused acquire leaves nothing armed");
}

#[test]
fn a_missing_segment_watchdog_or_name_is_said() {
    let named = Named::small("missing");
    let attach = WorkerOptions::new().require_watchdog().attach(named.0.as_str());
    assert!(matches!(attach, Err(AttachError::NoWatchdog { .. })));
    let error = Worker::attach("test-no-such-segment").unwrap_err().to_string();
    assert!(error.contains("hangwatch run"), "{error}");
    assert!(Worker::attach("no/such").unwrap_err().to_string().contains("name"));
}

#[test]
fn an_observer_sees_states_and_labels() {
    let named = Named::small("labels");
    let labels = hangwatch::Labels { job: "job 7".into(), rank: Some(0), ..Default::default() };
    let worker = WorkerOptions::new().labels(labels).attach(named.0.as_str()).unwrap();
    let _guard = worker.expires("labelled", LONG).unwrap();
    let seen = Segment::observe(&named.0).unwrap();
    let lane = &seen.lanes[0];
    assert_eq!((lane.job.as_str(), lane.rank, lane.pid), ("job 7", Some(0), std::process::id()));
    assert_eq!(lane.timers[0].state, TimerState::Armed);
    assert_eq!(seen.lane_count, 4);
}

#[test]
fn timers_do_not_count_a_pause() {
    let segment = Named::small("pause");
    let worker = Worker::attach(&segment.0).unwrap();
    let step = worker.expires("step", LONG).unwrap();
    let before = step.remaining().unwrap();
    {
        let pause = worker.pause("checkpoint", 10 * LONG).unwrap();
        assert!(step.remaining().unwrap() > 10 * LONG, "it cannot expire before the pause does");
        assert!(pause.remaining().unwrap() > 9 * LONG);
        assert_eq!(segment.armed(), ["checkpoint Armed", "step Armed"]);
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = step.remaining().unwrap();
    assert!(after <= before + Duration::from_millis(1), "{before:?} {after:?}");
    assert!(after > LONG / 2);
    assert_eq!(segment.armed(), ["step Armed"]);
    assert_eq!(step.release(), Released::InTime);
}

#[test]
fn nested_pauses_give_each_timer_its_whole_time() {
    let segment = Named::small("pause-nested");
    let worker = Worker::attach(&segment.0).unwrap();
    let rest = || std::thread::sleep(Duration::from_millis(30)); // time is what is measured
    let check = |guard: Option<Duration>, whole: Duration| {
        let left = guard.unwrap();
        assert!(left <= whole + Duration::from_millis(1) && left > whole / 2, "{left:?}");
    };
    let step = worker.expires("step", LONG).unwrap();
    let before = step.remaining().unwrap();
    let outer = worker.pause("checkpoint", 10 * LONG).unwrap();
    {
        let inner = worker.pause("upload", 100 * LONG).unwrap();
        assert!(step.remaining().unwrap() > 109 * LONG);
        check(outer.remaining(), 110 * LONG);
        {
            let _innermost = worker.pause("retry", 1000 * LONG).unwrap();
            check(inner.remaining(), 1100 * LONG);
            rest();
        }
        rest();
        check(inner.remaining(), 100 * LONG);
    }
    rest();
    check(outer.remaining(), 10 * LONG);
    assert!(step.remaining().unwrap() > 10 * LONG, "the outer pause lasts");
    drop(outer);
    check(step.remaining(), before);
    let left = step.remaining().unwrap();
    assert!(left + Duration::from_millis(20) > before, "it counted a pause: {before:?} {left:?}");
    assert_eq!(segment.armed(), ["step Armed"]);
}

#[test]
fn pauses_may_end_in_any_order_and_a_kick_in_one_counts() {
    let segment = Named::small("pause-order");
    let worker = Worker::attach(&segment.0).unwrap();
    let step = worker.expires("step", LONG).unwrap();
    let first = worker.pause("first", 10 * LONG).unwrap();
    let beat = worker.heartbeat("loop", LONG).unwrap();
    let second = worker.pause("second", 100 * LONG).unwrap();
    drop(first);
    let left = [step.remaining().unwrap(), beat.remaining().unwrap()];
    assert!(left.iter().all(|left| *left > 100 * LONG), "the second pause lasts: {left:?}");
    beat.kick().unwrap();
    let third = worker.pause("third", 10 * LONG).unwrap();
    assert!(beat.remaining().unwrap() < 12 * LONG, "its kick ended the second pause's time");
    drop(second);
    assert!(step.remaining().unwrap() > 10 * LONG && beat.remaining().unwrap() > 10 * LONG);
    drop(third);
    let rounded = LONG + Duration::from_millis(1);
    assert!(step.remaining().unwrap() <= rounded && beat.remaining().unwrap() <= rounded);
}

#[test]
fn what_changes_a_timer_in_a_pause_counts() {
    let segment = Named::small("pause-changed");
    let worker = Worker::attach(&segment.0).unwrap();
    let beat = worker.heartbeat("loop", LONG).unwrap();
    let short = worker.expires("released meanwhile", LONG).unwrap();
    {
        let _pause = worker.pause("checkpoint", 10 * LONG).unwrap();
        drop(short);
        beat.kick().unwrap();
        assert!(beat.remaining().unwrap() <= LONG + Duration::from_millis(1));
    }
    assert!(beat.remaining().unwrap() <= LONG + Duration::from_millis(1));
    assert_eq!(segment.armed(), ["loop Armed"]);
    assert!(worker.pause("", LONG).is_err());
    assert!(worker.pause("checkpoint", Duration::ZERO).is_err());
}

/// What a watchdog does to a timer whose worker it is about to reap.
fn condemn(named: &Named, lane: u32, timer: usize) {
    let segment = Segment::open(&named.0).unwrap();
    let timer = segment.words().lane(lane).timer(timer).unwrap();
    assert!(timer.condemn(timer.load()));
}

/// What a watchdog does to a condemned timer whose worker it could not reap.
fn give_up(named: &Named, lane: u32, timer: usize) {
    let segment = Segment::open(&named.0).unwrap();
    let timer = segment.words().lane(lane).timer(timer).unwrap();
    assert!(timer.give_up(timer.load()));
}

/// The guard moves to another thread, which releases it after the owner has armed all it can.
#[test]
fn a_late_release_after_a_failed_reap_ends_no_other_acquire() {
    let geometry = Geometry { lanes: 1, timers: 2, records: 16, scopes: 4, lane_scopes: 4 };
    let named = Named::new("given-up", geometry);
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let late = worker.expires("late", LONG).unwrap();
    condemn(&named, 0, 0);
    give_up(&named, 0, 0);
    let second = worker.expires("second", LONG).unwrap();
    let refused = worker.expires("third", LONG).unwrap_err();
    assert!(matches!(refused, AcquireError::NoFreeTimer { .. }), "{refused}");
    let released = std::thread::spawn(move || late.release()).join().unwrap();
    assert_eq!(released, Released::Reported);
    assert_eq!(named.armed(), ["second Armed"]);
    let third = worker.expires("third", LONG).unwrap();
    assert_eq!([second.release(), third.release()], [Released::InTime; 2]);
}

#[test]
fn a_timer_released_too_late_comes_back_when_its_reap_fails() {
    let geometry = Geometry { lanes: 1, timers: 2, records: 16, scopes: 4, lane_scopes: 4 };
    let named = Named::new("comes-back", geometry);
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let _kept = worker.expires("kept", LONG).unwrap();
    for round in 0..4 {
        let late = worker.expires("late", LONG).unwrap();
        condemn(&named, 0, 1);
        let released = match round % 2 {
            0 => late.release(),
            _ => std::thread::spawn(move || late.release()).join().unwrap(),
        };
        assert_eq!(released, Released::TooLate);
        let refused = worker.expires("late", LONG).unwrap_err();
        assert!(matches!(refused, AcquireError::NoFreeTimer { .. }), "condemned still: {refused}");
        give_up(&named, 0, 1);
    }
    assert_eq!(worker.expires("late", LONG).unwrap().release(), Released::InTime);
    let counts = named.counts("late");
    assert_eq!((counts.acquired, counts.reported), (5, 4), "each acquire has its end");
}

/// Its thread has ended: the lane stays this process's until the guard's release.
#[test]
fn a_guard_that_was_given_up_keeps_the_lane_of_its_thread() {
    let geometry = Geometry { lanes: 2, timers: 1, records: 16, scopes: 4, lane_scopes: 4 };
    let named = Named::new("given-up-lane", geometry);
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let (give, given) = std::sync::mpsc::channel();
    let (end, may_end) = std::sync::mpsc::channel();
    let acquires = std::thread::spawn(move || {
        give.send(worker.expires("late", LONG).unwrap()).unwrap();
        may_end.recv().unwrap();
    });
    let late = given.recv().unwrap();
    condemn(&named, 1, 0);
    give_up(&named, 1, 0);
    end.send(()).unwrap();
    acquires.join().unwrap();
    let next_thread = move || {
        let refused = worker.expires("own", LONG).unwrap_err();
        assert!(matches!(refused, AcquireError::NoFreeTimer { .. }), "{refused}");
        assert_eq!(late.release(), Released::Reported);
        assert_eq!(worker.expires("own", LONG).unwrap().release(), Released::InTime);
    };
    std::thread::spawn(next_thread).join().unwrap();
}

/// A thread ends and leaves a guard behind; the lane goes to the next thread, under its name.
#[test]
fn an_inherited_lane_names_its_new_thread_and_a_pause_leaves_its_old_timers_alone() {
    let geometry = Geometry { lanes: 2, timers: 4, records: 16, scopes: 4, lane_scopes: 4 };
    let named = Named::new("inherited", geometry);
    let _main = Worker::attach(named.0.as_str()).unwrap();
    let name = named.0.clone();
    let in_thread = |thread: &str, body: Box<dyn FnOnce(Worker) -> Guard + Send>| {
        let name = name.clone();
        let attaches = move || body(Worker::attach(name.as_str()).unwrap());
        let builder = std::thread::Builder::new().name(thread.into());
        builder.spawn(attaches).unwrap().join().unwrap()
    };
    let lane = || Segment::observe(&named.0).unwrap().lanes.remove(1);
    let left = in_thread("first", Box::new(|worker| worker.expires("left", LONG).unwrap()));
    let (first, before) = (lane(), left.remaining().unwrap());
    assert_eq!(first.thread, "first");
    let own = in_thread(
        "second",
        Box::new(move |worker| {
            let own = worker.expires("own", LONG).unwrap();
            let pause = worker.pause("checkpoint", 10 * LONG).unwrap();
            assert!(left.remaining().unwrap() <= before, "it is another thread's");
            assert!(own.remaining().unwrap() > 10 * LONG);
            drop(pause);
            // Released here, it is this thread's from then on.
            assert_eq!(left.release(), Released::InTime);
            let again: Vec<Guard> = (0..3).map(|_| worker.expires("own", LONG).unwrap()).collect();
            let _pause = worker.pause("checkpoint", 10 * LONG).unwrap_err();
            drop(again);
            let all: Vec<Guard> = (0..2).map(|_| worker.expires("own", LONG).unwrap()).collect();
            let _pause = worker.pause("checkpoint", 10 * LONG).unwrap();
            assert!(all.iter().all(|guard| guard.remaining().unwrap() > 10 * LONG));
            own
        }),
    );
    let second = lane();
    assert_eq!((second.lane, second.thread.as_str()), (first.lane, "second"));
    assert_ne!(second.tid, first.tid);
    assert_eq!(own.release(), Released::InTime);
    assert_eq!(Segment::observe(&named.0).unwrap().lanes.len(), 2);
}

#[test]
fn options_given_after_the_first_use_are_an_error_unless_they_are_the_same() {
    use hangwatch::{ClockKind, Labels};
    let named = Named::small("settled");
    let attach = |options: WorkerOptions| options.attach(named.0.as_str());
    let labels = Labels { job: "one".into(), rank: Some(3), ..Labels::default() };
    attach(WorkerOptions::new().labels(labels.clone()).clock(ClockKind::System)).unwrap();
    attach(WorkerOptions::new().labels(labels.clone())).unwrap();
    attach(WorkerOptions::new().clock(ClockKind::System)).unwrap();
    attach(WorkerOptions::new().signal(hangwatch::Signal::NotifyOnly)).unwrap();
    let refused = |options: WorkerOptions| attach(options).unwrap_err().to_string();
    let other = Labels { job: "two".into(), rank: None, ..labels };
    let said = refused(WorkerOptions::new().labels(other).clock(ClockKind::Coarse));
    assert!(said.contains("another clock, job, rank:"), "{said}");
    let said = refused(WorkerOptions::new().ptracer(Ptracer::Any));
    assert!(said.contains("another ptracer:"), "{said}");
    assert_eq!(Segment::observe(&named.0).unwrap().lanes[0].job, "one");
}

#[test]
fn a_new_claim_of_a_lane_is_not_quarantined() {
    let geometry = Geometry { lanes: 1, timers: 1, records: 16, scopes: 4, lane_scopes: 4 };
    let named = Named::new("quarantined", geometry);
    let name = named.0.clone();
    let attach = move || assert!(Worker::attach(name.as_str()).is_ok());
    std::thread::spawn(attach.clone()).join().unwrap();
    Segment::open(&named.0).unwrap().words().lane(0).quarantine();
    let name = named.0.clone();
    let seen = move || {
        attach();
        Segment::observe(&name).unwrap().lanes[0].quarantined
    };
    assert!(!std::thread::spawn(seen).join().unwrap());
}

#[test]
fn a_thread_attaches_no_lane_whose_timers_all_have_handles() {
    let geometry = Geometry { lanes: 1, timers: 1, records: 16, scopes: 4, lane_scopes: 4 };
    let named = Named::new("taken", geometry);
    let name = named.0.clone();
    let start = move || Worker::attach(name.as_str()).unwrap().expires("moved", LONG).unwrap();
    let moved = std::thread::spawn(start).join().unwrap();
    let refused = Worker::attach(named.0.as_str()).unwrap_err();
    assert!(matches!(refused, AttachError::NoFreeLane { .. }), "{refused}");
    assert_eq!(moved.release(), Released::InTime);
}

#[test]
fn what_is_no_interval_makes_no_segment() {
    for asked in [Duration::ZERO, Duration::from_micros(999), Duration::from_secs(61)] {
        let options = CreateOptions { max_interval: asked, ..CreateOptions::default() };
        let refused = Segment::create("test-no-interval", options).unwrap_err().to_string();
        assert!(refused.contains("1 ms to 1 minute"), "{refused}");
    }
}

/// Else it would wrap to a time long past, and the process be reaped for it.
#[test]
fn a_time_beyond_all_times_puts_a_deadline_off_for_good() {
    let named = Named::small("beyond");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let guard = worker.scope("beyond").unwrap().expires_at(Nanos::NEVER, LONG).unwrap();
    assert!(guard.remaining().unwrap() > Duration::from_hours(24));
    assert_eq!(guard.release(), Released::InTime);
}

#[test]
fn a_scope_in_the_destructor_of_a_thread_local_is_refused() {
    use std::cell::RefCell;
    use std::sync::mpsc::{Sender, channel};

    struct Late(Worker, Sender<String>);

    impl Drop for Late {
        fn drop(&mut self) {
            let refused = self.0.expires("late", LONG).map(drop);
            let _ = self.1.send(format!("{refused:?}"));
        }
    }

    thread_local! {
        static LATE: RefCell<Option<Late>> = const { RefCell::new(None) };
    }

    let named = Named::small("late");
    let (worker, (said, heard)) = (Worker::attach(named.0.as_str()).unwrap(), channel());
    let body = move || {
        // Used first, it is dropped last.
        LATE.set(Some(Late(worker, said)));
        assert_eq!(worker.expires("early", LONG).unwrap().release(), Released::InTime);
    };
    std::thread::spawn(body).join().unwrap();
    let heard = heard.recv().unwrap();
    assert!(heard.starts_with("Err(this thread is ending"), "{heard}");
}

#[test]
fn a_key_acquired_after_a_failed_reap_has_a_deadline_again() {
    let geometry = Geometry { lanes: 1, timers: 2, records: 16, scopes: 4, lane_scopes: 4 };
    let named = Named::new("key", geometry);
    let worker = Worker::attach(named.0.as_str()).unwrap();
    for round in 0..10 {
        worker.acquire("key", LONG).unwrap();
        condemn(&named, 0, round % 2);
        // Condemned still, it is left behind for another timer.
        worker.acquire("key", LONG).unwrap();
        give_up(&named, 0, round % 2);
    }
    worker.acquire("key", LONG).unwrap();
    let other = worker.expires("other", LONG).unwrap();
    assert_eq!(named.armed(), ["key Armed", "other Armed"], "no timer is lost");
    assert_eq!([worker.release("key").unwrap(), other.release()], [Released::InTime; 2]);
}

#[test]
fn a_process_learns_what_of_its_own_was_condemned() {
    let named = Named::small("condemned");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let segment = Segment::open(&named.0).unwrap();
    // Other tests of this process have other segments.
    let condemned = || -> Vec<Condemned> {
        let mut found = Segment::condemned().unwrap();
        found.retain(|condemned| condemned.segment == named.0);
        found
    };
    let outer = worker.expires("outer", LONG).unwrap();
    let inner = worker.expires("inner", Duration::from_nanos(1)).unwrap();
    assert_eq!(condemned(), []);
    let timer = segment.words().lane(0).timer(1).unwrap();
    assert!(timer.condemn(timer.load()));
    let [found] = &condemned()[..] else { panic!("{:?}", condemned()) };
    assert_eq!((found.scope.as_str(), found.lane, found.timer), ("inner", 0, 1));
    assert!(found.late > Duration::ZERO && found.timeout < Duration::from_millis(1));
    assert_eq!(condemned()[0].acquired_at, found.acquired_at, "it tells the acquire from others");
    assert_eq!([inner.release(), outer.release()], [Released::TooLate, Released::InTime]);
    // One that is another process's by its start, under the same pid.
    let lane = segment.words().lane(0);
    let own = lane.identity();
    lane.attach(
        lane.owner(),
        Identity { start_ticks: own.start_ticks + 1, ..own },
        LaneNames::default(),
    );
    assert_eq!(condemned(), []);
}

#[test]
fn an_acquire_without_a_time_has_its_scopes_at_that_moment() {
    let named = Named::small("learned");
    let words = Segment::open(&named.0).unwrap().words();
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let scope = worker.scope("forward").unwrap();
    let id = words.names().intern("forward").scope;
    let refused = scope.expires_default().unwrap_err().to_string();
    assert!(refused.contains("\"forward\"") && refused.contains("--deadlines"), "{refused}");

    let allow = |seconds: Option<u64>| {
        let timeout = seconds.map(|seconds| seconds * 1_000_000_000);
        words.timeout(id).set_ns(timeout, hangwatch::Nanos(1));
    };
    let check = |guard: &Guard, seconds: u64| {
        let (left, most) = (guard.remaining().unwrap(), Duration::from_secs(seconds));
        assert!(left > most / 2 && left <= most + Duration::from_millis(1), "{left:?} of {most:?}");
    };
    allow(Some(600));
    let first = scope.expires_default().unwrap();
    allow(Some(60));
    let second = worker.expires_default("forward").unwrap();
    check(&first, 600);
    check(&second, 60);
    allow(None);
    words.set_others_timeout_ns(Some(6_000_000_000_000));
    check(&scope.expires_default().unwrap(), 6_000);
    check(&worker.expires_default("unnamed").unwrap(), 6_000);
    words.set_others_timeout_ns(None);
    assert!(matches!(scope.expires_default(), Err(AcquireError::NoDeadline { .. })));
}

#[test]
fn a_heartbeat_by_the_deadlines_file_follows_it_from_kick_to_kick() {
    let named = Named::small("beat-learned");
    let segment = Segment::open(&named.0).unwrap();
    let words = segment.words();
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let id = words.names().intern("loop").scope;
    let allow = |seconds: Option<u64>| {
        let timeout = seconds.map(|seconds| seconds * 1_000_000_000);
        words.timeout(id).set_ns(timeout, hangwatch::Nanos(1));
    };
    assert!(matches!(worker.heartbeat_default("loop"), Err(AcquireError::NoDeadline { .. })));
    allow(Some(600));
    let beat = worker.heartbeat_default("loop").unwrap();
    let check = |seconds: u64| {
        beat.kick().unwrap();
        let (left, most) = (beat.remaining().unwrap(), Duration::from_secs(seconds));
        assert!(left > most / 2 && left <= most + Duration::from_millis(1), "{left:?} of {most:?}");
    };
    check(600);
    allow(Some(60));
    check(60);
    // The file says nothing of it any more: it goes on as it began.
    allow(None);
    check(600);
    beat.pause("rests").unwrap();
    allow(Some(6_000));
    beat.resume().unwrap();
    check(6_000);
    let seen = Segment::observe(&named.0).unwrap();
    assert_eq!(seen.lanes[0].timers[0].kind, TimerKind::Heartbeat);
    assert_eq!(beat.release(), Released::InTime);
}

#[test]
fn statistics_say_which_clocks_made_them() {
    use hangwatch::ClockKind;
    let named = Named::small("clocks");
    let work = |clock: ClockKind, scope: &'static str| {
        let options = WorkerOptions::new().clock(clock);
        let name = named.0.clone();
        // A lane of its own, given back at the thread's end and taken over by the next.
        let pair =
            move || drop(options.attach(name.as_str()).unwrap().expires(scope, LONG).unwrap());
        std::thread::spawn(pair).join().unwrap();
    };
    work(ClockKind::Coarse, "coarse");
    work(ClockKind::Coarse, "both");
    work(ClockKind::System, "both");
    let seen = Segment::observe(&named.0).unwrap();
    let clocks = |name: &str| -> Vec<ClockKind> {
        seen.scopes.iter().find(|scope| scope.name == name).unwrap().clocks.iter().collect()
    };
    assert_eq!(clocks("both"), [ClockKind::System, ClockKind::Coarse]);
    assert!(clocks("coarse").contains(&ClockKind::Coarse));
}

#[test]
fn the_flight_record_tells_what_a_thread_did_last() {
    let named = Named::small("flight");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let segment = Segment::open(&named.0).unwrap();
    let did = move |lane| -> Vec<String> {
        let records = segment.recent_records(lane, 100);
        assert!(records.is_sorted_by_key(|record| record.at));
        records.iter().map(|record| format!("{:?} {}", record.operation, record.scope)).collect()
    };
    let outer = worker.expires("outer", LONG).unwrap();
    let beat = worker.heartbeat("loop", LONG).unwrap();
    beat.kick().unwrap();
    beat.pause("idle").unwrap();
    let told = ["Acquire outer", "Acquire loop", "Rearm loop", "Pause idle"];
    assert_eq!(did(0), told);
    assert_eq!(segment.recent_records(0, 1)[0].deadline, None);
    assert!(segment.recent_records(0, 4)[0].deadline.unwrap() > Nanos(0));
    // Released by another thread, whose lane's ring has the updates.
    let (lane, elsewhere) = std::thread::spawn(move || {
        drop(worker.expires("loop", LONG).unwrap());
        drop(outer);
        let released = segment.recent_records(1, 1).remove(0);
        (released.lane, did(1))
    })
    .join()
    .unwrap();
    assert_eq!(lane, 0);
    assert_eq!(elsewhere, ["Acquire loop", "Release loop", "Release outer"]);
    assert_eq!(did(4), [""; 0], "there is no such lane");
}

#[test]
fn an_timeout_counts_no_pause() {
    let named = Named::small("pause-timeout");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let timeouts = || -> Vec<Duration> {
        let seen = Segment::observe(&named.0).unwrap();
        seen.lanes.iter().flat_map(|lane| &lane.timers).map(|timer| timer.timeout).collect()
    };
    let beat = worker.heartbeat("loop", LONG).unwrap();
    let _step = worker.expires("step", LONG).unwrap();
    let rest = Duration::from_millis(50);
    beat.pause("waiting for work").unwrap();
    // What is measured, no synchronisation.
    std::thread::sleep(rest);
    beat.resume().unwrap();
    drop({
        let pause = worker.pause("checkpoint", LONG).unwrap();
        std::thread::sleep(rest);
        pause
    });
    let seen = timeouts();
    assert_eq!(seen.len(), 2);
    for timeout in seen {
        let rounded = LONG..LONG + Duration::from_millis(1);
        assert!(rounded.contains(&timeout), "{timeout:?}");
    }
}

#[test]
fn the_time_a_caller_gives_is_the_time_that_is_kept() {
    let named = Named::small("at");
    let scope = Worker::attach(named.0.as_str()).unwrap().scope("event").unwrap();
    let now = hangwatch::now();
    let guard = scope.expires_at(now, LONG).unwrap();
    let armed = &Segment::observe(&named.0).unwrap().lanes[0].timers[0];
    assert!(armed.timeout >= LONG, "never early");
    assert!(armed.timeout < LONG + Duration::from_millis(100), "{:?}", armed.timeout);
    assert_eq!(guard.release_at(Nanos(now.0 + 3_000_000_000)), Released::InTime);
    let counts = named.counts("event");
    assert_eq!((counts.acquired, counts.released()), (1, 1));
    let three = Duration::from_secs(3).as_nanos() as u64;
    assert_eq!(counts.max_ns, three, "what it took by the caller's times");
}

#[test]
fn whoever_may_trace_it_a_worker_attaches() {
    // Without Yama the kernel knows no such permission, and with it without a watchdog there is nobody.
    let named = Named::small("ptracer");
    for ptracer in [Ptracer::Nobody, Ptracer::Watchdog, Ptracer::Any] {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let worker =
                    WorkerOptions::new().ptracer(ptracer).attach(named.0.as_str()).unwrap();
                let guard = worker.expires("step", LONG).unwrap();
                assert_eq!(named.armed(), ["step Armed"], "{ptracer:?}");
                assert_eq!(guard.release(), Released::InTime);
            });
        });
    }
}

/// One process keeps 8,192 names that the table has no room for; what comes after them is `(other)`.
#[test]
fn scope_handles_beyond_all_tables_are_made_and_armed_by_many_threads_at_once() {
    let named = Named::small("beyond-all");
    let worker = Worker::attach(named.0.as_str()).unwrap();
    // A lane each, and one for this thread.
    let threads: Vec<_> = (0..3)
        .map(|thread| {
            std::thread::spawn(move || {
                for number in 0..3_000 {
                    let scope = worker.scope(&format!("made up {thread} {number}")).unwrap();
                    let guard = scope.expires(LONG).unwrap();
                    assert!(matches!(guard.release(), hangwatch::Released::InTime));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let scopes = Segment::open(&named.0).unwrap().picture().scopes;
    let acquired: u64 = scopes.iter().map(|scope| scope.counts.acquired).sum();
    assert_eq!(acquired, 9_000, "each is counted, if as (other)");
}
