//! HTTP connections: the bounds on what a client may send, for how long, and how many there may be.
//!
//! Everything here runs on the listener's own thread: a slow, silent or broken client, or thousands of them,
//! can delay other clients only.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{sleep, timeout};

use hangwatch_server::CONNECTIONS;

/// The longest head of a request, bytes: hyper's minimum.
const HEAD_BYTES: usize = 8192;
/// The maximum number of headers of a request.
const HEADERS: usize = 64;
/// The time limit for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// The time limit of a connection, including the response.
const TIME: Duration = Duration::from_secs(10);
/// Pause after a failed accept, for example without free descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// Counts of requests and connections so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    /// Requests by path and status.
    pub(super) requests: BTreeMap<(&'static str, u16), u64>,
    /// Connections by how they ended.
    pub(super) connections: BTreeMap<&'static str, u64>,
}

/// A listening socket.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Answers requests.
pub(super) trait Answer: 'static {
    /// Returns the response, and the path under which it is counted.
    fn answer(&self, request: &Request<Incoming>) -> (&'static str, Response<Full<Bytes>>);
}

/// Accepts connections and starts a task for each.
pub(super) struct AcceptLoop<A> {
    answerer: Rc<A>,
    traffic: Rc<RefCell<Traffic>>,
    open: VecDeque<AbortHandle>,
}

impl<A: Answer> AcceptLoop<A> {
    pub(super) fn new(answerer: Rc<A>, traffic: Rc<RefCell<Traffic>>) -> AcceptLoop<A> {
        AcceptLoop { answerer, traffic, open: VecDeque::new() }
    }

    /// Accepts connections forever.
    pub(super) async fn run(mut self, listener: Listener) -> Infallible {
        loop {
            let accepted = match &listener {
                Listener::Tcp(socket) => {
                    socket.accept().await.map(|(stream, _)| self.admit(stream))
                }
                Listener::Unix(socket) => {
                    socket.accept().await.map(|(stream, _)| self.admit(stream))
                }
            };
            if accepted.is_err() {
                // No descriptor, or the client has left. A retry without a pause would spin.
                sleep(BREATH).await;
            }
        }
    }

    fn admit(&mut self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        self.open.retain(|connection| !connection.is_finished());
        if self.open.len() >= CONNECTIONS
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.abort();
            count(&self.traffic, "displaced");
        }
        let talk = converse(stream, Rc::clone(&self.answerer), Rc::clone(&self.traffic));
        self.open.push_back(spawn_local(talk).abort_handle());
    }
}

/// Answers one request.
async fn converse<A: Answer>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    answerer: Rc<A>,
    traffic: Rc<RefCell<Traffic>>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let (path, response) = answerer.answer(&request);
        let status = response.status().as_u16();
        *traffic.borrow_mut().requests.entry((path, status)).or_default() += 1;
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        .keep_alive(false)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let end = match timeout(TIME, connection).await {
        Ok(Ok(())) => "closed",
        Ok(Err(error)) if error.is_timeout() => "timed_out",
        Ok(Err(_)) => "broken",
        Err(_) => "timed_out",
    };
    count(&traffic, end);
}

fn count(traffic: &RefCell<Traffic>, end: &'static str) {
    *traffic.borrow_mut().connections.entry(end).or_default() += 1;
}
