//! The state: a segment as JSON, the same from `status --json` and from `/state` of `run --listen`.
//!
//! `status --json` writes an array of [`SegmentState`]; `/state` writes a [`WatchdogState`] around
//! it. Times are `CLOCK_MONOTONIC` nanoseconds of the host, durations have their unit in the name.
//! Pids and labels are claims of the workers, except the watchdog's, whom the kernel names. Texts are
//! written clean (see [`hangwatch_text`]). What is not known is `null`.
//!
//! Fields may be added at any time: whoever reads ignores what it does not know. [`SCHEMA`] is counted
//! up where a field goes, or changes its meaning.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use hangwatch::sys::Pid;
use hangwatch::sys::host;
use hangwatch::sys::lock::Holder;
use hangwatch::{LaneView, Observation, ScopeView, TimerView};
use hangwatch_core::wire::lane::TimerSignal;
use hangwatch_core::wire::time::duration_ns;
use hangwatch_process::bounded::Bounded;
use hangwatch_process::proc;
use serde::{Deserialize, Serialize};

/// The version of these types.
pub const SCHEMA: u32 = 1;

/// A watchdog and what it serves: `/state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WatchdogState {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The host's name.
    pub host: String,
    /// The watchdog's own pid, in its own PID namespace.
    pub watchdog_pid: u32,
    /// The watchdog's version.
    pub version: String,
    /// Whether it is well: as `/healthz` says.
    pub healthy: bool,
    /// Why not.
    pub reason: Option<String>,
    /// What it serves, as `status --json` has it.
    pub segments: Vec<SegmentState>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentState {
    /// Its name.
    pub segment: String,
    /// When the picture was taken.
    pub at_ns: u64,
    /// Its watchdog's pid as seen from where the picture was taken.
    pub watchdog_pid: Option<i32>,
    /// When its watchdog's last tick ended; 0 where there never was one.
    pub watchdog_last_tick_at_ns: u64,
    /// Whether the brake holds.
    pub braked: bool,
    /// How many lanes there are.
    pub lane_count: u32,
    /// Every lane that somebody owns.
    pub lanes: Vec<LaneState>,
    /// Every scope, with its statistics over all lanes that are and were.
    pub scopes: Vec<ScopeState>,
    /// How many scope names found no room and were counted as `(other)`.
    pub scopes_overflowed: u64,
    /// The watchdog's counters, by name.
    pub counters: serde_json::Map<String, serde_json::Value>,
}

/// One lane and its owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneState {
    /// Its index.
    pub lane: u32,
    /// The pid its owner claims, in the owner's PID namespace.
    pub pid: u32,
    /// The thread it claims to be.
    pub tid: u32,
    /// The command behind that pid as seen from the watchdog: a hint.
    pub command: Option<String>,
    /// The thread's name.
    pub thread: String,
    /// The job; empty where there is none.
    pub job: String,
    /// The host, as the owner's namespace names it.
    #[serde(default)]
    pub host: String,
    /// The rank in the job.
    pub rank: Option<u32>,
    /// The number of ranks, 0 where unknown.
    pub world_size: u32,
    /// The rank on its host.
    pub local_rank: Option<u32>,
    /// The clock its statistics were made with.
    pub clock: String,
    /// When it attached.
    pub attached_at_ns: u64,
    /// Records its owner has written since the segment was made.
    pub records: u64,
    /// Whether the watchdog has quarantined it, because it lied.
    pub quarantined: bool,
    /// The timers that are not idle, the innermost first.
    pub timers: Vec<TimerState>,
}

/// One timer that is not idle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimerState {
    /// Its index in the lane.
    pub timer: u16,
    /// Its scope.
    pub scope: String,
    /// `armed`, `paused`, `reported`, `braked` or `condemned`.
    pub state: String,
    /// `guard`, `keyed` or `heartbeat`.
    pub kind: String,
    /// The signal it asks for; `null`: the watchdog's.
    pub signal: Option<u8>,
    /// Whether it asks for none: to be reported only.
    pub notify_only: bool,
    /// How long ago it was acquired or last kicked.
    pub age_ns: u64,
    /// The time it has from then on.
    pub allowance_ns: u64,
    /// The time left, negative once overdue; `null` while paused.
    pub left_ns: Option<i64>,
}

