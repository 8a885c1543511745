//! From the deadline to the signal and to the death: hangwatch's server with real worker processes,
//! in turn with the machine's own limit.
//!
//! Both have a batch of workers to end, which hang in a segment, one every few milliseconds. The
//! limit's segment is served by nobody: a thread sleeps to each one's deadline (`clock_nanosleep`,
//! with the server's timer slack of 1 ns) and signals it through a pidfd. Who died when is seen by a
//! thread that polls all their pidfds.
//!
//! The victims must be alike. A process that the scheduler owes time is given the core inside the
//! very system call that kills it, and whoever signals hears of the signal after the death: the larger
//! the process, the later.

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hangwatch::sys::clock;
use hangwatch::{CreateOptions, Geometry, Segment};
use hangwatch_evidence::options::{EvidenceOptions, Level};
use hangwatch_process::limits;
use hangwatch_process::pidfd::Pidfd;
use hangwatch_server::events::{Expiry, What};
use hangwatch_server::{Protection, Server, ServerOptions};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::{ClockId, Timespec, clock_nanosleep_absolute};

use crate::process::Player;

/// How late signals and deaths were after their deadlines, us, of either contender.
#[derive(Debug, Default)]
pub struct Lateness {
    /// hangwatch's.
    pub hangwatch: Late,
    /// The machine's own limit.
    pub limit: Late,
}

/// How late signals and deaths were, us.
#[derive(Debug, Default)]
pub struct Late {
    /// When the signal had been sent.
    pub signals: Vec<f64>,
    /// When the kernel said that the process was dead.
    pub deaths: Vec<f64>,
}

/// Under which conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The first deadline of a batch lies this far ahead.
    pub ahead: Duration,
    /// What else the cores do.
    pub cores: Cores,
    /// The real-time priority of whoever signals; normal scheduling where there is none.
    pub priority: Option<u8>,
    /// How much evidence hangwatch captures of each; it keeps none.
    pub evidence: Level,
}

/// What else the cores do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Nothing.
    Idle,
    /// As many processes as cores compute all the time.
    Busy,
}

type Failed = Box<dyn std::error::Error>;

/// Processes to end at a time.
const BATCH: u32 = 16;
/// Batches in one segment: its lanes, of which those of the dead are freed by a server only.
const BATCHES: u32 = 16;
/// From one deadline of a batch to the next.
const APART: Duration = Duration::from_millis(7);
/// Something is wrong after that.
const PATIENCE: Duration = Duration::from_secs(30);

/// Takes at least `samples` of both in turn.
///
/// # Errors
/// Where a process or the server cannot be started, or real-time priority is refused.
pub fn measure(conditions: Conditions, samples: usize) -> Result<Lateness, Failed> {
    let busy = match conditions.cores {
        Cores::Idle => 0,
        Cores::Busy => thread::available_parallelism().map_or(1, usize::from),
    };
    let _spinning: Vec<Player> =
        (0..busy).map(|_| Player::start(&["spin"])).collect::<Result<_, _>>()?;
    let mut lateness = Lateness::default();
    while lateness.hangwatch.signals.len() < samples {
        let segments = Segments::create()?;
        for _ in 0..BATCHES {
            hangwatch(conditions, &segments.served, &mut lateness.hangwatch)?;
            limit(conditions, &segments.unserved, &mut lateness.limit)?;
            if lateness.hangwatch.signals.len() >= samples {
                break;
            }
        }
    }
    Ok(lateness)
}

/// Two segments, by their names, for as many batches as one has lanes for: a process keeps every
/// segment that it has made for its life.
struct Segments {
    served: String,
    unserved: String,
}

impl Segments {
    fn create() -> Result<Segments, Failed> {
        let pid = std::process::id();
        let segments = Segments {
            served: format!("bench-latency-{pid}"),
            unserved: format!("bench-limit-{pid}"),
        };
        for name in [&segments.served, &segments.unserved] {
            let lanes = BATCH * BATCHES;
            let geometry = Geometry { lanes, ..Geometry::default() };
            Segment::create(name, CreateOptions { geometry, ..CreateOptions::default() })?;
        }
        Ok(segments)
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        for name in [&self.served, &self.unserved] {
            let _ = Segment::remove(name);
        }
    }
}

/// When the `index`th process of a batch is due, after its beginning.
fn due(conditions: Conditions, index: u32) -> Duration {
    conditions.ahead + APART * index
}

fn hangwatch(conditions: Conditions, name: &str, late: &mut Late) -> Result<(), Failed> {
    let segment = Segment::open(name)?;
    let (sender, expired) = channel();
    let protection = Protection { realtime_priority: conditions.priority, ..Protection::default() };
    let evidence = EvidenceOptions { level: conditions.evidence, ..EvidenceOptions::default() };
    let options = ServerOptions { protection, evidence, ..ServerOptions::default() };
    let server = Server::start(segment, options, move |event| {
        if let What::Expired(expiry) = event.what {
            let _ = sender.send(*expiry);
        }
    })?;
    let outcome = hang_batch(conditions, name, &server, &expired, late);
    server.stop();
    outcome
}

