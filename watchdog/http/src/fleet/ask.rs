//! Asks many targets at once, on one thread.
//!
//! A target's time runs from its own connect to its last byte. Time in which this process was late, or kept
//! the target waiting for buffer space, is added to it (`time_budget`). The number of connections and the
//! memory for bodies are bounded; a target that sends too much is cut off.

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

/// The largest body, KiB: enough for about 10,000 lanes.
const MOST_KIB: usize = 16 << 10;
/// How much of a body is read without reserving memory for it, KiB: enough for about 50 lanes.
const SMALL_KIB: usize = 64;
/// How many larger bodies are read at once.
const LARGE_AT_ONCE: usize = 16;
/// The longest head of a response, bytes.
const HEAD_BYTES: usize = 64 << 10;
/// The maximum number of threads that resolve host names, if the resolver does not answer.
const RESOLVING_THREADS: usize = 64;

/// How targets are asked.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// The time limit of each target.
    pub timeout: Duration,
    /// How many targets are asked at once, at least 1.
    pub at_once: usize,
}

impl Default for Asking {
    fn default() -> Self {
        Asking { timeout: Duration::from_secs(1), at_once: 256 }
    }
}

/// Asks targets, as often as needed. Host names that are still being resolved do not accumulate.
pub struct Asker {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Asker {
    /// Creates it; no target is asked yet.
    ///
    /// # Errors
    /// If the kernel refuses the descriptors of a runtime.
    pub fn new() -> io::Result<Asker> {
        let mut builder = Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(RESOLVING_THREADS).build()?;
        Ok(Asker { runtime: Some(runtime) })
    }

    /// Asks every target for its state. The answers are in the order of the targets.
    ///
    /// # Panics
    /// Never: the runtime exists until the drop.
    pub fn ask(&self, targets: &[Target], asking: Asking) -> Vec<Answer> {
        let runtime = self.runtime.as_ref().expect("only the drop takes it");
        LocalSet::new().block_on(runtime, ask_all(targets, asking))
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        // Threads that still resolve a name are not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What all conversations share.
struct Bounds {
    timeout: Duration,
    connections: Semaphore,
    /// Limits the bodies that are not small.
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
    let not_asked = || Err(TargetError::Down("it was not asked".to_owned()));
    let mut answers: Vec<Answer> = targets.iter().map(|_| not_asked()).collect();
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

/// How far a conversation came.
#[derive(Clone, Copy)]
enum Got {
    Nothing,
    Connection,
    Head,
}

impl Got {
    /// The error of a target that came no further in its time.
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
        // Dropped with this task, which closes the connection of a target that is too slow.
        let mut talking = JoinSet::new();
        talking.spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        if response.status() != StatusCode::OK {
            return Err(TargetError::Malformed(format!("it answers {}", response.status())));
        }
        self.got.set(Got::Head);
        self.read_body(response).await
    }

    /// Reads a body as far as there is memory for it.
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
