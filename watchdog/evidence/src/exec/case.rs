//! The case of a command whose deadline passed: an incident, as the watchdog makes of a worker's expiry.
//!
//! [`Case::open`] takes it down before anybody is signalled: what the segment says, and what helpers
//! find out (`witness`) about the command and those that descend from it, within the
//! evidence's budget. [`Case::close`] adds how it ended and sees that it is kept. Neither waits for a
//! process or a disk that hangs beyond a limit of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use hangwatch::sys::clock;
use hangwatch::sys::lock::{Holder, holder};
use hangwatch::{Segment, lane_lock_byte};
use hangwatch_core::watchdog::policy::SIGKILL;
use hangwatch_core::wire::signal;
use hangwatch_core::wire::time::Nanos;
use rustix::process::Pid;

use super::keeper::Keeper;
use super::witness::{self, Held};
use crate::capture::MayStop;
use crate::options::{EvidenceOptions, Level};
use crate::picture::{self, Seated, Seats};
use crate::piece::Gathered;
use crate::suspect;
use crate::waits;
use hangwatch_incident::moment::Clocks;
use hangwatch_incident::schema::{
    Decision, Descendant, Ending, Evidence, Incident, Lane, Moment, Peer, Timer, VERSION, Worker,
};
use hangwatch_incident::story;
use hangwatch_process::lineage;
use hangwatch_process::tree::Tree;
use hangwatch_text::brief_ns;

/// Processes of a tree that are looked at, at most.
const LOOKED_AT: usize = 16;

/// A deadline that passed.
#[derive(Clone, Copy, Debug)]
pub struct Passed<'p> {
    /// The segment it was armed in.
    pub segment: Segment,
    /// The scope it is listed under.
    pub scope: &'p str,
    /// When the command was started.
    pub began_at: Nanos,
    /// When it was due, stalls credited.
    pub due_at: Nanos,
    /// How long it had, ns.
    pub allowance_ns: u64,
    /// The command, with its arguments.
    pub command: &'p [OsString],
    /// Whether it may be stopped for its evidence: it may not be where it is only reported.
    pub may_stop: MayStop,
}

/// How a command's case ended.
#[derive(Clone, Debug, Default)]
pub struct End<'e> {
    /// As [`Ending::outcome`].
    pub outcome: &'e str,
    /// The first signal sent, 0 for none; see also `killed_at`.
    pub signal: u8,
    /// How many processes were signalled.
    pub signalled: usize,
    /// From the deadline to the first signal, or to the report, ns.
    pub late_ns: u64,
    /// When SIGKILL followed a gentler signal, where it did.
    pub killed_at: Option<Nanos>,
}

/// An incident that could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotKept {
    /// Its name.
    pub id: String,
    /// Why not.
    pub why: String,
}

/// An incident while it is being written.
#[derive(Debug)]
pub struct Case {
    incident: Incident,
    /// When the command was due, stalls credited.
    due_at: Nanos,
    clocks: Clocks,
    keeper: Result<Keeper, String>,
}

impl Case {
    /// Takes down what there is now; `None` where no evidence is asked for. It takes the evidence's
    /// budget at most.
    pub fn open(passed: Passed<'_>, tree: &mut Tree, options: &EvidenceOptions) -> Option<Case> {
        if options.level == Level::Off {
            return None;
        }
        let (clocks, at) = (Clocks::now(), Nanos(clock::monotonic_ns()));
        let root = number(tree.pid());
        let mut workers = Workers::of(passed.segment, clocks, options);
        let timer = timer_of(passed, at, clocks);
        let suspect = workers.suspect(&timer);
        let mut incident = Incident {
            version: VERSION,
            id: clocks.incident_id(at, passed.segment.name(), root),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            segment: passed.segment.name().to_owned(),
            at: clocks.moment(at),
            worker: worker_of(tree.pid(), passed.command, options),
            decisions: vec![opening(passed, clocks.moment(at))],
            suspect,
            timers: vec![timer],
            ..Incident::default()
        };
        if options.level == Level::Full {
            capture(&mut incident, tree, &mut workers, passed.may_stop, options);
        }
        let lanes = picture::in_full(&passed.segment, workers.lanes_of(root));
        let taken_ns = Nanos(clock::monotonic_ns()).since(at);
        complete(&mut incident.evidence, lanes, options, taken_ns);
        for Descendant { worker, evidence } in &mut incident.descendants {
            complete(evidence, workers.lanes_of(worker.pid.unwrap_or_default()), options, taken_ns);
        }
        incident.others = workers.others();
        let keeper = Keeper::start(options.keep.as_ref(), options.program.as_deref());
        // Whatever becomes of the rest, there is this.
        let _ = keeper.as_ref().map(|keeper| keeper.put(&incident));
        Some(Case { incident, due_at: passed.due_at, clocks, keeper })
    }

