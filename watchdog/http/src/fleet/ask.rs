//! Asking many targets at once, on one thread.
//!
//! A target has its time from its own connect to its last byte, and no other's work counts in it: how
//! late this process was to look, and how long it kept the target waiting for room, is given back
//! (`time_budget`). How many are connected to at once is bounded, and how much of their bodies is held:
//! a target that floods is cut off at its own bound.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet, spawn_local};

use super::answer::{self, Answer, TargetError, cleaned};
use super::targets::{Place, Target};
use super::time_budget::{OwnDelay, TimeBudget};

/// The most that one body holds, KiB: the state of 10,000 lanes or so.
const MOST_KIB: usize = 16 << 10;
/// What of a body is read without asking for room, KiB: the state of some 50 lanes.
const SMALL_KIB: usize = 64;
/// How many bodies longer than that are read at once.
const LARGE_AT_ONCE: usize = 16;
/// The longest head of an answer, bytes.
const HEAD_BYTES: usize = 64 << 10;
/// The most threads that look up names: as many as wait for a resolver that is gone, no more.
const RESOLVING_THREADS: usize = 64;

/// How targets are asked.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// How long each has.
    pub timeout: Duration,
    /// How many are asked at once, at least 1.
    pub at_once: usize,
}

impl Default for Asking {
    fn default() -> Self {
        Asking { timeout: Duration::from_secs(1), at_once: 256 }
    }
}

/// Who asks, as often as wanted: names that are still being looked up do not add up.
pub struct Asker {
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl Asker {
    /// One that has asked nobody yet.
    ///
    /// # Errors
    /// Where the kernel gives no means to wait for many at once.
    pub fn new() -> io::Result<Asker> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(RESOLVING_THREADS).build()?;
        Ok(Asker { runtime: Some(runtime) })
    }

    /// Asks every target for its state; the answers stand in the order of the targets.
    ///
    /// # Panics
    /// Never: the runtime is there until the asker is dropped.
    pub fn ask(&self, targets: &[Target], asking: Asking) -> Vec<Answer> {
        let runtime = self.runtime.as_ref().expect("it is taken by the drop alone");
        LocalSet::new().block_on(runtime, ask_all(targets, asking))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // A name that is still being looked up is waited for by nobody.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What all conversations share.
struct Bounds {
    timeout: Duration,
    connections: Semaphore,
    /// Room for bodies that are not small.
    large: Semaphore,
    own_delay: OwnDelay,
}

async fn ask_all(targets: &[Target], asking: Asking) -> Vec<Answer> {
    let bounds = Rc::new(Bounds {
        timeout: asking.timeout,
        connections: Semaphore::new(asking.at_once.max(1)),
        large: Semaphore::new(LARGE_AT_ONCE),
        own_delay: OwnDelay::new(),
    });
    let measuring = spawn_local({
        let bounds = Rc::clone(&bounds);
        async move { bounds.own_delay.measure().await }
    });
    let mut asked = JoinSet::new();
    for (index, target) in targets.iter().cloned().enumerate() {
        let bounds = Rc::clone(&bounds);
        asked.spawn_local(async move { (index, ask_one(&target.place, &bounds).await) });
    }
    let nobody = || Err(TargetError::Down("it was not asked".to_owned()));
    let mut answers: Vec<Answer> = targets.iter().map(|_| nobody()).collect();
    while let Some(joined) = asked.join_next().await {
        match joined {
            Ok((index, answer)) => answers[index] = answer,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    measuring.abort();
    answers
}

async fn ask_one(place: &Place, bounds: &Bounds) -> Answer {
    let _door = bounds.connections.acquire().await;
    let time_budget = TimeBudget::new(bounds.timeout, &bounds.own_delay);
    let got = Cell::new(Got::Nothing);
    let talk = Talk { place, large: &bounds.large, time_budget: &time_budget, got: &got };
    time_budget.with(talk.through()).await.unwrap_or_else(|| Err(got.get().after(bounds.timeout)))
}

/// How far a target came.
#[derive(Clone, Copy)]
enum Got {
    Nothing,
    Connection,
    Head,
}

impl Got {
    /// What is wrong with a target that came no farther in its time.
    fn after(self, timeout: Duration) -> TargetError {
        match self {
            Got::Nothing => TargetError::Down(format!("no connection within {timeout:?}")),
            Got::Connection => TargetError::Slow(format!("no answer within {timeout:?}")),
            Got::Head => TargetError::Slow(format!("no whole answer within {timeout:?}")),
        }
    }
}

/// One conversation with one target.
struct Talk<'a> {
    place: &'a Place,
    large: &'a Semaphore,
    time_budget: &'a TimeBudget<'a>,
    got: &'a Cell<Got>,
}

impl Talk<'_> {
    async fn through(&self) -> Answer {
        let down = |error: io::Error| TargetError::Down(cleaned(&error.to_string()));
        match self.place {
            Place::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(down)?;
                self.converse(stream).await
            }
            Place::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(down)?;
                self.converse(stream).await
            }
        }
    }

    async fn converse(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Answer {
        self.got.set(Got::Connection);
        let mut client = http1::Builder::new();
        client.max_buf_size(HEAD_BYTES);
        let shaken = client.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.map_err(|error| broken(&error))?;
        let request = Request::get("/state")
            .header(hyper::header::HOST, self.place.host_header())
            .header(hyper::header::ACCEPT, "application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|error| TargetError::Down(error.to_string()))?;
        // Dropped with this task: a target that is too slow keeps no connection.
        let mut talking = JoinSet::new();
        talking.spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        if response.status() != StatusCode::OK {
            return Err(TargetError::Malformed(format!("it answers {}", response.status())));
        }
        self.got.set(Got::Head);
        self.read_body(response).await
    }

    /// Reads a body as it comes, as far as there is room for it.
    async fn read_body(&self, mut response: Response<Incoming>) -> Answer {
        let too_large =
            || TargetError::Malformed(format!("a body larger than {} MiB", MOST_KIB >> 10));
        if response.body().size_hint().lower() > (MOST_KIB << 10) as u64 {
            return Err(too_large());
        }
        let (mut body, mut room) = (Vec::new(), None);
        while let Some(frame) = response.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Some(chunk) = frame.data_ref() else { continue };
            if body.len() + chunk.len() > MOST_KIB << 10 {
                return Err(too_large());
            }
            if room.is_none() && body.len() + chunk.len() > SMALL_KIB << 10 {
                room = Some(self.time_budget.paused_during(self.large.acquire()).await);
            }
            body.extend_from_slice(chunk);
        }
        answer::read(&body)
    }
}

fn broken(error: &hyper::Error) -> TargetError {
    if error.is_incomplete_message() {
        return TargetError::Down("it hung up".to_owned());
    }
    TargetError::Malformed(cleaned(&format!("no HTTP: {error}")))
}
