//! Measurements, not tests. Run them by hand in a release build with `--ignored`.

use std::num::NonZeroU64;
use std::time::Duration;

use hangwatch::sys::clock;
use hangwatch_process::limits;
use hangwatch_server::{Holds, ServerOptions, Treatment};

use super::stage::Stage;

fn median(figures: &mut [u64]) -> (u64, u64, u64) {
    figures.sort_unstable();
    let at = |part: usize| figures[figures.len() * part / 100];
    (at(50), at(90), at(99))
}

/// The machine's own limit: an absolute sleep, followed by a signal through a pidfd.
fn limit(rounds: usize, ms: u64) -> (u64, u64, u64) {
    let mut late = Vec::new();
    limits::set_timer_slack(NonZeroU64::MIN).unwrap();
    for _ in 0..rounds {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = hangwatch_process::pidfd::Pidfd::open(pid).unwrap();
        std::thread::sleep(Duration::from_millis(10));
        let until = clock::monotonic_ns() + ms * 1_000_000;
        let at = rustix::time::Timespec {
            tv_sec: (until / 1_000_000_000).cast_signed(),
            tv_nsec: (until % 1_000_000_000).cast_signed(),
        };
        rustix::thread::clock_nanosleep_absolute(rustix::thread::ClockId::Monotonic, &at).unwrap();
        pidfd.signal_number(9).unwrap();
        late.push(clock::monotonic_ns() - until);
        child.wait().unwrap();
    }
    median(&mut late)
}

fn reaps(rounds: usize, ms: u64, holds: Holds) -> (u64, u64, u64) {
    let stage = Stage::new("figures");
    let _server = stage.serve(ServerOptions { holds, ..ServerOptions::default() });
    let mut late = Vec::new();
    for _ in 0..rounds {
        let mut worker = stage.worker();
        std::thread::sleep(Duration::from_millis(20));
        worker.say(&format!("expires step {ms}"));
        late.push(stage.expiry().late_ns);
    }
    median(&mut late)
}

#[test]
#[ignore = "a measurement: from the deadline to the signal"]
fn from_deadline_to_signal() {
    let reap = Holds { stopped: Treatment::Reap, traced: Treatment::Reap, frozen: Treatment::Reap };
    for ms in [5, 150] {
        println!("{ms} ms: limit (p50, p90, p99) {:?} ns", limit(60, ms));
        println!("{ms} ms: reap {:?} ns", reaps(60, ms, Holds::default()));
        println!("{ms} ms: reap, nothing asked {:?} ns", reaps(60, ms, reap));
    }
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
#[ignore = "a measurement: the cost of idle lanes"]
fn of_idle_lanes() {
    let name = format!("test-idle-{}", std::process::id());
    let geometry = hangwatch::Geometry { lanes: 1024, ..hangwatch::Geometry::default() };
    let options = hangwatch::CreateOptions { geometry, ..hangwatch::CreateOptions::default() };
    let segment = hangwatch::Segment::create(&name, options).unwrap();
    let mut helpers: Vec<_> = (0..8).map(|_| super::stage::Actor::new("many", &name)).collect();
    let server =
        hangwatch_server::Server::start(segment, ServerOptions::default(), |_| {}).unwrap();
    super::stage::until(|| server.health().workers == 8);
    std::thread::sleep(Duration::from_secs(2));
    let (from, ticks) = (cpu_ns_by_thread(), server.health().ticks);
    std::thread::sleep(Duration::from_secs(20));
    let ticks = server.health().ticks - ticks;
    println!("{} lanes used, {ticks} ticks in 20 s; of a core:", segment.words().lanes_used());
    for (thread, ns) in cpu_ns_by_thread() {
        let spent = ns - from.get(&thread).copied().unwrap_or(0);
        println!("{thread} {:.4} %", spent as f64 / 20e9 * 100.0);
    }
    helpers.clear();
    hangwatch::Segment::remove(&name).unwrap();
}

fn cpu_ns_by_thread() -> std::collections::BTreeMap<String, u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .map(|task| {
            let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap();
            let ns = read("schedstat").split(' ').next().unwrap().parse().unwrap();
            (read("comm").trim_end().to_owned(), ns)
        })
        .collect()
}
