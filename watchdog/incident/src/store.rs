//! Stores incidents: `DIR/ID/incident.json`, and beside it the captured evidence as text.
//!
//! [`default_dir`] is the default directory. [`Store`] writes directories of mode 0700 and files of mode 0600,
//! each file completely or not at all, within its [`Limits`]; [`episode`] decides which incidents are removed
//! first. All operations are relative to a descriptor of the directory, whose path [`place`] has checked.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use std::{env, fmt};

use hangwatch_core::crash;
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::episode::{self, Facts, Kept, Part};
use crate::schema::{Incident, Worker};
use crate::text;
use hangwatch_files::beneath;
use hangwatch_files::place::{self, Absent, PlaceError};

/// The most names of a directory that are read.
const NAMES: usize = 100_000;
/// The greatest depth of directories that are removed with an incident.
const DEPTH: usize = 8;
/// The most that is read of a stored incident, bytes.
const READ_BYTES: u64 = 64 << 20;
/// The most removed incidents that are remembered.
const REMOVED: usize = 10_000;

/// The file in an incident's directory with the incident, in the format of [`schema`].
///
/// [`schema`]: crate::schema
pub const INCIDENT_FILE: &str = "incident.json";

/// The default directory of root's incidents.
const SYSTEM_DIR: &str = "/var/lib/hangwatch/incidents";

/// There is no default directory for incidents.
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
    // The XDG Base Directory Specification says to ignore relative paths.
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

/// The limits of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most incidents, at least 1.
    pub count: usize,
    /// The most bytes of all their files. The newest incident always stays.
    pub bytes: u64,
}

impl Default for Limits {
    /// 100 incidents, 256 MiB.
    fn default() -> Self {
        Limits { count: 100, bytes: 256 << 20 }
    }
}

/// Why an incident could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The kernel returned an error.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The directory does not exist, or other users could change it.
    #[error("incidents cannot be stored in {} (--incidents): {source}", dir.display())]
    Place {
        /// The directory of the incidents.
        dir: PathBuf,
        /// The reason.
        source: PlaceError,
    },
    /// It was removed to make room for more useful incidents.
    #[error(
        "removed to make room: so many expired at once that only the first of them and whoever held \
         them up are kept; raise --incidents-most or --incidents-mib to keep more"
    )]
    Removed,
}

/// Checks that incidents can be stored in `dir`, and leaves nothing behind.
///
/// If the directory does not exist, checks the nearest existing directory above it.
///
/// # Errors
/// [`StoreError`].
pub fn try_dir(dir: &Path) -> Result<(), StoreError> {
    let placed = |source| StoreError::Place { dir: dir.to_owned(), source };
    let existing = place::open(dir, Absent::Stop).map_err(placed)?;
    // Writes a file: a mode does not show that a file system is read-only or cannot hold files.
    let trial = format!(".hangwatch-{}", std::process::id());
    let failed = |error: Errno| StoreError::Write { path: dir.to_owned(), source: error.into() };
    rustix::fs::mkdirat(&existing, &trial, Mode::RWXU).map_err(failed)?;
    rustix::fs::unlinkat(&existing, &trial, AtFlags::REMOVEDIR).map_err(failed)
}

/// Writes incidents.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
    limits: Limits,
    memory: Arc<Mutex<Memory>>,
}

/// The memory of a store, which avoids reading everything for each incident.
#[derive(Debug, Default)]
struct Memory {
    /// Which episode each stored incident belongs to.
    parts: BTreeMap<String, Part>,
    /// Removed incidents: a later state of one must not be stored again.
    removed: BTreeSet<String>,
}

