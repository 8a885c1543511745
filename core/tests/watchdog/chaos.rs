//! Random bytes as a segment, and as what happens to one while the whole watchdog serves it.
//!
//! Whatever the words say: nothing panics, nothing spins, and no signal goes to a worker the kernel
//! did not name. The targets in `fuzz/` call the same functions with bytes of libFuzzer's making.

use hangwatch_core::atomic::{AtomicU64, Ordering};
use hangwatch_core::watchdog::expiry::Admission;
use hangwatch_core::watchdog::policy::{Cascade, Policy};
use hangwatch_core::watchdog::reap::{Hold, Verdict};
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::{LaneState, OwnerWord, TimerSignal};
use hangwatch_core::wire::layout::Geometry;
use hangwatch_core::wire::record::{Operation, Place, Stamp};
use hangwatch_core::wire::ring::{Read, RingReader};
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::segment::{Counter, Segment};
use hangwatch_core::wire::stats::ScopeStats;
use hangwatch_core::wire::time::{Nanos, Units};
use hangwatch_core::wire::timer::{TimerState, TimerWord};

use crate::world::{MAX_INTERVAL, MS, START, Worker, World, fixed, words};

/// Bytes as a source of decisions; 0 without end once they are used up.
struct Bytes<'b>(&'b [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn word(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % bound
    }

    /// A word for shared memory: anything, but more often what could be meant seriously.
    fn claim(&mut self, now: Nanos) -> u64 {
        let near = |byte: u8| now.plus(u64::from(byte) * 10 * MS);
        match self.byte() % 8 {
            0 => self.word(),
            1 => u64::MAX,
            2 => u64::from(self.byte()),
            3 | 4 => {
                let states = [
                    TimerState::Idle,
                    TimerState::Armed,
                    TimerState::Reported,
                    TimerState::Paused,
                    TimerState::Condemned,
                ];
                let state = states[self.below(states.len())];
                let deadline = Units::at_or_after(near(self.byte()));
                TimerWord::new(state, deadline, u64::from(self.byte())).bits()
            }
            5 => {
                let states = [
                    LaneState::Free,
                    LaneState::Claimed,
                    LaneState::Attached,
                    LaneState::Detached,
                    LaneState::Recycling,
                ];
                let state = states[self.below(states.len())];
                OwnerWord::new(state, u32::from(self.byte() % 4), u32::from(self.byte() % 8)).0
            }
            6 => {
                let stamp = Stamp::new(
                    u64::from(self.byte()),
                    Operation::Acquire,
                    u16::from(self.byte() % 16),
                );
                let place = if self.byte().is_multiple_of(2) { Place::Own } else { Place::Foreign };
                stamp.with_place(place).0
            }
            _ => near(self.byte()).0,
        }
    }
}

/// Opens random words as a segment, and reads everything there is in it.
pub(crate) fn layout(bytes: &[u8]) {
    let raw: Vec<AtomicU64> = bytes
        .chunks(8)
        .map(|chunk| AtomicU64::new(chunk.iter().fold(0, |word, b| (word << 8) | u64::from(*b))))
        .collect();
    let _ = Segment::open(&raw);

    let mut bytes = Bytes(bytes);
    let part = |word: u64| (word as u32, (word >> 32) as u32);
    let ((lanes, timers), (records, scopes)) = (part(bytes.word()), part(bytes.word()));
    let lane_scopes = bytes.word() as u32;
    let wild = Geometry { lanes, timers, records, scopes, lane_scopes };
    let tame = Geometry {
        lanes: lanes % 4 + 1,
        timers: timers % 70 + 1,
        records: 16 << (records % 3),
        scopes: scopes % 6 + 2,
        lane_scopes: lane_scopes % 4 + 2,
    };
    if let Ok(layout) = wild.check() {
        assert!(layout.back_at(wild.lanes - 1) + layout.back_stride() <= layout.words());
    }
    let size = tame.check().expect("it is within bounds").words();
    let words: Vec<AtomicU64> = (0..size).map(|_| AtomicU64::new(0)).collect();
    let segment =
        Segment::format(&words, hangwatch_core::wire::segment::Fixed { geometry: tame, ..fixed() })
            .expect("the words are as many as it asks for");
    while !bytes.0.is_empty() {
        for _ in 0..8 {
            let claim = bytes.claim(START);
            words[bytes.below(size)].store(claim, Ordering::Relaxed);
        }
        read_all(segment);
        let _ = Segment::open(&words);
    }
    segment.finish_fold();
    (0..tame.lanes).for_each(|lane| segment.fold_lane(lane));
    read_all(segment);
}