    /// Why the command hung, in one sentence, where that is known.
    pub fn verdict(&self) -> Option<String> {
        story::verdict(&self.incident)
    }

    /// Adds how it ended, and sees that it is kept; its name.
    ///
    /// # Errors
    /// [`NotKept`].
    pub fn close(mut self, end: &End<'_>) -> Result<String, NotKept> {
        let at = self.clocks.moment(Nanos(clock::monotonic_ns()));
        let End { outcome, late_ns, killed_at, mut signal, .. } = *end;
        if signal != 0 {
            let to = match end.signalled {
                1 => " to 1 process".to_owned(),
                many => format!(" to {many} processes"),
            };
            self.signalled(signal, &to, late_ns);
        }
        if let Some(killed_at) = killed_at {
            signal = SIGKILL;
            self.signalled(signal, "", killed_at.since(self.due_at));
        }
        let outcome = outcome.to_owned();
        self.incident.ending = Some(Ending { at, outcome, signal, late_ns, wait_channel: None });
        let id = self.incident.id.clone();
        let kept = self.keeper.and_then(|keeper| {
            keeper.put(&self.incident);
            keeper.close()
        });
        kept.map(|()| id.clone()).map_err(|why| NotKept { id, why })
    }

    fn signalled(&mut self, signal: u8, to: &str, late_ns: u64) {
        let (name, late) = (signal::spelled(signal), brief_ns(late_ns));
        let why = format!("{name} was sent{to}, {late} after the deadline");
        let at = self.clocks.moment(self.due_at.plus(late_ns));
        let what = story::SIGNALLED.to_owned();
        self.incident.decisions.push(Decision { at, what, why });
    }
}

/// Has helpers look at the command and at those that descend from it.
fn capture(
    incident: &mut Incident,
    tree: &mut Tree,
    workers: &mut Workers,
    may_stop: MayStop,
    options: &EvidenceOptions,
) {
    let root = number(tree.pid());
    let (members, left_out) = match tree.hold(LOOKED_AT) {
        Ok(held) => held,
        Err(error) => {
            let why = format!("its processes cannot be found: {error}");
            incident.evidence = Gathered::without(&why).evidence;
            return;
        }
    };
    incident.descendants_left_out = left_out as u64;
    let held = |(pid, pidfd): (Pid, OwnedFd)| {
        let pid = number(pid);
        Held { pid, pidfd, first_tid: workers.first_tid_of(pid) }
    };
    let held: Vec<Held> = members.into_iter().map(held).collect();
    let pids: Vec<u32> = held.iter().map(|held| held.pid).collect();
    let mut seen: BTreeMap<usize, Gathered> =
        witness::look(held, options, may_stop).into_iter().enumerate().collect();
    let mut graph = None;
    for (place, pid) in pids.into_iter().enumerate() {
        let Some(Gathered { evidence, worker, waits, .. }) = seen.remove(&place) else { continue };
        let worker = worker.map(|it| Worker { pid: Some(pid), ..it });
        // The command's own, else that of the first below it that could be looked at.
        graph = if pid == root { waits.or(graph) } else { graph.or(waits) };
        if pid == root {
            incident.evidence = evidence;
            incident.worker = worker.unwrap_or_else(|| incident.worker.clone());
        } else {
            let nameless = || Worker { pid: Some(pid), ..Worker::default() };
            let worker = worker.unwrap_or_else(nameless);
            incident.descendants.push(Descendant { worker, evidence });
        }
    }
    if incident.evidence == Evidence::default() {
        incident.evidence = Gathered::without("the process is gone").evidence;
    }
    let below = incident.descendants.iter().map(|it| &it.evidence);
    let all = std::iter::once(&incident.evidence).chain(below);
    incident.waits = graph.map(|graph| waits::conclude(graph, all));
}

