//! What a listener costs: `cargo run --release -p hangwatch-bench --bin listening`.
//!
//! With one that is scraped every second, and without: how many instructions a worker's pair executes
//! (callgrind; left out where valgrind is not installed), and how much of a core the watchdog uses over
//! 1,024 lanes with all their timers armed. The first must be the same, the second stay under 0.5 %.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use hangwatch::{ClockKind, CreateOptions, Geometry, Segment, WorkerOptions};
use hangwatch_bench::measure::cpu_time;
use hangwatch_bench::process::Player;
use hangwatch_cli::listen::{Address, Audience, Bound, Listening, Subject, Tally};
use hangwatch_cli::server::{Server, ServerOptions};
use rustix::time::{ClockId, clock_gettime};

/// The pairs of two runs; what both have in common is not the pairs'.
const PAIRS: [u64; 2] = [1_000, 400_000];
const LANES: u32 = 1024;
const TIMERS: u32 = 64;
/// How long the watchdog's processor time is added up.
const SPAN: Duration = Duration::from_secs(20);
/// The most it may use of a core.
const MOST: f64 = 0.005;

type Failed = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if let Err(error) = hangwatch_bench::process::play_role() {
        eprintln!("listening: {error}");
        return ExitCode::FAILURE;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["pairs", segment, count] => pairs(segment, count).map(|()| true),
        [] => compare(),
        _ => Err("it takes no arguments".into()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("listening: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What runs under callgrind. The system's clock: the counter's path depends on how old its
/// calibration is, and a watchdog beside a program so slow renews it as it pleases.
fn pairs(segment: &str, count: &str) -> Result<(), Failed> {
    let worker = WorkerOptions::new().clock(ClockKind::System).attach(segment)?;
    let scope = worker.scope("pair")?;
    for _ in 0..count.parse::<u64>()? {
        black_box(&scope.expires(Duration::from_hours(1))?);
    }
    Ok(())
}

fn compare() -> Result<bool, Failed> {
    let mut good = true;
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_ok() {
        let [without, with] = [Scraped::No, Scraped::EverySecond].map(instructions);
        let (without, with) = (without?, with?);
        println!("instructions a pair: {without} without, {with} with a scrape every second");
        good &= without == with;
    } else {
        println!("instructions a pair: not counted, valgrind is not installed");
    }
    let [without, with] = [Scraped::No, Scraped::EverySecond].map(share_of_a_core);
    let (without, with) = (without?, with?);
    println!(
        "the watchdog over {LANES} lanes of {TIMERS} armed timers: {:.3} % of a core without, {:.3} % with",
        without * 100.0,
        with * 100.0
    );
    Ok(good && with < MOST)
}

/// Whether somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scraped {
    No,
    EverySecond,
}

/// The instructions of one pair.
fn instructions(scraped: Scraped) -> Result<u64, Failed> {
    let stage = Stage::new("instructions", Geometry::default(), scraped)?;
    let [few, many] = PAIRS.map(|count| collected(stage.segment.name(), count));
    Ok((many? - few?) / (PAIRS[1] - PAIRS[0]))
}

fn collected(segment: &str, count: u64) -> Result<u64, Failed> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe()?)
        .args(["pairs", segment, &count.to_string()])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find_map(|line| line.split_once("Collected : "));
    let (_, number) = line.ok_or_else(|| format!("callgrind told no count:\n{text}"))?;
    Ok(number.trim().parse()?)
}

/// The share of a core that the watchdog uses, the client that asks not counted.
fn share_of_a_core(scraped: Scraped) -> Result<f64, Failed> {
    // One lane more: the worker's main thread has one, too.
    let geometry = Geometry { lanes: LANES + 1, timers: TIMERS, ..Geometry::default() };
    let stage = Stage::new("share", geometry, scraped)?;
    let (lanes, timers) = (LANES.to_string(), TIMERS.to_string());
    let mut worker = Player::start(&["idle", stage.segment.name(), &lanes, &timers])?;
    worker.ready();
    // The lanes are admitted first, one at a time.
    sleep(Duration::from_secs(3));
    let before = stage.cpu_time();
    sleep(SPAN);
    let used = stage.cpu_time().saturating_sub(before);
    Ok(used.as_secs_f64() / SPAN.as_secs_f64())
}

/// A watchdog, its listener, and who asks it.
struct Stage {
    segment: Segment,
    client: Option<Client>,
    _listening: Option<Listening>,
    _server: Server,
}

impl Stage {
    fn new(what: &str, geometry: Geometry, scraped: Scraped) -> Result<Stage, Failed> {
        let name = format!("bench-listening-{what}-{}", std::process::id());
        let options = CreateOptions { geometry, ..CreateOptions::default() };
        let segment = Segment::create(&name, options)?;
        let server = Server::start(segment, ServerOptions::default(), |_| ())?;
        let (mut client, mut listening) = (None, None);
        if scraped == Scraped::EverySecond {
            let bound = Bound::new(&"127.0.0.1:0".parse()?, Audience::ThisHost, None)?;
            let (vitals, tally) = (server.vitals(), Arc::<Tally>::default());
            let started = bound.serve(Subject { vitals, tally, host: "bench".to_owned() })?;
            client = Some(Client::start(started.address()));
            listening = Some(started);
        }
        Ok(Stage { segment, client, _listening: listening, _server: server })
    }

    /// The processor time of this process, without the client's.
    fn cpu_time(&self) -> Duration {
        let client = self.client.as_ref().map_or(Duration::ZERO, Client::cpu_time);
        cpu_time().saturating_sub(client)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.client.take());
        let _ = Segment::remove(self.segment.name());
    }
}

/// Asks for `/metrics` every second.
struct Client {
    over: Arc<AtomicBool>,
    used_ns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    fn start(address: &Address) -> Client {
        let Address::Tcp(address) = *address else { unreachable!("it was bound to a port") };
        let (over, used_ns) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (is_over, used) = (Arc::clone(&over), Arc::clone(&used_ns));
        let thread = spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                let mut page = Vec::new();
                let mut stream = TcpStream::connect(address).expect("it listens");
                stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it listens");
                stream.read_to_end(&mut page).expect("it answers");
                assert!(page.starts_with(b"HTTP/1.0 200"), "it answers");
                let time = clock_gettime(ClockId::ThreadCPUTime);
                let ns = time.tv_sec * 1_000_000_000 + time.tv_nsec;
                used.store(ns.cast_unsigned(), Ordering::Relaxed);
                sleep(Duration::from_secs(1));
            }
        });
        Client { over, used_ns, thread: Some(thread) }
    }

    fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
