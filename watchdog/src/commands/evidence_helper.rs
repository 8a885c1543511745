//! `hangwatch evidence-helper`: the process that captures one worker's evidence.

use super::Failure;
use crate::cli::EvidenceHelper;
use crate::evidence::helper::{self, Request};
use crate::evidence::redact::Redactor;
use crate::exit::Exit;

pub(super) fn perform(options: &EvidenceHelper) -> Result<Exit, Failure> {
    let EvidenceHelper { pid, budget, first_tid, redact } = options;
    let redactor = Redactor::new(redact.iter().map(String::as_str))?;
    helper::run(&Request { pid: *pid, budget: *budget, redactor, first_tid: *first_tid })?;
    Ok(Exit::Ok)
}
