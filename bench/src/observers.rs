//! Who looks at a segment: a client that scrapes its listener every second, and `hangwatch top` in a
//! terminal. Both can be stopped and go on.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use hangwatch::Segment;
use hangwatch_http::listen::{Address, Audience, Bound, Listening, Subject, Tally};
use hangwatch_server::Server;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use crate::process::in_terminal;

/// How long `top` may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

type Failed = Box<dyn std::error::Error>;

/// The listener's client, and `top`.
pub struct Observers {
    client: Client,
    top: Top,
    _listening: Listening,
}

impl Observers {
    /// Has a server listened to and its segment shown; both stopped.
    ///
    /// # Errors
    /// Where there is no port, no terminal, or no process.
    pub fn start(segment: &Segment, server: &Server) -> Result<Observers, Failed> {
        let bound = Bound::new(&"127.0.0.1:0".parse()?, Audience::ThisHost, None)?;
        let (vitals, tally) = (server.vitals(), Arc::<Tally>::default());
        let listening = bound.serve(Subject { vitals, tally, host: "bench".to_owned() })?;
        let client = Client::start(listening.address());
        let observers =
            Observers { client, top: Top::start(segment.name())?, _listening: listening };
        observers.set(false)?;
        Ok(observers)
    }

    /// Lets both look, or stand still.
    ///
    /// # Errors
    /// Where `top` has ended.
    pub fn set(&self, looking: bool) -> Result<(), Failed> {
        self.client.looking.store(looking, Ordering::Relaxed);
        let signal = if looking { Signal::CONT } else { Signal::STOP };
        Ok(kill_process(self.top.pid, signal)?)
    }

    /// The processor time that the client used.
    pub fn client_time(&self) -> Duration {
        Duration::from_nanos(self.client.used_ns.load(Ordering::Relaxed))
    }

    /// The processor time that `top` used.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn top_time(&self) -> Result<Duration, Failed> {
        let mut used_ns = 0;
        for task in fs::read_dir(format!("/proc/{}/task", self.top.pid))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            used_ns += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        Ok(Duration::from_nanos(used_ns))
    }
}

/// `hangwatch top`, in a terminal of script(1).
struct Top {
    terminal: Child,
    pid: Pid,
}

impl Top {
    fn start(segment: &str) -> Result<Top, Failed> {
        let nowhere = std::env::temp_dir().join("hangwatch-bench-no-incidents");
        let words = ["top", "--segment", segment, "--incidents", &nowhere.to_string_lossy()];
        let terminal = in_terminal(&words)?
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let children = format!("/proc/{0}/task/{0}/children", terminal.id());
        let began = Instant::now();
        let pid = loop {
            let text = fs::read_to_string(&children)?;
            let pid = text.split_whitespace().next().and_then(|first| first.parse().ok());
            // Before that it is the shell that sets the terminal's size.
            let is_top = |pid: &i32| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|text| text.split('\0').any(|word| word == "--incidents"))
            };
            if let Some(pid) = pid.filter(is_top).and_then(Pid::from_raw) {
                break pid;
            }
            if began.elapsed() > PATIENCE {
                return Err("top does not begin; is script(1) installed (bsdutils)?".into());
            }
            sleep(Duration::from_millis(10));
        };
        Ok(Top { terminal, pid })
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        let _ = kill_process(self.pid, Signal::KILL);
        let _ = self.terminal.kill();
        let _ = self.terminal.wait();
    }
}

/// Asks for `/metrics` every second.
struct Client {
    over: Arc<AtomicBool>,
    looking: Arc<AtomicBool>,
    used_ns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    fn start(address: &Address) -> Client {
        let Address::Tcp(address) = *address else { unreachable!("it was bound to a port") };
        let [over, looking] = [const { false }; 2].map(|set| Arc::new(AtomicBool::new(set)));
        let used_ns = Arc::<AtomicU64>::default();
        let (is_over, is_looking, used) =
            (Arc::clone(&over), Arc::clone(&looking), Arc::clone(&used_ns));
        let thread = spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                if is_looking.load(Ordering::Relaxed) {
                    scrape(address);
                }
                let time = clock_gettime(ClockId::ThreadCPUTime);
                let ns = time.tv_sec * 1_000_000_000 + time.tv_nsec;
                used.store(ns.cast_unsigned(), Ordering::Relaxed);
                sleep(Duration::from_secs(1));
            }
        });
        Client { over, looking, used_ns, thread: Some(thread) }
    }
}

fn scrape(address: std::net::SocketAddr) {
    let mut page = Vec::new();
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("it listens");
    stream.read_to_end(&mut page).expect("it answers");
    assert!(page.starts_with(b"HTTP/1.0 200"), "it answers");
}

impl Drop for Client {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
