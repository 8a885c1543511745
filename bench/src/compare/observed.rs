//! What it costs to be looked at: by a listener's client every second, and by `hangwatch top`.
//!
//! A worker's pair must execute the same instructions (callgrind; left out where valgrind is not
//! installed) and take the same time, and the watchdog over 1,024 lanes stay under 0.5 % of a core.

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use hangwatch::{ClockKind, CreateOptions, Geometry, Scope, Segment, WorkerOptions};
use hangwatch_server::{Server, ServerOptions};

use super::Mode;
use super::results::{Comparison, Contender, Side, Spread};
use super::turns::{Player as Contestant, alternate};
use super::worker::{CLOCK, COUNTER, SYSTEM};
use crate::measure::{cpu_time, ns_each};
use crate::observers::Observers;
use crate::pair::{clock_read, pair};
use crate::process::{Player, ROLE};

/// The watchdog.
pub const OURS: &str = "**hangwatch**";
/// `top` itself.
pub const TOP: &str = "`hangwatch top` itself";
/// The points of all three comparisons.
pub const POINTS: [&str; 2] = ["alone", "observed"];

/// The pairs of two runs under callgrind; what both have in common is not the pairs'.
const PAIRS: [u64; 2] = [1_000, 400_000];
/// The pairs of a turn.
const EACH: usize = 10_000;
/// The turns of a block, which lasts a second or more: somebody asks in each.
const TURNS: usize = 1_200;
const LANES: u32 = 1024;
const TIMERS: u32 = 64;
/// How long lanes are given to be admitted, one at a time, and observers to begin.
const SETTLING: Duration = Duration::from_secs(3);

type Failed = Box<dyn std::error::Error>;

/// Instructions, time, and the watchdog's own cost, with observers and without.
///
/// # Errors
/// Where a process cannot be started, or callgrind tells nothing.
pub fn compare(mode: Mode) -> Result<Vec<Comparison>, Failed> {
    let mut all = Vec::new();
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok() {
        all.push(instructions()?);
    } else {
        eprintln!("observed: valgrind is not installed, so no instructions are counted");
    }
    all.push(medians(mode.of(15, 2))?);
    all.push(share(mode.of(Duration::from_secs(20), Duration::from_secs(2)))?);
    Ok(all)
}

const HOW: &str = "Observed: the listener is scraped (`/metrics`) every second, and `hangwatch top` \
                   shows the segment in a terminal of 80 x 24, a new picture every second.";

/// The instructions of one pair.
fn instructions() -> Result<Comparison, Failed> {
    let stage = Stage::new("instructions", Geometry::default())?;
    let mut counts = Vec::new();
    for observed in [false, true] {
        stage.observers.set(observed)?;
        let [few, many] = PAIRS.map(|count| stage.collected(count));
        #[expect(clippy::cast_precision_loss, reason = "some hundred")]
        counts.push(((many? - few?) / (PAIRS[1] - PAIRS[0])) as f64);
    }
    let figures = counts.iter().map(|&count| Some(Spread::single(count))).collect();
    Ok(Comparison {
        how: format!("Counted by callgrind, by the system's clock. {HOW}"),
        contenders: vec![contender(OURS, Side::Ours, figures)],
        ..comparison("observed-instructions", "Instructions of a pair, observed", "instructions")
    })
}

/// The role that runs under callgrind. The system's clock: the counter's path depends on how old its
/// calibration is, and a watchdog beside a program so slow renews it as it pleases.
pub(crate) fn pairs(segment: &str, count: u64) -> ! {
    let worker = WorkerOptions::new().clock(ClockKind::System).attach(segment).expect("a lane");
    let scope = worker.scope("pair").expect("a name");
    for _ in 0..count {
        black_box(&scope.expires(Duration::from_hours(1)).expect("a free timer"));
    }
    std::process::exit(0)
}

/// The time of one pair, in blocks that are observed and blocks that are not, in turn.
fn medians(blocks: usize) -> Result<Comparison, Failed> {
    let stage = Stage::new("medians", Geometry::default())?;
    let names = [(CLOCK, Side::Limit), (COUNTER, Side::Ours), (SYSTEM, Side::Variant)];
    let mut medians = [const { [const { Vec::new() }; POINTS.len()] }; 3];
    for block in 0..2 * blocks {
        let point = block % 2;
        stage.observers.set(point == 1)?;
        let seen = alternate(stage.contestants(), TURNS, EACH);
        for (all, one) in medians.iter_mut().zip(&seen) {
            all[point].push(one.median(0).expect("it took turns"));
        }
    }
    let contenders = names.iter().zip(&medians).map(|(&(name, side), points)| {
        contender(name, side, points.iter().map(|all| Some(Spread::of(all))).collect())
    });
    Ok(Comparison {
        how: format!(
            "Medians of {blocks} blocks each, observed and not in turn; in a block {TURNS} turns of \
             {EACH} pairs. In brackets what a tenth of the blocks was under and over. Alone: the \
             observers are stopped, the watchdog serves on. {HOW}"
        ),
        basis: CLOCK.to_owned(),
        contenders: contenders.collect(),
        ..comparison("observed", "Acquire + release, observed", "ns a pair")
    })
}

