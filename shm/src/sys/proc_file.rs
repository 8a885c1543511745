//! Reading files of `/proc` and `/sys`: always as bytes, and never more of them than a bound.
//!
//! Processes choose what stands in many of these files: names, arguments, mount points. It need not be
//! UTF-8, and it can be as long as they like.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use rustix::io::Errno;

/// The most bytes that are read of an ordinary file, where nobody asks for more.
pub const ORDINARY_BYTES: u64 = 64 << 10;

/// The first `most` bytes of a file.
///
/// # Errors
/// The kernel's.
pub fn bytes(path: impl AsRef<Path>, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A file of which every byte matters: an error where it is longer than `most`.
///
/// # Errors
/// The kernel's; where the file is longer than `most`.
pub fn whole(path: impl AsRef<Path>, most: u64) -> io::Result<Vec<u8>> {
    let bytes = bytes(path, most + 1)?;
    if bytes.len() as u64 > most { Err(too_long(most)) } else { Ok(bytes) }
}

/// The first [`ORDINARY_BYTES`] of a file as text; bytes that are not UTF-8 are replaced.
///
/// # Errors
/// The kernel's.
pub fn text(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&bytes(path, ORDINARY_BYTES)?).into_owned())
}

/// Whether any line fulfils `fits`. Reads on until one does, keeping one line at a time, and takes what it
/// has read from `left`, the bytes that may be read.
///
/// # Errors
/// The kernel's; where no line fulfils it and there is more than may be read.
pub fn has_line(
    path: impl AsRef<Path>,
    left: &mut u64,
    mut fits: impl FnMut(&[u8]) -> bool,
) -> io::Result<bool> {
    let most = *left;
    let mut file = BufReader::new(File::open(path)?.take(most));
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = file.read_until(b'\n', &mut line)?;
        *left = file.get_ref().limit();
        if read == 0 {
            return if *left == 0 { Err(too_long(most)) } else { Ok(false) };
        }
        // A line that the bound cut is not judged: it may read like another.
        match line.strip_suffix(b"\n") {
            Some(line) if fits(line) => return Ok(true),
            None if *left > 0 && fits(&line) => return Ok(true),
            _ => {}
        }
    }
}

/// Whether this is how `/proc` says that a process, or a thing of it, is gone.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || Errno::from_io_error(error) == Some(Errno::SRCH)
}

/// The error for a file that is longer than it may be.
fn too_long(most: u64) -> io::Error {
    io::Error::other(format!("it is longer than the {most} bytes that are read of it"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file_of(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    #[test]
    fn no_more_is_read_than_the_bound() {
        let file = file_of(b"ab\xffcd");
        assert_eq!(bytes(file.path(), 3).unwrap(), b"ab\xff");
        assert_eq!(whole(file.path(), 5).unwrap(), b"ab\xffcd");
        assert!(whole(file.path(), 4).is_err());
        assert_eq!(text(file.path()).unwrap(), "ab\u{fffd}cd");
    }

    #[test]
    fn a_line_is_found_within_the_bound_and_its_absence_is_sure_or_an_error() {
        let file = file_of(b"one\n\xff two\nthree");
        let has =
            |most: u64, wanted: &[u8]| has_line(file.path(), &mut { most }, |line| line == wanted);
        assert!(has(100, b"one").unwrap() && has(100, b"\xff two").unwrap());
        assert!(has(100, b"three").unwrap(), "the last line needs no newline");
        assert!(!has(100, b"two").unwrap());
        assert!(has(4, b"one").unwrap());
        assert!(has(6, b"\xff ").is_err(), "half a line is none");
        assert!(has(6, b"four").is_err(), "there is more, which was not looked at");
    }
}
