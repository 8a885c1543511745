//! Tells the service manager the server's state: `READY`, `WATCHDOG`, `STATUS`, `RELOADING`, `STOPPING`.
//!
//! The protocol is `sd_notify(3)`: datagrams to the socket named by `NOTIFY_SOCKET`. Without that variable
//! nothing is sent. A thread sends, so that a manager that does not read blocks nothing else.
//!
//! `WATCHDOG=1` is sent only if a tick has ended since the last one. So the manager notices a stuck tick even
//! if the rest of the process works; it kills the process, and a successor adopts the segment.

use std::ffi::OsStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::{Health, State, Vitals};

/// The variables of the protocol. They are meant for hangwatch and not for the command it runs.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// How often the state is checked before the server serves.
const STARTING: Duration = Duration::from_millis(10);
/// How often the state is checked after that, at least. This bounds the age of the status.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of the server waits for `STOPPING=1` to be sent.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Keeps the service manager informed until it is dropped.
#[derive(Debug)]
pub struct Notifier {
    orders: Option<Sender<Order>>,
    done: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

/// A message that the configuration code asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Reloading,
    Reloaded,
}

impl Notifier {
    /// Starts the thread; `None` if there is no manager to inform.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(vitals: Vitals) -> std::io::Result<Option<Notifier>> {
        if std::env::var_os(VARIABLES[0]).is_none_or(|socket| socket == *OsStr::new("")) {
            return Ok(None);
        }
        let (orders, to_do) = channel();
        let (done, is_done) = channel();
        let thread =
            thread::Builder::new().name("hangwatch-notify".to_owned()).spawn(move || {
                tell_all(&vitals, &to_do);
                let _ = done.send(());
            })?;
        Ok(Some(Notifier { orders: Some(orders), done: is_done, thread: Some(thread) }))
    }

    /// Sends `RELOADING=1`: the settings are being read again.
    pub fn reloading(&self) {
        self.order(Order::Reloading);
    }

    /// Sends `READY=1`: the settings have been read again.
    pub fn reloaded(&self) {
        self.order(Order::Reloaded);
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // The thread ends only after this handle is dropped.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.orders = None;
        if self.done.recv_timeout(LAST_WORD).is_ok() {
            let _ = self.thread.take().map(JoinHandle::join);
        }
    }
}

