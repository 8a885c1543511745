//! The test bench: a segment with a server, a listener and workers in the test's process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use hangwatch::{CreateOptions, Geometry, Segment, Worker};
use hangwatch_http::listen::{Address, Audience, Bound, Listening, Subject, Tally};
use hangwatch_server::{Server, ServerOptions};

use crate::client::PATIENCE;

/// Dropped in this order: the listener before what it reads.
pub(crate) struct Stage {
    pub(crate) listening: Listening,
    pub(crate) server: Server,
    pub(crate) segment: Segment,
}

impl Stage {
    pub(crate) fn new(address: &str, options: CreateOptions) -> Stage {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let number = STAGES.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-listen-{number}-{}", std::process::id());
        let segment = Segment::create(&name, options).unwrap();
        let bound = Bound::new(&address.parse().unwrap(), Audience::ThisHost, None).unwrap();
        let tally = Arc::<Tally>::default();
        let counted = Arc::clone(&tally);
        let log = move |event| counted.note(&event);
        let server = Server::start(segment, ServerOptions::default(), log).unwrap();
        let (vitals, host) = (server.vitals(), "test-host".to_owned());
        let listening = bound.serve(Subject { vitals, tally, host }).unwrap();
        Stage { listening, server, segment }
    }

    pub(crate) fn small(address: &str) -> Stage {
        Stage::new(address, small())
    }

    pub(crate) fn address(&self) -> &Address {
        self.listening.address()
    }

    pub(crate) fn worker(&self) -> Worker {
        Worker::attach(self.segment.name()).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = Segment::remove(self.segment.name());
    }
}

/// The options of a small segment.
pub(crate) fn small() -> CreateOptions {
    let geometry = Geometry { lanes: 8, timers: 8, records: 64, scopes: 16, lane_scopes: 4 };
    CreateOptions { geometry, ..CreateOptions::default() }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut met: impl FnMut() -> bool) {
    let from = Instant::now();
    while !met() {
        assert!(from.elapsed() < PATIENCE, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
