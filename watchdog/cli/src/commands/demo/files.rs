//! The demo's work: the files of a directory, divided into shares, and their digests.

use std::ffi::OsStr;
use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use hangwatch_text::plain;

/// Limits on the number of files, the size of one, and the size of all, so that the demo takes seconds.
const FILES: usize = 2_000;
const FILE_BYTES: u64 = 4 << 20;
const ALL_BYTES: u64 = 256 << 20;

/// One file to hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// How many bytes are hashed from the beginning; so a file may grow meanwhile.
    pub(super) bytes: u64,
    /// Identifies this version of the file; `None` in workers.
    seen: Option<Seen>,
}

/// Identifies one version of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    changed_at: (i64, i64),
}

impl Seen {
    fn of(meta: &Metadata) -> Seen {
        let changed_at = (meta.ctime(), meta.ctime_nsec());
        Seen { device: meta.dev(), inode: meta.ino(), changed_at }
    }
}

impl File {
    /// Whether the file has changed since it was found.
    pub(super) fn has_changed(&self) -> bool {
        self.seen != fs::metadata(&self.path).ok().as_ref().map(Seen::of)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot hash the files of {dir}: {source}; give a directory that you can read")]
pub(super) struct DirError {
    dir: String,
    source: io::Error,
}

/// The regular files under `dir` in a fixed order, divided among `count` workers.
///
/// Hidden directories and `target` are left out.
pub(super) fn shares(dir: &Path, count: usize) -> Result<Vec<Vec<File>>, DirError> {
    let failed = |source| DirError { dir: plain(&dir.to_string_lossy()).into_owned(), source };
    let mut found = Vec::new();
    let mut directories = vec![dir.to_path_buf()];
    let mut bytes = 0;
    // `dir` must be readable; unreadable directories below it are skipped.
    fs::read_dir(dir).map_err(failed)?;
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let mut entries: Vec<_> = entries.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let skipped = name.as_encoded_bytes().starts_with(b".") || name == "target";
            match entry.metadata() {
                Ok(meta) if meta.is_dir() && !skipped => directories.push(entry.path()),
                // Files of size 0 may be in /proc, where a read may never end.
                Ok(meta) if meta.is_file() && (1..=FILE_BYTES).contains(&meta.len()) => {
                    bytes += meta.len();
                    let seen = Some(Seen::of(&meta));
                    found.push(File { path: entry.path(), bytes: meta.len(), seen });
                }
                _ => {}
            }
        }
        if found.len() >= FILES || bytes >= ALL_BYTES {
            break;
        }
    }
    found.truncate(FILES);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    let mut shares = vec![Vec::new(); count];
    for (index, file) in found.into_iter().enumerate() {
        shares[index % count].push(file);
    }
    Ok(shares)
}

/// Serializes a share for its worker: length and path of each file, each followed by a zero byte.
pub(super) fn listed(share: &[File]) -> Vec<u8> {
    let mut list = Vec::new();
    for File { path, bytes, .. } in share {
        list.extend(bytes.to_string().into_bytes());
        list.push(0);
        list.extend(path.as_os_str().as_bytes());
        list.push(0);
    }
    list
}

/// Parses a share that [`listed`] serialized.
pub(super) fn read_list(list: &[u8]) -> Option<Vec<File>> {
    let mut parts = list.split(|byte| *byte == 0);
    let mut share = Vec::new();
    loop {
        let bytes = parts.next()?;
        let Some(path) = parts.next() else {
            return bytes.is_empty().then_some(share);
        };
        let bytes = std::str::from_utf8(bytes).ok()?.parse().ok()?;
        share.push(File { path: OsStr::from_bytes(path).into(), bytes, seen: None });
    }
}

/// The digest of one file; an unreadable file counts as empty.
pub(super) fn file_digest(file: &File) -> [u8; 32] {
    // The file may have been replaced by a FIFO: do not wait for a writer.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&file.path);
    let mut bytes = Vec::new();
    let read = opened.and_then(|opened| opened.take(file.bytes).read_to_end(&mut bytes));
    if read.is_err() {
        bytes.clear();
    }
    Sha256::digest(&bytes).into()
}

/// The digest of a share, computed over the digests of its files, in hexadecimal.
pub(super) fn digest(share: &[File]) -> String {
    let mut all = Sha256::new();
    for file in share {
        all.update(file_digest(file));
    }
    hex(&all.finalize())
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_round_trips() {
        let name = OsStr::from_bytes(b"a b\n\xff");
        let file = |path: &OsStr, bytes| File { path: path.into(), bytes, seen: None };
        let share = [file("/x/y".as_ref(), 7), file(name, 0)];
        assert_eq!(read_list(&listed(&share)).unwrap(), share);
        assert_eq!(read_list(b"").unwrap(), []);
        assert_eq!(read_list(b"x\0y\0"), None);
        assert_eq!(read_list(b"7\0y"), None);
    }

    #[test]
    fn growing_and_changed_files_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "before").unwrap();
        let file = shares(dir.path(), 1).unwrap().remove(0).remove(0);
        let digest = file_digest(&file);
        assert!(!file.has_changed());
        fs::write(&path, "before, and after").unwrap();
        assert_eq!(file_digest(&file), digest);
        fs::write(&path, "anew").unwrap();
        assert_ne!(file_digest(&file), digest);
        fs::remove_file(&path).unwrap();
        assert!(file.has_changed());
    }
}
