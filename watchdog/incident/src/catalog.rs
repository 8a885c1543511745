//! Reads incidents: [`list`] returns one entry for each in a directory, [`find`] finds one by its name,
//! [`Entry::read`] reads all of it.
//!
//! An entry that cannot be read says why. A file is read only if it belongs to the directory's owner, root or
//! this user, because other users may be able to create files there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::schema::{Ending, Incident, Moment, Suspect, Timer, VERSION, Worker};
use crate::store::{INCIDENT_FILE, time_of_id};
use hangwatch_files::beneath;

/// The size limit of an `incident.json`.
const SIZE_LIMIT_BYTES: u64 = 64 << 20;

/// The most names of a directory that are read.
const NAMES: usize = 100_000;

/// One directory in a directory of incidents.
#[derive(Debug)]
pub struct Entry {
    /// The name of the incident and of its directory.
    pub id: String,
    /// The path of its directory.
    pub dir: PathBuf,
    /// The summary, or why it cannot be read.
    pub summary: Result<Summary, ReadError>,
    /// Its time, from the file or its name; else the last change of its directory.
    when: Option<SystemTime>,
    owners: Owners,
}

/// The fields of [`Incident`] that a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "they are documented in the schema")]
pub struct Summary {
    pub version: u32,
    pub host: String,
    pub segment: String,
    pub at: Moment,
    pub worker: Worker,
    pub timers: Vec<Timer>,
    pub ending: Option<Ending>,
    pub suspect: Option<Suspect>,
}

/// Why an incident cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file does not exist.
    #[error("it has no {INCIDENT_FILE}: it is being written, or its writer was killed")]
    Missing,
    /// No permission to read it.
    #[error("no permission to read it; become root or its owner")]
    Denied,
    /// It belongs to a user that is not trusted.
    #[error(
        "it belongs to uid {uid}, not to you, root or its directory's owner; it is not trusted"
    )]
    Foreign {
        /// The owner.
        uid: u32,
    },
    /// It is not a regular file.
    #[error("its {INCIDENT_FILE} is not a regular file")]
    NotAFile,
    /// It is larger than any incident.
    #[error("its {INCIDENT_FILE} has {bytes} bytes, more than any incident")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// It is truncated.
    #[error("its {INCIDENT_FILE} is truncated: its writer was killed, or the disk was full")]
    Partial,
    /// It is not valid JSON, or not an incident.
    #[error("its {INCIDENT_FILE} is not an incident: {source}")]
    Garbled {
        /// The parser's error.
        source: serde_json::Error,
    },
    /// A newer version of hangwatch wrote it.
    #[error(
        "it is of version {version}, and this hangwatch reads up to {VERSION}; get a newer one"
    )]
    Newer {
        /// The version of its format.
        version: u32,
    },
    /// The file system failed.
    #[error("it cannot be read: {source}")]
    Failed {
        /// The error.
        source: io::Error,
    },
}

/// Why a directory of incidents cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the incidents in {}: {source}; choose another directory with --incidents", dir.display())]
pub struct ListError {
    dir: PathBuf,
    source: io::Error,
}

/// Why a name does not find exactly one incident.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The directory cannot be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// The directory holds no incident.
    #[error("there is no incident in {}", dir.display())]
    Empty {
        /// The directory.
        dir: PathBuf,
    },
    /// No incident has this name.
    #[error("there is no incident {key:?} in {}; `hangwatch incidents` lists them", dir.display())]
    None {
        /// The name.
        key: String,
        /// The directory.
        dir: PathBuf,
    },
    /// The path is not a directory of an incident.
    #[error("there is no directory of an incident at {}", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The path is a directory of incidents, not of one incident.
    #[error("{path} is a directory of incidents, not an incident; use --incidents {path}", path = path.display())]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// Several incidents match.
    #[error("{key:?} matches several incidents: {among}; give more of the name")]
    Several {
        /// The name.
        key: String,
        /// The newest of them.
        among: String,
    },
}

