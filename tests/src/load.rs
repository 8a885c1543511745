//! Many threads, each with a lane of its own, that acquire and release at a walking pace, and let a
//! deadline pass now and then.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use hangwatch::{AcquireError, Guard, Released, Signal, Worker};

use crate::random::Random;

const LONG: Duration = Duration::from_mins(10);
/// How long after its deadline a timer must have been reported, however loaded the machine is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Overdue timers of one thread at once.
const OVERDUE: usize = 4;

/// What the threads did and saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Acquires that were released.
    pub pairs: u64,
    /// Deadlines that were let pass.
    pub overdue: u64,
    /// Of those, never reported.
    pub missed: u64,
    /// Released with minutes to go, and told anything but that it was in time.
    pub wronged: u64,
}

impl Sum {
    /// Adds another's.
    pub fn add(&mut self, other: Sum) {
        self.pairs += other.pairs;
        self.overdue += other.overdue;
        self.missed += other.missed;
        self.wronged += other.wronged;
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { pairs, overdue, missed, wronged } = self;
        write!(f, "{pairs} {overdue} {missed} {wronged}")
    }
}

impl FromStr for Sum {
    type Err = String;

    fn from_str(text: &str) -> Result<Sum, String> {
        let counts: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
        match counts.map_err(|error| error.to_string())?[..] {
            [pairs, overdue, missed, wronged] => Ok(Sum { pairs, overdue, missed, wronged }),
            _ => Err(format!("no sum: {text:?}")),
        }
    }
}

/// The threads.
pub struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Sum, AcquireError>>>,
}

impl Load {
    /// Starts so many, each of which sleeps up to `pace` in each of its scopes.
    pub fn start(worker: Worker, threads: u64, pace: Duration, random: &mut Random) -> Load {
        let over = Arc::<AtomicBool>::default();
        let threads = (0..threads)
            .map(|_| {
                let (over, random) = (Arc::clone(&over), Random::new(random.next_u64()));
                spawn(move || walk(worker, &over, pace, random))
            })
            .collect();
        Load { over, threads }
    }

    /// Ends it, once the overdue timers have been waited for.
    ///
    /// # Errors
    /// The first acquire that failed.
    pub fn rest(self) -> Result<Sum, String> {
        self.over.store(true, Ordering::Relaxed);
        let mut sum = Sum::default();
        for thread in self.threads {
            let walked = thread.join().map_err(|_| "a thread of the load panicked")?;
            sum.add(walked.map_err(|error| error.to_string())?);
        }
        Ok(sum)
    }
}

fn walk(
    worker: Worker,
    over: &AtomicBool,
    pace: Duration,
    mut random: Random,
) -> Result<Sum, AcquireError> {
    let long = worker.scope("walk")?;
    let short = worker.with_signal(Signal::NotifyOnly).scope("overdue")?;
    let mut sum = Sum::default();
    let mut overdue: VecDeque<(Guard, Instant)> = VecDeque::new();
    let up_to = u64::try_from(pace.as_micros()).unwrap_or(u64::MAX).max(1);
    while !over.load(Ordering::Relaxed) {
        let guard = long.expires(LONG)?;
        sleep(Duration::from_micros(random.within(0..up_to)));
        sum.pairs += 1;
        sum.wronged += u64::from(guard.release() != Released::InTime);
        if overdue.len() < OVERDUE && random.one_in(16) {
            let allowance = Duration::from_micros(random.within(500..100_000));
            let given_up = Instant::now() + allowance + PATIENCE;
            overdue.push_back((short.expires(allowance)?, given_up));
        }
        while overdue.front().is_some_and(|(_, given_up)| *given_up < Instant::now()) {
            sum.take(overdue.pop_front());
        }
    }
    while let Some((guard, given_up)) = overdue.pop_front() {
        sleep(given_up.saturating_duration_since(Instant::now()));
        sum.take(Some((guard, given_up)));
    }
    Ok(sum)
}

impl Sum {
    fn take(&mut self, overdue: Option<(Guard, Instant)>) {
        if let Some((guard, _)) = overdue {
            self.overdue += 1;
            self.missed += u64::from(guard.release() != Released::Reported);
        }
    }
}
