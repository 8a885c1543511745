//! The listener: serves `/metrics`, `/healthz` and `/state` of a watchdog over HTTP.
//!
//! ```text
//!   tick ------ relaxed figures ---> +----------+
//!   segment --- snapshots ---------> | listener | <---- http ---- Prometheus, kubelet, hangwatch fleet
//!   event log - events -> tally ---> +----------+
//! ```
//!
//! The listener has a thread of its own with a lower priority than the tick, and only reads what others have
//! written: neither the workers nor the tick know about it. It uses `hyper` on a current-thread `tokio`
//! runtime. `connections` bounds what a client may do, `pages` chooses the response, `metrics` and `tally`
//! provide its content, `address` binds the socket, and `unix` one that is a file.
//!
//! Bind first ([`Bound::new`]), so that an address in use is an error before anything is served. Then start
//! the server, and serve its [`Vitals`] with [`Bound::serve`].

mod address;
mod classic;
mod connections;
mod metrics;
mod pages;
mod tally;
mod unix;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::LocalSet;

pub use self::address::{Address, AddressError, ListenError};
pub use self::tally::Tally;

use self::address::Socket;
use self::connections::{AcceptLoop, Listener, Traffic};
use self::pages::{Pages, Reach};
use self::unix::SocketFile;
use hangwatch_process::join::ends_within;
use hangwatch_server::Vitals;

/// How long the thread may take to end: one response, which may read `/proc`.
const ENDS: Duration = Duration::from_secs(2);
/// The niceness of the listener's thread, so that the tick runs first on a shared core.
const NICENESS: i32 = 5;

/// Which hosts may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// This host only: an address that others could reach is refused.
    #[default]
    ThisHost,
    /// Any host that reaches the address.
    Anyone,
}

/// A bound socket that does not answer yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: Address,
}

/// What the listener reports about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The health of the server.
    pub vitals: Vitals,
    /// The counts of its events.
    pub tally: Arc<Tally>,
    /// The host's name.
    pub host: String,
}

/// A running listener. Dropping it ends it and removes the file of a Unix socket.
pub struct Listening {
    address: Address,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _file: Option<SocketFile>,
}

impl Bound {
    /// Binds the address. A Unix socket admits its owner, and `group` if there is one.
    ///
    /// # Errors
    /// [`ListenError`], which says what to do.
    pub fn new(
        address: &Address,
        audience: Audience,
        group: Option<u32>,
    ) -> Result<Bound, ListenError> {
        if audience == Audience::ThisHost && !address.is_local() {
            return Err(ListenError::NotLocal { address: address.clone() });
        }
        let socket = address::bind(address, group)?;
        let address = socket.address(address);
        Ok(Bound { socket, address })
    }

    /// Returns the bound address, with the port that the kernel chose for port 0.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Starts to answer, on a thread of its own.
    ///
    /// # Errors
    /// [`ListenError::Thread`] if the thread cannot be started.
    pub fn serve(self, subject: Subject) -> Result<Listening, ListenError> {
        let Bound { socket, address } = self;
        let failed = |source| ListenError::Thread { address: address.clone(), source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let reach = match &address {
            Address::Tcp(at) if at.ip().to_canonical().is_loopback() => Reach::Loopback,
            _ => Reach::Elsewhere,
        };
        let (listener, file) = open(&runtime, socket).map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let body = move || serve(&runtime, listener, reach, subject, stopped);
        let thread = thread::Builder::new().name("hangwatch-listen".to_owned());
        let thread = thread.spawn(body).map_err(failed)?;
        Ok(Listening { address, stop: Some(stop), thread: Some(thread), _file: file })
    }
}

fn open(runtime: &Runtime, socket: Socket) -> io::Result<(Listener, Option<SocketFile>)> {
    let _in_it = runtime.enter();
    Ok(match socket {
        Socket::Tcp(socket) => {
            socket.set_nonblocking(true)?;
            (Listener::Tcp(tokio::net::TcpListener::from_std(socket)?), None)
        }
        Socket::Unix(socket, file) => {
            socket.set_nonblocking(true)?;
            (Listener::Unix(tokio::net::UnixListener::from_std(socket)?), Some(file))
        }
    })
}

fn serve(
    runtime: &Runtime,
    listener: Listener,
    reach: Reach,
    subject: Subject,
    stopped: oneshot::Receiver<()>,
) {
    // If the kernel refuses, the thread keeps its priority.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
    let traffic = Rc::new(RefCell::new(Traffic::default()));
    let pages = Rc::new(Pages::new(subject, reach, Rc::clone(&traffic)));
    let tasks = LocalSet::new();
    tasks.spawn_local(AcceptLoop::new(pages, traffic).run(listener));
    // Ends with a message or with the drop of the sender.
    let _ = tasks.block_on(runtime, stopped);
}

impl Listening {
    /// Returns where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && ends_within(&thread, ENDS)
        {
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").field("address", &self.address).finish_non_exhaustive()
    }
}
