//! The incidents there were, for the rows: read again and again by a thread of its own, for a disk may
//! hang.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hangwatch::LaneView;

use super::row::{Incident, ns};
use hangwatch_incident::catalog::{self, Summary};

/// How often the directory is read.
const EVERY: Duration = Duration::from_secs(3);
/// The newest that are looked at.
const MOST: usize = 500;

/// The newest incidents, as far as they have been read.
pub(super) struct Incidents {
    known: Arc<Mutex<Vec<Known>>>,
    /// Its end ends the thread.
    _end: Option<Sender<()>>,
}

/// What is kept of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    segment: String,
    pid: Option<u32>,
    job: String,
    rank: Option<u64>,
    at: SystemTime,
    outcome: String,
}

impl Incidents {
    /// Those in a directory, those that come in the meantime too.
    pub(super) fn follow(dir: Option<PathBuf>) -> Incidents {
        let known = Arc::<Mutex<Vec<Known>>>::default();
        let Some(dir) = dir else { return Incidents { known, _end: None } };
        let (end, ended) = channel::<()>();
        let shared = Arc::clone(&known);
        let read = move || {
            let mut read = BTreeMap::new();
            loop {
                read = read_all(&dir, read);
                let newest_first = read.values().rev().flatten().cloned().collect();
                *shared.lock().unwrap_or_else(PoisonError::into_inner) = newest_first;
                if ended.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        // Without a thread there are none to show.
        let started = std::thread::Builder::new().name("hangwatch-past".to_owned()).spawn(read);
        Incidents { known, _end: started.is_ok().then_some(end) }
    }

    /// The newest of a lane's rank, or of its process where it has none.
    pub(super) fn of(&self, segment: &str, lane: &LaneView, now: SystemTime) -> Option<Incident> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = known.iter().find(|it| it.segment == segment && it.is_of(lane))?;
        let ago = now.duration_since(newest.at).unwrap_or_default();
        Some(Incident { ago_ns: ns(ago), outcome: newest.outcome.clone() })
    }
}

impl Known {
    fn of(incident: Summary) -> Option<Known> {
        Some(Known {
            at: humantime::parse_rfc3339(&incident.at.utc).ok()?,
            segment: incident.segment,
            pid: incident.worker.pid,
            job: incident.worker.job,
            rank: incident.worker.rank,
            outcome: incident.ending.map_or_else(|| "under way".to_owned(), |it| it.outcome),
        })
    }

    fn is_of(&self, lane: &LaneView) -> bool {
        match lane.rank {
            Some(rank) => self.rank == Some(rank.into()) && self.job == lane.job,
            None => self.pid == Some(lane.pid),
        }
    }
}

/// Every incident by its name, which begins with its time. Those that have ended do not change, and
/// are not read again; what cannot be read is passed over.
fn read_all(
    dir: &Path,
    mut before: BTreeMap<String, Option<Known>>,
) -> BTreeMap<String, Option<Known>> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    names.truncate(MOST);
    let known = |name: String| {
        let known = before.remove(&name).flatten().filter(|known| known.outcome != "under way");
        let known = known.or_else(|| Known::of(catalog::summary(dir, &name).ok()?));
        (name, known)
    };
    names.into_iter().map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sample::row;
    use super::*;
    use hangwatch_incident::schema;
    use hangwatch_incident::store::INCIDENT_FILE;

    fn write(dir: &Path, id: &str, rank: Option<u64>, utc: &str, ending: Option<&str>) {
        let ending = ending
            .map(|outcome| schema::Ending { outcome: outcome.to_owned(), ..Default::default() });
        let worker =
            schema::Worker { pid: Some(1003), rank, job: "jobs".into(), ..Default::default() };
        let at = schema::Moment { utc: utc.to_owned(), monotonic_ns: 1 };
        let segment = "train".to_owned();
        let version = schema::VERSION;
        let incident =
            schema::Incident { version, segment, at, worker, ending, ..Default::default() };
        fs::create_dir_all(dir.join(id)).unwrap();
        let text = serde_json::to_vec(&incident).unwrap();
        fs::write(dir.join(id).join(INCIDENT_FILE), text).unwrap();
    }

    #[test]
    fn the_newest_incident_of_a_rank_or_process_is_told() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", Some(3), "2026-01-01T00:00:00Z", Some("reaped"));
        write(dir.path(), "b", Some(3), "2026-01-01T00:01:00Z", None);
        write(dir.path(), "c", None, "2026-01-01T00:02:00Z", Some("unkillable"));
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("e"), "no directory").unwrap();
        let read = |before| {
            let read = read_all(dir.path(), before);
            let known = read.values().rev().flatten().cloned().collect();
            (Incidents { known: Arc::new(Mutex::new(known)), _end: None }, read)
        };
        let (incidents, before) = read(BTreeMap::new());
        let now = humantime::parse_rfc3339("2026-01-01T00:03:00Z").unwrap();
        let of = |incidents: &Incidents, segment: &str, rank: Option<u32>| {
            let mut lane = row(3, "", &[]).lane;
            lane.rank = rank;
            incidents.of(segment, &lane, now).map(|it| (it.ago_ns / 1_000_000_000, it.outcome))
        };
        assert_eq!(of(&incidents, "train", Some(3)), Some((120, "under way".to_owned())));
        assert_eq!(
            of(&incidents, "train", None),
            Some((60, "unkillable".to_owned())),
            "by its pid"
        );
        assert_eq!(of(&incidents, "train", Some(4)), None);
        assert_eq!(of(&incidents, "other", Some(3)), None);
        write(dir.path(), "b", Some(3), "2026-01-01T00:01:00Z", Some("exited"));
        let (incidents, _) = read(before);
        assert_eq!(of(&incidents, "train", Some(3)), Some((120, "exited".to_owned())));
    }
}
