//! The staff: every thread of a server beside the tick's, started before the first tick.
//!
//! The clerk's answers and the witness's evidence stand before a signal; those that a disk, a `/proc` or a
//! hung process may hold up for ever are never joined. The witness is, for a while: it brings in the last
//! evidence, but a helper's program may lie on a disk that hangs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use hangwatch::Segment;
use hangwatch_process::limits;

use super::archive::Archive;
use super::clerk::{Clerk, ClerkParts, Desk};
use super::control::Control;
use super::doorbell::Attention;
use super::error_file::{self, ErrorFiles};
use super::journal::{Journal, Note};
use super::kin::{self, KinDesk, Progress};
use super::messages::Answers;
use super::options::{self, ServerOptions};
use super::protect;
use super::seating::Seating;
use super::stand::Stand;
use super::tracers::Tracers;
use super::witness::{Witness, WitnessParts};
use hangwatch_evidence::options::Level;
use hangwatch_incident::store::Store;
use hangwatch_process::descendants::Reach;

/// The stack of each thread, bytes: none recurses, and locked memory is dear.
pub(super) const STACK_BYTES: usize = 512 << 10;

/// Whom the tick has things done by that are not the clerk's.
pub(super) type Helpers = (Option<ErrorFiles>, Option<KinDesk>);

/// Starts the other threads.
pub(super) struct Staff<'a> {
    pub(super) segment: Segment,
    pub(super) options: ServerOptions,
    pub(super) control: &'a Arc<Control>,
    pub(super) journal: &'a Journal,
    pub(super) answers: Answers,
}

/// The other threads, and how to talk to them.
pub(super) struct Hired {
    pub(super) desk: Desk,
    pub(super) helpers: Helpers,
    pub(super) clerk: JoinHandle<()>,
    pub(super) kin: Option<(JoinHandle<()>, Progress)>,
    pub(super) stand: Option<Stand>,
    pub(super) witness: Option<JoinHandle<()>>,
    pub(super) archive: Option<Archive>,
}

impl Staff<'_> {
    pub(super) fn hire(self) -> std::io::Result<Hired> {
        let Staff { segment, options, control, journal, answers } = self;
        let attention = answers.attention.clone();
        let (seating, tracers) = (Seating::default(), Tracers::default());
        let error_files = match options.error_files {
            options::ErrorFiles::Leave => None,
            options::ErrorFiles::Write => {
                let (files, writer) = error_file::error_files(options.evidence.program.clone());
                let (to_note, redactor) = (journal.clone(), options.evidence.redactor.clone());
                // Never joined: its process may be stuck with a disk that hangs.
                spawn("hangwatch-error", control, journal, &attention, move || {
                    writer.run(segment, &redactor, &to_note);
                })?;
                Some(files)
            }
        };
        let (clerk, desk) = Clerk::new(ClerkParts {
            segment,
            control: Arc::clone(control),
            journal: journal.clone(),
            answers: answers.clone(),
            spawner: Spawner::new(control, journal, &attention),
            error_files: error_files.clone(),
            seating: seating.clone(),
            tracers: tracers.clone(),
        })?;
        // Its answers stand between a deadline and the signal: it runs as the tick does. What the
        // kernel refuses it refused the tick too, which has noted it.
        let priority = options.protection.realtime_priority;
        let clerk = spawn("hangwatch-clerk", control, journal, &attention, move || {
            let _ = priority.map(limits::run_realtime);
            clerk.run();
        })?;
        let kin = match options.reach {
            Reach::Process => None,
            reach => {
                let (desk, killer) = kin::kin(segment, reach, journal.clone());
                let thread =
                    spawn("hangwatch-kin", control, journal, &attention, move || killer.run())?;
                let progress = desk.progress().clone();
                Some((desk, (thread, progress)))
            }
        };
        let (kin, kin_thread) = kin.unzip();
        let helpers = (error_files, kin);
        if options.evidence.level == Level::Off {
            let (stand, witness, archive) = (None, None, None);
            return Ok(Hired { desk, helpers, clerk, kin: kin_thread, stand, witness, archive });
        }
        let archive = options.evidence.keep.as_ref().map(|keep| {
            let archive = Archive::new(journal.clone());
            (archive, Store::new(keep.dir.clone(), keep.limits))
        });
        if let Some((archive, store)) = archive.clone() {
            let program = options.evidence.program.clone();
            // Never joined: its disk may hang.
            spawn("hangwatch-store", control, journal, &attention, move || {
                archive.run(&store, program.as_deref());
            })?;
        }
        let archive = archive.map(|(archive, _)| archive);
        let (witness, stand) = Witness::new(WitnessParts {
            segment,
            options: options.evidence,
            seating,
            tracers,
            answers,
            journal: journal.clone(),
            archive: archive.clone(),
        })?;
        let witness =
            spawn("hangwatch-witness", control, journal, &attention, move || witness.run())?;
        let (kin, stand, witness) = (kin_thread, Some(stand), Some(witness));
        Ok(Hired { desk, helpers, clerk, kin, stand, witness, archive })
    }
}

/// Starts threads of a server while it serves.
#[derive(Clone)]
pub(super) struct Spawner {
    control: Arc<Control>,
    journal: Journal,
    attention: Attention,
}

impl Spawner {
    pub(super) fn new(control: &Arc<Control>, journal: &Journal, attention: &Attention) -> Spawner {
        let (control, journal) = (Arc::clone(control), journal.clone());
        Spawner { control, journal, attention: attention.clone() }
    }

    /// Starts a thread whose panic ends the server.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        spawn(name, &self.control, &self.journal, &self.attention, body)
    }
}

/// Starts a thread whose panic ends the server.
fn spawn(
    name: &'static str,
    control: &Arc<Control>,
    journal: &Journal,
    attention: &Attention,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let (control, journal, attention) = (Arc::clone(control), journal.clone(), attention.clone());
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
        if let Err(message) = protect::caught(name, body) {
            journal.note(Note::Panicked(message));
            control.panicked.store(true, Ordering::Release);
            attention.call();
        }
    })
}
