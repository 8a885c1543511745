//! What the watchdog itself costs while nothing happens.

use std::time::Duration;

use hangwatch::{CreateOptions, Geometry, Segment};
use hangwatch_server::{Server, ServerOptions};

use crate::measure::cpu_time;
use crate::process::Player;

/// The fraction of one core that a server over `lanes` idle lanes uses, all its threads together, at
/// the default interval, over `span`.
///
/// # Errors
/// Where the server or the worker process cannot be started.
///
/// # Panics
/// Where the server stops serving.
pub fn idle_server(lanes: u32, span: Duration) -> Result<f64, Box<dyn std::error::Error>> {
    let name = format!("bench-idle-{}", std::process::id());
    // One more: the worker's main thread has one too.
    let geometry = Geometry { lanes: lanes + 1, ..Geometry::default() };
    let segment = Segment::create(&name, CreateOptions { geometry, ..CreateOptions::default() })?;
    let server = Server::start(segment, ServerOptions::default(), |_| ())?;
    let mut worker = Player::start(&["idle", &name, &lanes.to_string(), "1"])?;
    worker.ready();
    // The lanes are admitted first, one at a time.
    std::thread::sleep(Duration::from_secs(3));
    let before = cpu_time();
    std::thread::sleep(span);
    let used = cpu_time().saturating_sub(before);
    let health = server.health();
    assert_eq!(health.workers, 1, "one process, {lanes} lanes");
    drop(server);
    Segment::remove(&name)?;
    Ok(used.as_secs_f64() / span.as_secs_f64())
}
