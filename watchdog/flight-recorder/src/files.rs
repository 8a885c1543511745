//! The dumps of a job: which files they are, and whose.
//!
//! torch writes `nccl_trace_rank_7`, NVIDIA's tools `_dump_7`: the last number of the name is the rank.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::dump::{Dump, DumpError};

/// torch keeps 2,000 entries by default, about 1 MB; a larger file is none of these dumps.
const BYTES_AT_MOST: u64 = 256 << 20;
/// More files than any job has ranks.
const FILES_AT_MOST: usize = 1 << 18;

/// Why no dumps were read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A path cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Two files are of one rank.
    #[error(
        "{} and {} are both of rank {rank}: give the dumps of one hang at a time",
        first.display(), second.display()
    )]
    Twice {
        /// The rank.
        rank: u32,
        /// The file read first.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// There are too many files.
    #[error("more than {FILES_AT_MOST} files: give the directory that holds the dumps alone")]
    TooMany,
}

/// A file that was passed over, and why.
#[derive(Debug)]
pub struct Unread {
    /// The file.
    pub path: PathBuf,
    /// Why it is not used.
    pub why: UnreadWhy,
}

/// Why a file was passed over.
#[derive(Debug, thiserror::Error)]
pub enum UnreadWhy {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is not a dump.
    #[error(transparent)]
    Dump(#[from] DumpError),
    /// It is too large for a dump.
    #[error("larger than {} MiB", BYTES_AT_MOST >> 20)]
    TooLarge,
    /// Not a plain file.
    #[error("not a plain file")]
    NotPlain,
    /// Its name ends with no rank.
    #[error("its name has no rank (dumps are named like nccl_trace_rank_7 or _dump_7)")]
    NoRank,
}

/// Reads the dumps of one hang: the files named, and all dumps in the directories named.
///
/// Files that are no dumps come back beside the dumps, with the reason; in a directory those whose name
/// has no number are left out without a word.
///
/// # Errors
/// [`ReadError`] where a path cannot be read, or two files are of one rank.
pub fn read(paths: &[PathBuf]) -> Result<(Vec<Dump>, Vec<Unread>), ReadError> {
    let mut files: BTreeMap<u32, PathBuf> = BTreeMap::new();
    let (mut dumps, mut unread) = (Vec::new(), Vec::new());
    for path in candidates(paths)? {
        let Some(rank) = rank_of(&path) else {
            unread.push(Unread { path, why: UnreadWhy::NoRank });
            continue;
        };
        match dump_in(&path, rank) {
            Ok(dump) => {
                if let Some(first) = files.insert(rank, path.clone()) {
                    return Err(ReadError::Twice { rank, first, second: path });
                }
                dumps.push(dump);
            }
            Err(why) => unread.push(Unread { path, why }),
        }
    }
    dumps.sort_by_key(|dump| dump.rank);
    Ok((dumps, unread))
}

fn candidates(paths: &[PathBuf]) -> Result<Vec<PathBuf>, ReadError> {
    let mut files = Vec::new();
    for path in paths {
        let failed = |source| ReadError::Io { path: path.clone(), source };
        if fs::metadata(path).map_err(failed)?.is_dir() {
            for entry in fs::read_dir(path).map_err(failed)? {
                let file = entry.map_err(failed)?.path();
                if rank_of(&file).is_some() && file.is_file() {
                    files.push(file);
                }
                if files.len() > FILES_AT_MOST {
                    return Err(ReadError::TooMany);
                }
            }
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    Ok(files)
}

fn dump_in(path: &Path, rank: u32) -> Result<Dump, UnreadWhy> {
    // Asked before it is opened: opening a FIFO waits for a writer.
    if !fs::metadata(path)?.is_file() {
        return Err(UnreadWhy::NotPlain);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_AT_MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_AT_MOST {
        return Err(UnreadWhy::TooLarge);
    }
    Ok(Dump::parse(rank, &bytes)?)
}

/// The last number in a file's name without its extension.
fn rank_of(path: &Path) -> Option<u32> {
    let name = path.file_stem()?.to_str()?;
    let end = name.rfind(|c: char| c.is_ascii_digit())? + 1;
    let digits = name[..end].bytes().rev().take_while(u8::is_ascii_digit).count();
    name[end - digits..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rank_is_the_last_number_of_a_files_name() {
        let rank = |name: &str| rank_of(Path::new(name));
        assert_eq!(rank("/tmp/nccl_trace_rank_7"), Some(7));
        assert_eq!(rank("a2/_dump_12"), Some(12));
        assert_eq!(rank("host3.rank_4.json"), Some(4));
        assert_eq!(rank("dump-11.pickle"), Some(11));
        assert_eq!(rank("fault_injection.log"), None);
        assert_eq!(rank("9"), Some(9));
        assert_eq!(rank("dump_99999999999"), None);
    }
}
