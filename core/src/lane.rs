//! A lane: one worker thread's part of the segment, and who owns it.
//!
//! The owner word moves a lane through its life; every move is a compare-and-swap, so that a claim
//! and a recycling can never both win (modelled under loom):
//!
//! ```text
//!   Free ----claim----> Claimed ----attach----> Attached ----detach----> Detached
//!    ^                   ^  |                     |                        |  |
//!    |                   |  +---------------------+---owner is dead--------+  |
//!    |                   |                        v                           |
//!    +----recycle (statistics folded)-------- Recycling (watchdog)            |
//!                        +----------------claim-----------------------------+
//! ```
//!
//! Each claim counts the epoch up, so that a watchdog tells a new owner from the one it knew.

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::layout::{DETAIL_WORDS, FRONT_WORDS, LABEL_WORDS, Layout};
use crate::ring::Slots;
use crate::scope::ScopeId;
use crate::stats::StatsWords;
use crate::time::Nanos;
use crate::timer::Timer;

const OWNER: usize = 0;
const HEAD: usize = 1;
const HIGH_WATER: usize = 2;
const QUARANTINED: usize = 3;
const _: () = assert!(QUARANTINED < FRONT_WORDS);

// In the back:
const IDENTITY: usize = 0;
const THREAD_NAME: usize = 16;
const THREAD_NAME_WORDS: usize = 4;
const JOB: usize = THREAD_NAME + THREAD_NAME_WORDS;
const JOB_WORDS: usize = 16;
const _: () = assert!(IDENTITY + Identity::WORDS <= THREAD_NAME && JOB + JOB_WORDS <= LABEL_WORDS);

/// Where a lane is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LaneState {
    /// Nobody's.
    Free = 0,
    /// A worker holds its lock and is writing its identity.
    Claimed = 1,
    /// A worker's.
    Attached = 2,
    /// Given back; its statistics still stand in it. A worker may claim it as it is.
    Detached = 3,
    /// The watchdog folds its statistics and frees it.
    Recycling = 4,
}

/// The owner word: state (8 bits), epoch (24), the pid the owner claims to be (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerWord(pub u64);

impl OwnerWord {
    /// Packs an owner word; the epoch is taken modulo 2^24.
    pub fn new(state: LaneState, epoch: u32, pid: u32) -> OwnerWord {
        OwnerWord(((state as u64) << 56) | (u64::from(epoch & 0xff_ffff) << 32) | u64::from(pid))
    }

    /// The state, `None` where the bits name none.
    #[inline]
    pub fn state(self) -> Option<LaneState> {
        Some(match self.0 >> 56 {
            0 => LaneState::Free,
            1 => LaneState::Claimed,
            2 => LaneState::Attached,
            3 => LaneState::Detached,
            4 => LaneState::Recycling,
            _ => return None,
        })
    }

    /// How often the lane was claimed, modulo 2^24.
    #[inline]
    pub fn epoch(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// The pid the owner claims, in its own PID namespace.
    pub fn pid(self) -> u32 {
        self.0 as u32
    }

    fn with_state(self, state: LaneState) -> OwnerWord {
        OwnerWord::new(state, self.epoch(), self.pid())
    }
}

/// What an owner says about itself at attach. Claims all: the watchdog asks the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The thread, in the owner's PID namespace.
    pub tid: u64,
    /// The process's start time, clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
    /// The process's inode in pidfs, 0 before Linux 6.9.
    pub pidfd_inode: u64,
    /// The inode of the owner's PID namespace.
    pub pid_namespace: u64,
    /// When it attached, ns.
    pub attached_at: u64,
    /// The descriptor that holds the lane's lock: where `fdinfo` is asked first.
    pub descriptor: u64,
    /// The clock its statistics were made with, see [`crate::calibration::ClockKind`].
    pub clock: u64,
    /// Its rank in its job plus one, 0 where it has none.
    pub rank: u64,
    /// The number of ranks in its job, 0 where unknown.
    pub world_size: u64,
    /// Its rank on this host plus one, 0 where it has none.
    pub local_rank: u64,
}

