//! Creates and adopts segments, finds their users, and releases their kill limiter.

use std::collections::BTreeSet;
use std::time::Duration;

use hangwatch::sys::file;
use hangwatch::sys::lock::{self, Holder};
use hangwatch::{
    CreateError, CreateOptions, Geometry, HEIR_LOCK_BYTE, Lifetime, MAKER_LOCK_BYTE, OpenError,
    Segment, lane_lock_byte,
};
use hangwatch_core::atomic::Ordering;
use hangwatch_core::wire::lane::LaneState;
use hangwatch_core::wire::segment::{LIMITED, LIMITER_RELEASE_ASKED};
use hangwatch_process::attest::{Claim, Claimed, claimed_process};

use super::{Failure, print};
use crate::cli::ReleaseBrake;
use crate::exit::Exit;

/// The wanted properties of a segment; `None` accepts what an existing segment has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) lanes: Option<u32>,
    pub(super) timers: Option<u32>,
    pub(super) scopes: Option<u32>,
    pub(super) max_interval: Option<Duration>,
    pub(super) group: Option<u32>,
}

impl Wanted {
    /// The sizes of a new segment.
    fn geometry(self) -> Geometry {
        let defaults = Geometry::default();
        Geometry {
            lanes: self.lanes.unwrap_or(defaults.lanes),
            timers: self.timers.unwrap_or(defaults.timers),
            scopes: self.scopes.unwrap_or(defaults.scopes),
            ..defaults
        }
    }
}

/// Whether this process created the segment that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Made,
    Found,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "segment {segment:?} has {found} {what}, not {wanted}: leave out the option to use it as it is, or \
     end its workers and remove it (`hangwatch rm {segment}`)"
)]
struct OtherGeometry {
    segment: String,
    what: &'static str,
    found: String,
    wanted: String,
}

/// The segment is larger than what the watchdog would create itself.
///
/// A worker could change the geometry, and make the watchdog spend more memory and time than its options
/// allow.
#[derive(Debug, thiserror::Error)]
#[error(
    "segment {segment:?} has {found} bytes ({lanes} lanes of {timers} timers, {scopes} scopes), more than \
     the {allowed} of these options: if it was created with more lanes, timers or scopes, pass the same \
     --lanes, --timers and --scopes; if not, a worker has changed it: end its workers and remove it \
     (`hangwatch rm {segment}`)"
)]
struct TooLarge {
    segment: String,
    found: usize,
    lanes: u32,
    timers: u32,
    scopes: u32,
    allowed: usize,
}

/// How many names for a new segment are tried.
const OWN_NAMES: u32 = 1000;

/// Creates a segment for this process alone, named after `kind` and the pid.
///
/// Skips names that exist: another PID namespace has the same pids, and killed processes leave segments.
pub(super) fn make_own(kind: &str, wanted: Wanted) -> Result<Segment, Failure> {
    remove_stale_of_ours();
    let pid = std::process::id();
    for number in 1..OWN_NAMES {
        let more = if number > 1 { format!("-{number}") } else { String::new() };
        match make(&format!("{kind}-{pid}{more}"), wanted, Lifetime::Makers) {
            Err(error) if is_taken(&error) => {}
            made => return Ok(made?),
        }
    }
    Ok(make(&format!("{kind}-{pid}-{OWN_NAMES}"), wanted, Lifetime::Makers)?)
}

/// The name prefixes of segments that commands and the Python package's servers create for themselves.
const KINDS: [&str; 6] = ["run-", "exec-", "demo-", "timer-", "file-", "queue-"];

/// Removes segments of killed commands. Errors are ignored: `hangwatch rm --stale` reports them.
fn remove_stale_of_ours() {
    let names = Segment::list().unwrap_or_default().into_iter();
    for name in names.filter(|name| KINDS.iter().any(|kind| name.starts_with(kind))) {
        if Segment::remove_if_stale(&name).is_ok_and(|removed| removed) {
            tracing::info!(
                segment = name,
                event = "removed",
                "removed a segment whose maker was killed"
            );
        }
    }
}

/// Creates the segment, or opens an existing one with the wanted properties.
pub(super) fn make_or_adopt(name: &str, wanted: Wanted) -> Result<(Segment, Origin), Failure> {
    match make(name, wanted, Lifetime::Kept) {
        Ok(segment) => Ok((segment, Origin::Made)),
        Err(error) if is_taken(&error) => {
            let segment = Segment::open(name)?;
            check_found(segment, wanted)?;
            Ok((segment, Origin::Found))
        }
        Err(error) => Err(error.into()),
    }
}