/// All incidents in `dir`, the newest first. A missing directory holds none.
///
/// # Errors
///
/// [`ListError`].
pub fn list(dir: &Path) -> Result<Vec<Entry>, ListError> {
    let failed = |source| ListError { dir: dir.to_owned(), source };
    let owners = match fs::metadata(dir) {
        Ok(metadata) => Owners::of(metadata.uid()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut entries = Vec::new();
    for found in fs::read_dir(dir).map_err(failed)?.take(NAMES) {
        let found = found.map_err(failed)?;
        // A name with a leading dot is being written. Only directories are incidents.
        let hidden = found.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && found.file_type().is_ok_and(|kind| kind.is_dir()) {
            entries.push(Entry::new(found.path(), owners));
        }
    }
    entries.sort_by(|a, b| (b.when, &b.id).cmp(&(a.when, &a.id)));
    Ok(entries)
}

/// The summary of the incident `id` in `dir`.
///
/// # Errors
///
/// [`ReadError`].
pub fn summary(dir: &Path, id: &str) -> Result<Summary, ReadError> {
    let owner = fs::metadata(dir).map_err(|source| ReadError::Failed { source })?.uid();
    read(&dir.join(id), Owners::of(owner))
}

/// Finds an incident by its name, by a unique beginning of its name, or as `last`, the newest readable one.
///
/// A key with a slash is the path of an incident's directory or of its file.
///
/// # Errors
///
/// [`FindError`].
pub fn find(dir: &Path, key: &str) -> Result<Entry, FindError> {
    // A shell may have completed the name with a slash.
    let name = key.trim_end_matches('/');
    if !name.is_empty() && !name.contains('/') && !Path::new(key).is_dir() {
        return find_by_name(dir, name);
    }
    if key.contains('/') { at_path(Path::new(key)) } else { find_by_name(dir, key) }
}

/// The incident at a path that the user gave, and therefore trusts.
fn at_path(path: &Path) -> Result<Entry, FindError> {
    let is_file = path.file_name().is_some_and(|name| name == INCIDENT_FILE);
    let parent = path.parent().filter(|_| is_file && !path.is_dir());
    let dir = fs::canonicalize(parent.unwrap_or(path))
        .ok()
        .filter(|dir| dir.is_dir())
        .ok_or_else(|| FindError::NoDirectory { path: path.to_owned() })?;
    let entry = Entry::new(dir, Owners::Any);
    let is_no_incident = matches!(entry.summary, Err(ReadError::Missing));
    if is_no_incident && list(&entry.dir).is_ok_and(|all| all.iter().any(|one| one.summary.is_ok()))
    {
        return Err(FindError::Directory { path: path.to_owned() });
    }
    Ok(entry)
}

fn find_by_name(dir: &Path, key: &str) -> Result<Entry, FindError> {
    let mut entries = list(dir)?;
    if entries.is_empty() {
        return Err(FindError::Empty { dir: dir.to_owned() });
    }
    if let Some(exact) = entries.iter().position(|entry| entry.id == key) {
        return Ok(entries.swap_remove(exact));
    }
    if key == "last" {
        let readable = entries.iter().position(|entry| entry.summary.is_ok());
        return Ok(entries.swap_remove(readable.unwrap_or(0)));
    }
    entries.retain(|entry| !key.is_empty() && entry.id.starts_with(key));
    match entries.len() {
        0 => Err(FindError::None { key: key.to_owned(), dir: dir.to_owned() }),
        1 => Ok(entries.swap_remove(0)),
        several => {
            let mut among: Vec<&str> = entries.iter().take(3).map(|entry| &*entry.id).collect();
            if several > among.len() {
                among.push("others");
            }
            Err(FindError::Several { key: key.to_owned(), among: among.join(", ") })
        }
    }
}

impl Entry {
    fn new(dir: PathBuf, owners: Owners) -> Entry {
        let id = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        let summary: Result<Summary, ReadError> = read(&dir, owners);
        let by_its_word =
            summary.as_ref().ok().and_then(|s| humantime::parse_rfc3339(&s.at.utc).ok());
        let when = by_its_word.or_else(|| time_of_id(&id));
        let when = when.or_else(|| fs::metadata(&dir).and_then(|m| m.modified()).ok());
        Entry { id, dir, summary, when, owners }
    }

    /// Its time: from the file if readable, else from its name, else the last change of its directory.
    pub fn when(&self) -> Option<SystemTime> {
        self.when
    }

    /// Reads the whole incident.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(&self) -> Result<Incident, ReadError> {
        read(&self.dir, self.owners)
    }
}

/// Which owners are trusted.
#[derive(Clone, Copy, Debug)]
enum Owners {
    Any,
    /// The directory's owner, root and this user.
    Among([u32; 3]),
}

impl Owners {
    fn of(dir_uid: u32) -> Owners {
        Owners::Among([dir_uid, 0, geteuid().as_raw()])
    }
}

/// Reads the incident in `dir` as a `T`, after checking its version.
fn read<T: DeserializeOwned>(dir: &Path, owners: Owners) -> Result<T, ReadError> {
    #[derive(Deserialize)]
    struct Probe {
        version: u32,
    }
    let text = text(dir, owners)?;
    let garbled = |source: serde_json::Error| {
        if source.is_eof() { ReadError::Partial } else { ReadError::Garbled { source } }
    };
    // The version first: a newer format may have another structure.
    match serde_json::from_slice(&text).map_err(garbled)? {
        Probe { version } if version > VERSION => Err(ReadError::Newer { version }),
        Probe { .. } => serde_json::from_slice(&text).map_err(garbled),
    }
}

/// Opens the file of the incident in `dir`: follows no links, and opens only a regular file.
fn text(dir: &Path, owners: Owners) -> Result<Vec<u8>, ReadError> {
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOENT) => ReadError::Missing,
        Some(libc::EACCES | libc::EPERM) => ReadError::Denied,
        Some(libc::ELOOP | libc::EINVAL | libc::ENOTDIR) => ReadError::NotAFile,
        _ => ReadError::Failed { source },
    };
    let (above, name) = match (dir.parent(), dir.file_name()) {
        (Some(above), Some(name)) => (above, Path::new(name)),
        _ => (dir, Path::new(".")),
    };
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::open(above, flags, Mode::empty());
    let above = above.map_err(|error| failed(error.into()))?;
    let own = beneath::directory(above.as_fd(), name).map_err(failed)?;
    let (file, stat) =
        beneath::regular_file(own.as_fd(), Path::new(INCIDENT_FILE)).map_err(failed)?;
    if let Owners::Among(trusted) = owners
        && !trusted.contains(&stat.st_uid)
    {
        return Err(ReadError::Foreign { uid: stat.st_uid });
    }
    let bytes = u64::try_from(stat.st_size).unwrap_or(0);
    if bytes > SIZE_LIMIT_BYTES {
        return Err(ReadError::TooLarge { bytes });
    }
    read_up_to(file, SIZE_LIMIT_BYTES).map_err(failed)
}

/// Reads a file that may grow meanwhile.
fn read_up_to(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}
