//! Where incidents are kept: `DIR/ID/incident.json`, and beside it what was captured, as text.
//!
//! [`default_dir`] is where they are written and looked for unless somebody says otherwise. [`Store`]
//! writes them: directories of mode 0700, files of mode 0600, each file whole or not at all. It keeps
//! so many, and so much, as its [`Limits`] say: the oldest go first.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fmt};

use rustix::process::geteuid;

use super::schema::Incident;
use super::text;

/// The file in an incident's directory that holds it, as [`schema`] says.
///
/// [`schema`]: super::schema
pub const INCIDENT_FILE: &str = "incident.json";

/// Where root's incidents are.
const SYSTEM_DIR: &str = "/var/lib/hangwatch/incidents";

/// There is no place for incidents.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no place for incidents: neither XDG_STATE_HOME nor HOME is an absolute path; name a \
     directory with --incidents"
)]
pub struct NoStateDirectory;

/// The directory of this user's incidents: `$XDG_STATE_HOME/hangwatch/incidents`, by default
/// `~/.local/state/hangwatch/incidents`; root's are in `/var/lib/hangwatch/incidents`.
///
/// # Errors
///
/// [`NoStateDirectory`].
pub fn default_dir() -> Result<PathBuf, NoStateDirectory> {
    default_dir_of(geteuid().is_root(), |variable| env::var_os(variable))
}

fn default_dir_of(
    is_root: bool,
    get: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, NoStateDirectory> {
    if is_root {
        return Ok(SYSTEM_DIR.into());
    }
    // The XDG Base Directory Specification: a relative path is to be ignored.
    let absolute =
        |variable: &str| get(variable).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or(NoStateDirectory)?;
    Ok(state.join(Path::new("hangwatch/incidents")))
}

/// The file with the stacks, as text.
pub const STACKS_FILE: &str = "stacks.txt";
/// The file with the flight record, as text.
pub const FLIGHT_FILE: &str = "flight.txt";

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Incidents, at least 1.
    pub count: usize,
    /// What all their files take, bytes. The newest incident is kept whatever it takes.
    pub bytes: u64,
}

impl Default for Limits {
    /// A hundred, of 256 MiB.
    fn default() -> Self {
        Limits { count: 100, bytes: 256 << 20 }
    }
}

/// An incident that could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub struct StoreError {
    /// The file or directory.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

/// Whether incidents could be kept in `dir`. Leaves nothing behind: where the directory is not there yet,
/// it is tried in the nearest above it that is.
///
/// # Errors
/// [`StoreError`].
pub fn try_dir(dir: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError { path: dir.to_owned(), source };
    let here = if dir.is_absolute() { dir.to_owned() } else { Path::new(".").join(dir) };
    let existing = here.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    // A right is best tried out: a mode says nothing of a file system that is read-only or not for files.
    let trial = existing.join(format!(".hangwatch-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&trial).map_err(failed)?;
    fs::remove_dir(&trial).map_err(failed)
}

/// Writes incidents.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    limits: Limits,
}

impl Store {
    /// A store in `dir`, which is made when the first incident is written.
    pub fn new(dir: PathBuf, limits: Limits) -> Store {
        Store { dir, limits }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// How much it keeps.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Writes an incident, in place of what there was of it, and removes the oldest beyond the limits.
    ///
    /// What is most worth having is written first, so a disk that is full half-way leaves that. Returns
    /// its directory.
    ///
    /// # Errors
    /// [`StoreError`] of the first file that could not be written.
    pub fn put(&self, incident: &Incident) -> Result<PathBuf, StoreError> {
        let dir = self.dir.join(&incident.id);
        let failed = |path: &Path| {
            let path = path.to_owned();
            |source| StoreError { path, source }
        };
        let is_new = !dir.is_dir();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed(&dir))?;
        if is_new {
            self.make_room(&incident.id);
        }
        let json = serde_json::to_vec(incident).map_err(io::Error::other);
        let json_path = dir.join(INCIDENT_FILE);
        json.and_then(|json| replace(&json_path, &json)).map_err(failed(&json_path))?;
        let texts: [(&str, &dyn fmt::Display); 2] =
            [(STACKS_FILE, &text::Stacks(incident)), (FLIGHT_FILE, &text::Flight(incident))];
        for (name, text) in texts {
            let path = dir.join(name);
            replace(&path, text.to_string().as_bytes()).map_err(failed(&path))?;
        }
        Ok(dir)
    }

    /// Removes the oldest incidents beyond the limits, `newest` aside. What cannot be removed is left
    /// for the next time.
    fn make_room(&self, newest: &str) {
        let mut kept = self.incidents();
        kept.retain(|(id, _)| id != newest);
        kept.sort_unstable();
        let mut bytes: u64 = kept.iter().map(|(_, bytes)| bytes).sum();
        let mut count = kept.len() + 1;
        for (id, size) in kept {
            if count <= self.limits.count && bytes <= self.limits.bytes {
                return;
            }
            // Another watchdog may be about it too.
            if fs::remove_dir_all(self.dir.join(id)).is_ok() {
                count -= 1;
                bytes -= size;
            }
        }
    }

    /// What is in the directory and ours: its name and size. Names begin with their time, so they are
    /// in order.
    fn incidents(&self) -> Vec<(String, u64)> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let incident = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let id = entry.file_name().into_string().ok()?;
            let files = fs::read_dir(entry.path()).ok().filter(|_| is_id(&id))?;
            let sizes = files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len()));
            Some((id, sizes.sum()))
        };
        entries.filter_map(incident).collect()
    }
}

