//! Connections: who may say what, for how long, and how many at once.
//!
//! Everything here runs on one thread, which is no other's: a client that is slow, silent, broken or
//! one of thousands holds up other clients at most. Every bound is a constant below.

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

/// The longest head of a request, bytes: the least that hyper takes.
const HEAD_BYTES: usize = 8192;
/// The most headers a request may have.
const HEADERS: usize = 64;
/// How long a client may take to send its request's head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last, its answer's way included.
const TIME: Duration = Duration::from_secs(10);
/// How long to wait where the kernel has no descriptor for another connection.
const BREATH: Duration = Duration::from_millis(100);

/// What there was to do so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    /// Requests by path and status.
    pub(super) requests: BTreeMap<(&'static str, u16), u64>,
    /// Connections by how they ended.
    pub(super) connections: BTreeMap<&'static str, u64>,
}

/// A socket that connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who answers.
pub(super) trait Answer: 'static {
    /// The answer, and the path it is counted under.
    fn answer(&self, request: &Request<Incoming>) -> (&'static str, Response<Full<Bytes>>);
}

/// Lets clients in, one task each.
pub(super) struct AcceptLoop<A> {
    answerer: Rc<A>,
    traffic: Rc<RefCell<Traffic>>,
    open: VecDeque<AbortHandle>,
}

impl<A: Answer> AcceptLoop<A> {
    pub(super) fn new(answerer: Rc<A>, traffic: Rc<RefCell<Traffic>>) -> AcceptLoop<A> {
        AcceptLoop { answerer, traffic, open: VecDeque::new() }
    }

    /// Accepts connections for ever.
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
                // No descriptor, or a client that has left already. Whoever only tried again would
                // spin.
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

/// One request and its answer.
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
