//! `hangwatch trace`: writes the flight records of an incident or of a segment as a trace.

use hangwatch::Segment;

use super::Failure;
use super::report::write;
use crate::cli::incidents::Trace;
use crate::exit::Exit;
use hangwatch_evidence::live;
use hangwatch_report::trace;

pub(super) fn perform(options: &Trace) -> Result<Exit, Failure> {
    let text = match (&options.id, &options.segment) {
        (Some(id), _) => trace::of_incident(&options.place.incident(id)?.1),
        (None, segment) => {
            let segment = Segment::open(segment.as_deref().unwrap_or_default())?;
            let name = segment.name();
            let seen = live::seen(segment);
            trace::of_workers(&seen.workers, seen.at_ns, name)
        }
    };
    write(&options.output, &text)?;
    Ok(Exit::Ok)
}