/// What share of a core the watchdog uses, and `top`.
fn share(span: Duration) -> Result<Comparison, Failed> {
    // One lane more: the worker's main thread has one, too.
    let geometry = Geometry { lanes: LANES + 1, timers: TIMERS, ..Geometry::default() };
    let stage = Stage::new("share", geometry)?;
    let (lanes, timers) = (LANES.to_string(), TIMERS.to_string());
    let mut worker = Player::start(&["idle", stage.segment.name(), &lanes, &timers])?;
    worker.ready();
    let (mut watchdog, mut top) = (Vec::new(), Vec::new());
    for observed in [false, true] {
        stage.observers.set(observed)?;
        sleep(SETTLING);
        let before = [stage.cpu_time(), stage.observers.top_time()?];
        sleep(span);
        let after = [stage.cpu_time(), stage.observers.top_time()?];
        let percent = |which: usize| {
            let used = after[which].saturating_sub(before[which]);
            Some(Spread::single(used.as_secs_f64() / span.as_secs_f64() * 100.0))
        };
        watchdog.push(percent(0));
        top.push(percent(1).filter(|_| observed));
    }
    Ok(Comparison {
        how: format!(
            "All the watchdog's threads' processor time over {span:?}, its listener's with them, with \
             a worker process of {LANES} threads, each with {TIMERS} armed timers. {HOW}"
        ),
        contenders: vec![contender(OURS, Side::Ours, watchdog), contender(TOP, Side::Variant, top)],
        ..comparison("observed-share", "The watchdog over 1,024 lanes, observed", "% of a core")
    })
}

fn comparison(id: &str, title: &str, unit: &str) -> Comparison {
    Comparison {
        id: id.to_owned(),
        title: title.to_owned(),
        unit: unit.to_owned(),
        axis: "the segment is".to_owned(),
        points: POINTS.map(str::to_owned).to_vec(),
        basis: OURS.to_owned(),
        ..Comparison::default()
    }
}

fn contender(name: &str, side: Side, figures: Vec<Option<Spread>>) -> Contender {
    Contender { name: name.to_owned(), side, figures, distribution: Vec::new() }
}

/// A watchdog, and who looks at its segment.
struct Stage {
    segment: Segment,
    observers: Observers,
    _server: Server,
}

impl Stage {
    fn new(what: &str, geometry: Geometry) -> Result<Stage, Failed> {
        let name = format!("bench-observed-{what}-{}", std::process::id());
        let options = CreateOptions { geometry, ..CreateOptions::default() };
        let segment = Segment::create(&name, options)?;
        let server = Server::start(segment, ServerOptions::default(), |_| ())?;
        let observers = Observers::start(&segment, &server)?;
        // The server calibrates the counter; a calibration is trusted once it has aged a little.
        sleep(SETTLING);
        Ok(Stage { segment, observers, _server: server })
    }

    /// A bare clock read, and pairs by two clocks, each on a thread of its own.
    fn contestants(&self) -> Vec<Contestant> {
        let segment = self.segment;
        let clocked = |name, side, kind| {
            Contestant::start(name, side, move || {
                let scope = attach(segment, kind);
                move |count| ns_each(count, || pair(&scope))
            })
        };
        vec![
            Contestant::start(CLOCK, Side::Limit, || |count| ns_each(count, clock_read)),
            clocked(COUNTER, Side::Ours, ClockKind::Counter),
            clocked(SYSTEM, Side::Variant, ClockKind::System),
        ]
    }

    /// The instructions of a process that runs so many pairs.
    fn collected(&self, count: u64) -> Result<u64, Failed> {
        let output = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(std::env::current_exe()?)
            .args([ROLE, "pairs", self.segment.name(), &count.to_string()])
            .output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        let line = text.lines().find_map(|line| line.split_once("Collected : "));
        let (_, number) = line.ok_or_else(|| format!("callgrind told no count:\n{text}"))?;
        Ok(number.trim().parse()?)
    }

    /// The processor time of this process, without the client's.
    fn cpu_time(&self) -> Duration {
        cpu_time().saturating_sub(self.observers.client_time())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = Segment::remove(self.segment.name());
    }
}

fn attach(segment: Segment, kind: ClockKind) -> Scope {
    let worker = WorkerOptions::new().clock(kind).attach_to(segment).expect("a free lane");
    worker.scope("pair").expect("a name")
}
