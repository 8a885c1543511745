//! The watchdog's loop over a real segment, with everything around it faked: lanes without
//! processes, a clock that is told the time, a sleep that does not sleep, hands that signal nobody.

use std::cell::Cell;
use std::convert::Infallible;
use std::hint::black_box;
use std::num::NonZeroUsize;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hangwatch::{CreateOptions, Geometry, Segment};
use hangwatch_core::watchdog::expiry::{Admission, Expiry, Request};
use hangwatch_core::watchdog::policy::Policy;
use hangwatch_core::watchdog::reap::{Event, ProcessControl, Reaping, Sent, Verdict};
use hangwatch_core::watchdog::tick::{Clock, Queue, Table, Ticked, Watchdog};
use hangwatch_core::watchdog::updates::{Rings, Sleep};
use hangwatch_core::watchdog::worker::WorkerId;
use hangwatch_core::wire::lane::{Identity, LaneNames, Subject, TimerKind, TimerSignal};
use hangwatch_core::wire::record::{Operation, Place};
use hangwatch_core::wire::ring::RingWriter;
use hangwatch_core::wire::scope::ScopeId;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::time::{Nanos, Units};

/// When the stage's time begins.
const EPOCH: Nanos = Nanos(1_000_000_000_000);
/// Later than any bench runs.
const FAR_NS: u64 = 3_600_000_000_000;

/// A clock that is told the time.
#[derive(Clone)]
pub struct ToldClock(Rc<Cell<Nanos>>);

impl Clock for ToldClock {
    fn now(&mut self) -> Nanos {
        self.0.get()
    }
}

/// Does not sleep.
pub struct NoSleep;

impl Sleep for NoSleep {
    fn prepare(&mut self) {}
    fn sleep(&mut self, _until: Nanos) {}
}

/// Signal nobody; whoever was signalled is dead.
#[derive(Default)]
pub struct FakeHands {
    /// The timers that ended, whose and when they were due, in the order they were told.
    pub ended: Vec<(WorkerId, Nanos)>,
    now: Nanos,
}

impl ProcessControl for FakeHands {
    type Error = Infallible;

    fn verdict(&mut self, now: Nanos, _worker: WorkerId, _lane: u32) -> Verdict {
        self.now = now;
        Verdict::Go
    }

    fn signal(&mut self, _worker: WorkerId, _signal: u8) -> Result<Sent, Infallible> {
        Ok(Sent::At(self.now))
    }

    fn is_dead(&mut self, _worker: WorkerId) -> bool {
        true
    }

    fn note(&mut self, event: Event<'_, Infallible>) {
        if let Event::Expiry { worker, timer, .. } = event {
            self.ended.push((worker, timer.deadline));
        }
    }
}

type Dog =
    Watchdog<ToldClock, Rings<'static, NoSleep>, Expiry<'static>, Reaping<'static, FakeHands>>;

/// A segment full of attached lanes, and the loop over it.
pub struct Stage {
    segment: Segment,
    clock: ToldClock,
    writers: Vec<RingWriter<'static>>,
    dog: Dog,
}

impl Stage {
    /// `lanes` attached and admitted lanes, each with every timer armed far in the future.
    ///
    /// # Panics
    /// Where the segment cannot be made.
    pub fn new(geometry: Geometry) -> Stage {
        let name =
            format!("bench-stage-{}-{}", std::process::id(), EPOCH.0 + u64::from(geometry.lanes));
        let options = CreateOptions { geometry, ..CreateOptions::default() };
        let segment = Segment::create(&name, options).expect("a segment");
        Segment::remove(&name).expect("its name");
        let words = segment.words();
        for lane in 0..geometry.lanes {
            let place = words.lane(lane);
            words.note_lane_used(lane);
            let claimed = place.claim(std::process::id()).expect("it is free");
            place.attach(claimed, Identity::default(), LaneNames::default());
            place.raise_high_water(geometry.timers as usize);
        }
        let clock = ToldClock(Rc::new(Cell::new(EPOCH)));
        let interval_ns = words.fixed().max_interval_ns;
        let dog = Watchdog::new(
            clock.clone(),
            Rings::new(words, NoSleep),
            Expiry::new(words, Policy::default(), EPOCH),
            Reaping::new(words, Policy::default(), FakeHands::default()),
            interval_ns,
        );
        let writer = |lane| {
            let place = words.lane(lane);
            RingWriter::resume(place.ring(), place.head())
        };
        let writers = (0..geometry.lanes).map(writer).collect();
        let mut stage = Stage { segment, clock, writers, dog };
        stage.arm_all(FAR_NS);
        stage.tick();
        for request in stage.dog.table.take_requests() {
            if let Request::Admit { lane, owner } = request {
                let worker = WorkerId(u64::from(lane));
                stage.dog.table.admit(lane, owner, Admission::Worker(worker));
            }
        }
        stage.tick();
        stage
    }

    fn geometry(&self) -> Geometry {
        self.segment.words().geometry()
    }

    fn arm_all(&self, ahead_ns: u64) {
        for lane in 0..self.geometry().lanes {
            for timer in 0..self.geometry().timers {
                self.arm(lane, timer, ahead_ns);
            }
        }
    }

    /// Arms a timer without any news of it.
    ///
    /// # Panics
    /// Where there is no such timer.
    pub fn arm(&self, lane: u32, timer: u32, ahead_ns: u64) {
        let now = self.clock.0.get();
        let place = self.segment.words().lane(lane);
        let subject = Subject::new(ScopeId(1), TimerSignal::Default, TimerKind::Guard);
        place.write_subject(timer as usize, now, subject.in_lane(lane));
        let cell = place.timer(timer as usize).expect("it exists");
        cell.arm(Units::at_or_after(now.plus(ahead_ns)));
    }