/// Checks that the segment, if it exists, has the wanted properties.
pub(super) fn check_existing(name: &str, wanted: Wanted) -> Result<(), Failure> {
    match Segment::open(name) {
        Ok(segment) => check_found(segment, wanted),
        Err(OpenError::File { source: file::OpenError::NotFound { .. }, .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_taken(error: &CreateError) -> bool {
    matches!(error, CreateError::File { source: file::CreateError::AlreadyExists { .. }, .. })
}

fn make(name: &str, wanted: Wanted, lifetime: Lifetime) -> Result<Segment, CreateError> {
    let defaults = CreateOptions::default();
    let options = CreateOptions {
        geometry: wanted.geometry(),
        max_interval: wanted.max_interval.unwrap_or(defaults.max_interval),
        mode: if wanted.group.is_some() { 0o660 } else { defaults.mode },
        gid: wanted.group,
        lifetime,
    };
    Segment::create(name, options)
}

fn check_found(segment: Segment, wanted: Wanted) -> Result<(), Failure> {
    check_geometry(segment, wanted)?;
    let allowed = wanted.geometry().check()?.bytes();
    let found = segment.words().layout().bytes();
    if found <= allowed {
        return Ok(());
    }
    let Geometry { lanes, timers, scopes, .. } = segment.geometry();
    let segment = segment.name().to_owned();
    Err(TooLarge { segment, found, lanes, timers, scopes, allowed }.into())
}

fn check_geometry(segment: Segment, wanted: Wanted) -> Result<(), OtherGeometry> {
    let geometry = segment.geometry();
    let check = |what, found: String, wanted: Option<String>| match wanted {
        Some(wanted) if wanted != found => {
            Err(OtherGeometry { segment: segment.name().to_owned(), what, found, wanted })
        }
        _ => Ok(()),
    };
    let text = |duration: Duration| humantime::format_duration(duration).to_string();
    check("lanes", geometry.lanes.to_string(), wanted.lanes.map(|n| n.to_string()))?;
    check("timers per lane", geometry.timers.to_string(), wanted.timers.map(|n| n.to_string()))?;
    check("scopes", geometry.scopes.to_string(), wanted.scopes.map(|n| n.to_string()))?;
    check("as max_interval", text(segment.max_interval()), wanted.max_interval.map(text))
}

/// The process that uses a segment, by the kernel's file locks; `None` if no process does.
pub(super) fn user(segment: Segment) -> Result<Option<String>, Failure> {
    if let Some(watchdog) = who("its watchdog", segment.watchdog()?) {
        return Ok(Some(watchdog));
    }
    if let Some(maker) = who("its maker", segment.maker()?) {
        return Ok(Some(maker));
    }
    if let Some(heir) = who("its standby", lock::holder(segment.file(), HEIR_LOCK_BYTE)?) {
        return Ok(Some(heir));
    }
    for lane in 0..segment.words().lanes_used() {
        let holder = lock::holder(segment.file(), lane_lock_byte(lane))?;
        if let Some(worker) = who("a worker", holder) {
            return Ok(Some(worker));
        }
    }
    Ok(None)
}

/// The pids of the workers of a segment.
///
/// A worker holds its lane's lock, or, if it closed its descriptors, is alive by its own claim.
pub(super) fn workers(segment: Segment) -> BTreeSet<u32> {
    let words = segment.words();
    let mut workers = BTreeSet::new();
    for index in 0..words.lanes_used() {
        let lane = words.lane(index);
        let owner = lane.owner();
        if !matches!(owner.state(), Some(LaneState::Claimed | LaneState::Attached)) {
            continue;
        }
        let identity = lane.identity();
        let claim = Claim {
            pid: owner.pid(),
            start_ticks: identity.start_ticks,
            pidfd_inode: identity.pidfd_inode,
            pid_namespace: identity.pid_namespace,
        };
        match lock::holder(segment.file(), lane_lock_byte(index)) {
            Ok(Holder::Free) if claimed_process(&claim) != Claimed::Alive => {}
            Ok(Holder::Process(pid)) => drop(workers.insert(pid.as_raw_pid().unsigned_abs())),
            // If that cannot be determined, the worker counts as alive.
            Ok(Holder::Free | Holder::Unseen | Holder::Description) | Err(_) => {
                workers.insert(owner.pid());
            }
        }
    }
    workers
}

/// The process that uses a segment of another version; all versions lock the same bytes.
pub(super) fn user_of_unusable(name: &str) -> Result<Option<String>, Failure> {
    let file = file::examine(name)?.open()?;
    Ok(who("a watchdog or worker", lock::holder_from(&file, MAKER_LOCK_BYTE)?))
}

/// Whether the segment is another user's, or has been removed since it was listed.
pub(super) fn is_not_for_us(error: &file::OpenError) -> bool {
    use file::OpenError as File;
    matches!(
        error,
        File::NotFound { .. } | File::PermissionDenied { .. } | File::ForeignOwner { .. }
    )
}

fn who(role: &str, holder: Holder) -> Option<String> {
    match holder {
        Holder::Free => None,
        Holder::Process(pid) => Some(format!("{role}, pid {pid}")),
        Holder::Unseen | Holder::Description => Some(format!("{role} in another PID namespace")),
    }
}

/// `hangwatch release-brake`: lets the watchdog kill again.
pub(super) fn release_brake(options: &ReleaseBrake) -> Result<Exit, Failure> {
    let name = Segment::name_or_environment(options.segment.as_deref())?;
    let segment = Segment::open(&name)?;
    let braked = segment.words().watchdog().limited();
    // Relaxed: no other memory depends on this word.
    let asked = braked.compare_exchange(
        LIMITED,
        LIMITER_RELEASE_ASKED,
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
    if asked.is_err() {
        print(&format!("the kill limiter of segment {name:?} is not engaged\n"))?;
        return Ok(Exit::Ok);
    }
    segment.ring();
    print(&format!(
        "asked the watchdog of segment {name:?} to release its kill limiter; workers that are still \
         overdue are killed\n"
    ))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_segments_get_unused_names() {
        let wanted = Wanted { lanes: Some(1), ..Wanted::default() };
        let made: Vec<Segment> = (0..3).map(|_| make_own("own", wanted).unwrap()).collect();
        let names: Vec<&str> = made.iter().map(Segment::name).collect();
        for name in &names {
            Segment::remove(name).unwrap();
        }
        let first = format!("own-{}", std::process::id());
        assert_eq!(names, [first.clone(), format!("{first}-2"), format!("{first}-3")]);
    }
}
