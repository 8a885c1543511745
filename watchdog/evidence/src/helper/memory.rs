//! The memory a helper may take: what its option allows, and no more than its cgroup has to spare.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::teller::Why;

/// Below this, no helper can work.
const LEAST_BYTES: u64 = 24 << 20;
/// Where cgroups are mounted, those of version 1 with their own directory for memory.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Cgroups above a process at most.
const DEPTH: usize = 64;

/// How many bytes a helper may take, of which `at_once` may be at work.
///
/// # Errors
/// Why there are too few.
pub(super) fn bound(most_bytes: u64, at_once: u32) -> Result<u64, Why> {
    let share = for_helpers().map_or(u64::MAX, |bytes| bytes / u64::from(at_once.max(1)));
    let bound = most_bytes.min(share);
    if bound >= LEAST_BYTES {
        return Ok(bound);
    }
    let mib = |bytes: u64| bytes >> 20;
    Err(format!(
        "memory bound: a helper needs {} MiB at least, and may take {} MiB (--evidence-mib {}, and half \
         of what the watchdog's cgroup has left, shared by {at_once} helpers); raise the limit of the \
         cgroup or choose --evidence scopes",
        mib(LEAST_BYTES),
        mib(bound),
        mib(most_bytes),
    ))
}

/// How many helpers may be at work at once, `most` at most: as many as have enough memory each.
pub fn at_once(most: usize) -> usize {
    let enough_for = |bytes: u64| usize::try_from(bytes / LEAST_BYTES).unwrap_or(most);
    for_helpers().map_or(most, enough_for).clamp(1, most.max(1))
}

/// What all helpers may take together, where the cgroup of this process has a limit: half of what it has
/// left stays with the watchdog and the workers beside it.
fn for_helpers() -> Option<u64> {
    let own = read("/proc/self/cgroup".as_ref()).unwrap_or_default();
    let spare = directories(&own).iter().filter_map(|(dir, files)| spare(dir, files)).min();
    spare.map(|spare| spare / 2)
}

/// The names of the files that say a cgroup's limit and what it uses.
type Files = [&'static str; 2];

/// The directories of the cgroups that a process is in, each with those above it.
fn directories(own: &str) -> Vec<(PathBuf, Files)> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, files) = match controllers {
            "" => (CGROUPS.to_owned(), ["memory.max", "memory.current"]),
            "memory" => {
                (format!("{CGROUPS}/memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        for above in path.ancestors().take(DEPTH) {
            found.push((Path::new(&root).join(above), files));
        }
    }
    found
}

/// What a cgroup has left; `None` where it has no limit, or none that can be read.
fn spare(dir: &Path, [limit, used]: &Files) -> Option<u64> {
    let number = |file: &str| -> Option<u64> { read(&dir.join(file))?.trim().parse().ok() };
    Some(number(limit)?.saturating_sub(number(used).unwrap_or(0)))
}

/// The beginning of a file: these are short.
fn read(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(64 << 10).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_asked_with_all_above_it() {
        let dirs = |own: &str| -> Vec<String> {
            directories(own).into_iter().map(|(dir, _)| dir.display().to_string()).collect()
        };
        let wanted = ["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"];
        assert_eq!(dirs("0::/a/b\n"), wanted);
        assert_eq!(dirs("9:cpu:/x\n4:memory:/\n"), ["/sys/fs/cgroup/memory/"]);
        assert_eq!(dirs("nonsense"), [""; 0]);
    }

    #[test]
    fn what_is_left_is_shared_and_too_little_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["memory.max", "memory.current"];
        assert_eq!(spare(dir.path(), &files), None);
        std::fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        assert_eq!(spare(dir.path(), &files), None);
        std::fs::write(dir.path().join("memory.max"), "67108864\n").unwrap();
        std::fs::write(dir.path().join("memory.current"), "60000000\n").unwrap();
        assert_eq!(spare(dir.path(), &files), Some(7_108_864));
        let why = bound(1 << 20, 1).unwrap_err();
        assert!(why.starts_with("memory bound") && why.contains("--evidence-mib 1"), "{why}");
        assert!(bound(LEAST_BYTES, 1).is_ok());
    }
}