    /// Moves the clock on.
    pub fn pass(&mut self, ns: u64) {
        self.clock.0.set(self.clock.0.get().plus(ns));
        // As the sleep does: the time is expected to pass.
        self.dog.expected = None;
    }

    /// One tick.
    pub fn tick(&mut self) -> Ticked {
        self.dog.tick()
    }

    /// Writes `records` to each lane's ring, of its timers in turn.
    pub fn write_news(&mut self, records: u32) {
        let timers = self.geometry().timers;
        for writer in &mut self.writers {
            for record in 0..records {
                let payload = [EPOCH.0, EPOCH.0 + FAR_NS, 1];
                writer.write(Operation::Acquire, Place::Own, (record % timers) as u16, payload);
            }
        }
    }

    /// Drains and applies what waits, as the tick does, and says how many records that was.
    pub fn drain_and_apply(&mut self) -> usize {
        let Watchdog { queue, table, .. } = &mut self.dog;
        let size = queue.size();
        if let Some(most) = NonZeroUsize::new(size) {
            queue.get(most, EPOCH, |news| table.apply(news));
        }
        size
    }

    /// Records drained since the beginning; those that were overwritten first do not count.
    pub fn drained(&self) -> u64 {
        self.segment.words().counter(Counter::Drained).load(Ordering::Relaxed)
    }

    /// The time of draining and applying `records` records at least while a [`LiveProducer`] writes, and
    /// how many there were.
    pub fn time_live_drain(&mut self, records: u64) -> (Duration, u64) {
        let (before, mut took) = (self.drained(), Duration::ZERO);
        while self.drained() - before < records {
            let start = Instant::now();
            // Where there is nothing, the machine has the producer wait.
            if self.drain_and_apply() > 0 {
                took += start.elapsed();
            }
        }
        (took, self.drained() - before)
    }

    /// The writer of lane 0, for a producer on another thread.
    fn take_writer(&mut self) -> RingWriter<'static> {
        self.writers.drain(..1).next().expect("taken once")
    }

    /// The time of one tick with nothing due.
    pub fn time_idle_tick(&mut self) -> Duration {
        let start = Instant::now();
        let ticked = self.tick();
        let took = start.elapsed();
        assert_eq!(ticked, Ticked::default());
        took
    }

    /// The time of draining and applying `records` records of each lane, and how many there were.
    pub fn time_drain(&mut self, records: u32) -> (Duration, usize) {
        self.write_news(records);
        let start = Instant::now();
        let drained = self.drain_and_apply();
        (start.elapsed(), drained)
    }

    /// The time of a tick in which `count` timers, spread over all lanes, expire at once. Checks
    /// that all ended, each worker's in the order of their deadlines.
    ///
    /// # Panics
    /// Where they did not.
    pub fn time_mass_expiry(&mut self, count: u32) -> Duration {
        let lanes = self.geometry().lanes;
        for index in 0..count {
            // The later timers of a lane are due first, so that the order must be made.
            let ahead_ns = 1_000_000 + u64::from(count - index) * 1_024;
            self.arm(index % lanes, index / lanes, ahead_ns);
        }
        self.pass(2_000_000 + u64::from(count) * 1_024);
        self.dog.reaper.control_mut().ended.clear();
        let start = Instant::now();
        let ticked = self.tick();
        let took = start.elapsed();
        let ended = &self.dog.reaper.control_mut().ended;
        assert_eq!((ended.len(), ticked.reaped), (count as usize, lanes.min(count) as usize));
        let in_order = |pair: &[(WorkerId, Nanos)]| pair[0].0 != pair[1].0 || pair[0].1 < pair[1].1;
        assert!(ended.windows(2).all(in_order), "the order of deadlines");
        for index in 0..count {
            self.arm(index % lanes, index / lanes, FAR_NS);
        }
        self.write_news(self.geometry().timers);
        self.drain_and_apply();
        took
    }
}

/// Writes records to a lane on a thread of its own, at the pace of a worker that does nothing but
/// acquire and release: a clock read before each.
pub struct LiveProducer {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl LiveProducer {
    /// Starts it on the first lane.
    ///
    /// # Panics
    /// Where that lane's writer was taken before.
    pub fn start(stage: &mut Stage) -> LiveProducer {
        let (mut writer, stop) = (stage.take_writer(), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                for timer in 0..64 {
                    black_box(hangwatch::now());
                    writer.write(Operation::Acquire, Place::Own, timer, [1, 2, 1]);
                }
            }
        });
        LiveProducer { stop, thread: Some(thread) }
    }
}

impl Drop for LiveProducer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// The default lanes, `lanes` of them.
pub fn default_lanes(lanes: u32) -> Geometry {
    Geometry { lanes, ..Geometry::default() }
}

/// Lanes as small as they can be but for their 64 timers: for segments of very many.
pub fn small_lanes(lanes: u32) -> Geometry {
    Geometry { lanes, timers: 64, records: 64, scopes: 16, lane_scopes: 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_does_what_is_timed() {
        let mut stage = Stage::new(default_lanes(8));
        stage.time_idle_tick();
        assert_eq!(stage.time_drain(100).1, 800);
        assert_eq!(stage.time_drain(256).1, 8 * 256);
        stage.time_mass_expiry(200);
        stage.time_idle_tick();
        stage.time_mass_expiry(200);
    }
}
