//! What a timer is for: its subject (scope, signal and kind in one word) and its details.

use crate::wire::meeting::Meeting;
use crate::wire::scope::ScopeId;
use crate::wire::time::Nanos;

/// What kind of deadline a timer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TimerKind {
    /// A guard's.
    Guard = 0,
    /// A keyed acquire's, one a scope and process.
    Keyed = 1,
    /// A heartbeat's.
    Heartbeat = 2,
}

impl TimerKind {
    /// Its name in what people and programs read: `guard`.
    pub fn name(self) -> &'static str {
        match self {
            TimerKind::Guard => "guard",
            TimerKind::Keyed => "keyed",
            TimerKind::Heartbeat => "heartbeat",
        }
    }
}

/// Whose a timer's timeout is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum AllowedBy {
    /// Its acquire's own.
    #[default]
    Acquire = 0,
    /// Its scope's, see [`crate::wire::timeout`].
    Scope = 1,
}

/// What a timer asks to be done at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimerSignal {
    /// What the watchdog was told by `--signal`.
    Default,
    /// This signal, 1 to 64.
    Signal(u8),
    /// Nothing: report only.
    NotifyOnly,
}

impl TimerSignal {
    /// One byte for the wire.
    #[inline]
    pub fn bits(self) -> u8 {
        match self {
            TimerSignal::Default => 0,
            TimerSignal::Signal(number) => number,
            TimerSignal::NotifyOnly => 255,
        }
    }

    /// From the wire; a number that is no signal means the default.
    #[inline]
    pub fn from_bits(bits: u8) -> TimerSignal {
        match bits {
            1..=64 => TimerSignal::Signal(bits),
            255 => TimerSignal::NotifyOnly,
            _ => TimerSignal::Default,
        }
    }
}

/// What a timer is about, in one word: it is packed once a scope, and written as it is into the
/// timer's details and into each of its records.
///
/// ```text
/// lane or task (32 bits) | unused (3) | a meeting (1) | of a task (1) | allowed by (1) | kind (2) | signal (8) | scope (16)
/// ```
///
/// In a timer's details, which stand in its lane, the lane may give way to the task that acquired it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subject(u64);

impl Subject {
    /// Packs the word, of lane 0.
    #[inline]
    pub fn new(scope: ScopeId, signal: TimerSignal, kind: TimerKind) -> Subject {
        Subject(
            u64::from(scope.0) | (u64::from(signal.bits()) << 16) | ((kind as u64) << KIND_SHIFT),
        )
    }

    /// Takes 64 bits as they come from shared memory.
    #[inline]
    pub fn from_bits(bits: u64) -> Subject {
        Subject(bits)
    }

    /// The 64 bits for shared memory.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The same in another lane.
    #[inline]
    #[must_use]
    pub fn in_lane(self, lane: u32) -> Subject {
        Subject((self.0 & u64::from(u32::MAX)) | (u64::from(lane) << 32))
    }

    /// The same of another kind.
    #[inline]
    #[must_use]
    pub fn of_kind(self, kind: TimerKind) -> Subject {
        Subject((self.0 & !(3 << KIND_SHIFT)) | ((kind as u64) << KIND_SHIFT))
    }

    /// The same with a timeout of the acquire's own, or the scope's.
    #[inline]
    #[must_use]
    pub fn allowed_by(self, by: AllowedBy) -> Subject {
        Subject((self.0 & !(1 << ALLOWED_SHIFT)) | ((by as u64) << ALLOWED_SHIFT))
    }

    /// The same in another scope.
    #[inline]
    #[must_use]
    pub fn in_scope(self, scope: ScopeId) -> Subject {
        Subject((self.0 & !u64::from(u16::MAX)) | u64::from(scope.0))
    }

    /// The same, of a meeting: a word beside the timer says which.
    #[inline]
    #[must_use]
    pub fn of_meeting(self) -> Subject {
        Subject(self.0 | (1 << MEETING_SHIFT))
    }

    /// Whether a word beside the timer says in which meeting it was armed.
    #[inline]
    pub fn is_meeting(self) -> bool {
        (self.0 >> MEETING_SHIFT) & 1 != 0
    }

    /// The same, acquired by a task of the lane's thread.
    #[must_use]
    pub fn of_task(self, task: u32) -> Subject {
        Subject(self.in_lane(task).0 | (1 << TASK_SHIFT))
    }

    /// The task that acquired it; 0 where none is said. A claim.
    pub fn task(self) -> u32 {
        if (self.0 >> TASK_SHIFT) & 1 == 0 { 0 } else { self.lane() }
    }

    /// The lane; a claim.
    #[inline]
    pub fn lane(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The scope; a claim, the index may lie beyond the names.
    #[inline]
    pub fn scope(self) -> ScopeId {
        ScopeId(self.0 as u16)
    }

    /// What to do at the deadline.
    #[inline]
    pub fn signal(self) -> TimerSignal {
        TimerSignal::from_bits((self.0 >> 16) as u8)
    }

    /// Whose its timeout is.
    #[inline]
    pub fn timeout(self) -> AllowedBy {
        match (self.0 >> ALLOWED_SHIFT) & 1 {
            0 => AllowedBy::Acquire,
            _ => AllowedBy::Scope,
        }
    }

    /// What kind of deadline it is.
    #[inline]
    pub fn kind(self) -> TimerKind {
        match (self.0 >> KIND_SHIFT) & 3 {
            1 => TimerKind::Keyed,
            2 => TimerKind::Heartbeat,
            _ => TimerKind::Guard,
        }
    }
}

const KIND_SHIFT: u32 = 24;
const ALLOWED_SHIFT: u32 = 26;
const TASK_SHIFT: u32 = 27;
const MEETING_SHIFT: u32 = 28;

impl core::fmt::Debug for Subject {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "lane {} {:?} {:?} {:?}", self.lane(), self.kind(), self.signal(), self.scope())
    }
}

/// What stands beside a timer word: when it was acquired, for which scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerDetail {
    /// When it was acquired, or last kicked.
    pub acquired_at: Nanos,
    /// Its scope; a claim, the index may lie beyond the names.
    pub scope: ScopeId,
    /// What to do at the deadline.
    pub signal: TimerSignal,
    /// What kind of deadline it is.
    pub kind: TimerKind,
    /// Whose its timeout is.
    pub allowed_by: AllowedBy,
    /// The meeting it was armed in, if it is one. A claim.
    pub meeting: Option<Meeting>,
}

impl TimerDetail {
    pub(super) fn new(acquired_at: u64, subject: Subject, meeting: Option<Meeting>) -> TimerDetail {
        TimerDetail {
            acquired_at: Nanos(acquired_at),
            scope: subject.scope(),
            signal: subject.signal(),
            kind: subject.kind(),
            allowed_by: subject.timeout(),
            meeting,
        }
    }
}
