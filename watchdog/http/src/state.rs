//! A segment as JSON, for `status --json` and for `/state` of `run --listen`.
//!
//! `status --json` writes an array of [`SegmentState`]; `/state` writes a [`WatchdogState`] around it. Times are
//! `CLOCK_MONOTONIC` nanoseconds of the host; durations have their unit in the name. Pids and labels are claims
//! of the workers, except the watchdog's pid, which comes from the kernel. Texts are safe to print (see
//! [`hangwatch_text`]). Unknown values are `null`.
//!
//! Fields may be added at any time; readers must ignore those they do not know. [`SCHEMA`] is incremented when
//! a field is removed or changes its meaning.

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

/// The version of this format.
pub const SCHEMA: u32 = 1;

/// A watchdog and the segments it serves, for `/state`.
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
    /// Whether it is healthy, as `/healthz` says.
    pub healthy: bool,
    /// Why it is not healthy.
    pub reason: Option<String>,
    /// The segments, as in `status --json`.
    pub segments: Vec<SegmentState>,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SegmentState {
    /// Its name.
    pub segment: String,
    /// When the snapshot was taken.
    pub at_ns: u64,
    /// The watchdog's pid in the PID namespace of the reader.
    pub watchdog_pid: Option<i32>,
    /// When the watchdog's last tick ended; 0 before the first.
    pub watchdog_last_tick_at_ns: u64,
    /// Whether the kill limiter has tripped.
    pub braked: bool,
    /// The number of lanes.
    pub lane_count: u32,
    /// The lanes that have an owner.
    pub lanes: Vec<LaneState>,
    /// The scopes, with statistics over all lanes, past and present.
    pub scopes: Vec<ScopeState>,
    /// The number of scope names that did not fit and count as `(other)`.
    pub scopes_overflowed: u64,
    /// The watchdog's counters, by name.
    pub counters: serde_json::Map<String, serde_json::Value>,
}

/// One lane and its owner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaneState {
    /// Its index.
    pub lane: u32,
    /// The pid that its owner claims, in the owner's PID namespace.
    pub pid: u32,
    /// The thread id that its owner claims.
    pub tid: u32,
    /// The command with that pid in the watchdog's namespace: a hint.
    pub command: Option<String>,
    /// The thread's name.
    pub thread: String,
    /// The job; empty if there is none.
    pub job: String,
    /// The host name in the owner's namespace.
    #[serde(default)]
    pub host: String,
    /// The rank in the job.
    pub rank: Option<u32>,
    /// The number of ranks; 0 if unknown.
    pub world_size: u32,
    /// The rank on its host.
    pub local_rank: Option<u32>,
    /// The clock of its statistics.
    pub clock: String,
    /// When it attached.
    pub attached_at_ns: u64,
    /// The number of records its owner has written since the segment was created.
    pub records: u64,
    /// Whether it is quarantined because of invalid values.
    pub quarantined: bool,
    /// The timers that are not idle, innermost first.
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
    /// The signal it requests; `null` for the watchdog's default.
    pub signal: Option<u8>,
    /// Whether it is only reported and not signalled.
    pub notify_only: bool,
    /// How long ago it was acquired or last kicked.
    pub age_ns: u64,
    /// The timeout from then on.
    pub allowance_ns: u64,
    /// The time left; negative when overdue, `null` while paused.
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
    /// Ended with their process or lane while armed.
    pub abandoned: u64,
    /// The median duration.
    pub p50_ns: u64,
    /// The 99th percentile of the durations.
    pub p99_ns: u64,
    /// The 99.9th percentile of the durations.
    pub p999_ns: u64,
    /// The longest duration.
    pub max_ns: u64,
    /// The timeout in the deadlines file.
    #[serde(default)]
    pub deadline_ns: Option<u64>,
}

impl SegmentState {
    /// Converts a snapshot.
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

/// The commands of the pids that lanes claim, if they are in this PID namespace. Hints for people.
#[derive(Debug)]
pub struct Commands {
    /// The PID namespace in which pids are looked up; `None` if it is unknown.
    pid_namespace: Option<u64>,
    /// Each is looked up once, because a process may have many lanes.
    known: HashMap<u32, Option<String>>,
}

impl Default for Commands {
    fn default() -> Commands {
        Commands { pid_namespace: host::pid_namespace().ok(), known: HashMap::new() }
    }
}

impl Commands {
    /// Returns the name of a lane's process; `None` if it is unknown.
    pub fn of(&mut self, lane: &LaneView) -> Option<String> {
        if self.pid_namespace != Some(lane.pid_namespace) {
            return None;
        }
        self.known.entry(lane.pid).or_insert_with(|| name_of(lane.pid)).clone()
    }
}

/// Returns the name of a process; `None` if it cannot be read at once.
pub fn name_of(pid: u32) -> Option<String> {
    // Shared by all threads, so that a process that blocks the read costs one wait only.
    static NAMES: LazyLock<Mutex<Bounded<Pid, Option<String>>>> = LazyLock::new(Mutex::default);
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    names.read(pid, move || proc::comm(pid).ok().flatten()).flatten()
}
