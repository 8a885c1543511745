//! The memory map of the worker, read up to bounds: how many mappings there are and what their files are
//! called is the worker's choice.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::target::{Target, why_io};
use super::teller::Why;

/// Mappings read at most.
const MAPPINGS: usize = 100_000;
/// The longest line that is read whole, bytes: four times the longest path that a system call takes.
const LINE_BYTES: usize = 16 << 10;

/// Some of the mappings, by their addresses.
#[derive(Debug, Default)]
pub(super) struct Maps {
    pub(super) mappings: Vec<Mapped>,
    /// Whether there are more mappings, or longer names, than are read.
    pub(super) is_cut: bool,
}

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) range: Range<u64>,
    pub(super) offset: u64,
    pub(super) is_code: bool,
    pub(super) device: String,
    pub(super) inode: u64,
    /// The file's path or the kernel's name, such as `[vdso]`; empty where there is none.
    pub(super) name: Vec<u8>,
}

impl Mapped {
    /// The path of the file that is mapped.
    pub(super) fn path(&self) -> Option<PathBuf> {
        let name = self.name.clone();
        name.starts_with(b"/").then(|| std::ffi::OsString::from_vec(name).into())
    }
}

impl Maps {
    /// The worker's.
    pub(super) fn of(target: &Target) -> Result<Maps, Why> {
        let path = format!("/proc/{}/task/{}/maps", target.pid, target.tid);
        let file = File::open(path).map_err(|error| why_io(&error))?;
        Maps::read(BufReader::new(file)).map_err(|error| why_io(&error))
    }

    fn read(mut from: impl BufRead) -> std::io::Result<Maps> {
        let mut maps = Maps::default();
        let mut line = Vec::new();
        while read_line(&mut from, &mut line, &mut maps.is_cut)? {
            if maps.mappings.len() == MAPPINGS {
                maps.is_cut = true;
                break;
            }
            maps.mappings.extend(parsed(&line));
        }
        maps.mappings.sort_unstable_by_key(|mapped| mapped.range.start);
        Ok(maps)
    }

    /// What is not known for want of what was not read.
    pub(super) fn left_out(&self) -> Option<Why> {
        self.is_cut.then(|| {
            format!(
                "it maps more than {MAPPINGS} pieces of memory, or files with names longer than \
                     {LINE_BYTES} bytes: those were left out"
            )
        })
    }
}

/// Reads a line as far as it is not too long. False at the end.
fn read_line(
    from: &mut impl BufRead,
    line: &mut Vec<u8>,
    is_cut: &mut bool,
) -> std::io::Result<bool> {
    line.clear();
    loop {
        let chunk = from.fill_buf()?;
        if chunk.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let length = end.unwrap_or(chunk.len());
        let room = LINE_BYTES - line.len();
        line.extend_from_slice(&chunk[..length.min(room)]);
        *is_cut |= length > room;
        let used = end.map_or(length, |end| end + 1);
        from.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// A line such as `7f00-7f10 r-xp 00001000 fd:01 1234   /usr/lib/libc.so.6`.
fn parsed(line: &[u8]) -> Option<Mapped> {
    let mut rest = line;
    let mut field = || {
        let begin = rest.iter().position(|byte| *byte != b' ')?;
        let length = rest[begin..].iter().position(|byte| *byte == b' ');
        let end = length.map_or(rest.len(), |length| begin + length);
        let text = std::str::from_utf8(&rest[begin..end]).ok()?;
        rest = &rest[end..];
        Some(text)
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = field()?.split_once('-')?;
    let (range, permissions) = (hex(start)?..hex(end)?, field()?);
    let (offset, device, inode) = (hex(field()?)?, field()?.to_owned(), field()?.parse().ok()?);
    let name = rest.trim_ascii_start();
    // One that was cut is no file's name.
    let name = if line.len() == LINE_BYTES { Vec::new() } else { name.to_vec() };
    Some(Mapped { range, offset, is_code: permissions.contains('x'), device, inode, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_with_names_that_have_spaces() {
        let text = "1000-3000 r-xp 00001000 fd:01 77    /a b (deleted)\n\
                    5000-6000 rw-p 00000000 00:00 0 \n4000-4800 r-xp 00000000 00:00 0 [vdso]";
        let maps = Maps::read(text.as_bytes()).unwrap();
        let [first, vdso, last] = &maps.mappings[..] else { panic!("{maps:?}") };
        assert_eq!((first.range.clone(), first.offset, first.inode), (0x1000..0x3000, 0x1000, 77));
        assert_eq!(first.path().unwrap(), PathBuf::from("/a b (deleted)"));
        assert!(first.is_code && !last.is_code && !maps.is_cut);
        assert_eq!((&*vdso.name, vdso.path(), last.path()), (&b"[vdso]"[..], None, None));
    }

    #[test]
    fn a_name_of_400_kib_and_a_million_mappings_are_left_out() {
        let long = format!("1000-2000 r-xp 00000000 fd:01 7 /{}\n", "x".repeat(400 << 10));
        let text = long + "3000-4000 r-xp 00000000 fd:01 8 /short\n";
        let maps = Maps::read(text.as_bytes()).unwrap();
        assert_eq!(maps.mappings.len(), 2);
        assert_eq!(maps.mappings[0].path(), None);
        assert_eq!(maps.mappings[1].path().unwrap(), PathBuf::from("/short"));
        assert!(maps.left_out().unwrap().contains("left out"));
        let many = "1000-2000 rw-p 00000000 00:00 0\n".repeat(1_000_000);
        let maps = Maps::read(many.as_bytes()).unwrap();
        assert!(maps.mappings.len() == MAPPINGS && maps.is_cut);
    }
}