fn tell_all(vitals: &Vitals, orders: &Receiver<Order>) {
    let between = sd_notify::watchdog_enabled();
    let mut notifications = Notifications::new(vitals.segment().name(), between, Instant::now());
    loop {
        say(&notifications.next_lines(&vitals.health(), Instant::now()));
        match orders.recv_timeout(notifications.pause()) {
            Ok(Order::Reloading) => say_reloading(),
            Ok(Order::Reloaded) => say(&["READY=1".to_owned()]),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    say(&["STOPPING=1".to_owned()]);
}

/// Sends `RELOADING=1` with the time, without which `Type=notify-reload` ignores it.
fn say_reloading() {
    let now = NotifyState::monotonic_usec_now().map(|now| now.to_string());
    say(&["RELOADING=1".to_owned()].into_iter().chain(now).collect::<Vec<_>>());
}

fn say(lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let lines: Vec<NotifyState<'_>> = lines.iter().map(|line| NotifyState::Custom(line)).collect();
    if let Err(error) = sd_notify::notify(&lines) {
        // At most once per check, and only if the variable names no socket.
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

/// What was sent, and so what is left to send.
#[derive(Debug)]
struct Notifications {
    segment: &'static str,
    /// How long the manager waits for a `WATCHDOG=1`, if it does.
    patience: Option<Duration>,
    is_ready: bool,
    told_ticks: u64,
    told_at: Instant,
    status: String,
}

impl Notifications {
    fn new(segment: &'static str, patience: Option<Duration>, now: Instant) -> Notifications {
        let status = String::new();
        Notifications { segment, patience, is_ready: false, told_ticks: 0, told_at: now, status }
    }

    /// Returns how long to wait before the next check.
    fn pause(&self) -> Duration {
        if self.is_ready {
            self.between().map_or(LOOK, |between| between.min(LOOK))
        } else {
            STARTING
        }
    }

    /// Returns how often to send `WATCHDOG=1`: three times as often as necessary.
    fn between(&self) -> Option<Duration> {
        self.patience.map(|patience| (patience / 3).max(Duration::from_millis(1)))
    }

    /// Returns the lines to send next.
    fn next_lines(&mut self, health: &Health, now: Instant) -> Vec<String> {
        let mut lines = Vec::new();
        // A standby does not tick. That its thread runs is all it can show.
        let is_well = match health.state {
            State::Standby => true,
            State::Serving => health.ticks > self.told_ticks,
            State::Ended(_) => false,
        };
        if is_well && !self.is_ready {
            self.is_ready = true;
            lines.push("READY=1".to_owned());
        }
        if !self.is_ready {
            return lines;
        }
        let is_time = self.between().is_some_and(|between| now >= self.told_at + between);
        if is_well && is_time {
            lines.push("WATCHDOG=1".to_owned());
            (self.told_ticks, self.told_at) = (health.ticks, now);
        }
        let status = status(self.segment, health);
        if status != self.status {
            lines.push(format!("STATUS={status}"));
            self.status = status;
        }
        lines
    }
}

fn status(segment: &str, health: &Health) -> String {
    let workers = match health.workers {
        1 => "1 worker".to_owned(),
        count => format!("{count} workers"),
    };
    match health.state {
        State::Standby => format!("standing by for segment {segment}"),
        State::Ended(_) => format!("segment {segment} is not served any more"),
        State::Serving if health.braked => format!(
            "segment {segment}: too many kills, nothing is signalled (hangwatch release-brake)"
        ),
        State::Serving => format!("segment {segment}: {workers}, {} reaped", health.reaped),
    }
}

#[cfg(test)]
mod tests {
    use hangwatch_core::wire::time::Nanos;

    use super::*;
    use crate::Ended;

    fn health(state: State, ticks: u64) -> Health {
        Health {
            state,
            last_tick_at: Nanos(1),
            late: Duration::ZERO,
            latest: Duration::ZERO,
            braked: false,
            workers: 1,
            ticks,
            reaped: 2,
        }
    }

    #[test]
    fn ready_with_the_first_tick_and_alive_with_each_further_one() {
        let begun = Instant::now();
        let mut notifications = Notifications::new("train", Some(Duration::from_secs(3)), begun);
        let mut at = |second: u64, state: State, ticks: u64| {
            let lines = notifications
                .next_lines(&health(state, ticks), begun + Duration::from_secs(second));
            lines.into_iter().filter(|line| !line.starts_with("STATUS")).collect::<Vec<_>>()
        };
        assert_eq!(at(0, State::Serving, 0), [""; 0], "no tick has ended");
        assert_eq!(at(0, State::Serving, 1), ["READY=1"]);
        assert_eq!(at(1, State::Serving, 2), ["WATCHDOG=1"]);
        assert_eq!(at(1, State::Serving, 3), [""; 0], "too early for another one");
        assert_eq!(at(2, State::Serving, 3), ["WATCHDOG=1"]);
        assert_eq!(at(9, State::Serving, 3), [""; 0], "the tick is stuck");
        assert_eq!(at(10, State::Serving, 4), ["WATCHDOG=1"]);
        assert_eq!(at(20, State::Ended(Ended::Truncated), 9), [""; 0]);
    }

    #[test]
    fn standby_is_ready_and_alive_without_ticks() {
        let begun = Instant::now();
        let mut notifications = Notifications::new("train", Some(Duration::from_secs(3)), begun);
        let log_limit =
            notifications.next_lines(&health(State::Standby, 0), begun + Duration::from_secs(1));
        assert_eq!(log_limit, ["READY=1", "WATCHDOG=1", "STATUS=standing by for segment train"]);
        let log_limit =
            notifications.next_lines(&health(State::Standby, 0), begun + Duration::from_secs(2));
        assert_eq!(log_limit, ["WATCHDOG=1"], "the status is sent when it changes");
        let log_limit =
            notifications.next_lines(&health(State::Serving, 1), begun + Duration::from_secs(2));
        assert_eq!(log_limit, ["STATUS=segment train: 1 worker, 2 reaped"]);
    }

    #[test]
    fn no_watchdog_message_without_a_watchdog_timeout() {
        let begun = Instant::now();
        let mut notifications = Notifications::new("train", None, begun);
        let log_limit = notifications.next_lines(&health(State::Serving, 1), begun + LOOK * 100);
        assert_eq!(log_limit, ["READY=1", "STATUS=segment train: 1 worker, 2 reaped"]);
        assert_eq!(notifications.pause(), LOOK);
    }
}
