//! What `incident.json` holds, version [`VERSION`].
//!
//! Every point in time is a [`Moment`]: UTC for people, `CLOCK_MONOTONIC` for arithmetic. Every
//! duration ends in its unit. What could not be had is absent, and [`Evidence::missing`] says why.
//! Fields may be added within a version: a reader ignores those it does not know, and takes those that
//! are not there for empty. What a worker says of
//! itself (names, labels, arguments) is a claim and may hold any character: whoever prints it escapes
//! it.

use std::sync::Arc;

use hangwatch_wait_graph::{Verdict, WaitGraph};
use serde::{Deserialize, Serialize};

/// The version of this schema: it grows where a field changes its meaning or goes.
pub const VERSION: u32 = 1;

/// One incident: a worker whose deadline passed, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Incident {
    /// [`VERSION`].
    pub version: u32,
    /// Its name, and its directory's: the UTC time, the segment, the pid.
    pub id: String,
    /// The host's name.
    pub host: String,
    /// The segment's name.
    pub segment: String,
    /// When the worker was condemned.
    pub at: Moment,
    /// Whose deadline passed.
    pub worker: Worker,
    /// The timers of it that were condemned, the earliest deadline first.
    pub timers: Vec<Timer>,
    /// For `--on-expire`: timers of the worker that ran out of time within the same second, beyond
    /// those listed.
    pub timers_left_out: u64,
    /// What was decided about it, in the order in which it was decided.
    pub decisions: Vec<Decision>,
    /// How the reap ended; absent while it is under way, or where the watchdog ended before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// What was seen of the worker before its first signal.
    pub evidence: Evidence,
    /// Of a command that `hangwatch exec` removes: its descendants, those without children first.
    pub descendants: Vec<Descendant>,
    /// Descendants beyond those that were looked at.
    pub descendants_left_out: u64,
    /// What the other workers of the segment were doing then.
    pub others: Vec<Arc<Peer>>,
    /// Other workers beyond those listed: of many that expire at once, only the first lists all.
    pub others_left_out: u64,
    /// The incident that lists all of them, where some are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others_in: Option<String>,
    /// Who most likely holds the others up, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspect: Option<Suspect>,
    /// Who waited for whom before the first signal, and where that ended; absent where it was not captured
    /// in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
}

/// Who waited for whom, and where that ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Waits {
    /// The verdict in one sentence, without a full stop.
    pub sentence: String,
    /// The way to each culprit, a line each.
    pub chain: Vec<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// What it was drawn from.
    pub graph: WaitGraph,
}

/// What `dump` saw of processes that are there.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dump {
    /// Who waits for whom, and the verdict.
    pub waits: Waits,
    /// The processes with their stacks, those asked about first.
    pub processes: Vec<Descendant>,
    /// Processes whose stacks were not taken.
    pub left_out: u64,
    /// What could not be seen, and why.
    pub missing: Vec<String>,
}

/// A point in time on both clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Moment {
    /// RFC 3339 in UTC, with nanoseconds. For people: the wall clock may step.
    pub utc: String,
    /// `CLOCK_MONOTONIC`, ns since the host's boot.
    pub monotonic_ns: u64,
}

/// A worker process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Worker {
    /// Its pid as the watchdog sees it; absent where the kernel does not vouch for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The name of its first thread.
    pub name: String,
    /// Its arguments, the program first, redacted.
    pub command: Vec<String>,
    /// Its job, by its own word; empty where it named none.
    pub job: String,
    /// Its rank in the job, by its own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
    /// The job's number of ranks, by its own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world_size: Option<u64>,
    /// Its rank on this host, by its own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_rank: Option<u64>,
}

/// A timer at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timer {
    /// Its lane.
    pub lane: u32,
    /// Its index in the lane.
    pub timer: u16,
    /// The scope it guards.
    pub scope: String,
    /// `guard`, `keyed` or `heartbeat`.
    pub kind: String,
    /// `armed`, `paused`, `condemned`, `reported` or `braked`.
    pub state: String,
    /// When it was acquired or last kicked.
    pub acquired: Moment,
    /// When it is due, stalls credited; absent while it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Moment>,
    /// From `acquired` until the incident, ns.
    pub age_ns: u64,
    /// How long it had, ns.
    pub allowance_ns: u64,
    /// The task of its thread that acquired it, by a number; 0 (and left out) where none did. Timers of
    /// two tasks are not nested.
    #[serde(skip_serializing_if = "is_none_said")]
    pub task: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none_said(task: &u32) -> bool {
    *task == 0
}

