//! `hangwatch rm`: removes an unused segment, or all segments whose makers were killed.

use hangwatch::sys::file;
use hangwatch::{OpenError, Segment, StaleError};

use super::segments;
use super::{Failure, complain, print};
use crate::cli::Rm;
use crate::exit::Exit;

#[derive(Debug, thiserror::Error)]
#[error("segment {segment:?} is in use by {user}; end that process first")]
struct InUse {
    segment: String,
    user: String,
}

pub(super) fn perform(options: &Rm) -> Result<Exit, Failure> {
    match &options.segment {
        Some(name) => remove(name),
        None => remove_stale(),
    }
}

/// Removes every segment whose maker was killed.
fn remove_stale() -> Result<Exit, Failure> {
    let (mut exit, mut removed) = (Exit::Ok, 0);
    for name in Segment::list()? {
        match Segment::remove_if_stale(&name) {
            Ok(true) => {
                removed += 1;
                print(&format!("removed {name:?}: its maker was killed\n"))?;
            }
            Ok(false) => {}
            Err(StaleError::File { source, .. }) if segments::is_not_for_us(&source) => {}
            Err(error) => {
                complain(&error);
                exit = Exit::Failed;
            }
        }
    }
    if removed == 0 && exit == Exit::Ok {
        print("nothing to remove: you have no segment whose maker was killed\n")?;
    }
    Ok(exit)
}

fn remove(name: &str) -> Result<Exit, Failure> {
    match Segment::open(name) {
        Ok(segment) => {
            if let Some(user) = segments::user(segment)? {
                return Err(InUse { segment: name.to_owned(), user }.into());
            }
        }
        // This program cannot open it, but another one may use it: one of another version or clock, or
        // one that opened it before it was truncated.
        Err(
            OpenError::Format { .. }
            | OpenError::OtherBoot { .. }
            | OpenError::OtherTimeNamespace { .. }
            | OpenError::File {
                source: file::OpenError::BadSize { .. } | file::OpenError::Sparse { .. },
                ..
            },
        ) => {
            if let Some(user) = segments::user_of_unusable(name)? {
                return Err(InUse { segment: name.to_owned(), user }.into());
            }
        }
        // The removal reports it, without the advice to start a watchdog.
        Err(OpenError::File { source: file::OpenError::NotFound { .. }, .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Segment::remove(name)?;
    Ok(Exit::Ok)
}
