//! How long a target is waited for: its own time, and nothing of what this process itself used up.
//!
//! All targets are talked to on one thread. While it reads the state of one, or stands still because the
//! machine is busy, answers of others wait unread, and their targets must not be called slow for it. So
//! a [`OwnDelay`] adds up how late this thread was to look, and a [`TimeBudget`] gives that back.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How often it is noted that this thread still looks at everybody.
const PERIOD: Duration = Duration::from_millis(10);

/// Adds up how late this thread was.
pub(super) struct OwnDelay {
    looked_at: Cell<Instant>,
    late: Cell<Duration>,
}

impl OwnDelay {
    pub(super) fn new() -> OwnDelay {
        OwnDelay { looked_at: Cell::new(Instant::now()), late: Cell::new(Duration::ZERO) }
    }

    /// Notes it at each beat, for as long as it is polled.
    pub(super) async fn measure(&self) -> Infallible {
        loop {
            sleep(PERIOD).await;
            self.late.set(self.late());
            self.looked_at.set(Instant::now());
        }
    }

    /// How late it was so far, what nobody has noted yet included. A beat is allowed to come as late as
    /// it is long.
    fn late(&self) -> Duration {
        self.late.get() + self.looked_at.get().elapsed().saturating_sub(2 * PERIOD)
    }
}

/// The time of one target, which runs from when this is made.
pub(super) struct TimeBudget<'a> {
    timeout: Duration,
    since: Instant,
    own_delay: &'a OwnDelay,
    late_before: Duration,
    /// How long it was kept waiting before, and since when it is now.
    kept: Cell<Duration>,
    paused_since: Cell<Option<Instant>>,
}

impl<'a> TimeBudget<'a> {
    pub(super) fn new(timeout: Duration, own_delay: &'a OwnDelay) -> TimeBudget<'a> {
        TimeBudget {
            timeout,
            since: Instant::now(),
            own_delay,
            late_before: own_delay.late(),
            kept: Cell::new(Duration::ZERO),
            paused_since: Cell::new(None),
        }
    }

    /// What `talk` comes to, if it does in time.
    pub(super) async fn with<T>(&self, talk: impl Future<Output = T>) -> Option<T> {
        let mut talk = pin!(talk);
        loop {
            if let Ok(done) = timeout_at(self.until(), &mut talk).await {
                return Some(done);
            }
            if Instant::now() >= self.until() {
                return None;
            }
        }
    }

    /// Waits for something that is not the target's to give: its time stands still.
    pub(super) async fn paused_during<T>(&self, wait: impl Future<Output = T>) -> T {
        self.paused_since.set(Some(Instant::now()));
        let done = wait.await;
        self.kept.set(self.kept());
        self.paused_since.set(None);
        done
    }

    fn until(&self) -> Instant {
        self.since
            + self.timeout
            + self.kept()
            + self.own_delay.late().saturating_sub(self.late_before)
    }

    fn kept(&self) -> Duration {
        self.kept.get() + self.paused_since.get().map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::rc::Rc;

    use tokio::sync::oneshot;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::advance;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    /// Runs with a clock that a test moves, and that jumps where all tasks wait; beside it the pace.
    fn run(test: impl AsyncFnOnce(Rc<OwnDelay>)) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let own_delay = Rc::new(OwnDelay::new());
            spawn_local({
                let own_delay = Rc::clone(&own_delay);
                async move { own_delay.measure().await }
            });
            test(own_delay).await;
        });
    }

    #[test]
    fn who_says_nothing_has_its_time_and_no_more() {
        run(async |own_delay| {
            let began = Instant::now();
            let got = TimeBudget::new(TIMEOUT, &own_delay).with(pending::<()>()).await;
            assert_eq!(got, None);
            let took = began.elapsed();
            assert!(took >= TIMEOUT && took < 2 * TIMEOUT, "by the test's clock: {took:?}");
        });
    }

    #[test]
    fn what_comes_after_we_were_late_ourselves_still_counts() {
        run(async |own_delay| {
            let (tell, told) = oneshot::channel();
            spawn_local(async move {
                // Nobody is looked at meanwhile; the answer comes a while after.
                advance(10 * TIMEOUT).await;
                sleep(TIMEOUT / 2).await;
                tell.send(7)
            });
            let got = TimeBudget::new(TIMEOUT, &own_delay).with(told).await;
            assert_eq!(got, Some(Ok(7)));
        });
    }

    #[test]
    fn who_is_kept_waiting_loses_no_time_by_it() {
        run(async |own_delay| {
            let time_budget = TimeBudget::new(TIMEOUT, &own_delay);
            let talk = async {
                time_budget.paused_during(sleep(10 * TIMEOUT)).await;
                sleep(TIMEOUT / 2).await;
            };
            assert_eq!(time_budget.with(talk).await, Some(()));
        });
    }

    #[test]
    fn a_thread_that_is_never_late_gives_nothing_back() {
        run(async |own_delay| {
            sleep(100 * PERIOD).await;
            assert_eq!(own_delay.late(), Duration::ZERO);
        });
    }
}
