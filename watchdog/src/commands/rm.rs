//! `hangwatch rm`: removes a segment that nobody uses.

use hangwatch::{OpenError, Segment};

use super::Failure;
use super::segments;
use crate::cli::Rm;
use crate::exit::Exit;

#[derive(Debug, thiserror::Error)]
#[error("segment {segment:?} is in use by {user}; end that first")]
struct InUse {
    segment: String,
    user: String,
}

pub(super) fn perform(options: &Rm) -> Result<Exit, Failure> {
    let name = &options.segment;
    match Segment::open(name) {
        Ok(segment) => {
            if let Some(user) = segments::user(segment)? {
                return Err(InUse { segment: name.clone(), user }.into());
            }
        }
        // What no program of this version, boot or clock can use, none does: it is only in the way.
        Err(
            OpenError::Format { .. }
            | OpenError::OtherBoot { .. }
            | OpenError::OtherTimeNamespace { .. },
        ) => {}
        Err(error) => return Err(error.into()),
    }
    Segment::remove(name)?;
    Ok(Exit::Ok)
}
