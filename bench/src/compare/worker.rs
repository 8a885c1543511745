//! An acquire and its release on the worker, beside bare clock reads and queues.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hangwatch::sys::clock;
use hangwatch::{ClockKind, Scope, Segment, WorkerOptions};
use hangwatch_core::shared::calibration::RENEW_NS;
use hangwatch_server::{Server, ServerOptions};

use super::Mode;
use super::queues::{self, Crossbeam, Pipe, Queue, Rtrb, Thing};
use super::results::{Comparison, Side};
use super::turns::{Player, alternate};
use crate::measure::ns_each;
use crate::pair::{Bench, calibrate, clock_read, pair};

/// What ratios are to.
pub const CLOCK: &str = "one `clock_gettime`";
/// hangwatch with its default clock.
pub const COUNTER: &str = "**hangwatch**, counter (TSC)";
/// With two readings of the system clock.
pub const SYSTEM: &str = "hangwatch, system clock";
/// With the coarse clock.
pub const COARSE: &str = "hangwatch, coarse clock";
/// With the caller's time.
pub const PASSED: &str = "hangwatch, time passed in";

/// What no pair by the counter can be cheaper than, on any machine: see [`limit`].
const COUNTER_LIMIT: &str = "the limit: two counter reads, a compare-and-swap";
/// The same with the system clock.
const SYSTEM_LIMIT: &str = "the limit: two system clock reads, a compare-and-swap";
/// The same with the coarse clock.
const COARSE_LIMIT: &str = "the limit: two coarse clock reads, a compare-and-swap";

/// How often the counter's calibration is renewed.
const RENEW: Duration = Duration::from_nanos(RENEW_NS);
/// Pairs a turn: two records each must fit into every queue.
const PAIRS: usize = 10_000;

/// A pair with nobody reading, and with the watchdog (or a queue's reader) at work.
pub fn compare(mode: Mode) -> Vec<Comparison> {
    check();
    let turns = mode.of(301, 21);
    let bench = Bench::new();
    let mut alone = comparison("pair", "Acquire + release on the worker, nobody reading");
    alone.contenders = alternate(players(bench.segment(), Reading::Nobody), turns, PAIRS);
    let server = Server::start(bench.segment(), ServerOptions::default(), |_| ())
        .expect("nobody else serves it");
    // The server calibrates the counter; a calibration is trusted once it has aged a little.
    std::thread::sleep(Duration::from_millis(700));
    let mut drained = comparison("pair-drained", "The same, with the watchdog draining");
    drained.contenders = alternate(players(bench.segment(), Reading::Somebody), turns, PAIRS);
    server.stop();
    vec![alone, drained]
}

fn comparison(id: &str, title: &str) -> Comparison {
    let how = "The guard is in memory between acquire and release, as around any real work; \
               exactly-once release, both records, histogram and statistics are on. The queues carry \
               the same two records of 32 bytes and nothing else: no clock, no timer, no statistics, \
               and a full one holds its producer up. Turns of 10,000 pairs, all contenders in turn.";
    let reading = if id == "pair" {
        " What the queues hold is taken out between the turns."
    } else {
        " hangwatch's real server serves the segment; a thread empties each queue every 100 us."
    };
    Comparison {
        id: id.to_owned(),
        title: title.to_owned(),
        how: format!("{how}{reading}"),
        unit: "ns a pair".to_owned(),
        points: vec![String::new()],
        basis: CLOCK.to_owned(),
        ..Comparison::default()
    }
}

/// Whether somebody reads while a pair is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Nobody,
    Somebody,
}

/// Every contender does what it is timed for.
fn check() {
    queues::check::<Rtrb>();
    queues::check::<Crossbeam>();
    queues::check::<Thing>();
    queues::check::<Pipe>();
    let bench = Bench::new();
    let scope = attach(bench.segment(), ClockKind::System);
    for _ in 0..1000 {
        pair(&scope);
        pair_at(&scope);
    }
    let seen = Segment::observe(bench.segment().name()).expect("it is there");
    let counts = &seen.scopes.iter().find(|view| view.name == "pair").expect("it was used").counts;
    assert_eq!((counts.acquired, counts.released()), (2000, 2000));
}

fn players(segment: Segment, reading: Reading) -> Vec<Player> {
    let clocked = |name, side, kind| {
        Player::start(name, side, move || {
            let scope = attach(segment, kind);
            let is_alone = kind == ClockKind::Counter && reading == Reading::Nobody;
            let mut calibrated_at: Option<Instant> = None;
            move |count| {
                // As the server does where there is one.
                if is_alone && calibrated_at.is_none_or(|at| at.elapsed() > RENEW) {
                    calibrate(segment);
                    calibrated_at = Some(Instant::now());
                }
                ns_each(count, || pair(&scope))
            }
        })
    };
    let passed = move || {
        let scope = attach(segment, ClockKind::System);
        move |count| ns_each(count, || pair_at(&scope))
    };
    vec![
        Player::start(CLOCK, Side::Limit, || |count| ns_each(count, clock_read)),
        limit(COUNTER_LIMIT, clock::counter),
        limit(SYSTEM_LIMIT, clock::monotonic_ns),
        limit(COARSE_LIMIT, clock::coarse_ns),
        clocked(COUNTER, Side::Ours, ClockKind::Counter),
        clocked(SYSTEM, Side::Variant, ClockKind::System),
        clocked(COARSE, Side::Variant, ClockKind::Coarse),
        Player::start(PASSED, Side::Variant, passed),
        queue::<Rtrb>(reading),
        queue::<Crossbeam>(reading),
        queue::<Thing>(reading),
        queue::<Pipe>(reading),
    ]
}

/// What a pair cannot do without, and nothing else: the time when it begins and ends, a timer that is
/// armed, and the locked instruction by which it ends exactly once.
fn limit(name: &'static str, now: fn() -> u64) -> Player {
    let pair = move |timer: &AtomicU64| {
        let armed = now();
        timer.store(armed, Ordering::Release);
        black_box(timer);
        black_box(now());
        let ended = timer.compare_exchange(armed, 0, Ordering::AcqRel, Ordering::Acquire);
        assert!(ended.is_ok(), "nobody else has the timer");
    };
    let prepare = move || {
        let timer = AtomicU64::new(0);
        move |count| ns_each(count, || pair(&timer))
    };
    Player::start(name, Side::Limit, prepare)
}

fn queue<Q: Queue>(reading: Reading) -> Player {
    let prepare = move || -> Box<dyn FnMut(usize) -> f64> {
        match reading {
            Reading::Nobody => Box::new(queues::alone::<Q>()),
            Reading::Somebody => Box::new(queues::drained::<Q>()),
        }
    };
    Player::start(Q::NAME, Side::Peer, prepare)
}

/// A scope of the calling thread, which has a lane of its own for it.
fn attach(segment: Segment, kind: ClockKind) -> Scope {
    let worker = WorkerOptions::new().clock(kind).attach_to(segment).expect("a free lane");
    worker.scope("pair").expect("a name")
}

/// One pair, its times passed in: the loop knows them.
#[inline]
fn pair_at(scope: &Scope) {
    let now = black_box(hangwatch::Nanos(1_000_000_000_000_000));
    let guard = scope.expires_at(now, Duration::from_hours(1)).expect("a free timer");
    black_box(&guard);
    guard.release_at(now);
}
