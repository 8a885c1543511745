//! `hangwatch evidence-helper`: the process that captures one worker's evidence.

use super::Failure;
use crate::cli::EvidenceHelper;
use crate::exit::Exit;
use hangwatch_evidence::capture::MayStop;
use hangwatch_evidence::helper::{self, Request};
use hangwatch_evidence::redact::Redactor;

pub(super) fn perform(options: &EvidenceHelper) -> Result<Exit, Failure> {
    let redactor = Redactor::new(options.redact.iter().map(String::as_str))?;
    let EvidenceHelper { pid, budget, first_tid, no_stop, memory, at_once, .. } = *options;
    let may_stop = if no_stop { MayStop::No } else { MayStop::Yes };
    let memory_bytes = memory;
    helper::run(&Request { pid, budget, redactor, first_tid, may_stop, memory_bytes, at_once })?;
    Ok(Exit::Ok)
}