fn hang_batch(
    conditions: Conditions,
    name: &str,
    server: &Server,
    expired: &Receiver<Expiry>,
    late: &mut Late,
) -> Result<(), Failed> {
    let mut workers = workers(conditions, name)?;
    let until = Instant::now() + PATIENCE;
    // A deadline of a lane that is not admitted yet is enforced when it is: not what is timed.
    while server.health().workers < workers.len() {
        if Instant::now() > until {
            return Err("the workers were not admitted".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    let deaths = Deaths::watch(&workers, conditions.priority)?;
    workers.iter_mut().for_each(Player::go);
    let mut deadlines = HashMap::new();
    for _ in &workers {
        let expiry = expired.recv_timeout(PATIENCE)?;
        let pid = expiry.timer.worker.ok_or("an unproved worker")?.pid;
        late.signals.push(us(expiry.late_ns));
        deadlines.insert(pid, expiry.timer.deadline_ns);
    }
    late.deaths.extend(deaths.after(&deadlines)?);
    Ok(())
}

/// A batch of workers that are ready to hang.
fn workers(conditions: Conditions, segment: &str) -> Result<Vec<Player>, Failed> {
    let mut workers = Vec::new();
    for index in 0..BATCH {
        let after_ns = due(conditions, index).as_nanos().to_string();
        workers.push(Player::start(&["hang", segment, &after_ns])?);
    }
    workers.iter_mut().for_each(Player::ready);
    Ok(workers)
}

fn limit(conditions: Conditions, name: &str, late: &mut Late) -> Result<(), Failed> {
    let mut victims = workers(conditions, name)?;
    let deaths = Deaths::watch(&victims, conditions.priority)?;
    let pidfds: Vec<Pidfd> =
        victims.iter().map(|victim| Pidfd::open(victim.pid())).collect::<Result<_, _>>()?;
    victims.iter_mut().for_each(Player::go);
    let sleeper = move || -> Result<Vec<(u64, u64)>, String> {
        let text = |error: std::io::Error| error.to_string();
        limits::set_timer_slack(NonZeroU64::MIN).map_err(text)?;
        conditions.priority.map_or(Ok(()), limits::run_realtime).map_err(text)?;
        let begun = clock::monotonic_ns();
        let mut signalled = Vec::new();
        for (index, pidfd) in (0..).zip(&pidfds) {
            let deadline_ns = begun + due(conditions, index).as_nanos() as u64;
            sleep_until(deadline_ns);
            pidfd.signal(Signal::KILL).map_err(|error| error.to_string())?;
            signalled.push((deadline_ns, clock::monotonic_ns()));
        }
        Ok(signalled)
    };
    let signalled = thread::spawn(sleeper).join().expect("it does not panic")?;
    late.signals.extend(signalled.iter().map(|&(deadline_ns, at_ns)| us(at_ns - deadline_ns)));
    let pids = victims.iter().map(|victim| victim.pid().as_raw_pid().unsigned_abs());
    let deadlines = pids.zip(signalled.iter().map(|&(deadline_ns, _)| deadline_ns)).collect();
    late.deaths.extend(deaths.after(&deadlines)?);
    Ok(())
}

/// A thread that sees processes die.
struct Deaths(JoinHandle<Result<HashMap<u32, u64>, String>>);

impl Deaths {
    fn watch(players: &[Player], priority: Option<u8>) -> Result<Deaths, Failed> {
        let open = |player: &Player| Ok::<_, Failed>((player.pid(), Pidfd::open(player.pid())?));
        let alive: Vec<(Pid, Pidfd)> = players.iter().map(open).collect::<Result<_, _>>()?;
        let body = move || {
            let text = |error: std::io::Error| error.to_string();
            limits::set_timer_slack(NonZeroU64::MIN).map_err(text)?;
            priority.map_or(Ok(()), limits::run_realtime).map_err(text)?;
            see_all_die(alive)
        };
        Ok(Deaths(thread::spawn(body)))
    }

    /// How long after its deadline each died, us.
    fn after(self, deadlines: &HashMap<u32, u64>) -> Result<Vec<f64>, Failed> {
        let died = self.0.join().expect("it does not panic")?;
        let late = |(pid, at_ns): (u32, u64)| Some(us(at_ns.saturating_sub(*deadlines.get(&pid)?)));
        Ok(died.into_iter().filter_map(late).collect())
    }
}

fn see_all_die(mut alive: Vec<(Pid, Pidfd)>) -> Result<HashMap<u32, u64>, String> {
    let mut died = HashMap::new();
    while !alive.is_empty() {
        let mut polled: Vec<PollFd<'_>> =
            alive.iter().map(|(_, pidfd)| PollFd::new(pidfd, PollFlags::IN)).collect();
        match rustix::event::poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
        let now_ns = clock::monotonic_ns();
        let dead: Vec<bool> = polled.iter().map(|one| !one.revents().is_empty()).collect();
        let mut dead = dead.iter();
        alive.retain(|(pid, _)| {
            let is_dead = *dead.next().expect("as many as polled");
            if is_dead {
                died.insert(pid.as_raw_pid().unsigned_abs(), now_ns);
            }
            !is_dead
        });
    }
    Ok(died)
}

#[expect(clippy::cast_precision_loss, reason = "less than a minute")]
fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

fn sleep_until(deadline_ns: u64) {
    const NS_PER_S: u64 = 1_000_000_000;
    let request = Timespec {
        tv_sec: (deadline_ns / NS_PER_S).cast_signed(),
        tv_nsec: (deadline_ns % NS_PER_S).cast_signed(),
    };
    while clock_nanosleep_absolute(ClockId::Monotonic, &request).is_err() {}
}