impl Store {
    /// A store in `dir`, which is created with the first incident.
    pub fn new(dir: PathBuf, limits: Limits) -> Store {
        Store { dir, limits, memory: Arc::default() }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Writes or replaces an incident, and removes the least useful ones beyond the limits.
    ///
    /// See [`crate::episode`] for the order.
    ///
    /// Writes the most useful file first, in case the disk fills up. After a crash each file is either old or
    /// new. Returns the incident's directory.
    ///
    /// # Errors
    /// [`StoreError`] of the first file that could not be written.
    pub fn put(&self, incident: &Incident) -> Result<PathBuf, StoreError> {
        let path = self.dir.join(&incident.id);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.removed.contains(&incident.id) {
            return Err(StoreError::Removed);
        }
        let placed = |source| StoreError::Place { dir: self.dir.clone(), source };
        let store = place::open(&self.dir, Absent::Make).map_err(placed)?;
        let (own, is_new) =
            place::own(store.as_fd(), &incident.id, Absent::Make).map_err(placed)?;
        memory.parts.insert(incident.id.clone(), part_of(incident));
        if is_new {
            self.make_room(store.as_fd(), &incident.id, &mut memory);
        }
        let failed = |name: &str| {
            let path = path.join(name);
            |source| StoreError::Write { path, source }
        };
        let json = serde_json::to_vec(incident).map_err(io::Error::other);
        json.and_then(|json| replace(own.as_fd(), INCIDENT_FILE, &json))
            .map_err(failed(INCIDENT_FILE))?;
        let texts: [(&str, &dyn fmt::Display); 2] =
            [(STACKS_FILE, &text::Stacks(incident)), (FLIGHT_FILE, &text::Flight(incident))];
        for (name, text) in texts {
            replace(own.as_fd(), name, text.to_string().as_bytes()).map_err(failed(name))?;
        }
        // Makes the names durable.
        rustix::fs::fsync(&own).map_err(|error| failed("")(error.into()))?;
        if is_new {
            rustix::fs::fsync(&store).map_err(|error| failed("")(error.into()))?;
        }
        Ok(path)
    }

    /// Removes incidents beyond the limits, but not `newest`. Tries again next time after errors.
    fn make_room(&self, store: BorrowedFd<'_>, newest: &str, memory: &mut Memory) {
        let mut kept = incidents(store, memory);
        memory.parts.retain(|id, _| id == newest || kept.iter().any(|kept| kept.id == *id));
        let mut bytes: u64 = kept.iter().map(|kept| kept.bytes).sum();
        let mut count = kept.len();
        if count <= self.limits.count && bytes <= self.limits.bytes {
            return;
        }
        kept = episode::least_worth_first(kept);
        for Kept { id, bytes: size, .. } in kept {
            if count <= self.limits.count && bytes <= self.limits.bytes {
                return;
            }
            // Another watchdog may be removing it, too.
            if id != newest && remove(store, Path::new(&id), 0).is_ok() {
                count -= 1;
                bytes -= size;
                memory.parts.remove(&id);
                if memory.removed.len() == REMOVED {
                    memory.removed.pop_first();
                }
                memory.removed.insert(id);
            }
        }
    }
}

fn part_of(incident: &Incident) -> Part {
    let facts = Facts {
        host: incident.host.clone(),
        segment: incident.segment.clone(),
        worker: Worker { pid: incident.worker.pid, ..Worker::default() },
        timers: incident.timers.clone(),
        suspect: incident.suspect.clone(),
    };
    Part::new(&incident.id, facts)
}

/// The incidents in the directory, with their sizes and parts.
fn incidents(store: BorrowedFd<'_>, memory: &mut Memory) -> Vec<Kept> {
    let mut kept = Vec::new();
    let _ = each_name(store, |name| {
        let Some(id) = name.to_str().filter(|id| is_id(id)) else { return };
        let Ok(own) = beneath::directory(store, name) else { return };
        let mut bytes = 0;
        let _ = each_name(own.as_fd(), |file| {
            let stat = rustix::fs::statat(&own, file, AtFlags::SYMLINK_NOFOLLOW);
            bytes += stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0));
        });
        let part = memory
            .parts
            .entry(id.to_owned())
            .or_insert_with(|| Part::new(id, facts(own.as_fd()).unwrap_or_default()));
        kept.push(Kept { id: id.to_owned(), bytes, part: part.clone() });
    });
    kept
}

