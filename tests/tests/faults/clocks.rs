//! Clocks that lie: the wall clock, and the counter's calibration. No decision changes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hangwatch::CreateOptions;
use hangwatch::sys::clock::{counter, counter_is_system_clock, monotonic_ns};
use hangwatch_core::shared::calibration::{Calibration, TOLERANCE_NS, VALID_NS};
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::time::Nanos;
use hangwatch_tests::{Actor, Stage, is_root, program};

/// To step the clock of the whole machine is not for every run of the tests.
const ALLOWED: &str = "HANGWATCH_STEP_CLOCK";

/// Who steps the wall clock, and sets it right at the end of this, whatever the end.
struct Stepper {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Stepper {
    fn start() -> Stepper {
        let mut command = Command::new(program("stage-clock"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Stepper { child, stdin, stdout }
    }

    /// Sets the wall clock so many hours off.
    fn step(&mut self, hours: i64) -> Result<(), String> {
        writeln!(self.stdin.as_mut().unwrap(), "{hours}").unwrap();
        let mut answer = String::new();
        self.stdout.read_line(&mut answer).unwrap();
        if answer == "ok\n" { Ok(()) } else { Err(answer) }
    }
}

impl Drop for Stepper {
    fn drop(&mut self) {
        self.stdin = None;
        assert!(self.child.wait().unwrap().success(), "THE WALL CLOCK IS STILL WRONG");
    }
}

#[test]
fn a_wall_clock_that_is_stepped_by_hours_changes_no_decision() {
    if std::env::var_os(ALLOWED).is_none() {
        println!("skipped: it sets the clock of the whole machine; run it alone with {ALLOWED}=1");
        return;
    }
    if !is_root("to step the wall clock") {
        return;
    }
    let stage = Stage::new("wall-clock");
    let mut watchdog = stage.watchdog(&[]);
    let mut fine = stage.actor();
    fine.tell("expires fine 3600000");
    fine.tell("beat heart 3600000");
    let mut stepper = Stepper::start();
    for hours in [5, -5, 48, 0] {
        let mut hung = stage.actor();
        hung.tell("expires hung 150");
        let due_ns = deadline_of(&stage, &hung);
        if let Err(refused) = stepper.step(hours) {
            println!("skipped: the wall clock cannot be stepped here: {refused}");
            return;
        }
        fine.tell("pairs 1000");
        fine.tell("kick heart");
        let expiry = watchdog.expiry_of(hung.pid());
        assert_eq!(expiry["outcome"], "reaped");
        assert_eq!(expiry["deadline_ns"].as_u64().unwrap(), due_ns, "{hours} h: {expiry}");
        assert!(monotonic_ns() >= due_ns, "{hours} h: too early");
        assert_eq!(hung.wait().signal(), Some(9));
        assert!(fine.is_alive(), "{hours} h");
    }
    drop(stepper);
    assert_eq!(stage.counter(Counter::Condemned), 4);
    assert_eq!(fine.tell("release fine"), "InTime");
    assert!(watchdog.end().success());
}

/// The deadline that its one timer's word holds.
fn deadline_of(stage: &Stage, actor: &Actor) -> u64 {
    use hangwatch_core::wire::timer::TimerWord;
    let lanes = stage.picture().lanes;
    let view = lanes.iter().find(|lane| lane.pid == actor.pid()).unwrap();
    let timer = usize::from(view.timers[0].timer);
    let word = stage.segment.words().lane(view.lane).timers()[timer].load(Ordering::Acquire);
    TimerWord::from_bits(word).deadline().begins().0
}

/// A worker whose segment holds this calibration arms by the time of the system all the same.
fn check(stage: &Stage, actor: &mut Actor, made: Calibration) {
    stage.segment.words().publish_calibration(made);
    check_times(stage, actor, &made);
}

/// Long enough for a calibration to be taken: two readings prove it, and later acquires may go by it.
fn check_times(stage: &Stage, actor: &mut Actor, made: &dyn std::fmt::Debug) {
    for _ in 0..2 {
        check_time(stage, actor, made);
        // Nothing is waited for: the two readings have to be this far apart.
        std::thread::sleep(Duration::from_nanos(VALID_NS));
    }
    (0..3).for_each(|_| check_time(stage, actor, made));
}

fn check_time(stage: &Stage, actor: &mut Actor, made: &dyn std::fmt::Debug) {
    const ALLOWANCE_NS: u64 = 3_600_000_000_000;
    let before_ns = monotonic_ns();
    actor.tell("expires probe 3600000");
    let after_ns = monotonic_ns();
    let due_ns = deadline_of(stage, actor);
    // Put off by what the counter may be wrong, and rounded up: late by a little, never early.
    let late = TOLERANCE_NS * 2 + 1024;
    let right = before_ns + ALLOWANCE_NS..=after_ns + ALLOWANCE_NS + late;
    assert!(right.contains(&due_ns), "{made:?}: {due_ns} is not within {right:?}");
    assert_eq!(actor.tell("release probe"), "InTime");
}

/// A thread that publishes calibrations as fast as it can, each right for the moment, at an absurd
/// rate.
struct Publisher {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    fn start(stage: &Stage) -> Publisher {
        let over = Arc::<AtomicBool>::default();
        let (segment, is_over) = (stage.segment, Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let at = Nanos(monotonic_ns());
                let made = Calibration { counter: counter(), at, multiplier: 1 };
                segment.words().publish_calibration(made);
            }
        });
        Publisher { over, thread: Some(thread) }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn bad_calibrations() -> Vec<Calibration> {
    let (counter, at) = (counter(), Nanos(monotonic_ns()));
    let ghz = |ghz: u64| (1 << 32) / ghz;
    vec![
        Calibration::default(),
        Calibration { counter, at, multiplier: 1 },
        Calibration { counter, at, multiplier: u64::MAX },
        Calibration { counter, at, multiplier: ghz(1) },
        Calibration { counter, at, multiplier: ghz(4) },
        Calibration { counter: 0, at, multiplier: ghz(2) },
        Calibration { counter, at: Nanos(0), multiplier: ghz(2) },
        Calibration { counter, at: Nanos(u64::MAX), multiplier: ghz(2) },
        Calibration { counter: u64::MAX, at, multiplier: ghz(2) },
        Calibration { counter, at: Nanos(at.0 - 10_000_000_000), multiplier: ghz(2) },
    ]
}

#[test]
fn a_stale_absurd_or_absent_calibration_changes_no_deadline() {
    if !counter_is_system_clock() {
        println!("skipped: the kernel does not keep time by the counter here");
        return;
    }
    // Each worker but the one that hangs ends in order: it gives its lane back itself, to the next. The lane
    // of one that is killed comes back when a watchdog finds that out, which takes as long as it takes.
    let options = CreateOptions { geometry: Stage::geometry(2), ..Default::default() };
    let stage = Stage::with("calibration", options);
    let check_all = || {
        for made in bad_calibrations() {
            let mut actor = stage.actor();
            check(&stage, &mut actor, made);
            assert!(actor.end().success());
        }
    };
    // Nobody serves, so nobody publishes a better one.
    check_all();
    // Right for now at each moment, and at a rate that is absurd.
    let publisher = Publisher::start(&stage);
    for _ in 0..20 {
        let mut actor = stage.actor();
        check_times(&stage, &mut actor, &"at each moment, at no rate");
        assert!(actor.end().success());
    }
    drop(publisher);
    // With a watchdog, which goes on publishing right ones between the wrong ones.
    let mut watchdog = stage.watchdog(&[]);
    let mut hung = stage.actor();
    hung.tell("expires hung 400");
    let due_ns = deadline_of(&stage, &hung);
    while hung.is_alive() {
        check_all();
    }
    let expiry = watchdog.expiry_of(hung.pid());
    assert_eq!(
        (expiry["outcome"].as_str(), expiry["deadline_ns"].as_u64()),
        (Some("reaped"), Some(due_ns))
    );
    assert!(monotonic_ns() >= due_ns);
    assert_eq!(hung.wait().signal(), Some(9));
    assert_eq!(stage.counter(Counter::Condemned), 1);
}