/// Whether a directory's name is an incident's: `20261123T155237.123456Z-...`. Nothing else is removed.
fn is_id(name: &str) -> bool {
    let form = b"00000000T000000.000000Z-";
    let fits = |(got, wanted): (u8, &u8)| match wanted {
        b'0' => got.is_ascii_digit(),
        other => got == *other,
    };
    name.len() > form.len() && name.bytes().zip(form).all(fits)
}

/// When an incident was, by its name.
pub(super) fn time_of_id(name: &str) -> Option<SystemTime> {
    let time = is_id(name).then(|| name.split_once('Z'))??.0;
    let at = |range: std::ops::Range<usize>| &time[range];
    let (date, clock) =
        ([at(0..4), at(4..6), at(6..8)].join("-"), [at(9..11), at(11..13), &time[13..]]);
    humantime::parse_rfc3339(&format!("{date}T{}Z", clock.join(":"))).ok()
}

/// Writes a file whole, or leaves the one that was there.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let written = write_private(&new, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new); // on a full disk it is in the way of others
    }
    written
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file: File = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_incidents_name_says_when_it_was() {
        let time = time_of_id("20261123T195744.289326Z-run-3881-3889").unwrap();
        assert_eq!(
            humantime::format_rfc3339_micros(time).to_string(),
            "2026-11-23T19:57:44.289326Z"
        );
        for name in ["", "20261123T1957Z-x", "20269923T195744.289326Z-x", "train-17"] {
            assert_eq!(time_of_id(name), None, "{name}");
        }
    }

    #[test]
    fn whether_incidents_could_be_kept_is_tried_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        try_dir(dir.path()).unwrap();
        try_dir(&dir.path().join("not/there/yet")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        // Not even root can keep anything there.
        assert!(try_dir(Path::new("/proc/incidents")).is_err());
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(try_dir(&dir.path().join("file")).is_err());
    }

    fn incident(number: u32) -> Incident {
        Incident { id: format!("20261123T1552{number:02}.000001Z-train-7"), ..Incident::default() }
    }

    #[test]
    fn only_its_owner_may_read_an_incident() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("a/b"), Limits::default());
        store.put(&incident(1)).unwrap();
        let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let of_it = store.dir().join(incident(1).id);
        assert_eq!(mode(of_it.clone()), 0o700);
        for file in [INCIDENT_FILE, STACKS_FILE, FLIGHT_FILE] {
            assert_eq!(mode(of_it.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn the_oldest_go_first_and_nothing_else_goes() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { count: 3, ..Limits::default() };
        let store = Store::new(dir.path().to_owned(), limits);
        fs::create_dir(dir.path().join("20260101-of-mine")).unwrap();
        for number in 0..6 {
            store.put(&incident(number)).unwrap();
            store.put(&incident(number)).unwrap();
        }
        let mut ids: Vec<String> = store.incidents().into_iter().map(|(id, _)| id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [3, 4, 5].map(|number| incident(number).id));
        assert!(dir.path().join("20260101-of-mine").exists());

        let small = Store::new(dir.path().to_owned(), Limits { bytes: 1, ..limits });
        small.put(&incident(7)).unwrap();
        let ids: Vec<String> = small.incidents().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [incident(7).id], "the newest is kept whatever it takes");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        replace(&path, b"before").unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(replace(&path, b"after").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn each_user_has_a_directory_of_its_own() {
        let check = |is_root: bool, state: &str, home: &str, dir: Option<&str>| {
            let get = |variable: &str| match variable {
                "XDG_STATE_HOME" => Some(OsString::from(state)).filter(|dir| !dir.is_empty()),
                "HOME" => Some(OsString::from(home)).filter(|dir| !dir.is_empty()),
                other => panic!("{other} is not asked for"),
            };
            let got = default_dir_of(is_root, get).ok();
            assert_eq!(got.as_deref(), dir.map(Path::new), "{is_root} {state:?} {home:?}");
        };
        check(true, "/elsewhere", "/root", Some("/var/lib/hangwatch/incidents"));
        check(false, "/state", "/home/ada", Some("/state/hangwatch/incidents"));
        check(false, "", "/home/ada", Some("/home/ada/.local/state/hangwatch/incidents"));
        check(false, "state", "/home/ada", Some("/home/ada/.local/state/hangwatch/incidents"));
        check(false, "", "", None);
    }
}