/// The part of a stored incident in its episode; from its name if it cannot be read.
fn facts(own: BorrowedFd<'_>) -> Option<Facts> {
    let (file, stat) = beneath::regular_file(own, Path::new(INCIDENT_FILE)).ok()?;
    let is_ours = stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    if !is_ours {
        return None;
    }
    serde_json::from_reader(io::BufReader::new(file.take(READ_BYTES))).ok()
}

/// Calls `each` for every name in a directory, up to [`NAMES`].
fn each_name(dir: BorrowedFd<'_>, mut each: impl FnMut(&Path)) -> io::Result<()> {
    for entry in Dir::read_from(dir)?.take(NAMES) {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            each(Path::new(name));
        }
    }
    Ok(())
}

/// Removes a directory and its contents without following links.
fn remove(parent: BorrowedFd<'_>, name: &Path, depth: usize) -> io::Result<()> {
    let dir = beneath::directory(parent, name)?;
    let mut names = Vec::new();
    each_name(dir.as_fd(), |name| names.push(name.to_owned()))?;
    for name in names {
        match rustix::fs::unlinkat(&dir, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR | Errno::PERM) if depth < DEPTH => {
                remove(dir.as_fd(), &name, depth + 1)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
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

/// The time in an incident's name.
pub(super) fn time_of_id(name: &str) -> Option<SystemTime> {
    let time = is_id(name).then(|| name.split_once('Z'))??.0;
    let at = |range: std::ops::Range<usize>| &time[range];
    let (date, clock) =
        ([at(0..4), at(4..6), at(6..8)].join("-"), [at(9..11), at(11..13), &time[13..]]);
    humantime::parse_rfc3339(&format!("{date}T{}Z", clock.join(":"))).ok()
}

/// Writes a file beneath `dir` atomically.
fn replace(dir: BorrowedFd<'_>, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = Path::new(name).with_extension("new");
    let written = write_draft(dir, &draft, bytes).and_then(|()| {
        crash::point("incident-drafted");
        Ok(rustix::fs::renameat(dir, &draft, dir, name)?)
    });
    if written.is_err() {
        // The draft would take space on a full disk.
        let _ = rustix::fs::unlinkat(dir, &draft, AtFlags::empty());
    }
    written
}

/// Creates and writes a new file, and waits until it is on the disk.
fn write_draft(dir: BorrowedFd<'_>, draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let create = || rustix::fs::openat(dir, draft, flags, Mode::RUSR | Mode::WUSR);
    let created = match create() {
        Err(Errno::EXIST) => {
            // Left by a killed writer, or planted: removed, without following a link.
            rustix::fs::unlinkat(dir, draft, AtFlags::empty())?;
            create()
        }
        created => created,
    };
    let mut file = File::from(created?);
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::schema;

    fn ids(dir: &Path) -> Vec<String> {
        let dir = File::open(dir).unwrap();
        let mut memory = Memory::default();
        let mut ids: Vec<String> =
            incidents(dir.as_fd(), &mut memory).into_iter().map(|kept| kept.id).collect();
        ids.sort_unstable();
        ids
    }

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
        // A day apart, so that none has to do with another.
        let day = number + 1;
        Incident { id: format!("202611{day:02}T155200.000001Z-train-7"), ..Incident::default() }
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
        assert_eq!(ids(dir.path()), [3, 4, 5].map(|number| incident(number).id));
        assert!(dir.path().join("20260101-of-mine").exists());

        let small = Store::new(dir.path().to_owned(), Limits { bytes: 1, ..limits });
        small.put(&incident(7)).unwrap();
        assert_eq!(ids(dir.path()), [incident(7).id], "the newest is kept whatever it takes");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let held = File::open(dir.path()).unwrap();
        replace(held.as_fd(), "a.json", b"before").unwrap();
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(replace(held.as_fd(), "a.json", b"after").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"before");
    }

    #[test]
    fn a_draft_that_is_a_link_is_removed_and_not_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().join("kept"), Limits::default());
        let of_it = store.put(&incident(1)).unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "another's").unwrap();
        for file in [INCIDENT_FILE, STACKS_FILE, FLIGHT_FILE] {
            symlink(&victim, of_it.join(file).with_extension("new")).unwrap();
        }
        store.put(&incident(1)).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "another's");
        assert_eq!(fs::read_dir(&of_it).unwrap().count(), 3, "no draft stays behind");
        // Nor is an incident's own directory followed where it is a link, by a writer or an evictor.
        fs::remove_dir_all(&of_it).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("precious"), "").unwrap();
        symlink(&elsewhere, &of_it).unwrap();
        store.put(&incident(1)).unwrap_err();
        let few = Store::new(store.dir().to_owned(), Limits { count: 1, bytes: 1 });
        few.put(&incident(2)).unwrap();
        few.put(&incident(3)).unwrap();
        assert_eq!(ids(store.dir()), [incident(3).id]);
        let names = fs::read_dir(&elsewhere).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["precious"]);
    }

    #[test]
    fn a_directory_that_another_user_made_is_refused_with_what_to_do() {
        if !geteuid().is_root() {
            println!("skipped: only root can give a directory away");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let theirs = dir.path().join("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65_534), None).unwrap();
        let store = Store::new(theirs.clone(), Limits::default());
        let why = store.put(&incident(1)).unwrap_err().to_string();
        assert!(why.contains("65534") && why.contains("--incidents"), "{why}");
        assert!(try_dir(&theirs).is_err());
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 0);
        // A directory of one's own, in which somebody else has made an incident's.
        std::os::unix::fs::chown(&theirs, Some(0), None).unwrap();
        let planted = theirs.join(incident(1).id);
        fs::create_dir(&planted).unwrap();
        std::os::unix::fs::chown(&planted, Some(65_534), None).unwrap();
        assert!(store.put(&incident(1)).is_err());
        assert_eq!(fs::read_dir(&planted).unwrap().count(), 0);
    }

    /// An expiry at a second, of a worker that had waited so long, and whom it suspects.
    fn expiry(second: u32, pid: u32, waited_s: u64, suspect: Option<u32>) -> Incident {
        let age_ns = waited_s * 1_000_000_000;
        let timer = schema::Timer { age_ns, allowance_ns: age_ns, ..schema::Timer::default() };
        Incident {
            id: format!("20261123T15{:02}{:02}.000001Z-train-{pid}", second / 60, second % 60),
            segment: "train".to_owned(),
            worker: Worker { pid: Some(pid), ..Worker::default() },
            timers: vec![timer],
            suspect: suspect.map(|pid| schema::Suspect { pid: Some(pid), ..Default::default() }),
            ..Incident::default()
        }
    }

    #[test]
    fn a_storm_removes_neither_its_root_cause_nor_older_incidents() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), Limits { count: 10, ..Limits::default() });
        let alone: Vec<Incident> = (0..3).map(|n| expiry(n * 100, n, 1, None)).collect();
        let first = expiry(2000, 100, 60, Some(250));
        let suspect = expiry(2020, 250, 60, None);
        let burst = || {
            let before = (101..180).map(|n| expiry(2001 + n / 10, n, 60, None));
            let after = (180..200).map(|n| expiry(2021 + n / 10, n, 60, None));
            let victims = before.chain([suspect.clone()]).chain(after);
            [first.clone()].into_iter().chain(victims)
        };
        for incident in alone.iter().cloned().chain(burst()) {
            store.put(&incident).unwrap();
        }
        // Their later states: none of those that went comes back.
        let late = burst().filter(|incident| store.put(incident).is_ok()).count();
        let ids = ids(dir.path());
        let wanted = alone.iter().chain([&first, &suspect]);
        for Incident { id, .. } in wanted {
            assert!(ids.contains(id), "{id} of {ids:?}");
        }
        assert_eq!((ids.len(), late), (10, 7), "{ids:?}");
        // Another writer, which knows only what is on the disk, does the same.
        let store = Store::new(dir.path().to_owned(), store.limits());
        store.put(&expiry(2050, 300, 60, None)).unwrap();
        let ids = self::ids(dir.path());
        assert!(ids.contains(&first.id) && ids.contains(&suspect.id), "{ids:?}");
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
