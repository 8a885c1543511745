//! How long a target is waited for: its own time, and nothing of what this process itself used up.
//!
//! All targets are talked to on one thread. While it reads the state of one, or stands still because the
//! machine is busy, answers of others wait unread, and their targets must not be called slow for it. So
//! a [`Pace`] adds up how late this thread was to look, and a [`Patience`] gives that back.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

/// How often it is noted that this thread still looks at everybody.
const BEAT: Duration = Duration::from_millis(10);

/// Adds up how late this thread was.
pub(super) struct Pace {
    looked_at: Cell<Instant>,
    late: Cell<Duration>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { looked_at: Cell::new(Instant::now()), late: Cell::new(Duration::ZERO) }
    }

    /// Notes it at each beat, for as long as it is polled.
    pub(super) async fn beat(&self) -> Infallible {
        loop {
            sleep(BEAT).await;
            self.late.set(self.late());
            self.looked_at.set(Instant::now());
        }
    }

    /// How late it was so far, what nobody has noted yet included. A beat is allowed to come as late as
    /// it is long.
    fn late(&self) -> Duration {
        self.late.get() + self.looked_at.get().elapsed().saturating_sub(2 * BEAT)
    }
}

/// The time of one target, which runs from when this is made.
pub(super) struct Patience<'a> {
    timeout: Duration,
    since: Instant,
    pace: &'a Pace,
    late_before: Duration,
    /// How long it was kept waiting before, and since when it is now.
    kept: Cell<Duration>,
    kept_since: Cell<Option<Instant>>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(timeout: Duration, pace: &'a Pace) -> Patience<'a> {
        Patience {
            timeout,
            since: Instant::now(),
            pace,
            late_before: pace.late(),
            kept: Cell::new(Duration::ZERO),
            kept_since: Cell::new(None),
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
    pub(super) async fn beside<T>(&self, wait: impl Future<Output = T>) -> T {
        self.kept_since.set(Some(Instant::now()));
        let done = wait.await;
        self.kept.set(self.kept());
        self.kept_since.set(None);
        done
    }

    fn until(&self) -> Instant {
        self.since + self.timeout + self.kept() + self.pace.late().saturating_sub(self.late_before)
    }

    fn kept(&self) -> Duration {
        self.kept.get() + self.kept_since.get().map_or(Duration::ZERO, |since| since.elapsed())
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
    fn run(test: impl AsyncFnOnce(Rc<Pace>)) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let pace = Rc::new(Pace::new());
            spawn_local({
                let pace = Rc::clone(&pace);
                async move { pace.beat().await }
            });
            test(pace).await;
        });
    }

    #[test]
    fn who_says_nothing_has_its_time_and_no_more() {
        run(async |pace| {
            let began = Instant::now();
            let got = Patience::new(TIMEOUT, &pace).with(pending::<()>()).await;
            assert_eq!(got, None);
            let took = began.elapsed();
            assert!(took >= TIMEOUT && took < 2 * TIMEOUT, "by the test's clock: {took:?}");
        });
    }

    #[test]
    fn what_comes_after_we_were_late_ourselves_still_counts() {
        run(async |pace| {
            let (tell, told) = oneshot::channel();
            spawn_local(async move {
                // Nobody is looked at meanwhile; the answer comes a while after.
                advance(10 * TIMEOUT).await;
                sleep(TIMEOUT / 2).await;
                tell.send(7)
            });
            let got = Patience::new(TIMEOUT, &pace).with(told).await;
            assert_eq!(got, Some(Ok(7)));
        });
    }

    #[test]
    fn who_is_kept_waiting_loses_no_time_by_it() {
        run(async |pace| {
            let patience = Patience::new(TIMEOUT, &pace);
            let talk = async {
                patience.beside(sleep(10 * TIMEOUT)).await;
                sleep(TIMEOUT / 2).await;
            };
            assert_eq!(patience.with(talk).await, Some(()));
        });
    }

    #[test]
    fn a_thread_that_is_never_late_gives_nothing_back() {
        run(async |pace| {
            sleep(100 * BEAT).await;
            assert_eq!(pace.late(), Duration::ZERO);
        });
    }
}