fn complete(evidence: &mut Evidence, lanes: Vec<Lane>, options: &EvidenceOptions, taken_ns: u64) {
    options.level.name().clone_into(&mut evidence.level);
    evidence.lanes = lanes;
    evidence.taken_ns = taken_ns;
    if options.level == Level::Full {
        evidence.budget_ns = u64::try_from(options.budget.as_nanos()).unwrap_or(u64::MAX);
    }
}

/// The workers of the segment, this process aside.
struct Workers(Vec<Arc<Peer>>);

impl Workers {
    fn of(segment: Segment, clocks: Clocks, options: &EvidenceOptions) -> Workers {
        let own = std::process::id();
        let mut seats = Seats::new();
        for view in segment.picture().lanes {
            // By the kernel's word, which keeps silent about this process's own locks.
            let pid = match holder(segment.file(), lane_lock_byte(view.lane)) {
                Ok(Holder::Process(pid)) => number(pid),
                Ok(Holder::Free) if view.pid == own => own,
                _ => continue,
            };
            seats.insert(view.lane, Seated { pid, ..Seated::default() });
        }
        let mut picture = picture::take(&segment, &seats, clocks, &options.redactor);
        picture.peers.retain(|peer| peer.worker.pid != Some(own));
        Workers(picture.peers)
    }

    fn suspect(&self, timer: &Timer) -> Option<hangwatch_incident::schema::Suspect> {
        let jobs = self.0.iter().map(|peer| peer.worker.job.as_str());
        jobs.into_iter().find_map(|job| suspect::find(job, std::slice::from_ref(timer), &self.0))
    }

    fn first_tid_of(&self, pid: u32) -> Option<u64> {
        let peer = self.0.iter().find(|peer| peer.worker.pid == Some(pid))?;
        peer.lanes.first().map(|lane| lane.tid)
    }

    /// The lanes of a process, which is none of the others then.
    fn lanes_of(&mut self, pid: u32) -> Vec<Lane> {
        let place = self.0.iter().position(|peer| peer.worker.pid == Some(pid));
        place.map(|place| self.0.remove(place).lanes.clone()).unwrap_or_default()
    }

    fn others(self) -> Vec<Arc<Peer>> {
        self.0
    }
}

fn timer_of(passed: Passed<'_>, at: Nanos, clocks: Clocks) -> Timer {
    let state = match passed.may_stop {
        MayStop::Yes => "condemned",
        MayStop::No => "reported",
    };
    Timer {
        scope: passed.scope.to_owned(),
        kind: "guard".to_owned(),
        state: state.to_owned(),
        acquired: clocks.moment(passed.began_at),
        deadline: Some(clocks.moment(passed.due_at)),
        age_ns: at.since(passed.began_at),
        allowance_ns: passed.allowance_ns,
        ..Timer::default()
    }
}

fn worker_of(pid: Pid, command: &[OsString], options: &EvidenceOptions) -> Worker {
    let arguments: Vec<String> =
        command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    Worker {
        pid: Some(number(pid)),
        name: lineage::command_name(pid).unwrap_or_default(),
        command: options.redactor.arguments(&arguments),
        ..Worker::default()
    }
}

fn opening(passed: Passed<'_>, at: Moment) -> Decision {
    let scope = passed.scope;
    let (what, why) = match passed.may_stop {
        MayStop::Yes => ("condemned", format!("the deadline of {scope:?} passed")),
        MayStop::No => (
            "reported",
            format!("the deadline of {scope:?} passed, and nobody is to be signalled for it"),
        ),
    };
    Decision { at, what: what.to_owned(), why }
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
