//! `hangwatch rm`: removes a segment that nobody uses.

use hangwatch::sys::file;
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
        // What this program cannot use is in the way, unless another program does: one of another
        // version or clock, or one that had it open before it was cut short.
        Err(
            OpenError::Format { .. }
            | OpenError::OtherBoot { .. }
            | OpenError::OtherTimeNamespace { .. }
            | OpenError::File { source: file::OpenError::BadSize { .. }, .. },
        ) => {
            if let Some(user) = segments::user_of_unusable(name)? {
                return Err(InUse { segment: name.clone(), user }.into());
            }
        }
        // Said by the removal, which does not advise to start a watchdog.
        Err(OpenError::File { source: file::OpenError::NotFound { .. }, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Segment::remove(name)?;
    Ok(Exit::Ok)
}
