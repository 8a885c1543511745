//! What comes once in a life: attach and detach, a watchdog's restart, memory.

use std::fs;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use hangwatch::sys::lock;
use hangwatch::{CreateOptions, Geometry, Segment, WorkerOptions};
use hangwatch_server::events::What;
use hangwatch_server::{Server, ServerOptions};

use super::Mode;
use super::results::{Comparison, Contender, Side, Spread};
use crate::cost;
use crate::process::Player;
use crate::stage::small_lanes;

/// hangwatch.
pub const OURS: &str = "**hangwatch**";
/// The least that an attach must do.
pub const LOCKS: &str = "a thread that takes and gives back a file lock";
/// A restart until every timer is in the table.
pub const ADOPTED: &str = "**hangwatch**, all timers adopted";
/// A restart until an overdue worker is dead.
pub const ENFORCED: &str = "hangwatch, an overdue worker reaped";

const LANES: u32 = 1024;
const PATIENCE: Duration = Duration::from_mins(1);

type Failed = Box<dyn std::error::Error>;

/// Attach, restart, memory, and what the watchdog itself costs while nothing happens.
///
/// # Errors
/// Where processes or servers cannot be started.
pub fn compare(mode: Mode) -> Result<Vec<Comparison>, Failed> {
    Ok(vec![
        attach(mode.of(301, 31))?,
        restart(mode.of(15, 2))?,
        watchdog_memory()?,
        lane_memory()?,
        idle_cost(mode)?,
    ])
}