/// One scope's statistics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScopeState {
    /// Its name.
    pub scope: String,
    /// Acquires.
    pub acquired: u64,
    /// Releases, in time or after a report.
    pub released: u64,
    /// Released after a report.
    pub reported: u64,
    /// Condemned by the watchdog.
    pub condemned: u64,
    /// Given up armed, or died with.
    pub abandoned: u64,
    /// The median duration.
    pub p50_ns: u64,
    /// What 99 % of the durations stay under or at.
    pub p99_ns: u64,
    /// What 99.9 % stay under or at.
    pub p999_ns: u64,
    /// The longest duration.
    pub max_ns: u64,
    /// How long it may take by the deadlines file.
    #[serde(default)]
    pub deadline_ns: Option<u64>,
}

impl SegmentState {
    /// What a picture shows.
    pub fn of(seen: &Observation) -> SegmentState {
        let mut commands = Commands::default();
        SegmentState {
            segment: seen.segment.clone(),
            at_ns: seen.at.0,
            watchdog_pid: match seen.watchdog.holder {
                Holder::Process(pid) => Some(pid.as_raw_pid()),
                _ => None,
            },
            watchdog_last_tick_at_ns: seen.watchdog.last_tick_at.0,
            braked: seen.watchdog.limited,
            lane_count: seen.lane_count,
            lanes: seen.lanes.iter().map(|lane| LaneState::of(lane, &mut commands)).collect(),
            scopes: seen.scopes.iter().map(ScopeState::of).collect(),
            scopes_overflowed: seen.scopes_overflowed,
            counters: seen
                .counters
                .iter()
                .map(|(name, count)| ((*name).to_owned(), (*count).into()))
                .collect(),
        }
    }
}

impl LaneState {
    fn of(lane: &LaneView, commands: &mut Commands) -> LaneState {
        LaneState {
            lane: lane.lane,
            pid: lane.pid,
            tid: lane.tid,
            command: commands.of(lane),
            thread: lane.thread.clone(),
            job: lane.job.clone(),
            host: lane.host.clone(),
            rank: lane.rank,
            world_size: lane.world_size,
            local_rank: lane.local_rank,
            clock: lane.clock.name().to_owned(),
            attached_at_ns: lane.attached_at.0,
            records: lane.records,
            quarantined: lane.quarantined,
            timers: lane.timers.iter().map(TimerState::of).collect(),
        }
    }
}

impl TimerState {
    fn of(timer: &TimerView) -> TimerState {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        TimerState {
            timer: timer.timer,
            scope: timer.scope.clone(),
            state: timer.state.name().to_owned(),
            kind: timer.kind.name().to_owned(),
            signal: match timer.signal {
                TimerSignal::Signal(number) => Some(number),
                TimerSignal::Default | TimerSignal::NotifyOnly => None,
            },
            notify_only: timer.signal == TimerSignal::NotifyOnly,
            age_ns: nanos(timer.age),
            allowance_ns: nanos(timer.timeout),
            left_ns: timer.left_ns,
        }
    }
}

impl ScopeState {
    fn of(scope: &ScopeView) -> ScopeState {
        let counts = &scope.counts;
        ScopeState {
            scope: scope.name.clone(),
            acquired: counts.acquired,
            released: counts.released(),
            reported: counts.reported,
            condemned: counts.condemned,
            abandoned: counts.abandoned,
            p50_ns: counts.quantile_ns(0.5),
            p99_ns: counts.quantile_ns(0.99),
            p999_ns: counts.quantile_ns(0.999),
            max_ns: counts.max_ns,
            deadline_ns: scope.timeout.map(duration_ns),
        }
    }
}

/// The commands behind the pids that lanes claim, as far as they are of this PID namespace. Hints for people.
#[derive(Debug)]
pub struct Commands {
    /// Where pids are looked up; `None` where that is not known.
    pid_namespace: Option<u64>,
    /// Each is asked for once: a process may have many lanes.
    known: HashMap<u32, Option<String>>,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands { pid_namespace: host::pid_namespace().ok(), known: HashMap::new() }
    }
}

impl Commands {
    /// The name of a lane's process; `None` where it cannot be told.
    pub fn of(&mut self, lane: &LaneView) -> Option<String> {
        if self.pid_namespace != Some(lane.pid_namespace) {
            return None;
        }
        self.known.entry(lane.pid).or_insert_with(|| name_of(lane.pid)).clone()
    }
}

/// The name of the process that has this pid; `None` where it does not say so at once.
pub fn name_of(pid: u32) -> Option<String> {
    // One for all: a process that never answers is waited for once.
    static NAMES: LazyLock<Mutex<Bounded<Pid, Option<String>>>> = LazyLock::new(Mutex::default);
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.read(pid, move || proc::comm(pid).ok().flatten()).flatten()
}
