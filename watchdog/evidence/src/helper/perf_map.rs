//! The perf map: what the worker's runtime has compiled, by its own word, in `/tmp/perf-PID.map`.
//!
//! It is opened beneath the worker's root directory, only if it is a regular file of the worker's user.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::modules::Modules;
use super::native::Stack;
use super::target::Target;
use hangwatch_files::beneath;

/// What is read of it at most, bytes.
const READ_BYTES: u64 = 64 << 20;
/// The longest line, bytes: a longer one ends it.
const LINE_BYTES: u64 = 64 << 10;
/// The longest name that is kept, bytes.
const NAME_BYTES: usize = 1024;

/// The names of addresses that lie in no file.
#[derive(Default)]
pub(super) struct PerfMap(BTreeMap<u64, String>);

impl PerfMap {
    /// What the worker's map says of the frames of these stacks.
    pub(super) fn of(target: &Target, modules: &Modules, stacks: &[Stack]) -> PerfMap {
        let frames = stacks.iter().flat_map(|stack| &stack.frames);
        let mut wanted: Vec<u64> =
            frames.filter(|frame| frame.module.is_none()).map(|frame| frame.address).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let opened = || {
            let status = target.read("status").ok().filter(|_| !wanted.is_empty())?;
            let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
            let path = format!("tmp/perf-{}.map", pids.split_whitespace().last()?);
            let (file, stat) = beneath::regular_file(modules.root()?, Path::new(&path)).ok()?;
            (stat.st_uid == rustix::process::geteuid().as_raw()).then_some(file)
        };
        let read = |file: std::fs::File| names(BufReader::new(file.take(READ_BYTES)), &wanted);
        opened().map(read).unwrap_or_default()
    }

    /// The name of an address.
    pub(super) fn name(&self, address: u64) -> Option<String> {
        self.0.get(&address).cloned()
    }
}

/// The names of those addresses, sorted, that a map has: a line is `START SIZE NAME`, in hexadecimal.
fn names(mut map: impl BufRead, wanted: &[u64]) -> PerfMap {
    let mut names = BTreeMap::new();
    let mut line = Vec::new();
    while map.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if line.last() != Some(&b'\n') {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let words: Vec<&str> = text.trim_end().splitn(3, ' ').collect();
        let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        if let [start, size, name] = words[..]
            && let (Some(start), Some(size)) = (hex(start), hex(size))
        {
            let name = &name[..name.floor_char_boundary(NAME_BYTES)];
            let first = wanted.partition_point(|address| *address < start);
            let of_it = wanted[first..].iter().take_while(|at| **at - start < size);
            names.extend(of_it.map(|address| (*address, name.to_owned())));
        }
        line.clear();
    }
    PerfMap(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_name_of_its_function() {
        let map = "1000 10 py::f:/a b.py\nnonsense\n2000 20 py::g\n3000 10 cut";
        let map = names(map.as_bytes(), &[0x100f, 0x1010, 0x2000, 0x3000]);
        assert_eq!(map.name(0x100f).as_deref(), Some("py::f:/a b.py"));
        assert_eq!(map.name(0x1010), None);
        assert_eq!(map.name(0x2000).as_deref(), Some("py::g"));
        assert_eq!(map.name(0x3000), None, "it is being written");
    }
}