/// Every read there is. The values are claims; what counts is that reading them ends well.
fn read_all(segment: Segment<'_>) {
    let geometry = segment.geometry();
    assert!(segment.lanes_used() <= geometry.lanes);
    let _ = (segment.calibration(), segment.folds(), segment.names().taken());
    let stalls = segment.stalls(START);
    assert!(stalls.credited(START, START) >= START, "credit only ever gives");
    for (counter, _) in Counter::ALL {
        segment.counter(counter).load(Ordering::Relaxed);
    }
    for scope in [0, 1, geometry.scopes as u16, u16::MAX] {
        ScopeStats(segment.total(ScopeId(scope))).snapshot().quantile_ns(0.99);
        let name = segment.names().name(ScopeId(scope));
        assert!(name.is_none_or(|name| !name.as_str().is_empty() || scope != 0));
    }
    for index in 0..geometry.lanes {
        let lane = segment.lane(index);
        let _ = (lane.owner().state(), lane.identity(), lane.thread_name(), lane.job());
        assert!(lane.high_water() <= geometry.timers as usize);
        for timer in 0..=geometry.timers as usize {
            let Some(word) = lane.timer(timer).map(hangwatch_core::wire::timer::Timer::load) else {
                assert!(lane.read_detail(timer, TimerWord::FRESH).is_none());
                continue;
            };
            let _ = (word.state(), word.look_at(), lane.read_detail(timer, word));
        }
        for block in lane.stats() {
            let _ = (ScopeStats(block).scope(), ScopeStats(block).snapshot());
        }
        let head = lane.head().load(Ordering::Relaxed);
        let capacity = lane.ring().len();
        let mut reader = RingReader::behind(head, capacity);
        assert!(reader.waiting(head, capacity) <= capacity);
        let drained = reader.drain(lane.ring(), 2 * capacity, |_, _| ());
        assert!(drained.records <= 2 * capacity as u64);
        let mut reader = RingReader::behind(head, capacity);
        for _ in 0..2 * capacity {
            if matches!(reader.next(lane.ring()), Read::Nothing | Read::Garbage) {
                break;
            }
        }
    }
}

const PIDS: u64 = 6;

