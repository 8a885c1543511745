//! Reading incidents: [`list`] gives one row for each in a directory, [`find`] one of them by its name,
//! [`Entry::read`] all there is of it.
//!
//! An incident that cannot be read is a row that says why. A file is read only where it belongs to
//! whoever the directory belongs to, to root or to this user: in a directory that others may write to,
//! anybody could put one.

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

/// The largest `incident.json` that is read.
const SIZE_LIMIT_BYTES: u64 = 64 << 20;

/// Names of a directory that are looked at, at most.
const NAMES: usize = 100_000;

/// One directory in a directory of incidents.
#[derive(Debug)]
pub struct Entry {
    /// Its name, by which the incident is called.
    pub id: String,
    /// Where it is.
    pub dir: PathBuf,
    /// What a list says of it, or why it cannot.
    pub summary: Result<Summary, ReadError>,
    /// When it was, by its own word or its name; else when its directory was last changed.
    when: Option<SystemTime>,
    owners: Owners,
}

/// What a list says of an incident; the fields are those of [`Incident`].
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
    /// Its file is not there.
    #[error("it has no {INCIDENT_FILE}: it is being written, or its writer was killed")]
    Missing,
    /// This user may not read it.
    #[error("you may not read it; ask root, or whoever it belongs to")]
    Denied,
    /// It belongs to somebody who has no business there.
    #[error(
        "it belongs to uid {uid}, not to you, root or its directory's owner; it is not trusted"
    )]
    Foreign {
        /// Who.
        uid: u32,
    },
    /// It is a directory, a pipe, a link, ...
    #[error("its {INCIDENT_FILE} is no plain file")]
    NotAFile,
    /// It is larger than any incident.
    #[error("its {INCIDENT_FILE} has {bytes} bytes, more than any incident")]
    TooLarge {
        /// How large.
        bytes: u64,
    },
    /// It ends too early.
    #[error("its {INCIDENT_FILE} ends too early: its writer was killed, or the disk was full")]
    Partial,
    /// It is no JSON, or other JSON.
    #[error("its {INCIDENT_FILE} is no incident: {source}")]
    Garbled {
        /// What the parser said.
        source: serde_json::Error,
    },
    /// A newer hangwatch wrote it.
    #[error(
        "it is of version {version}, and this hangwatch reads up to {VERSION}; get a newer one"
    )]
    Newer {
        /// Its version.
        version: u32,
    },
    /// The file system failed.
    #[error("it cannot be read: {source}")]
    Failed {
        /// How.
        source: io::Error,
    },
}

/// Why a directory of incidents cannot be listed.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the incidents in {}: {source}; name another directory with --incidents", dir.display())]
pub struct ListError {
    dir: PathBuf,
    source: io::Error,
}

/// Why there is no one incident by a name.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The directory cannot be listed.
    #[error(transparent)]
    List(#[from] ListError),
    /// There is none at all.
    #[error("there is no incident in {}", dir.display())]
    Empty {
        /// Where.
        dir: PathBuf,
    },
    /// None is called so.
    #[error("there is no incident {key:?} in {}; `hangwatch incidents` lists them", dir.display())]
    None {
        /// What was looked for.
        key: String,
        /// Where.
        dir: PathBuf,
    },
    /// There is no directory of that path.
    #[error("there is no directory of an incident at {}", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
    },
    /// The path is that of a directory of incidents.
    #[error("{path} is a directory of incidents; name it with --incidents {path}", path = path.display())]
    Directory {
        /// The path.
        path: PathBuf,
    },
    /// Several are.
    #[error("{key:?} may be any of {among}; write more of its name")]
    Several {
        /// What was looked for.
        key: String,
        /// The newest of them.
        among: String,
    },
}

/// Every incident in `dir`, the newest first. A directory that is not there holds none.
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
        // A name with a dot before it is one that is being written. What is no directory is none.
        let hidden = found.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && found.file_type().is_ok_and(|kind| kind.is_dir()) {
            entries.push(Entry::new(found.path(), owners));
        }
    }
    entries.sort_by(|a, b| (b.when, &b.id).cmp(&(a.when, &a.id)));
    Ok(entries)
}

/// What a list says of the incident called `id` in `dir`.
///
/// # Errors
///
/// [`ReadError`].
pub fn summary(dir: &Path, id: &str) -> Result<Summary, ReadError> {
    let owner = fs::metadata(dir).map_err(|source| ReadError::Failed { source })?.uid();
    read(&dir.join(id), Owners::of(owner))
}

/// The incident that `key` names: by its name, by a beginning that no other has, or as `last`, the
/// newest that can be read. A key with a slash is the path of an incident's directory, or of its file.
///
/// # Errors
///
/// [`FindError`].
pub fn find(dir: &Path, key: &str) -> Result<Entry, FindError> {
    // A name that the shell has completed ends in a slash.
    let name = key.trim_end_matches('/');
    if !name.is_empty() && !name.contains('/') && !Path::new(key).is_dir() {
        return find_by_name(dir, name);
    }
    if key.contains('/') { at_path(Path::new(key)) } else { find_by_name(dir, key) }
}

/// The incident in a directory, or of a file, that somebody has named, and so trusts.
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

    /// When it was: by its own word where it can be read, else by its name, else when its directory was
    /// last changed.
    pub fn when(&self) -> Option<SystemTime> {
        self.when
    }

    /// All there is of it.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(&self) -> Result<Incident, ReadError> {
        read(&self.dir, self.owners)
    }
}

/// Whose files are read.
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

/// Reads the incident in `dir` as a `T`, once it is known to be one of a version that is understood.
fn read<T: DeserializeOwned>(dir: &Path, owners: Owners) -> Result<T, ReadError> {
    #[derive(Deserialize)]
    struct Probe {
        version: u32,
    }
    let text = text(dir, owners)?;
    let garbled = |source: serde_json::Error| {
        if source.is_eof() { ReadError::Partial } else { ReadError::Garbled { source } }
    };
    // The version first: what a newer one holds may not even have the shape.
    match serde_json::from_slice(&text).map_err(garbled)? {
        Probe { version } if version > VERSION => Err(ReadError::Newer { version }),
        Probe { .. } => serde_json::from_slice(&text).map_err(garbled),
    }
}

/// The file of the incident in `dir`. Neither the directory's own name nor the file's is followed where
/// it is a link, and nothing but a regular file is opened.
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

/// What there is of a file that may grow while it is read.
fn read_up_to(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(most).read_to_end(&mut text)?;
    Ok(text)
}
