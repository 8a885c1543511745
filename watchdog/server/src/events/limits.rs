//! Bounds how often the log repeats one kind of event about one thread slot or process.
//!
//! A worker can cause some events at will by writing invalid data into the shared memory. Each slot has a
//! token bucket per kind of event, and each kind has one for all slots, so that one slot cannot use up the
//! lines of the others. Dropped lines are counted and reported by
//! [`What::LeftOut`](super::What::LeftOut), at most once a second and at the end.
//!
//! Only log lines are dropped. Metrics, the hook and incidents get every event.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often dropped lines are reported.
pub(crate) const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of buckets. Slots beyond it share the bucket of their kind.
const MOST_BUCKETS: usize = 16_384;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum About {
    /// A lane.
    Lane(u32),
    /// A process.
    Process(u32),
    /// The watchdog itself.
    Itself,
}

/// The size of a bucket and how fast it refills.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) at_once: u32,
    pub(super) per_s: f64,
}

/// The rates of one kind of event: for one slot, and for all together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) one: Rate,
    pub(super) all: Rate,
}

/// For deadlines and kills. All timers of a slot may expire at once.
pub(super) const OF_WORK: Rates =
    Rates { one: Rate { at_once: 1024, per_s: 20.0 }, all: Rate { at_once: 20_000, per_s: 200.0 } };
/// For events that only a broken or hostile worker, or a broken host, causes.
pub(super) const OF_NONSENSE: Rates =
    Rates { one: Rate { at_once: 4, per_s: 0.02 }, all: Rate { at_once: 300, per_s: 2.0 } };

#[derive(Debug)]
struct Bucket {
    lines: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: Rate, now: Instant) -> Bucket {
        Bucket { lines: f64::from(rate.at_once), at: now }
    }

    fn fill(&mut self, rate: Rate, now: Instant) {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * rate.per_s;
        self.lines = (self.lines + earned).min(f64::from(rate.at_once));
        self.at = now;
    }

    fn has_room(&self) -> bool {
        self.lines >= 1.0
    }
}

/// An event's kind, in one segment.
type Kind = (&'static str, &'static str);

/// The dropped lines of one kind.
#[derive(Debug, Default)]
struct LeftOut {
    lines: u64,
    /// The slot or process of the last dropped line.
    about: Option<About>,
    several: bool,
}

/// The dropped lines of one kind, as they are reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftOutLines {
    pub(crate) kind: &'static str,
    pub(crate) lines: u64,
    /// The lane or process, if all lines were about one.
    pub(crate) lane: Option<u32>,
    pub(crate) pid: Option<u32>,
}

/// All buckets.
#[derive(Debug, Default)]
pub(super) struct Limits {
    all: BTreeMap<Kind, Bucket>,
    each: BTreeMap<(Kind, About), Bucket>,
    left_out: BTreeMap<Kind, LeftOut>,
    /// When unused buckets were last removed, which visits every bucket.
    forgotten_at: Option<Instant>,
}

impl Limits {
    /// Whether a line may be written. Otherwise it is counted.
    pub(super) fn admit(&mut self, kind: Kind, about: About, rates: Rates, now: Instant) -> bool {
        self.forget_full(now);
        let all = self.all.entry(kind).or_insert_with(|| Bucket::full(rates.all, now));
        all.fill(rates.all, now);
        let has_own = about != About::Itself
            && (self.each.len() < MOST_BUCKETS || self.each.contains_key(&(kind, about)));
        let mut own = has_own.then(|| {
            let own = self.each.entry((kind, about));
            own.or_insert_with(|| Bucket::full(rates.one, now))
        });
        if let Some(own) = &mut own {
            own.fill(rates.one, now);
        }
        if all.has_room() && own.as_ref().is_none_or(|own| own.has_room()) {
            all.lines -= 1.0;
            own.into_iter().for_each(|own| own.lines -= 1.0);
            return true;
        }
        let left_out = self.left_out.entry(kind).or_default();
        left_out.lines += 1;
        left_out.several |= left_out.about.is_some_and(|before| before != about);
        left_out.about = Some(about);
        false
    }

