//! Checks whether the segment's file was truncated, removed or replaced.

use std::os::fd::AsFd;

use hangwatch::Segment;
use hangwatch::sys::file;

/// What happened to the segment's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It was truncated: the segment can no longer be served.
    Truncated,
    /// Its name was removed: no further process can attach. Attached workers are still served.
    Removed,
    /// Another file has its name: processes that attach now are not served. Attached workers are.
    Replaced,
}

/// Checks the file, and remembers what it has reported.
#[derive(Debug)]
pub(super) struct SegmentFileCheck {
    segment: Segment,
    reported: Vec<Finding>,
}

impl SegmentFileCheck {
    pub(super) fn new(segment: Segment) -> SegmentFileCheck {
        SegmentFileCheck { segment, reported: Vec::new() }
    }

    /// Returns findings that were not reported before.
    pub(super) fn check(&mut self) -> Vec<Finding> {
        let mut found = Vec::new();
        let Ok(stat) = rustix::fs::fstat(self.segment.file().as_fd()) else { return found };
        if u64::try_from(stat.st_size).is_ok_and(|size| size < self.segment.file().len()) {
            found.push(Finding::Truncated);
        }
        match file::examine(self.segment.name()) {
            Ok(other) if other.id() != self.segment.file().id() => found.push(Finding::Replaced),
            // It is the segment's file, or it cannot be opened now, for example for lack of descriptors.
            Ok(_) | Err(file::OpenError::Io { .. }) => {}
            // The name was removed or changed.
            Err(file::OpenError::NotFound { .. }) => found.push(Finding::Removed),
            // The file of this name is not a segment.
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
    fn each_finding_is_reported_once() {
        let name = format!("file-check-{}", std::process::id());
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
