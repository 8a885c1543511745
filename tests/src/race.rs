//! Releases that race the watchdog to the deadline, by one thread of a worker.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use hangwatch::{AcquireError, Guard, Released, Signal, Worker};

use crate::random::Random;

/// The scope that is timed.
pub const SCOPE: &str = "race";

const LONG: Duration = Duration::from_hours(1);
/// Guards held at once; the lane of a stage has two more timers.
const HELD: usize = 6;

/// How the acquires ended, by what the releases said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endings {
    /// Acquires.
    pub acquired: u64,
    /// In time.
    pub in_time: u64,
    /// After a report.
    pub reported: u64,
    /// Condemned, still or cleared already.
    pub condemned: u64,
    /// Guards with an hour to go whose release said anything but that it was in time.
    pub wronged: u64,
}

impl Endings {
    /// Adds another's.
    pub fn add(&mut self, other: Endings) {
        self.acquired += other.acquired;
        self.in_time += other.in_time;
        self.reported += other.reported;
        self.condemned += other.condemned;
        self.wronged += other.wronged;
    }
}

impl fmt::Display for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endings { acquired, in_time, reported, condemned, wronged } = self;
        write!(f, "{acquired} {in_time} {reported} {condemned} {wronged}")
    }
}

impl FromStr for Endings {
    type Err = String;

    fn from_str(text: &str) -> Result<Endings, String> {
        let counts: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
        match counts.map_err(|error| error.to_string())?[..] {
            [acquired, in_time, reported, condemned, wronged] => {
                Ok(Endings { acquired, in_time, reported, condemned, wronged })
            }
            _ => Err(format!("no endings: {text:?}")),
        }
    }
}

/// What a timer asks for at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// Reports alone.
    Reports,
    /// Reports or a signal, at random: for a worker that the watchdog spares.
    Signals,
}

/// A guard, and when it is due; those with an hour to go are released when their turn comes.
struct Runner {
    guard: Guard,
    due: Option<Instant>,
}

/// Races: so many acquires, and as many releases about the time of their deadlines.
///
/// # Errors
/// The worker's.
pub fn race(
    worker: Worker,
    random: &mut Random,
    count: u64,
    asks: Asks,
) -> Result<Endings, AcquireError> {
    let scopes = [worker.with_signal(Signal::NotifyOnly).scope(SCOPE)?, worker.scope(SCOPE)?];
    let mut endings = Endings::default();
    let mut held: VecDeque<Runner> = VecDeque::new();
    while endings.acquired < count || !held.is_empty() {
        if endings.acquired < count && held.len() < HELD && !random.one_in(3) {
            let is_short = random.within(0..4) > 0;
            let allowance =
                if is_short { Duration::from_micros(random.within(30..250)) } else { LONG };
            let signals = asks == Asks::Signals && random.one_in(2);
            let from = Instant::now();
            let guard = scopes[usize::from(signals)].expires(allowance)?;
            held.push_back(Runner { guard, due: is_short.then_some(from + allowance) });
            endings.acquired += 1;
        } else if let Some(runner) = held.pop_front() {
            endings.take(runner, random);
        }
    }
    Ok(endings)
}

impl Endings {
    fn take(&mut self, runner: Runner, random: &mut Random) {
        if let Some(due) = runner.due {
            // Shortly before the deadline, or shortly after: that is the race.
            let at = due + Duration::from_micros(random.within(0..120));
            let at = at.checked_sub(Duration::from_micros(40)).unwrap_or(at);
            while Instant::now() < at {
                std::hint::spin_loop();
            }
        }
        let released = runner.guard.release();
        match released {
            Released::InTime => self.in_time += 1,
            Released::Reported => self.reported += 1,
            Released::TooLate | Released::NotArmed => self.condemned += 1,
        }
        self.wronged += u64::from(runner.due.is_none() && released != Released::InTime);
    }
}