impl Identity {
    const WORDS: usize = 10;

    fn words(self) -> [u64; Self::WORDS] {
        [
            self.tid,
            self.start_ticks,
            self.pidfd_inode,
            self.pid_namespace,
            self.attached_at,
            self.descriptor,
            self.clock,
            self.rank,
            self.world_size,
            self.local_rank,
        ]
    }

    fn from_words(words: [u64; Self::WORDS]) -> Identity {
        let [
            tid,
            start_ticks,
            pidfd_inode,
            pid_namespace,
            attached_at,
            descriptor,
            clock,
            rank,
            world_size,
            local_rank,
        ] = words;
        Identity {
            tid,
            start_ticks,
            pidfd_inode,
            pid_namespace,
            attached_at,
            descriptor,
            clock,
            rank,
            world_size,
            local_rank,
        }
    }
}

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
/// lane (32 bits) | unused (6) | kind (2) | signal (8) | scope (16)
/// ```
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

    /// The same in another scope.
    #[inline]
    #[must_use]
    pub fn in_scope(self, scope: ScopeId) -> Subject {
        Subject((self.0 & !u64::from(u16::MAX)) | u64::from(scope.0))
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
}

impl TimerDetail {
    fn from_words(acquired_at: u64, what: u64) -> TimerDetail {
        let subject = Subject::from_bits(what);
        TimerDetail {
            acquired_at: Nanos(acquired_at),
            scope: subject.scope(),
            signal: subject.signal(),
            kind: subject.kind(),
        }
    }
}

/// A lane's header: the first cache line of its front, which a tick looks at in every lane.
#[derive(Clone, Copy)]
pub struct LaneHeader<'a>(pub(crate) &'a [AtomicU64; FRONT_WORDS]);

impl<'a> LaneHeader<'a> {
    /// The owner word.
    #[inline]
    pub fn owner(self) -> OwnerWord {
        // Acquire: pairs with the Release of `attach`: identity and labels are whole.
        OwnerWord(self.0[OWNER].load(Ordering::Acquire))
    }

