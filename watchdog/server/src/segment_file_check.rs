//! The vigil over the segment's file: cut short, without a name, or another file under its name.

use std::os::fd::AsFd;

use hangwatch::Segment;
use hangwatch::sys::file;

/// What became of the segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It was cut short: the segment cannot be served any longer.
    Truncated,
    /// Its name was removed: nobody else can attach; those attached are served on.
    Removed,
    /// Another file has its name: who attaches now is not served; those attached are.
    Replaced,
}

/// Remembers what was said already.
#[derive(Debug)]
pub(super) struct SegmentFileCheck {
    segment: Segment,
    reported: Vec<Finding>,
}

impl SegmentFileCheck {
    pub(super) fn new(segment: Segment) -> SegmentFileCheck {
        SegmentFileCheck { segment, reported: Vec::new() }
    }

    /// What is new.
    pub(super) fn check(&mut self) -> Vec<Finding> {
        let mut found = Vec::new();
        let Ok(stat) = rustix::fs::fstat(self.segment.file().as_fd()) else { return found };
        if u64::try_from(stat.st_size).is_ok_and(|size| size < self.segment.file().len()) {
            found.push(Finding::Truncated);
        }
        match file::examine(self.segment.name()) {
            Ok(other) if other.id() != self.segment.file().id() => found.push(Finding::Replaced),
            // Its own file; or it cannot be opened now, for want of descriptors for one.
            Ok(_) | Err(file::OpenError::Io { .. }) => {}
            // Its name was removed, or changed.
            Err(file::OpenError::NotFound { .. }) => found.push(Finding::Removed),
            // What has its name is no segment.
            Err(_) => found.push(Finding::Replaced),
        }
        found.retain(|finding| !self.reported.contains(finding));
        self.reported.extend(&found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangwatch::{CreateOptions, Geometry};

    #[test]
    fn each_finding_is_said_once() {
        let name = format!("vigil-{}", std::process::id());
        let geometry = Geometry { lanes: 1, ..Geometry::default() };
        let options = CreateOptions { geometry, ..CreateOptions::default() };
        let segment = Segment::create(&name, options).unwrap();
        let mut check = SegmentFileCheck::new(segment);
        assert_eq!(check.check(), []);
        Segment::remove(&name).unwrap();
        assert_eq!(check.check(), [Finding::Removed]);
        assert_eq!(check.check(), []);
        let path = format!("/dev/shm/hangwatch.{name}");
        std::fs::write(&path, "something else").unwrap();
        assert_eq!(check.check(), [Finding::Replaced]);
        std::fs::remove_file(&path).unwrap();
    }
}