/// One thing the watchdog decided about the worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Decision {
    /// When.
    pub at: Moment,
    /// What: `condemned`, `held_back`, `reaped_first`, `signalled`, `reported`, ...
    pub what: String,
    /// Why, in one sentence.
    pub why: String,
}

/// How the reap ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ending {
    /// When.
    pub at: Moment,
    /// `reaped`, `exited`, `reported`, `braked`, `unkillable`, `failed` or `unattestable`.
    pub outcome: String,
    /// The last signal sent, 0 for none.
    pub signal: u8,
    /// From the earliest deadline to the first signal, or to the report, ns.
    pub late_ns: u64,
    /// Of an unkillable worker: the kernel function it sleeps in, where the kernel tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_channel: Option<String>,
}

/// What was seen of the worker before its first signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// What was asked for: `off`, `scopes` or `full`.
    pub level: String,
    /// How long it was allowed to take, ns.
    pub budget_ns: u64,
    /// How long it took, ns.
    pub taken_ns: u64,
    /// How long the worker's threads were stopped for their stacks, ns; absent where they were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_ns: Option<u64>,
    /// What is not there although it was asked for.
    pub missing: Vec<Missing>,
    /// The worker's lanes, that of the first condemned timer first.
    pub lanes: Vec<Lane>,
    /// What the kernel says about the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// Its threads, the one of the first condemned timer first.
    pub threads: Vec<Thread>,
    /// Threads beyond those listed.
    pub threads_left_out: u64,
    /// The names of what its threads wait for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<Variable>,
}

/// A variable of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Variable {
    /// Where it is.
    pub address: u64,
    /// Its name: `accounts[1]`.
    pub name: String,
}

/// A piece of evidence that could not be had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Missing {
    /// What: `python`, `native`, `kernel_stack`, `threads`, `process`, `incident`, ...
    pub what: String,
    /// Why: no permission, no symbols, too slow, process gone, and what would help.
    pub why: String,
}

/// A lane: what one thread timed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lane {
    /// Its index.
    pub lane: u32,
    /// The thread, as its own PID namespace numbers it.
    pub tid: u64,
    /// The thread's name at its attach.
    pub thread: String,
    /// Its open timers, the innermost (last acquired) first.
    pub timers: Vec<Timer>,
    /// The flight record: the last records of its ring, the oldest first.
    pub records: Vec<Record>,
    /// How many records its ring had lost to newer ones, or were torn as they were read.
    pub records_lost: u64,
}

/// One record of a flight record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// When.
    pub at_ns: u64,
    /// `acquire`, `rearm`, `release`, `too_late`, `pause`, `resume` or `abandon`.
    pub operation: String,
    /// The lane whose timer it happened to.
    pub lane: u32,
    /// The timer, an index in that lane.
    pub timer: u16,
    /// The scope; of a pause, the reason.
    pub scope: String,
    /// The new deadline, `CLOCK_MONOTONIC` ns, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ns: Option<u64>,
}

/// What the kernel says about a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Its executable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// Its working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<u32>,
    /// Its control groups, as in `/proc/PID/cgroup`, a line each.
    pub cgroups: Vec<String>,
    /// Its environment, redacted.
    pub environment: Vec<String>,
    /// Resident memory, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes: Option<u64>,
    /// Virtual memory, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_bytes: Option<u64>,
    /// Swapped out memory, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Its open files and sockets.
    pub files: Vec<File>,
    /// Open files beyond those listed.
    pub files_left_out: u64,
    /// Signals blocked in its first thread, by name.
    pub signals_blocked: Vec<String>,
    /// Signals it ignores, by name.
    pub signals_ignored: Vec<String>,
    /// Signals it catches, by name.
    pub signals_caught: Vec<String>,
    /// Signals that wait for it, by name.
    pub signals_pending: Vec<String>,
    /// Its children.
    pub children: Vec<Child>,
}

/// An open file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct File {
    /// The descriptor.
    pub descriptor: u32,
    /// What it is: a path, `pipe:[..]`, a socket with its addresses and state.
    pub target: String,
}