fn us(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// A thread that attaches, times one scope and detaches, beside one that does none of it, and one that
/// makes the lock's system calls only.
fn attach(turns: usize) -> Result<Comparison, Failed> {
    let name = format!("bench-attach-{}", std::process::id());
    let segment = Segment::create(&name, CreateOptions::default())?;
    let scratch = rustix::fs::memfd_create("scratch", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut all = [const { Vec::new() }; 3];
    for _ in 0..turns {
        all[0].push(thread_us(|| ()));
        all[1].push(thread_us(|| {
            assert!(lock::try_lock(scratch.as_fd(), 7).expect("a lock"), "nobody else has it");
            lock::unlock(scratch.as_fd(), 7).expect("it was held");
        }));
        all[2].push(thread_us(|| {
            let worker = WorkerOptions::new().attach_to(segment).expect("a free lane");
            let scope = worker.scope("attach").expect("a name");
            drop(scope.expires(Duration::from_hours(1)).expect("a free timer"));
        }));
    }
    Segment::remove(&name)?;
    let [alone, locks, ours] = all;
    Ok(Comparison {
        id: "attach".to_owned(),
        title: "A thread that attaches, times one scope and detaches".to_owned(),
        how: "The whole life of a thread, beside that of one that does nothing and one that takes and \
              gives back a file lock, as an attach must."
            .to_owned(),
        unit: "us".to_owned(),
        points: vec![String::new()],
        basis: LOCKS.to_owned(),
        contenders: vec![
            Contender::single("a thread alone", Side::Limit, &alone),
            Contender::single(LOCKS, Side::Limit, &locks),
            Contender::single(OURS, Side::Ours, &ours),
        ],
        ..Comparison::default()
    })
}

fn thread_us(body: impl FnOnce() + Send) -> f64 {
    let start = Instant::now();
    thread::scope(|threads| {
        threads.spawn(body);
    });
    us(start)
}

/// A watchdog ends and another takes over 1,024 lanes with 64 timers each, in another process; beside
/// them one timer is overdue already.
fn restart(turns: usize) -> Result<Comparison, Failed> {
    let name = format!("bench-restart-{}", std::process::id());
    // A lane for each overdue worker: a server that ends at once may leave the last one's as it was.
    let lanes = LANES + 1 + turns as u32;
    let geometry = Geometry { lanes, ..Geometry::default() };
    let segment = Segment::create(&name, CreateOptions { geometry, ..CreateOptions::default() })?;
    let mut idle = Player::start(&["idle", &name, &LANES.to_string(), "64"])?;
    idle.ready();
    let mut all = [const { Vec::new() }; 2];
    for _ in 0..turns {
        let mut overdue = Player::start(&["hang", &name, "1000"])?;
        overdue.ready();
        overdue.go();
        thread::sleep(Duration::from_millis(20)); // nobody serves the segment: it passes unseen
        let [adopted, enforced] = serve_once(segment)?;
        all[0].push(adopted);
        all[1].push(enforced);
    }
    drop(idle);
    Segment::remove(&name)?;
    let [adopted, enforced] = all;
    Ok(Comparison {
        id: "restart".to_owned(),
        title: "A watchdog's restart over 1,024 lanes of 64 armed timers".to_owned(),
        how: "From the start of the server: until its first tick has ended, after which every timer is \
              in its table; and until a worker that was overdue before has died. Its lane comes after \
              all the others: identities are proved one lane at a time, those that are overdue first."
            .to_owned(),
        unit: "us".to_owned(),
        points: vec![String::new()],
        basis: ADOPTED.to_owned(),
        contenders: vec![
            Contender::single(ADOPTED, Side::Ours, &adopted),
            Contender::single(ENFORCED, Side::Variant, &enforced),
        ],
        ..Comparison::default()
    })
}

/// Serves until an overdue worker is reaped: when the first tick had ended, and when that was, us.
fn serve_once(segment: Segment) -> Result<[f64; 2], Failed> {
    let (tell, reaped) = std::sync::mpsc::channel();
    let start = Instant::now();
    let server = Server::start(segment, ServerOptions::default(), move |event| {
        if let What::Expired(_) = event.what {
            let _ = tell.send(());
        }
    })?;
    while server.health().ticks == 0 {
        if start.elapsed() > PATIENCE {
            return Err("the server does not tick".into());
        }
        std::hint::spin_loop();
    }
    let adopted = us(start);
    reaped.recv_timeout(PATIENCE)?;
    let enforced = us(start);
    server.stop();
    Ok([adopted, enforced])
}

/// What the watchdog keeps of its own for each timer.
fn watchdog_memory() -> Result<Comparison, Failed> {
    let lanes = 16_384;
    let name = format!("bench-memory-{}", std::process::id());
    let options = CreateOptions { geometry: small_lanes(lanes), ..CreateOptions::default() };
    let segment = Segment::create(&name, options)?;
    let before = anonymous_bytes()?;
    let server = Server::start(segment, ServerOptions::default(), |_| ())?;
    while server.health().ticks == 0 {
        thread::yield_now();
    }
    let used = anonymous_bytes()? - before;
    server.stop();
    Segment::remove(&name)?;
    let bytes = used / (f64::from(lanes) * 64.0);
    Ok(single(
        "memory-timer",
        "Watchdog memory a timer",
        "bytes",
        bytes,
        "The growth of the \
        process's anonymous memory (`RssAnon`) by a server over 16,384 lanes of 64 timers.",
    ))
}

fn lane_memory() -> Result<Comparison, Failed> {
    #[expect(clippy::cast_precision_loss, reason = "some thousand bytes")]
    let kib = Geometry::default().check()?.lane_bytes() as f64 / 1024.0;
    Ok(single("memory-lane", "A default lane", "KiB", kib, "By its layout."))
}

fn idle_cost(mode: Mode) -> Result<Comparison, Failed> {
    let used = cost::idle_server(1024, mode.of(Duration::from_secs(10), Duration::from_secs(2)))?;
    let how = "All its threads' processor time, with a worker process of 1,024 threads.";
    Ok(single("idle", "The watchdog over 1,024 idle lanes", "% of a core", used * 100.0, how))
}

fn single(id: &str, title: &str, unit: &str, value: f64, how: &str) -> Comparison {
    let figures = vec![Some(Spread::single(value))];
    let (name, distribution) = (OURS.to_owned(), Vec::new());
    Comparison {
        id: id.to_owned(),
        title: title.to_owned(),
        how: how.to_owned(),
        unit: unit.to_owned(),
        points: vec![String::new()],
        basis: OURS.to_owned(),
        contenders: vec![Contender { name, side: Side::Ours, figures, distribution }],
        ..Comparison::default()
    }
}

/// What this process has in memory that is no file's.
fn anonymous_bytes() -> Result<f64, Failed> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: f64 =
        line.ok_or("no RssAnon in /proc/self/status")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024.0)
}
