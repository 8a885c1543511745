//! `hangwatch incident-writer`: the process that writes a watchdog's incidents to disk.

use std::io;

use super::Failure;
use crate::cli::IncidentWriter;
use crate::exit::Exit;
use hangwatch_evidence::writer;
use hangwatch_incident::store::{Limits, Store};

pub(super) fn perform(options: IncidentWriter) -> Result<Exit, Failure> {
    hangwatch::sys::crash::cover_core();
    // The watchdog may have lowered its score; if memory runs out, this helper should die first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    let IncidentWriter { dir, count, bytes } = options;
    let store = Store::new(dir, Limits { count, bytes });
    writer::run(&store, io::stdin().lock(), io::stdout().lock())?;
    Ok(Exit::Ok)
}
