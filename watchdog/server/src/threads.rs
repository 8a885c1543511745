//! Starts the threads of a server, all before the first tick.
//!
//! A signal may wait for answers of the attestor and the evidence collector. Threads that a disk, `/proc` or
//! a hung process may block forever are never joined. The evidence collector is joined with a time limit,
//! because it adds the last evidence, but a helper's program may be on a disk that hangs.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use hangwatch::Segment;
use hangwatch_process::limits;

use super::attestor::{Attestor, AttestorHandle, AttestorParts};
use super::collector_handle::CollectorHandle;
use super::control::Control;
use super::descendant_killer::{self, DescendantsHandle, Progress};
use super::doorbell::TickWaker;
use super::error_file::{self, ErrorFiles};
use super::event_log::{EventLog, Note};
use super::evidence_collector::{EvidenceCollector, EvidenceCollectorParts};
use super::incident_writer::IncidentWriter;
use super::lane_registry::LaneRegistry;
use super::messages::Answers;
use super::options::{self, ServerOptions};
use super::protect;
use super::tracers::Tracers;
use hangwatch_evidence::options::Level;
use hangwatch_incident::store::Store;
use hangwatch_process::descendants::Reach;

/// Stack size of each thread, bytes. No thread recurses, and locked memory is scarce.
pub(super) const STACK_BYTES: usize = 512 << 10;

/// The optional handles of the tick.
pub(super) type Helpers = (Option<ErrorFiles>, Option<DescendantsHandle>);

/// What the threads are made of.
pub(super) struct ThreadParts<'a> {
    pub(super) segment: Segment,
    pub(super) options: ServerOptions,
    pub(super) control: &'a Arc<Control>,
    pub(super) event_log: &'a EventLog,
    pub(super) answers: Answers,
}

/// The threads, and the handles to talk to them.
pub(super) struct Threads {
    pub(super) attestor_handle: AttestorHandle,
    pub(super) helpers: Helpers,
    pub(super) attestor: JoinHandle<()>,
    pub(super) descendants: Option<(JoinHandle<()>, Progress)>,
    pub(super) collector_handle: Option<CollectorHandle>,
    pub(super) collector: Option<JoinHandle<()>>,
    pub(super) incident_writer: Option<IncidentWriter>,
}

impl ThreadParts<'_> {
    pub(super) fn spawn(self) -> std::io::Result<Threads> {
        let ThreadParts { segment, options, control, event_log, answers } = self;
        let tick_waker = answers.tick_waker.clone();
        let (registry, tracers) = (LaneRegistry::default(), Tracers::default());
        let error_files = match options.error_files {
            options::ErrorFiles::Leave => None,
            options::ErrorFiles::Write => {
                let (files, writer) = error_file::error_files(options.evidence.program.clone());
                let (to_note, redactor) = (event_log.clone(), options.evidence.redactor.clone());
                // Never joined: its process may hang on a disk.
                spawn("hangwatch-error", control, event_log, &tick_waker, move || {
                    writer.run(segment, &redactor, &to_note);
                })?;
                Some(files)
            }
        };
        let (attestor, attestor_handle) = Attestor::new(AttestorParts {
            segment,
            control: Arc::clone(control),
            event_log: event_log.clone(),
            answers: answers.clone(),
            spawner: Spawner::new(control, event_log, &tick_waker),
            error_files: error_files.clone(),
            registry: registry.clone(),
            tracers: tracers.clone(),
        })?;
        // Its answers come between a deadline and the signal, so it has the tick's priority. A refusal was
        // already reported for the tick.
        let priority = options.protection.realtime_priority;
        let attestor = spawn("hangwatch-attest", control, event_log, &tick_waker, move || {
            let _ = priority.map(limits::run_realtime);
            attestor.run();
        })?;
        let descendants = match options.reach {
            Reach::Process => None,
            reach => {
                let (kill_handle, killer) = descendant_killer::descendant_killer(
                    (segment, registry.clone()),
                    reach,
                    event_log.clone(),
                );
                let thread =
                    spawn("hangwatch-kill", control, event_log, &tick_waker, move || killer.run())?;
                let progress = kill_handle.progress().clone();
                Some((kill_handle, (thread, progress)))
            }
        };
        let (descendants, kin_thread) = descendants.unzip();
        let helpers = (error_files, descendants);
        if options.evidence.level == Level::Off {
            let (collector_handle, collector, incident_writer) = (None, None, None);
            return Ok(Threads {
                attestor_handle,
                helpers,
                attestor,
                descendants: kin_thread,
                collector_handle,
                collector,
                incident_writer,
            });
        }
        let incident_writer = options.evidence.keep.as_ref().map(|keep| {
            let incident_writer = IncidentWriter::new(event_log.clone());
            (incident_writer, Store::new(keep.dir.clone(), keep.limits))
        });
        if let Some((incident_writer, store)) = incident_writer.clone() {
            let program = options.evidence.program.clone();
            // Never joined: its disk may hang.
            spawn("hangwatch-store", control, event_log, &tick_waker, move || {
                incident_writer.run(&store, program.as_deref());
            })?;
        }
        let incident_writer = incident_writer.map(|(incident_writer, _)| incident_writer);
        let (collector, collector_handle) = EvidenceCollector::new(EvidenceCollectorParts {
            segment,
            options: options.evidence,
            registry,
            tracers,
            answers,
            event_log: event_log.clone(),
            incident_writer: incident_writer.clone(),
        })?;
        let collector =
            spawn("hangwatch-evidence", control, event_log, &tick_waker, move || collector.run())?;
        let (descendants, collector_handle, collector) =
            (kin_thread, Some(collector_handle), Some(collector));
        Ok(Threads {
            attestor_handle,
            helpers,
            attestor,
            descendants,
            collector_handle,
            collector,
            incident_writer,
        })
    }
}

/// Starts further threads while the server runs.
#[derive(Clone)]
pub(super) struct Spawner {
    control: Arc<Control>,
    event_log: EventLog,
    tick_waker: TickWaker,
}

impl Spawner {
    pub(super) fn new(
        control: &Arc<Control>,
        event_log: &EventLog,
        tick_waker: &TickWaker,
    ) -> Spawner {
        let (control, event_log) = (Arc::clone(control), event_log.clone());
        Spawner { control, event_log, tick_waker: tick_waker.clone() }
    }

    /// Starts a thread. If it panics, the server ends.
    pub(super) fn spawn(
        &self,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        spawn(name, &self.control, &self.event_log, &self.tick_waker, body)
    }
}

/// Starts a thread. If it panics, the server ends.
fn spawn(
    name: &'static str,
    control: &Arc<Control>,
    event_log: &EventLog,
    tick_waker: &TickWaker,
    body: impl FnOnce() + Send + 'static,
) -> std::io::Result<JoinHandle<()>> {
    let (control, event_log, tick_waker) =
        (Arc::clone(control), event_log.clone(), tick_waker.clone());
    thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(move || {
        if let Err(message) = protect::caught(name, body) {
            event_log.note(Note::Panicked(message));
            control.panicked.store(true, Ordering::Release);
            tick_waker.wake();
        }
    })
}
