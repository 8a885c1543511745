//! What several commands do with a segment: make or adopt it, say who uses it, release its brake.

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

/// What is asked of a segment; what is absent is taken as it is found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) lanes: Option<u32>,
    pub(super) timers: Option<u32>,
    pub(super) scopes: Option<u32>,
    pub(super) max_interval: Option<Duration>,
    pub(super) group: Option<u32>,
}

impl Wanted {
    /// The sizes of a segment that is made.
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

/// Whether this process made the segment it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Made,
    Found,
}

#[derive(Debug, thiserror::Error)]
#[error(
    "segment {segment:?} has {found} {what}, not {wanted}: leave out the option to adopt it as it \
     is, or end its users and remove it (`hangwatch rm {segment}`)"
)]
struct OtherGeometry {
    segment: String,
    what: &'static str,
    found: String,
    wanted: String,
}

/// Who may write a segment can give it any geometry: a watchdog takes over none that is larger than what
/// it would make itself, and so spends no more memory and time on it than it was told to.
#[derive(Debug, thiserror::Error)]
#[error(
    "segment {segment:?} has {found} bytes ({lanes} lanes of {timers} timers, {scopes} scopes), more than \
     the {allowed} that these options make: if it was made with more lanes, timers or scopes, say so with \
     --lanes, --timers and --scopes; if not, a worker has changed it: end its users and remove it \
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

/// How many names of this process's own are tried.
const OWN_NAMES: u32 = 1000;

/// Makes a segment for this process alone, called after `kind` and the pid. A name that is taken is
/// passed over: another PID namespace has the same pids, and whoever was killed left its segment.
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

/// The kinds of segments that commands, and the Python package's servers, make for themselves.
const KINDS: [&str; 6] = ["run-", "exec-", "demo-", "timer-", "file-", "queue-"];

/// Removes what commands that were killed have left behind. Whatever cannot be is somebody else's, or
/// for `hangwatch rm --stale` to complain of.
fn remove_stale_of_ours() {
    let names = Segment::list().unwrap_or_default().into_iter();
    for name in names.filter(|name| KINDS.iter().any(|kind| name.starts_with(kind))) {
        if Segment::remove_if_stale(&name).is_ok_and(|removed| removed) {
            tracing::info!(segment = name, event = "removed", "its maker was killed");
        }
    }
}

/// Makes the segment, or opens the one that is there if it is as wanted.
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

/// Whether the segment that is there, if one is, is as wanted.
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
    check("timers a lane", geometry.timers.to_string(), wanted.timers.map(|n| n.to_string()))?;
    check("scopes", geometry.scopes.to_string(), wanted.scopes.map(|n| n.to_string()))?;
    check("between two ticks", text(segment.max_interval()), wanted.max_interval.map(text))
}

/// Who uses a segment, by the locks the kernel knows of; `None` where nobody does.
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

/// The workers of a segment, by their pids: who holds a lane's lock by the kernel's word, and who lives by
/// its own where nobody does (a worker that closed its descriptors).
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
            // Who cannot be asked about counts as alive.
            Ok(Holder::Free | Holder::Unseen | Holder::Description) | Err(_) => {
                workers.insert(owner.pid());
            }
        }
    }
    workers
}

/// Who uses a segment that this program cannot open; every version has its locks at the same bytes.
pub(super) fn user_of_unusable(name: &str) -> Result<Option<String>, Failure> {
    let file = file::examine(name)?.open()?;
    Ok(who("a watchdog or worker", lock::holder_from(&file, MAKER_LOCK_BYTE)?))
}

/// Another user's, or gone since it was listed.
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
        Holder::Process(pid) => Some(format!("{role}, process {pid}")),
        Holder::Unseen | Holder::Description => Some(format!("{role} not to be seen from here")),
    }
}

/// `hangwatch release-brake`: asks the watchdog to signal again.
pub(super) fn release_brake(options: &ReleaseBrake) -> Result<Exit, Failure> {
    let name = Segment::name_or_environment(options.segment.as_deref())?;
    let segment = Segment::open(&name)?;
    let braked = segment.words().watchdog().limited();
    // Relaxed: the word alone says it all.
    let asked = braked.compare_exchange(
        LIMITED,
        LIMITER_RELEASE_ASKED,
        Ordering::Relaxed,
        Ordering::Relaxed,
    );
    if asked.is_err() {
        print(&format!("the brake of segment {name:?} does not hold\n"))?;
        return Ok(Exit::Ok);
    }
    segment.ring();
    print(&format!(
        "the watchdog of segment {name:?} was told to release its brake; who is overdue \
         still is judged again\n"
    ))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_of_ones_own_is_never_anothers() {
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