    /// Removes buckets that have been unused for so long that they are full again.
    fn forget_full(&mut self, now: Instant) {
        const LONG: Duration = Duration::from_mins(5);
        let is_due = |at: Instant| now.saturating_duration_since(at) >= REPORT_INTERVAL;
        if self.each.len() >= MOST_BUCKETS && self.forgotten_at.is_none_or(is_due) {
            self.forgotten_at = Some(now);
            self.each.retain(|_, bucket| now.saturating_duration_since(bucket.at) < LONG);
        }
    }

    /// Takes the dropped lines of a segment.
    fn take(&mut self, segment: &str) -> Vec<LeftOutLines> {
        let kinds: Vec<Kind> =
            self.left_out.keys().filter(|(_, of)| *of == segment).copied().collect();
        let told = |kind: Kind| {
            let LeftOut { lines, about, several } = self.left_out.remove(&kind)?;
            let about = about.filter(|_| !several);
            let lane = if let Some(About::Lane(lane)) = about { Some(lane) } else { None };
            let pid = if let Some(About::Process(pid)) = about { Some(pid) } else { None };
            Some(LeftOutLines { kind: kind.0, lines, lane, pid })
        };
        kinds.into_iter().filter_map(told).collect()
    }
}

/// The limits of this process. [`emit`](super::emit) can be called from any thread.
static LIMITS: Mutex<Limits> = Mutex::new(Limits {
    all: BTreeMap::new(),
    each: BTreeMap::new(),
    left_out: BTreeMap::new(),
    forgotten_at: None,
});

fn limits() -> MutexGuard<'static, Limits> {
    LIMITS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a line of this kind may be written now. Otherwise it is counted.
pub(super) fn admit(kind: Kind, about: About, rates: Rates) -> bool {
    limits().admit(kind, about, rates, Instant::now())
}

/// Whether a segment has dropped lines that were not reported.
pub(crate) fn is_pending(segment: &str) -> bool {
    limits().left_out.keys().any(|(_, of)| *of == segment)
}

/// Takes the dropped lines of a segment.
pub(crate) fn take(segment: &str) -> Vec<LeftOutLines> {
    limits().take(segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = ("quarantined", "train");

    #[test]
    fn one_slot_does_not_use_up_the_lines_of_others() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let mut admitted = |lane, times| {
            let admit = |_: &u32| limits.admit(KIND, About::Lane(lane), OF_NONSENSE, now);
            (0..times).filter(admit).count()
        };
        assert_eq!(admitted(7, 1000), 4);
        assert_eq!(admitted(8, 1), 1);
        assert_eq!(limits.take("other"), []);
        let told = LeftOutLines { kind: "quarantined", lines: 996, lane: Some(7), pid: None };
        assert_eq!(limits.take("train"), [told]);
        assert_eq!(limits.take("train"), [], "reported once");
    }

    #[test]
    fn all_slots_together_are_limited_and_counted() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let mut admitted = 0;
        for round in 0..50 {
            let now = now + Duration::from_millis(round);
            let admit = |lane: &u32| limits.admit(KIND, About::Lane(*lane), OF_NONSENSE, now);
            admitted += (0..65_536).filter(admit).count() as u64;
        }
        assert!((300..310).contains(&admitted), "{admitted}");
        assert!(limits.each.len() <= MOST_BUCKETS, "{}", limits.each.len());
        let told = limits.take("train");
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].lines, 50 * 65_536 - admitted);
        assert_eq!((told[0].lane, told[0].pid), (None, None));
    }

    #[test]
    fn slot_gets_lines_back_over_time() {
        let (mut limits, begun) = (Limits::default(), Instant::now());
        let mut admit = |now| limits.admit(("expired", "train"), About::Process(7), OF_WORK, now);
        assert_eq!(
            (0..2000).filter(|_| admit(begun)).count(),
            1024,
            "all timers of a slot at once"
        );
        assert_eq!((0..2000).filter(|_| admit(begun + Duration::from_secs(1))).count(), 20);
    }
}
