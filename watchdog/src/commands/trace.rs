//! `hangwatch trace`: flight records as a trace, of an incident or of a segment as it is now.

use hangwatch::Segment;

use super::Failure;
use super::report::write;
use crate::cli::incidents::Trace;
use crate::exit::Exit;
use crate::trace;

pub(super) fn perform(options: &Trace) -> Result<Exit, Failure> {
    let text = match (&options.id, &options.segment) {
        (Some(id), _) => trace::of_incident(&options.place.incident(id)?.1),
        (None, segment) => {
            trace::of_segment(Segment::open(segment.as_deref().unwrap_or_default())?)
        }
    };
    write(&options.output, &text)?;
    Ok(Exit::Ok)
}
