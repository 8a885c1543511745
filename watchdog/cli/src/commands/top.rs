//! `hangwatch top`: the live view; see [`crate::top`].

use super::Failure;
use crate::cli::Top;
use crate::exit::Exit;
use crate::top;
use hangwatch_incident::store::default_dir;

pub(super) fn perform(options: Top) -> Result<Exit, Failure> {
    let incidents = options.incidents.or_else(|| default_dir().ok());
    Ok(top::run(options.segment, options.interval, incidents)?)
}
