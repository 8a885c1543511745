//! The inspector: the thread that reads other processes' memory maps and command lines.
//!
//! Such a read can wait for a lock that a hung process holds over its own memory, for ever. So nobody
//! waits for the inspector: without it, events lack command lines, and lanes without a lock are
//! neither freed nor reaped; all else goes on. It has no part in a signal to a worker whose lane's
//! lock holds.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use hangwatch::Segment;
use hangwatch::sys::clock;
use hangwatch::sys::identity::{Claim, Claimed, claimed_process};
use hangwatch::sys::process;
use hangwatch_core::expiry::Admission;
use hangwatch_core::lane::OwnerWord;
use hangwatch_core::time::Nanos;
use rustix::process::Pid;

use super::error_file::{self, ErrorFiles};
use super::facts::{Admitted, Command, LaneFacts};
use super::messages::{Answer, Answers};

/// What the inspector is asked.
#[derive(Clone, Debug)]
pub(super) enum Inspection {
    /// What does it call itself, and which is its error file?
    Describe(Arc<Admitted>),
    /// Its lane has no lock: does this admitted worker still run the program it was admitted with?
    Worker { lane: u32, owner: OwnerWord, worker: Arc<Admitted> },
    /// The lane has no lock and its claimant lives: does it have the segment mapped?
    Claimant { lane: u32, owner: OwnerWord, claim: Claim, facts: Arc<LaneFacts> },
}

/// Inspects until nobody asks any more.
pub(super) fn run(
    segment: Segment,
    inspections: &Receiver<Inspection>,
    answers: &Answers,
    error_files: Option<&ErrorFiles>,
) {
    let file = segment.file().id();
    let maps = |pid: Pid| process::maps_segment(pid, file);
    while let Ok(inspection) = inspections.recv() {
        match inspection {
            Inspection::Describe(worker) => {
                describe(&worker);
                if let (Some(files), Some(Some(_))) = (error_files, worker.error_file.get()) {
                    files.prepare();
                }
            }
            Inspection::Worker { lane, owner, worker } => match runs_same_program(&worker, maps) {
                Some((true, at)) => answers.tell(Answer::SameProgram { lane, owner, at }),
                Some((false, _)) => answers.tell(Answer::Execd { worker: worker.id }),
                None => {}
            },
            Inspection::Claimant { lane, owner, claim, facts } => {
                let admission = claimant(&claim, maps);
                answers.tell(Answer::Admission { lane, owner, admission, worker: None, facts });
            }
        }
    }
}

/// Whether the worker still runs the program it was admitted with, and as of when; `None` where that
/// cannot be said, or it is dead.
fn runs_same_program(
    worker: &Admitted,
    maps: impl Fn(Pid) -> std::io::Result<bool>,
) -> Option<(bool, Nanos)> {
    let pid = worker.process.pid;
    // Of a process with many mappings this takes its time: the answer is of when its image is read.
    let maps = maps(pid).ok()?;
    let at = Nanos(clock::monotonic_ns());
    // Asked after it: one about to die gives up its memory first, and maps nothing any more.
    let image = process::image(pid).ok()??;
    // Asked last: what was read before was read of it.
    if worker.process.pidfd.is_dead() {
        return None;
    }
    // A program that attached anew after its exec has the segment mapped, and is another all the same.
    let same_image = worker.image.is_none_or(|admitted| admitted == image);
    Some((maps && same_image, at))
}

/// A living claimant of a lane without a lock: one that closed its descriptors, or that has exec'd.
fn claimant(claim: &Claim, maps: impl Fn(Pid) -> std::io::Result<bool>) -> Admission {
    let Some(pid) = i32::try_from(claim.pid).ok().and_then(Pid::from_raw) else {
        return Admission::Unknown;
    };
    let maps = maps(pid);
    // One about to die gives up its memory first, and maps nothing any more: its death will be seen.
    let has_memory = process::image(pid).is_ok_and(|image| image.is_some());
    // Asked again: what was read was read of it, if it lives.
    match (claimed_process(claim), maps) {
        (Claimed::Dead, _) => Admission::Gone,
        (Claimed::Alive, Ok(false)) if has_memory => Admission::Gone,
        (Claimed::Alive, Ok(true)) => Admission::Unattestable,
        _ => Admission::Unknown,
    }
}

fn describe(worker: &Admitted) {
    let pid = worker.process.pid;
    let name = process::comm(pid).ok().flatten().unwrap_or_default();
    let arguments = process::cmdline(pid).ok().flatten().unwrap_or_default();
    let error_file = error_file::named_by(pid);
    // Dead by now, what was read may be of another process.
    if !worker.process.pidfd.is_dead() {
        let _ = worker.command.set(Command { name, arguments });
        let _ = worker.error_file.set(error_file);
    }
}