    /// The ring writer's position: a hint of how much there is to read.
    #[inline]
    pub fn head(self) -> &'a AtomicU64 {
        &self.0[HEAD]
    }

    /// How many of the first timers were armed since the attach, as the owner says: it may be more
    /// than there are.
    #[inline]
    pub fn high_water(self) -> usize {
        usize::try_from(self.0[HIGH_WATER].load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

/// One lane of a segment.
#[derive(Clone, Copy)]
pub struct Lane<'a> {
    header: &'a [AtomicU64; FRONT_WORDS],
    labels: &'a [AtomicU64; LABEL_WORDS],
    timers: &'a [AtomicU64],
    details: &'a [[AtomicU64; DETAIL_WORDS]],
    ring: Slots<'a>,
    stats: &'a [StatsWords],
}

impl<'a> Lane<'a> {
    /// The lane whose front and back these words are, each one stride of `layout`.
    ///
    /// # Panics
    /// Where they are shorter than the layout's strides: the mapping was checked against it.
    pub fn new(front: &'a [AtomicU64], back: &'a [AtomicU64], layout: &Layout) -> Lane<'a> {
        let geometry = layout.geometry();
        let timers = geometry.timers as usize;
        let part = |from: usize, count: usize| &back[from..from + count];
        let details = part(layout.details_in_back, timers * DETAIL_WORDS);
        let ring = part(layout.ring_in_back, layout.stats_in_back - layout.ring_in_back);
        let stats_words = geometry.lane_scopes as usize * crate::stats::STATS_WORDS;
        Lane {
            header: front.first_chunk().expect("a lane has its header"),
            labels: back.first_chunk().expect("a lane has its labels"),
            timers: &front[FRONT_WORDS..FRONT_WORDS + timers],
            details: details.as_chunks().0,
            ring: ring.as_chunks().0,
            stats: part(layout.stats_in_back, stats_words).as_chunks().0,
        }
    }

    /// The owner word.
    #[inline]
    pub fn owner(self) -> OwnerWord {
        LaneHeader(self.header).owner()
    }

    fn move_owner(self, from: OwnerWord, to: OwnerWord) -> bool {
        // AcqRel: a new owner comes after all the last one wrote, and the other way round.
        self.header[OWNER]
            .compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Claims a free or detached lane for `pid`. The caller holds the lane's lock. `None` where
    /// someone else was first, or the lane is not to be had.
    pub fn claim(self, pid: u32) -> Option<OwnerWord> {
        let seen = self.owner();
        if !matches!(seen.state()?, LaneState::Free | LaneState::Detached) {
            return None;
        }
        let claimed = OwnerWord::new(LaneState::Claimed, seen.epoch().wrapping_add(1), pid);
        self.move_owner(seen, claimed).then_some(claimed)
    }

    /// Completes a claim: writes identity and labels, then lets the watchdog see the lane.
    pub fn attach(
        self,
        claimed: OwnerWord,
        identity: Identity,
        thread: &str,
        job: &str,
    ) -> OwnerWord {
        for (word, bits) in self.labels[IDENTITY..].iter().zip(identity.words()) {
            word.store(bits, Ordering::Relaxed);
        }
        write_text(&self.labels[THREAD_NAME..THREAD_NAME + THREAD_NAME_WORDS], thread);
        write_text(&self.labels[JOB..JOB + JOB_WORDS], job);
        self.header[HIGH_WATER].store(0, Ordering::Relaxed);
        let attached = claimed.with_state(LaneState::Attached);
        // Release: pairs with the Acquire in `owner`.
        self.header[OWNER].store(attached.0, Ordering::Release);
        attached
    }

    /// Gives the lane back. False where it was no longer this owner's.
    pub fn detach(self, attached: OwnerWord) -> bool {
        self.move_owner(attached, attached.with_state(LaneState::Detached))
    }

    /// Marks a timer word idle, whatever it was. The watchdog's alone, on a lane it recycles or a
    /// timer it condemned.
    pub(crate) fn reset_timer(self, index: usize) {
        if let Some(word) = self.timers.get(index) {
            let seen = crate::timer::TimerWord::from_bits(word.load(Ordering::Relaxed));
            // Release: pairs with the owner's Acquire when it looks for an idle timer.
            word.store(seen.generation(), Ordering::Release);
        }
    }

    /// The watchdog takes a lane, whose owner `seen` is known to be dead or gone, out of use.
    pub fn begin_recycling(self, seen: OwnerWord) -> Option<OwnerWord> {
        let recycling = seen.with_state(LaneState::Recycling);
        self.move_owner(seen, recycling).then_some(recycling)
    }

    /// The last step of a recycling: the lane is free to be claimed.
    pub fn end_recycling(self, recycling: OwnerWord) {
        self.header[QUARANTINED].store(0, Ordering::Relaxed);
        self.move_owner(recycling, OwnerWord::new(LaneState::Free, recycling.epoch(), 0));
    }

    /// What the owner says about itself.
    pub fn identity(self) -> Identity {
        Identity::from_words(core::array::from_fn(|index| {
            self.labels[IDENTITY + index].load(Ordering::Relaxed)
        }))
    }

    /// The name of the owner's thread, up to 32 bytes; what is no UTF-8 is replaced.
    pub fn thread_name(self) -> alloc::string::String {
        read_text(&self.labels[THREAD_NAME..THREAD_NAME + THREAD_NAME_WORDS])
    }

    /// The owner's job, up to 128 bytes; what is no UTF-8 is replaced.
    pub fn job(self) -> alloc::string::String {
        read_text(&self.labels[JOB..JOB + JOB_WORDS])
    }

    /// The ring writer's position: a hint of how much there is to read.
    #[inline]
    pub fn head(self) -> &'a AtomicU64 {
        LaneHeader(self.header).head()
    }

    /// How many of the first timers were armed since the attach: a sweep looks no further. A claim
    /// that can only hide the claimant's own timers.
    #[inline]
    pub fn high_water(self) -> usize {
        LaneHeader(self.header).high_water().min(self.timers.len())
    }

    /// Raises the high-water mark to `count`. The owner's alone; before the timer is armed.
    #[inline]
    pub fn raise_high_water(self, count: usize) {
        if count > self.high_water() {
            self.header[HIGH_WATER].store(count as u64, Ordering::Relaxed);
        }
    }

    /// Whether the watchdog has quarantined the lane: it lied, and its timers are not enforced.
    pub fn is_quarantined(self) -> bool {
        self.header[QUARANTINED].load(Ordering::Relaxed) != 0
    }

    /// Marks the lane as quarantined, for observers. The watchdog's alone.
    pub fn quarantine(self) {
        self.header[QUARANTINED].store(1, Ordering::Relaxed);
    }

    /// The timer words.
    #[inline]
    pub fn timers(self) -> &'a [AtomicU64] {
        self.timers
    }

    /// One timer, `None` beyond the last.
    #[inline]
    pub fn timer(self, index: usize) -> Option<Timer<'a>> {
        self.timers.get(index).map(Timer)
    }

    /// The ring's slots.
    #[inline]
    pub fn ring(self) -> Slots<'a> {
        self.ring
    }

    /// The statistics blocks.
    #[inline]
    pub fn stats(self) -> &'a [StatsWords] {
        self.stats
    }

    /// Writes a timer's details before it is armed.
    #[inline]
    pub fn write_detail(self, index: usize, detail: TimerDetail) {
        let subject = Subject::new(detail.scope, detail.signal, detail.kind);
        self.write_subject(index, detail.acquired_at, subject);
    }

    /// As [`Lane::write_detail`], with the details packed already.
    #[inline]
    pub fn write_subject(self, index: usize, acquired_at: Nanos, subject: Subject) {
        // Release fence: the timer's last release comes before its new details; pairs with the
        // Acquire fence in `read_detail`.
        fence(Ordering::Release);
        let [at, what] = &self.details[index];
        at.store(acquired_at.0, Ordering::Relaxed);
        what.store(subject.bits(), Ordering::Relaxed);
    }

    /// Moves the start of a timer's current stretch, after a kick. After the timer word is changed:
    /// an old start beside a new deadline can only give it more time.
    #[inline]
    pub fn write_kicked_at(self, index: usize, at: Nanos) {
        self.details[index][0].store(at.0, Ordering::Relaxed);
    }

    /// A timer's details, and whether they belong to the word `seen`: not where it changed since.
    #[inline]
    pub fn read_detail(self, index: usize, seen: crate::timer::TimerWord) -> Option<TimerDetail> {
        let [acquired_at, what] = self.details.get(index)?;
        let detail = TimerDetail::from_words(
            acquired_at.load(Ordering::Relaxed),
            what.load(Ordering::Relaxed),
        );
        // Acquire fence: pairs with the Release fence in `write_detail`: a newer detail means that
        // the word is seen changed below.
        fence(Ordering::Acquire);
        (self.timers[index].load(Ordering::Relaxed) == seen.bits()).then_some(detail)
    }
}

fn write_text(words: &[AtomicU64], text: &str) {
    let mut bytes = text.bytes();
    for word in words {
        let chunk: [u8; 8] = core::array::from_fn(|_| bytes.next().unwrap_or(0));
        word.store(u64::from_le_bytes(chunk), Ordering::Relaxed);
    }
}

fn read_text(words: &[AtomicU64]) -> alloc::string::String {
    let bytes: alloc::vec::Vec<u8> =
        words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    alloc::string::String::from_utf8_lossy(&bytes[..end]).into_owned()
}
