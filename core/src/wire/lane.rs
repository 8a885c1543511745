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

mod owner;
mod subject;

use crate::atomic::{AtomicU64, Ordering, fence};
use crate::wire::hash::fnv1a;
use crate::wire::layout::{
    DETAIL_WORDS, FRONT_WORDS, LABEL_WORDS, LANE_GROUPS, Layout, SCOPE_NAME_WORDS,
};
use crate::wire::meeting::{GroupId, Last, Meeting};
use crate::wire::ring::Slots;
use crate::wire::scope::{ScopeId, SpilledName};
use crate::wire::stamped::Stamped;
use crate::wire::stats::{ScopeStats, StatsWords};
use crate::wire::time::Nanos;
use crate::wire::timer::Timer;

pub use owner::{Identity, LaneState, OwnerWord};
pub use subject::{AllowedBy, Subject, TimerDetail, TimerKind, TimerSignal};

const OWNER: usize = 0;
const HEAD: usize = 1;
const HIGH_WATER: usize = 2;
const QUARANTINED: usize = 3;
const HELD: usize = 4;
const STOPPED: usize = 5;
const _: () = assert!(STOPPED < FRONT_WORDS);
/// The owner is held; with it unset, the word says when it was let go, in units of 2 ns.
const IS_HELD: u64 = 1 << 63;

// In the back:
const IDENTITY: usize = 0;
const THREAD_NAME: usize = 16;
const THREAD_NAME_WORDS: usize = 4;
const JOB: usize = THREAD_NAME + THREAD_NAME_WORDS;
const JOB_WORDS: usize = 16;
const HOST: usize = JOB + JOB_WORDS;
const HOST_WORDS: usize = 8;
const _: () =
    assert!(IDENTITY + Identity::WORDS <= THREAD_NAME && HOST + HOST_WORDS <= LABEL_WORDS);

/// What an owner calls its thread, its job and its host; longer names are cut off.
#[derive(Clone, Copy, Debug, Default)]
pub struct LaneNames<'n> {
    /// Its thread, 32 bytes.
    pub thread: &'n str,
    /// Its job, 128 bytes.
    pub job: &'n str,
    /// Its host, 64 bytes.
    pub host: &'n str,
}

/// Whether something held up a lane's overdue owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotedHold {
    /// It is held, or was when the watchdog last looked.
    Held,
    /// It was found let go at this time.
    LetGo(Nanos),
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

/// A job's name as it stands in a lane: a claim. Workers that name no job are of one job, the segment's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobLabel([u64; JOB_WORDS]);

impl JobLabel {
    /// A hash of its words: what a job is recognised by where there is no room for its name.
    pub fn hash(&self) -> u64 {
        fnv1a(self.0)
    }
}

