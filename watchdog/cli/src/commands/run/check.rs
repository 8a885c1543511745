//! `hangwatch run --check`: checks that the watchdog could start, and prints its settings.
//!
//! Invalid or conflicting settings have been reported before, when they were parsed.

use super::super::{Failure, OneLine, complain, print, segments};
use super::wanted;
use crate::cli::Run;
use crate::cli::config::page;
use crate::deadlines::Deadlines;
use crate::exit::Exit;

pub(super) fn perform(options: &Run) -> Result<Exit, Failure> {
    hangwatch_log::check()?;
    if let Some(name) = &options.segment {
        segments::check_existing(name, wanted(options))?;
    }
    if let Some(Err(error)) = options.deadlines.as_deref().map(Deadlines::read) {
        complain(&OneLine(&error));
        return Ok(Exit::Usage); // the same as for a settings file
    }
    options.origins.strange.iter().for_each(|strange| complain(strange));
    if let Err(error) = options.evidence.try_place() {
        complain(&format_args!("incidents cannot be stored: {error}"));
    }
    print(&page::in_force(&options.origins))?;
    Ok(Exit::Ok)
}