/// A child process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Child {
    /// Its pid.
    pub pid: u32,
    /// The name of its first thread.
    pub name: String,
    /// Its state, as [`Thread::state`].
    pub state: String,
}

/// A thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thread {
    /// Its id as the watchdog sees it.
    pub tid: u32,
    /// Its id in its own PID namespace, by which [`Lane::tid`] names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inner_tid: Option<u32>,
    /// Its name.
    pub name: String,
    /// The kernel's letter for its state: `R`, `S`, `D`, `T`, `t`, `Z`, ...
    pub state: String,
    /// The kernel function it sleeps in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_channel: Option<String>,
    /// The system call it is in, with its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_call: Option<String>,
    /// Its stack in the kernel, the innermost function first.
    pub kernel_stack: Vec<String>,
    /// Its Python stack, the innermost frame first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<Vec<Frame>>,
    /// Its native stack, the innermost frame first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub native: Option<Vec<Frame>>,
    /// Whether it holds the interpreter's lock, where that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds_gil: Option<bool>,
}

/// One frame of a stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frame {
    /// The function; its address where it has no name.
    pub function: String,
    /// The source file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The executable or library; of Python frames absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
}

/// A process that descends from a command.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Descendant {
    /// Who.
    pub worker: Worker,
    /// What was seen of it, as of the command itself.
    pub evidence: Evidence,
}

/// Another worker of the segment, at the moment of the incident.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Who.
    pub worker: Worker,
    /// What it was doing, in one line.
    pub doing: String,
    /// Its lanes, with a flight record each.
    pub lanes: Vec<Lane>,
}

/// Who most likely holds the others up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Suspect {
    /// Its pid as the watchdog sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Its rank, by its own word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
    /// The scope the others wait in.
    pub scope: String,
    /// Why it is the suspect, in one sentence.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_the_newest_fields_is_read() {
        let incident: Incident = serde_json::from_str(r#"{"version": 1, "later": []}"#).unwrap();
        assert_eq!(incident, Incident { version: 1, ..Incident::default() });
    }

    /// The paths of all nulls in a document.
    fn nulls(value: &serde_json::Value, path: &str) -> Vec<String> {
        match value {
            serde_json::Value::Null => vec![path.to_owned()],
            serde_json::Value::Array(items) => {
                items.iter().flat_map(|item| nulls(item, &format!("{path}[]"))).collect()
            }
            serde_json::Value::Object(fields) => {
                let of = |(key, value): (&String, _)| nulls(value, &format!("{path}.{key}"));
                fields.iter().flat_map(of).collect()
            }
            _ => Vec::new(),
        }
    }

    #[test]
    fn what_is_not_known_is_absent_and_never_null() {
        let thread = Thread { python: Some(vec![Frame::default()]), ..Thread::default() };
        let lane = Lane {
            timers: vec![Timer::default()],
            records: vec![Record::default()],
            ..Lane::default()
        };
        let evidence = Evidence {
            lanes: vec![lane],
            threads: vec![thread],
            process: Some(Process::default()),
            ..Evidence::default()
        };
        let bare = serde_json::to_value(Incident::default()).unwrap();
        assert_eq!(bare.get("ending"), None, "while the reap is under way");
        let full = Incident {
            timers: vec![Timer::default()],
            ending: Some(Ending::default()),
            evidence: evidence.clone(),
            descendants: vec![Descendant { evidence, ..Descendant::default() }],
            others: vec![Peer::default().into()],
            suspect: Some(Suspect::default()),
            ..Incident::default()
        };
        for incident in [bare, serde_json::to_value(full).unwrap()] {
            assert_eq!(nulls(&incident, ""), [] as [&str; 0]);
        }
    }

    #[test]
    fn an_incident_is_the_same_after_a_trip_through_json() {
        let frame = Frame { function: "recv".into(), line: Some(7), ..Frame::default() };
        let thread = Thread { tid: 7, python: Some(vec![frame]), ..Thread::default() };
        let evidence = Evidence { threads: vec![thread], ..Evidence::default() };
        let incident = Incident { version: VERSION, evidence, ..Incident::default() };
        let text = serde_json::to_string(&incident).expect("plain data");
        assert_eq!(serde_json::from_str::<Incident>(&text).expect("what was written"), incident);
    }
}
