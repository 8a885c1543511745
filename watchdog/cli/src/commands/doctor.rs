//! `hangwatch doctor`: see [`crate::doctor`].

use super::{Failure, print};
use crate::cli::Doctor;
use crate::doctor::Report;
use crate::exit::Exit;

/// The widest line.
const COLUMNS: usize = 80;

pub(super) fn perform(options: &Doctor) -> Result<Exit, Failure> {
    let report = Report::of_here();
    if options.json {
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        print(&report.text(COLUMNS))?;
    }
    Ok(if report.is_fit() { Exit::Ok } else { Exit::Unfit })
}