/// Workers, deaths, watchdogs that succeed each other and random words, in random order.
pub(crate) fn tick(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let policy = Policy {
        grace_ns: u64::from(bytes.byte()) * 10 * MS,
        max_reaps: Some(u32::from(bytes.byte())).filter(|most| *most < 8),
        warn_at: bytes.byte().is_multiple_of(2).then_some(0.5),
        cascade: match bytes.byte() % 3 {
            0 => Cascade::Off,
            1 => Cascade::Report,
            _ => Cascade::Hold { hold_ns: u64::from(bytes.byte()) * 10 * MS },
        },
        ..Policy::default()
    };
    let words = words();
    let mut world = World::new(&words, policy);
    let mut workers: Vec<Worker<'_>> = (1..=PIDS).map(|pid| world.worker(pid)).collect();
    world.tick();
    while !bytes.0.is_empty() {
        let pid = bytes.below(PIDS as usize) as u64 + 1;
        let worker = &mut workers[pid as usize - 1];
        let timer = u16::from(bytes.byte() % 8);
        match bytes.byte() % 16 {
            0..=4 => {
                let claim = bytes.claim(world.now());
                words[bytes.below(words.len())].store(claim, Ordering::Relaxed);
            }
            5 => {
                let signal = TimerSignal::from_bits(bytes.byte());
                worker.acquire_with(timer, u64::from(bytes.byte()) * MS, signal);
            }
            6 => {
                worker.release(timer);
            }
            7 => {
                let claim = bytes.claim(world.now());
                words[words.len() - 1 - bytes.below(512)].store(claim, Ordering::Relaxed);
            }
            8 => world.kernel.borrow_mut().kill(pid),
            9 => {
                let admissions = [
                    Admission::Worker(WorkerId(pid)),
                    Admission::Unattestable,
                    Admission::Unknown,
                    Admission::Gone,
                ];
                let admission = admissions[bytes.below(admissions.len())];
                world.process(pid, |process| process.admission = admission);
            }
            10 => {
                let verdicts =
                    [Verdict::Go, Verdict::Held(Hold::Frozen), Verdict::Wait(world.now().plus(MS))];
                let verdict = verdicts[bytes.below(verdicts.len())];
                world.process(pid, |process| process.verdict = verdict);
            }
            11 => {
                let stubborn = bytes.byte();
                world.process(pid, |process| process.survives.insert(stubborn % 16));
            }
            12 => world.succeed(policy),
            13 => world.kernel.borrow_mut().oversleeps = u64::from(bytes.byte()) * 10 * MS,
            _ => (0..4).for_each(|_| world.tick()),
        }
    }
    // Whatever was written, the watchdog goes on, and sleeps.
    let before = world.sleeps();
    (0..50).for_each(|_| world.tick());
    assert!(world.sleeps() > before, "the watchdog spins");
}

/// As [`tick`], but every random word falls into another lane than the one of a hung worker: that
/// worker is removed in time.
pub(crate) fn others_are_served(bytes: &[u8]) {
    let mut bytes = Bytes(bytes);
    let words = words();
    let mut world = World::new(&words, Policy::default());
    let mut hung = world.worker(1);
    let mut liars: Vec<Worker<'_>> = (2..=5).map(|pid| world.worker(pid)).collect();
    let deadline = hung.acquire(0, 2_000 * MS);
    // Everything of the other lanes: their fronts, and their backs behind lane 0's.
    let layout = *world.segment.layout();
    let lanes = world.segment.geometry().lanes;
    let fronts = layout.front_at(1)..layout.front_at(lanes);
    let backs = layout.back_at(1)..layout.back_at(lanes);
    let wild: Vec<usize> = fronts.chain(backs).collect();
    while !bytes.0.is_empty() && world.now().plus(2 * MAX_INTERVAL) < deadline {
        for _ in 0..bytes.byte() {
            let claim = bytes.claim(world.now());
            words[wild[bytes.below(wild.len())]].store(claim, Ordering::Relaxed);
            let owner = layout.front_at(bytes.below(7) as u32 + 1);
            let claim = bytes.claim(world.now());
            words[owner + bytes.below(8)].store(claim, Ordering::Relaxed);
        }
        let liar = &mut liars[bytes.below(4)];
        liar.acquire(u16::from(bytes.byte() % 8), u64::from(bytes.byte()) * MS);
        world.tick();
    }
    world.serve_until(deadline.plus(MAX_INTERVAL));
    world.check_killed(1, deadline);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..4_000)
    }

    proptest! {
        // A failing case is printed, with the seed to repeat it.
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn random_words_are_opened_and_read_without_a_panic(bytes in bytes()) {
            super::layout(&bytes);
        }

        #[test]
        fn random_words_under_the_watchdog_get_nobody_signalled_whom_the_kernel_did_not_name(
            bytes in bytes(),
        ) {
            super::tick(&bytes);
        }

        #[test]
        fn random_words_in_other_lanes_delay_nobodys_reap(bytes in bytes()) {
            super::others_are_served(&bytes);
        }
    }
}
