//! From the deadline to the signal: hangwatch's server with a real worker process, in turn with the
//! machine's own limit.

use std::num::NonZeroU64;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use hangwatch::sys::pidfd::Pidfd;
use hangwatch::sys::{clock, host};
use hangwatch::{CreateOptions, Segment};
use hangwatch_cli::server::events::What;
use hangwatch_cli::server::{Server, ServerOptions};
use rustix::process::Signal;
use rustix::thread::{ClockId, Timespec, clock_nanosleep_absolute};

use crate::process::Player;

/// How late the signals were, ns, of either contender.
#[derive(Debug, Default)]
pub struct Lateness {
    /// hangwatch: by the event's `late_ns`, measured when the signal was sent.
    pub hangwatch: Vec<f64>,
    /// `clock_nanosleep` to the deadline, then `pidfd_send_signal`, in a thread with the server's
    /// timer slack.
    pub limit: Vec<f64>,
}

type Failed = Box<dyn std::error::Error>;

/// Takes `samples` of both in turn, each with a deadline `ahead` of its acquire.
///
/// # Errors
/// Where a process or the server cannot be started.
pub fn measure(ahead: Duration, samples: usize) -> Result<Lateness, Failed> {
    let name = format!("bench-latency-{}-{}", std::process::id(), ahead.as_millis());
    let segment = Segment::create(&name, CreateOptions::default())?;
    let (sender, late) = channel();
    let server = Server::start(segment, ServerOptions::default(), move |event| {
        if let What::Expired(expiry) = event.what {
            let _ = sender.send(expiry.late_ns);
        }
    })?;
    let mut lateness = Lateness::default();
    for _ in 0..samples {
        lateness.hangwatch.push(hangwatch(&name, ahead, &late)?);
        lateness.limit.push(limit(ahead)?);
    }
    server.stop();
    Segment::remove(&name)?;
    Ok(lateness)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of less than a second")]
fn hangwatch(name: &str, ahead: Duration, late: &Receiver<u64>) -> Result<f64, Failed> {
    let _worker = Player::start(&["hang", name, &ahead.as_nanos().to_string()])?;
    Ok(late.recv_timeout(ahead + Duration::from_secs(10))? as f64)
}

fn limit(ahead: Duration) -> Result<f64, Failed> {
    let mut victim = Player::start(&["wait"])?;
    victim.ready();
    let pidfd = Pidfd::open(victim.pid())?;
    let sleeper = move || -> Result<f64, String> {
        host::set_timer_slack(NonZeroU64::MIN).map_err(|error| error.to_string())?;
        let deadline_ns = clock::monotonic_ns() + ahead.as_nanos() as u64;
        sleep_until(deadline_ns);
        pidfd.signal(Signal::KILL).map_err(|error| error.to_string())?;
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of less than a second")]
        Ok((clock::monotonic_ns() - deadline_ns) as f64)
    };
    Ok(std::thread::spawn(sleeper).join().expect("it does not panic")?)
}

fn sleep_until(deadline_ns: u64) {
    const NS_PER_S: u64 = 1_000_000_000;
    let request = Timespec {
        tv_sec: (deadline_ns / NS_PER_S).cast_signed(),
        tv_nsec: (deadline_ns % NS_PER_S).cast_signed(),
    };
    while clock_nanosleep_absolute(ClockId::Monotonic, &request).is_err() {}
}
