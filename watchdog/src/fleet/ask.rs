//! Asking many targets at once, on one thread.
//!
//! Each target has the same time, from its connect to its last byte. How many are connected to at once
//! is bounded by the descriptors there may be, how much of their bodies is held at once by
//! `MOST_AT_ONCE_KIB`: a target that floods is cut off at its own bound, and the others wait for room.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::{self, Answer, Trouble, cleaned};
use super::targets::{Place, Target};

/// The most that all bodies together hold, KiB.
const MOST_AT_ONCE_KIB: usize = 256 << 10;
/// The most that one body holds, KiB: the state of 10,000 lanes or so.
const MOST_KIB: usize = 16 << 10;
/// The longest head of an answer, bytes.
const HEAD_BYTES: usize = 64 << 10;

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
        Asking { timeout: Duration::from_secs(1), at_once: 1_000 }
    }
}

/// Asks every target for its state; the answers stand in the order of the targets.
///
/// # Errors
/// Where the kernel gives no means to wait for many at once.
pub fn ask(targets: &[Target], asking: Asking) -> io::Result<Vec<Answer>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = runtime.block_on(ask_all(targets, asking));
    // A name that is still being looked up is waited for by nobody.
    runtime.shutdown_background();
    Ok(answers)
}

async fn ask_all(targets: &[Target], asking: Asking) -> Vec<Answer> {
    let doors = Arc::new(Semaphore::new(asking.at_once.max(1)));
    let room = Arc::new(Semaphore::new(MOST_AT_ONCE_KIB));
    let mut asked = JoinSet::new();
    for (index, target) in targets.iter().cloned().enumerate() {
        let (doors, room) = (Arc::clone(&doors), Arc::clone(&room));
        asked.spawn(async move {
            let _door = doors.acquire().await;
            let answer = timeout(asking.timeout, ask_one(&target.place, &room)).await;
            let slow = || Trouble::Slow(format!("no whole answer within {:?}", asking.timeout));
            (index, answer.unwrap_or_else(|_| Err(slow())))
        });
    }
    let nobody = || Err(Trouble::Down("it was not asked".to_owned()));
    let mut answers: Vec<Answer> = targets.iter().map(|_| nobody()).collect();
    while let Some(joined) = asked.join_next().await {
        match joined {
            Ok((index, answer)) => answers[index] = answer,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    answers
}

async fn ask_one(place: &Place, room: &Semaphore) -> Answer {
    let down = |error: io::Error| Trouble::Down(cleaned(&error.to_string()));
    match place {
        Place::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(down)?;
            converse(stream, place, room).await
        }
        Place::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(down)?;
            converse(stream, place, room).await
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
    room: &Semaphore,
) -> Answer {
    let broken = |error: hyper::Error| {
        if error.is_incomplete_message() {
            return Trouble::Down("it hung up".to_owned());
        }
        Trouble::Lying(cleaned(&format!("no HTTP: {error}")))
    };
    let mut client = http1::Builder::new();
    client.max_buf_size(HEAD_BYTES);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let request = Request::get("/state")
        .header(hyper::header::HOST, place.host_header())
        .header(hyper::header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Trouble::Down(error.to_string()))?;
    // Dropped with this task: a target that is too slow keeps no connection.
    let mut talking = JoinSet::new();
    talking.spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Err(Trouble::Lying(format!("it answers {}", response.status())));
    }
    read_body(response, room, broken).await
}

/// Reads a body as it comes, as far as there is room for it.
async fn read_body(
    mut response: Response<Incoming>,
    room: &Semaphore,
    broken: impl Fn(hyper::Error) -> Trouble,
) -> Answer {
    let too_large = || Trouble::Lying(format!("a body larger than {} MiB", MOST_KIB >> 10));
    if response.body().size_hint().lower() > (MOST_KIB << 10) as u64 {
        return Err(too_large());
    }
    let (mut body, mut held) = (Vec::new(), Vec::new());
    while let Some(frame) = response.frame().await {
        let frame = frame.map_err(&broken)?;
        let Some(chunk) = frame.data_ref() else { continue };
        if body.len() + chunk.len() > MOST_KIB << 10 {
            return Err(too_large());
        }
        held.extend(room.acquire_many((chunk.len() / 1024 + 1) as u32).await);
        body.extend_from_slice(chunk);
    }
    answer::read(&body)
}
