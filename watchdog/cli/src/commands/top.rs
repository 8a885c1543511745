//! `hangwatch top`: runs the live view, see [`hangwatch_top`].

use super::Failure;
use crate::cli::Top;
use crate::exit::Exit;
use hangwatch_incident::store::default_dir;
use hangwatch_top::End;

pub(super) fn perform(options: Top) -> Result<Exit, Failure> {
    let incidents = options.incidents.or_else(|| default_dir().ok());
    Ok(match hangwatch_top::run(options.segment, options.interval, incidents)? {
        End::Quit => Exit::Ok,
        End::Signal(number) => Exit::Signal(number),
    })
}
