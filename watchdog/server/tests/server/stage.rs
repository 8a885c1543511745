//! The test bench: a segment, a server on it, and child processes that follow orders.
#![expect(unsafe_code, reason = "signal dispositions and ptrace, for actors")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, atomic::Ordering};
use std::time::{Duration, Instant};

use hangwatch::{CreateOptions, Geometry, Segment, Worker};
use hangwatch_core::wire::lane::LaneState;
use hangwatch_core::wire::segment::Counter;
use hangwatch_server::events::{Expiry, What};
use hangwatch_server::{Server, ServerEvent, ServerOptions};
use rustix::process::{Pid, Signal, kill_process};

/// How long a test waits for a condition.
const BOUND: Duration = Duration::from_mins(1);
const ROLE: &str = "HANGWATCH_TEST_ROLE";
const SEGMENT: &str = "HANGWATCH_TEST_SEGMENT";
const REPLY: &str = ">> ";

/// Waits for a condition.
pub(crate) fn until(mut condition: impl FnMut() -> bool) {
    let from = Instant::now();
    while !condition() {
        assert!(from.elapsed() < BOUND, "the condition was not met in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The name of the outcome of an expiry.
pub(crate) fn is_expiry(expiry: &Expiry) -> &'static str {
    expiry.outcome.name()
}

/// A segment of its own, removed when dropped.
pub(crate) struct Stage {
    pub(crate) segment: Segment,
    events: Mutex<Option<Receiver<ServerEvent>>>,
}

impl Stage {
    pub(crate) fn new(test: &str) -> Stage {
        Stage::with_interval(test, Duration::from_millis(100))
    }

    pub(crate) fn with_interval(test: &str, max_interval: Duration) -> Stage {
        let name = format!("test-{test}-{}", std::process::id());
        let geometry = Geometry { lanes: 8, timers: 8, records: 64, scopes: 16, lane_scopes: 4 };
        let options = CreateOptions { geometry, max_interval, ..CreateOptions::default() };
        let segment = Segment::create(&name, options).unwrap();
        Stage { segment, events: Mutex::new(None) }
    }

    /// A segment in memory of the crate `shared_memory`.
    pub(crate) fn in_shmem(test: &str) -> Stage {
        let name = format!("test-{test}-{}", std::process::id());
        let geometry = Geometry { lanes: 8, timers: 8, records: 64, scopes: 16, lane_scopes: 4 };
        let options = CreateOptions { geometry, ..CreateOptions::default() };
        let (id, bytes) =
            (Segment::shmem_id(&name).unwrap(), Segment::shmem_bytes(geometry).unwrap());
        let shmem = shared_memory::ShmemConf::new().os_id(id).size(bytes).create().unwrap();
        let segment = Segment::from_shmem(shmem, options).unwrap();
        Stage { segment, events: Mutex::new(None) }
    }

    pub(crate) fn path(&self) -> String {
        format!("/dev/shm/hangwatch.{}", self.segment.name())
    }

    /// Starts a server in this process, whose events go to [`Stage::event`].
    pub(crate) fn serve(&self, options: ServerOptions) -> Server {
        let (sender, events) = channel();
        *self.events.lock().unwrap() = Some(events);
        Server::start(self.segment, options, move |event| drop(sender.send(event))).unwrap()
    }

    /// Returns the first further event that `wanted` accepts.
    pub(crate) fn event<T>(&self, wanted: impl Fn(&What) -> Option<T>) -> T {
        let events = self.events.lock().unwrap();
        loop {
            let event = events.as_ref().unwrap().recv_timeout(BOUND).expect("an event");
            if let Some(found) = wanted(&event.what) {
                return found;
            }
        }
    }

    pub(crate) fn expiry(&self) -> Expiry {
        self.event(|what| match what {
            What::Expired(expiry) => Some((**expiry).clone()),
            _ => None,
        })
    }

    pub(crate) fn actor(&self, role: &str) -> Actor {
        Actor::new(role, self.segment.name())
    }

    /// Starts a worker and waits until it has attached.
    pub(crate) fn worker(&self) -> Actor {
        self.actor("worker")
    }

    /// Starts a worker with this environment variable, and waits until it has attached.
    pub(crate) fn worker_with(&self, variable: &str, value: impl AsRef<OsStr>) -> Actor {
        Actor::with("worker", self.segment.name(), [(variable, value)])
    }

    /// Starts a server in a process of its own.
    pub(crate) fn server(&self) -> Actor {
        self.actor("server")
    }

    pub(crate) fn workers_admitted(&self) -> usize {
        let events = self.events.lock().unwrap();
        let mut admitted = 0;
        let from = Instant::now();
        while admitted == 0 && from.elapsed() < BOUND {
            let event = events.as_ref().unwrap().recv_timeout(BOUND).expect("an event");
            admitted += usize::from(matches!(event.what, What::Admitted(_)));
        }
        admitted
    }

    pub(crate) fn lanes_taken(&self) -> usize {
        let words = self.segment.words();
        let lanes = (0..words.geometry().lanes).map(|lane| words.lane(lane).owner().state());
        lanes.filter(|state| *state != Some(LaneState::Free)).count()
    }

    pub(crate) fn abandoned(&self, scope: &str) -> u64 {
        let picture = self.segment.picture();
        let view = picture.scopes.into_iter().find(|view| view.name == scope);
        view.map_or(0, |view| view.counts.abandoned)
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.segment.words().counter(counter).load(Ordering::Relaxed)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = Segment::remove(self.segment.name());
    }
}

/// A child process of the test, killed and waited for when dropped.
pub(crate) struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    replies: Receiver<String>,
}

impl Actor {
    pub(crate) fn new(role: &str, segment: &str) -> Actor {
        Actor::with(role, segment, [("", ""); 0])
    }

    fn with<V: AsRef<OsStr>>(
        role: &str,
        segment: &str,
        environment: impl IntoIterator<Item = (impl AsRef<OsStr>, V)>,
    ) -> Actor {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "stage::an_actor"])
            .envs(environment)
            .env(ROLE, role)
            .env(SEGMENT, segment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, replies) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                // The test harness prints the test's name before the first reply.
                if let Some((_, reply)) = line.split_once(REPLY)
                    && sender.send(reply.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let mut actor = Actor { child, stdin, replies };
        assert_eq!(actor.reply(), "ready");
        actor
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn as_pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn reply(&mut self) -> String {
        self.replies.recv_timeout(BOUND).expect("a reply")
    }

    /// Sends an order that has no reply.
    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    pub(crate) fn say(&mut self, what: &str) -> String {
        self.tell(what);
        self.reply()
    }

    pub(crate) fn kill(self) {
        drop(self);
    }

    pub(crate) fn stop(&self) {
        kill_process(self.as_pid(), Signal::STOP).unwrap();
    }

    pub(crate) fn resume(&self) {
        kill_process(self.as_pid(), Signal::CONT).unwrap();
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn signal_it_died_of(&mut self) -> Option<i32> {
        let mut status = None;
        until(|| {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().signal()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reply(text: impl std::fmt::Display) {
    println!("{REPLY}{text}");
}

fn orders() -> impl Iterator<Item = Vec<String>> {
    let lines = std::io::stdin().lines().map_while(Result::ok);
    lines.map(|line| line.split(' ').map(str::to_owned).collect())
}

/// Not a test: the main function of every child.
#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn an_actor() {
    // The child dies with the test.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    let Ok(role) = std::env::var(ROLE) else { return };
    let name = std::env::var(SEGMENT).unwrap();
    match role.as_str() {
        "worker" => act_worker(&name),
        "server" => act_server(&name),
        "many" => act_many(&name),
        "tracer" => act_tracer(),
        other => panic!("no role {other}"),
    }
}

fn act_worker(name: &str) {
    let worker = Worker::attach(name).unwrap();
    let mut guards = Vec::new();
    reply("ready");
    for order in orders() {
        let order: Vec<&str> = order.iter().map(String::as_str).collect();
        match order[..] {
            ["expires", scope, ms] => {
                let allowance = Duration::from_millis(ms.parse().unwrap());
                guards.push(worker.expires(scope, allowance).unwrap());
                reply("armed");
            }
            ["release"] => reply(format!("{:?}", guards.pop().unwrap().release())),
            ["close"] => {
                let fd = worker.segment().unwrap().file().as_fd().as_raw_fd();
                // SAFETY: the child does not use the descriptor again; closing it releases the locks.
                assert_eq!(unsafe { libc::close(fd) }, 0);
                reply("closed");
            }
            ["ignore", signal] => {
                // SAFETY: ignoring a signal runs no code.
                unsafe { libc::signal(signal.parse().unwrap(), libc::SIG_IGN) };
                reply("ignored");
            }
            ["exec"] => panic!("{}", Command::new("sleep").arg("1000").exec()),
            ["exit"] => std::process::exit(0),
            _ => panic!("no order {order:?}"),
        }
    }
}

fn act_server(name: &str) {
    let segment = Segment::open(name).unwrap();
    let server = Server::start(segment, ServerOptions::default(), |_| {}).unwrap();
    reply("ready");
    for _ in orders() {}
    drop(server);
}

/// Attaches 128 threads with a lane each.
fn act_many(name: &str) {
    let worker = Worker::attach(name).unwrap();
    let _guard = worker.expires("many", Duration::from_hours(1)).unwrap();
    let (sender, attached) = channel();
    for _ in 1..128 {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let guard = worker.expires("many", Duration::from_hours(1)).unwrap();
            sender.send(()).unwrap();
            std::thread::park();
            drop(guard);
        });
    }
    assert_eq!(attached.iter().take(127).count(), 127);
    reply("ready");
    for _ in orders() {}
    std::process::exit(0);
}

fn act_tracer() {
    reply("ready");
    for order in orders() {
        let pid: libc::pid_t = order[1].parse().unwrap();
        let null = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: PTRACE_SEIZE takes no addresses.
        let rc = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, null, null) };
        reply(if rc == 0 { "traced" } else { "refused" });
    }
}
