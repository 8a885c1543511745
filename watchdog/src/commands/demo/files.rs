//! The demo's real work: the files of a directory, in shares, and their digests.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The most files of a directory that are hashed, the longest one and all together: the demo is to
/// take seconds.
const FILES: usize = 2_000;
const FILE_BYTES: u64 = 4 << 20;
const ALL_BYTES: u64 = 256 << 20;

/// One file: its path and how many of its bytes count.
pub(super) type File = PathBuf;

#[derive(Debug, thiserror::Error)]
#[error("cannot hash the files of {dir}: {source}; name a directory that can be read")]
pub(super) struct DirError {
    dir: String,
    source: io::Error,
}

/// The regular files under `dir` in a fixed order, dealt out to `count` workers. Hidden directories
/// and `target` are left out.
pub(super) fn shares(dir: &Path, count: usize) -> Result<Vec<Vec<File>>, DirError> {
    let failed = |source| DirError { dir: dir.display().to_string(), source };
    let mut found = Vec::new();
    let mut directories = vec![dir.to_path_buf()];
    let mut bytes = 0;
    // The first must be readable; one further down that is not is passed over.
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
                // An empty one may be of /proc, and a read of it endless.
                Ok(meta) if meta.is_file() && (1..=FILE_BYTES).contains(&meta.len()) => {
                    bytes += meta.len();
                    found.push(entry.path());
                }
                _ => {}
            }
        }
        if found.len() >= FILES || bytes >= ALL_BYTES {
            break;
        }
    }
    found.truncate(FILES);
    found.sort();
    let mut shares = vec![Vec::new(); count];
    for (index, file) in found.into_iter().enumerate() {
        shares[index % count].push(file);
    }
    Ok(shares)
}

/// The digest of one file; an unreadable one counts as empty, for every reader alike.
pub(super) fn file_digest(file: &Path) -> [u8; 32] {
    Sha256::digest(fs::read(file).unwrap_or_default()).into()
}

/// The digest of a share: of its files' digests, in hexadecimal.
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
