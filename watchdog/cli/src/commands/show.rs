//! `hangwatch show`: prints one incident.

use super::{Failure, print};
use crate::cli::incidents::Show;
use crate::exit::Exit;
use hangwatch_report::terminal::{self, Fold, Look};

pub(super) fn perform(options: &Show) -> Result<Exit, Failure> {
    let (id, incident) = options.place.incident(&options.id)?;
    let fold = if options.all { Fold::Nothing } else { Fold::Long };
    print(&terminal::text(&id, &incident, Look::of_stdout(fold)))?;
    Ok(Exit::Ok)
}
