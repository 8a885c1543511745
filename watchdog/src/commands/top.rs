//! `hangwatch top`: the live view; see [`crate::top`].

use super::Failure;
use crate::cli::Top;
use crate::exit::Exit;
use crate::top;

pub(super) fn perform(options: Top) -> Result<Exit, Failure> {
    Ok(top::run(options.segment, options.interval)?)
}