/// One lane of a segment.
#[derive(Clone, Copy)]
pub struct Lane<'a> {
    header: &'a [AtomicU64; FRONT_WORDS],
    labels: &'a [AtomicU64; LABEL_WORDS],
    timers: &'a [AtomicU64],
    details: &'a [[AtomicU64; DETAIL_WORDS]],
    meetings: &'a [AtomicU64],
    attended: &'a [AtomicU64],
    bases: &'a [AtomicU64],
    names: &'a [[AtomicU64; SCOPE_NAME_WORDS]],
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
        let names = part(layout.names_in_back, timers * SCOPE_NAME_WORDS);
        let ring = part(layout.ring_in_back, layout.stats_in_back - layout.ring_in_back);
        let stats_words = geometry.lane_scopes as usize * crate::wire::stats::STATS_WORDS;
        Lane {
            header: front.first_chunk().expect("a lane has its header"),
            labels: back.first_chunk().expect("a lane has its labels"),
            timers: &front[FRONT_WORDS..FRONT_WORDS + timers],
            details: details.as_chunks().0,
            meetings: part(layout.meetings_in_back, timers),
            attended: part(layout.attended_in_back, LANE_GROUPS),
            bases: part(layout.bases_in_back, geometry.lane_scopes as usize),
            names: names.as_chunks().0,
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
    pub fn attach(self, claimed: OwnerWord, identity: Identity, names: LaneNames<'_>) -> OwnerWord {
        self.write_labels(identity, names);
        self.header[HIGH_WATER].store(0, Ordering::Relaxed);
        self.header[HELD].store(0, Ordering::Relaxed);
        self.header[STOPPED].store(0, Ordering::Relaxed);
        // A detached lane may be one that the watchdog had quarantined: that was another owner.
        self.header[QUARANTINED].store(0, Ordering::Relaxed);
        self.forget_entries();
        let attached = claimed.with_state(LaneState::Attached);
        // Release: pairs with the Acquire in `owner`.
        self.header[OWNER].store(attached.0, Ordering::Release);
        attached
    }

    /// Gives an attached lane to another thread of its process, under a new epoch. Its timers stay as
    /// they are, and the watchdog asks anew who owns the lane. `None` where it is no longer this
    /// owner's.
    pub fn hand_over(
        self,
        attached: OwnerWord,
        identity: Identity,
        names: LaneNames<'_>,
    ) -> Option<OwnerWord> {
        if self.owner() != attached {
            return None;
        }
        // Before the owner word: who sees the new epoch sees the new thread. An observer may see both
        // for a moment; it takes a name for a claim anyway.
        self.write_labels(identity, names);
        let epoch = attached.epoch().wrapping_add(1);
        let handed = OwnerWord::new(LaneState::Attached, epoch, attached.pid());
        self.move_owner(attached, handed).then_some(handed)
    }

    fn write_labels(self, identity: Identity, names: LaneNames<'_>) {
        for (word, bits) in self.labels[IDENTITY..].iter().zip(identity.words()) {
            word.store(bits, Ordering::Relaxed);
        }
        write_text(&self.labels[THREAD_NAME..THREAD_NAME + THREAD_NAME_WORDS], names.thread);
        write_text(&self.labels[JOB..JOB + JOB_WORDS], names.job);
        write_text(&self.labels[HOST..HOST + HOST_WORDS], names.host);
    }

    /// Gives the lane back. False where it was no longer this owner's.
    pub fn detach(self, attached: OwnerWord) -> bool {
        self.move_owner(attached, attached.with_state(LaneState::Detached))
    }

    /// Marks a timer word idle, whatever it was. The watchdog's alone, on a lane it recycles or a
    /// condemned timer, of a process that is dead or has given the lane back.
    pub(crate) fn reset_timer(self, index: usize) {
        if let Some(word) = self.timers.get(index) {
            let seen = crate::wire::timer::TimerWord::from_bits(word.load(Ordering::Relaxed));
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
        self.header[HELD].store(0, Ordering::Relaxed);
        self.header[STOPPED].store(0, Ordering::Relaxed);
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

    /// The owner's job, to compare it with others'.
    pub fn job_label(self) -> JobLabel {
        let words = &self.labels[JOB..JOB + JOB_WORDS];
        JobLabel(core::array::from_fn(|index| words[index].load(Ordering::Relaxed)))
    }

    /// The owner's host, up to 64 bytes; what is no UTF-8 is replaced.
    pub fn host(self) -> alloc::string::String {
        read_text(&self.labels[HOST..HOST + HOST_WORDS])
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

    /// Whether the watchdog has quarantined the lane: it was inconsistent, and its timers are not enforced.
    pub fn is_quarantined(self) -> bool {
        self.header[QUARANTINED].load(Ordering::Relaxed) != 0
    }

    /// Marks the lane as quarantined, for observers. The watchdog's alone.
    pub fn quarantine(self) {
        self.header[QUARANTINED].store(1, Ordering::Relaxed);
    }

    /// What the watchdog, or one before it, has noted of a hold on the overdue owner.
    pub fn noted_hold(self) -> Option<NotedHold> {
        match self.header[HELD].load(Ordering::Relaxed) {
            0 => None,
            IS_HELD => Some(NotedHold::Held),
            let_go_at => Some(NotedHold::LetGo(Nanos((let_go_at & !IS_HELD) << 1))),
        }
    }

    /// Notes it, for a successor. The watchdog's alone.
    pub fn note_hold(self, hold: NotedHold) {
        let bits = match hold {
            NotedHold::Held => IS_HELD,
            NotedHold::LetGo(at) => (at.0 >> 1).max(1),
        };
        self.header[HELD].store(bits, Ordering::Relaxed);
    }

    /// What a watchdog has noted before it stopped the owner to kill it with its descendants: a number of its
    /// own choice, 0 for nothing.
    pub fn noted_stop(self) -> u64 {
        self.header[STOPPED].load(Ordering::Relaxed)
    }

    /// Notes it, for a successor; 0 once nothing is stopped any more. The watchdog's alone.
    pub fn note_stop(self, bits: u64) {
        self.header[STOPPED].store(bits, Ordering::Relaxed);
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
        let mut subject = subject.allowed_by(detail.allowed_by);
        if let Some(meeting) = detail.meeting {
            self.write_meeting(index, meeting);
            subject = subject.of_meeting();
        }
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

    /// Writes the meeting that a timer is about to be armed in, for a subject that says so. The owner's
    /// alone, before [`Lane::write_subject`].
    #[inline]
    pub fn write_meeting(self, index: usize, meeting: Meeting) {
        // Release fence: as in `write_subject`.
        fence(Ordering::Release);
        self.meetings[index].store(meeting.bits(), Ordering::Relaxed);
    }

    /// Notes in `slot` that the owner has entered a meeting; no slot has another group's meeting. The
    /// owner's alone.
    #[inline]
    pub fn note_attended(self, slot: usize, meeting: Meeting) {
        // Relaxed: the word alone says it all.
        self.attended[slot].store(meeting.bits(), Ordering::Relaxed);
    }

    /// The last meeting of each group that the owner has entered, by slot; `None` in free slots. Claims.
    pub fn all_attended(self) -> impl Iterator<Item = Option<Meeting>> + 'a {
        self.attended.iter().map(|word| Meeting::from_bits(word.load(Ordering::Relaxed)))
    }

    /// The last meeting of `group` that the owner has entered. A claim.
    pub fn attended(self, group: GroupId) -> Last {
        let mut is_full = true;
        for meeting in self.all_attended() {
            match meeting {
                Some(meeting) if meeting.group == group => return Last::Entered(meeting.sequence),
                Some(_) => {}
                None => is_full = false,
            }
        }
        if is_full { Last::Unknown } else { Last::Never }
    }

    /// How often the owner has entered `scope` since it attached; `None` where that is not counted. A
    /// claim.
    pub fn entries(self, scope: ScopeId) -> Option<u64> {
        let mut is_full = true;
        let (_, own) = self.stats.split_last()?;
        for (block, base) in own.iter().zip(self.bases) {
            match ScopeStats(block).scope() {
                Some(known) if known == scope.0 => {
                    let base = base.load(Ordering::Relaxed);
                    return Some(ScopeStats(block).acquires().wrapping_sub(base));
                }
                Some(_) => {}
                None => is_full = false,
            }
        }
        (!is_full).then_some(0)
    }

    /// A new owner has entered nothing yet, whatever the last one's statistics count.
    fn forget_entries(self) {
        for (block, base) in self.stats.iter().zip(self.bases) {
            base.store(ScopeStats(block).acquires(), Ordering::Relaxed);
        }
        self.attended.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// The slot for the name of a timer whose scope is spilled; `None` beyond the last timer.
    pub fn spilled_name(self, index: usize) -> Option<SpilledName<'a>> {
        self.names.get(index).map(SpilledName)
    }

    /// Notes which of its owner's tasks acquired a timer, not 0: timers of two tasks are not nested. The
    /// owner's alone, right after it armed the timer for `subject`.
    pub fn note_task(self, index: usize, subject: Subject, task: u32) {
        // Relaxed: read for display alone; the rest of the word stays as it is.
        self.details[index][1].store(subject.of_task(task).bits(), Ordering::Relaxed);
    }

    /// The task that acquired a timer, 0 where none is known. A claim.
    pub fn task(self, index: usize) -> u32 {
        let what = self.details.get(index).map_or(0, |detail| detail[1].load(Ordering::Relaxed));
        Subject::from_bits(what).task()
    }

    /// Moves the start of a timer's current stretch, after a kick. After the timer word is changed:
    /// an old start beside a new deadline can only give it more time.
    #[inline]
    pub fn write_kicked_at(self, index: usize, at: Nanos) {
        self.details[index][0].store(at.0, Ordering::Relaxed);
    }

    /// A timer's details, and whether they belong to the word `seen`: not where it changed since.
    #[inline]
    pub fn read_detail(
        self,
        index: usize,
        seen: crate::wire::timer::TimerWord,
    ) -> Option<TimerDetail> {
        let [acquired_at, what] = self.details.get(index)?;
        // As the words under a stamp: `arm` writes the timer word after them, and a newer detail means
        // that the word is seen changed.
        let words = [acquired_at, what, &self.meetings[index]];
        let stamped = Stamped { stamp: &self.timers[index], words };
        let [acquired_at, what, meeting] = stamped.read(seen.bits())?;
        let subject = Subject::from_bits(what);
        let meeting = subject.is_meeting().then(|| Meeting::from_bits(meeting)).flatten();
        Some(TimerDetail::new(acquired_at, subject, meeting))
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
