//! Files that are read by a process of their own: a disk that hangs holds whoever reads from it, and no
//! process can end while one of its threads is held. What a serving watchdog reads again at SIGHUP is read
//! so.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::children;

/// What stands in a file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Contents {
    /// Whether it is a plain file: no pipe, no device.
    pub is_plain: bool,
    /// Its mode.
    pub mode: u32,
    /// Its text: one byte more than asked for, where there is more.
    pub text: String,
}

/// Reads a file in this process.
///
/// # Errors
/// What the kernel says, or that it is not UTF-8.
pub fn read(path: &Path, most_bytes: u64) -> io::Result<Contents> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    let mut text = String::new();
    file.take(most_bytes.saturating_add(1)).read_to_string(&mut text)?;
    Ok(Contents { is_plain: meta.is_file(), mode: meta.mode(), text })
}

/// How a reading ended, as it is told.
#[derive(Debug, Deserialize, Serialize)]
enum Told {
    Read(Contents),
    Failed { number: Option<i32>, text: String },
}

/// Reads a file by a process that `program` has as a command, and waits for it; where it cannot be
/// started, in this one.
///
/// # Errors
/// As [`read`].
pub fn read_apart(program: &Path, path: &Path, most_bytes: u64) -> io::Result<Contents> {
    let mut command = Command::new(program);
    command.arg("file-reader").args(["--most-bytes", &most_bytes.to_string(), "--"]).arg(path);
    command.env_remove("HANGWATCH_SEGMENT").env_remove("HANGWATCH_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let starting = children::starting();
    let Ok(mut child) = command.spawn() else { return read(path, most_bytes) };
    starting.has_begun(child.id());
    let mut told = Vec::new();
    let heard = child.stdout.take().map(|mut stdout| stdout.read_to_end(&mut told));
    let _ = child.wait();
    children::ended(child.id());
    heard.transpose()?;
    match serde_json::from_slice(&told) {
        Ok(Told::Read(contents)) => Ok(contents),
        Ok(Told::Failed { number: Some(number), .. }) => Err(io::Error::from_raw_os_error(number)),
        Ok(Told::Failed { number: None, text }) => Err(io::Error::other(text)),
        Err(error) => Err(io::Error::other(format!("its reader failed: {error}"))),
    }
}

/// Reads a file, and tells how that went.
///
/// # Errors
/// Where nobody can be told.
pub fn tell(path: &Path, most_bytes: u64, to: impl Write) -> io::Result<()> {
    let told = match read(path, most_bytes) {
        Ok(contents) => Told::Read(contents),
        Err(error) => Told::Failed { number: error.raw_os_error(), text: error.to_string() },
    };
    Ok(serde_json::to_writer(to, &told)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_file_is_what_stands_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let told = |path: &Path| {
            let mut told = Vec::new();
            tell(path, 4, &mut told).unwrap();
            serde_json::from_slice(&told).unwrap()
        };
        let Told::Read(contents) = told(&path) else { panic!("it is there") };
        assert_eq!((contents.is_plain, &*contents.text), (true, "01234"));
        let Told::Failed { number, .. } = told(&path.join("x")) else { panic!("it is not there") };
        assert_eq!(number, Some(libc::ENOTDIR));
        assert_eq!(read_apart(Path::new("/no/such/program"), &path, 4).unwrap(), contents);
    }
}
