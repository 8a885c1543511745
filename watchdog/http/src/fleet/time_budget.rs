//! The time budget of one target, without the time that this process itself used up.
//!
//! All targets are asked on one thread. While it parses one state, or does not run because the machine is
//! busy, the answers of other targets wait unread, and those targets must not count as slow. [`OwnDelay`] adds
//! up how late this thread was, and [`TimeBudget`] gives that time back.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How often the thread's delay is measured.
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

    /// Measures the delay periodically, as long as it is polled.
    pub(super) async fn measure(&self) -> Infallible {
        loop {
            sleep(PERIOD).await;
            self.late.set(self.late());
            self.looked_at.set(Instant::now());
        }
    }

    /// Returns the delay so far, including what is not recorded yet. A period of delay is tolerated.
    fn late(&self) -> Duration {
        self.late.get() + self.looked_at.get().elapsed().saturating_sub(2 * PERIOD)
    }
}

/// The time of one target, starting when this is created.
pub(super) struct TimeBudget<'a> {
    timeout: Duration,
    since: Instant,
    own_delay: &'a OwnDelay,
    late_before: Duration,
    /// How long the budget was paused before, and since when it is paused now.
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

    /// Runs `talk`; `None` if it exceeds the budget.
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

    /// Waits for something that the target cannot influence. The budget is paused meanwhile.
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

    /// Runs a test with a clock that advances when all tasks wait, and the measurement beside it.
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
    fn silent_target_gets_its_time_and_no_more() {
        run(async |own_delay| {
            let began = Instant::now();
            let got = TimeBudget::new(TIMEOUT, &own_delay).with(pending::<()>()).await;
            assert_eq!(got, None);
            let took = began.elapsed();
            assert!(took >= TIMEOUT && took < 2 * TIMEOUT, "by the test's clock: {took:?}");
        });
    }

    #[test]
    fn answer_counts_if_this_thread_was_late() {
        run(async |own_delay| {
            let (tell, told) = oneshot::channel();
            spawn_local(async move {
                // Nothing is polled meanwhile; the answer arrives after that.
                advance(10 * TIMEOUT).await;
                sleep(TIMEOUT / 2).await;
                tell.send(7)
            });
            let got = TimeBudget::new(TIMEOUT, &own_delay).with(told).await;
            assert_eq!(got, Some(Ok(7)));
        });
    }

    #[test]
    fn waiting_for_this_process_costs_no_budget() {
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
    fn punctual_thread_adds_no_time() {
        run(async |own_delay| {
            sleep(100 * PERIOD).await;
            assert_eq!(own_delay.late(), Duration::ZERO);
        });
    }
}
