//! A worker that does as it is told: one order a line, one answer a line (`ok ...` or `no ...`).
//!
//! ```text
//! attach                     to $HANGWATCH_SEGMENT
//! expires NAME MS            a guard, kept until released
//! learned NAME               as expires, with the time of the deadlines file
//! thread NAME MS             as expires, by a thread that ends at once
//! notify NAME MS             as expires, report only
//! signal N NAME MS           as expires, with a signal of its own
//! release NAME               releases the guard: InTime, Reported, TooLate, NotArmed
//! elsewhere NAME             as release, by another thread
//! acquire NAME MS | drop NAME   keyed
//! beat NAME MS | kick NAME   a heartbeat
//! pairs COUNT                so many acquires and releases, as fast as it goes
//! toil COUNT | rest         so many threads acquire and release, and end, and others follow, until
//!                            told to rest: how many acquires there were
//! churn SEED                 acquires and releases of every kind, at random, for ever (no answer)
//! race COUNT SEED            releases about the time of their deadlines: how they ended
//! load COUNT MS SEED | tire  so many threads walk through scopes of up to so long, until told to tire:
//!                            what they did and saw
//! lanes COUNT MS             so many threads, each with a lane and an armed guard, all kept
//! fork                       a forked child attaches, acquires, releases and exits: its result
//! closefds                   closes every descriptor from 3 on
//! reopen                     opens, reads and closes the segment's file
//! loaders COUNT              children as a data loader has them, each with a child of its own: their
//!                            pids, parents first
//! children COUNT HOW         forked children: idle, busy, or forking on and on, for two minutes at most
//! run PROGRAM ...            another program as a child, not waited for: its pid
//! adopt                      becomes a subreaper: orphans below it are its children
//! daemon                     a process that nobody waits for, in the group of this one: its pid
//! lead                       leads a process group of its own
//! nested                     a worker below this one, attached, with the same segment: its pid
//! spawn                      runs another program, and waits for it
//! headless                   ends the first thread; another one obeys from then on
//! sibling                    a child of its parent that shares its file table: its pid
//! keep                       lets every descriptor pass through an exec
//! user N                     becomes this user, who may become root again; root, for ever
//! exec                       execs `sleep 600` (no answer: it is somebody else then)
//! again                      execs this program anew, which answers: what it was before is forgotten
//! unrandomised               what it execs from now on has nothing placed at random
//! look PATH                  asks for a file's attributes
//! ignore N                   ignores a signal
//! hang HOW NAME MS           hangs in a scope of that name (no answer), see `hangwatch_tests::hang`
//! exit                       exits without releasing anything
//! ```
//!
//! With arguments, `below PROGRAM ...` or `container PROGRAM ...`, it runs another program in a PID
//! namespace of its own and ends as that does, see `hangwatch_tests::namespace`.
#![expect(unsafe_code, reason = "fork, exec, close_range and signal dispositions, for tests")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use hangwatch::{Guard, Heartbeat, Signal, Worker};
use hangwatch_process::proc::{State, state};
use hangwatch_tests::hang::hang;
use hangwatch_tests::load::Load;
use hangwatch_tests::namespace::{Proc, run_below};
use hangwatch_tests::newcomer::sibling;
use hangwatch_tests::race::{Asks, race};
use hangwatch_tests::random::Random;
use hangwatch_tests::toil::Toil;
use rustix::process::set_parent_process_death_signal;

/// Set for a program that was execed by the order `again`.
const AGAIN: &str = "HANGWATCH_STAGE_AGAIN";

type Failure = Box<dyn std::error::Error>;

#[derive(Default)]
struct Actor {
    worker: Option<Worker>,
    guards: HashMap<String, Guard>,
    beats: HashMap<String, Heartbeat>,
    toil: Option<Toil>,
    load: Option<Load>,
}

fn main() -> ExitCode {
    // Were the test to die, nobody would be left behind.
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).expect("the kernel can");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [kind, program, arguments @ ..] = &arguments[..] {
        let proc = if kind == "container" { Proc::Own } else { Proc::Parents };
        let status = run_below(proc, program, arguments).expect("namespaces are to be had");
        return ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1));
    }
    if std::env::var_os(AGAIN).is_some() {
        say("ok");
    }
    Actor::default().serve();
    ExitCode::SUCCESS
}

fn next_line() -> Option<String> {
    let mut line = String::new();
    let count = stdin().read_line(&mut line).ok()?;
    (count > 0).then(|| line.trim_end().to_owned())
}

fn say(answer: &str) {
    println!("{answer}");
    stdout().flush().expect("the test listens");
}

fn ms(text: &str) -> Result<Duration, Failure> {
    Ok(Duration::from_millis(text.parse()?))
}

impl Actor {
    fn serve(mut self) {
        // Line by line: another thread goes on with the input where this one ends.
        while let Some(line) = next_line() {
            if line == "headless" {
                return self.serve_without_the_first_thread();
            }
            let words: Vec<&str> = line.split(' ').collect();
            match self.obey(&words) {
                Ok(answer) => say(&format!("ok {answer}")),
                Err(error) => say(&format!("no {error}")),
            }
        }
    }

    /// Ends the calling thread, the process's first, without its destructors.
    fn serve_without_the_first_thread(self) {
        let own = rustix::process::getpid();
        std::thread::spawn(move || {
            while !matches!(state(own), Ok(Some(State::Zombie))) {
                std::thread::yield_now();
            }
            say("ok");
            self.serve();
            std::process::exit(0);
        });
        loop {
            // SAFETY: ends this thread alone; the one that goes on owns what it needs.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
    }

    fn worker(&self) -> Result<Worker, Failure> {
        self.worker.ok_or_else(|| "not attached".into())
    }

    fn obey(&mut self, words: &[&str]) -> Result<String, Failure> {
        match *words {
            ["attach"] => {
                self.worker = Some(Worker::attach_from_env()?);
                Ok(std::process::id().to_string())
            }
            ["expires", name, time] => {
                let guard = self.worker()?.expires(name, ms(time)?)?;
                Ok(self.keep(name, guard))
            }
            ["learned", name] => {
                let guard = self.worker()?.expires_default(name)?;
                Ok(self.keep(name, guard))
            }
            ["notify", name, time] => {
                let worker = self.worker()?.with_signal(Signal::NotifyOnly);
                Ok(self.keep(name, worker.expires(name, ms(time)?)?))
            }
            ["signal", number, name, time] => {
                let worker = self.worker()?.with_signal(Signal::number(number.parse()?)?);
                Ok(self.keep(name, worker.expires(name, ms(time)?)?))
            }
            ["thread", name, time] => {
                let (worker, scope, time) = (self.worker()?, name.to_owned(), ms(time)?);
                let guard = std::thread::spawn(move || worker.expires(&scope, time)).join();
                Ok(self.keep(name, guard.map_err(|_| "the thread panicked")??))
            }
            ["release", name] => {
                let guard = self.guards.remove(name).ok_or("no such guard")?;
                Ok(format!("{:?}", guard.release()))
            }
            ["elsewhere", name] => {
                let guard = self.guards.remove(name).ok_or("no such guard")?;
                let released = std::thread::spawn(move || guard.release()).join();
                Ok(format!("{:?}", released.map_err(|_| "the thread panicked")?))
            }
            ["acquire", name, time] => {
                self.worker()?.acquire(name, ms(time)?)?;
                Ok(String::new())
            }
            ["drop", name] => Ok(format!("{:?}", self.worker()?.release(name)?)),
            ["beat", name, time] => {
                let beat = self.worker()?.heartbeat(name, ms(time)?)?;
                self.beats.insert(name.to_owned(), beat);
                Ok(String::new())
            }
            ["kick", name] => {
                self.beats.get(name).ok_or("no such heartbeat")?.kick()?;
                Ok(String::new())
            }
            ["pairs", count] => pairs(self.worker()?, count.parse()?),
            ["churn", seed] => churn(self.worker()?, &mut Random::new(seed.parse()?)),
            ["race", count, seed] => {
                let mut random = Random::new(seed.parse()?);
                Ok(race(self.worker()?, &mut random, count.parse()?, Asks::Reports)?.to_string())
            }
            ["load", threads, pace, seed] => {
                let mut random = Random::new(seed.parse()?);
                let (threads, pace) = (threads.parse()?, ms(pace)?);
                self.load = Some(Load::start(self.worker()?, threads, pace, &mut random));
                Ok(String::new())
            }
            ["tire"] => Ok(self.load.take().ok_or("nobody walks")?.rest()?.to_string()),
            ["toil", threads] => {
                self.toil = Some(Toil::start(self.worker()?, threads.parse()?));
                Ok(String::new())
            }
            ["rest"] => Ok(self.toil.take().ok_or("nobody toils")?.rest()?.to_string()),
            ["lanes", count, time] => self.lanes(count.parse()?, ms(time)?),
            ["ignore", number] => {
                // SAFETY: SIG_IGN runs no code.
                unsafe { libc::signal(number.parse()?, libc::SIG_IGN) };
                Ok(String::new())
            }
            ["hang", how, name, time] => {
                let _guard = self.worker()?.expires(name, ms(time)?)?;
                hang(how)
            }
            _ => self.obey_rudely(words),
        }
    }

    fn obey_rudely(&mut self, words: &[&str]) -> Result<String, Failure> {
        match *words {
            ["fork"] => Ok(fork(self.worker()?)),
            ["closefds"] => {
                // SAFETY: nothing of this process needs them; that is what is tested.
                let rc = unsafe { libc::close_range(3, u32::MAX, 0) };
                Ok(rc.to_string())
            }
            ["reopen"] => {
                let name = std::env::var("HANGWATCH_SEGMENT")?;
                let bytes = std::fs::read(format!("/dev/shm/hangwatch.{name}"))?;
                Ok(bytes.len().to_string())
            }
            ["look", path] => Ok(std::fs::metadata(path)?.len().to_string()),
            ["loaders", count] => loaders(count.parse()?),
            ["children", count, how] => children(count.parse()?, how),
            ["run", program, ref arguments @ ..] => {
                let mut command = Command::new(program);
                Ok(command
                    .args(arguments)
                    .stdout(std::process::Stdio::null())
                    .spawn()?
                    .id()
                    .to_string())
            }
            ["adopt"] => {
                rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
                Ok(String::new())
            }
            ["daemon"] => daemon(),
            ["nested"] => nested(),
            ["lead"] => {
                rustix::process::setpgid(None, None)?;
                Ok(String::new())
            }
            ["spawn"] => Ok(Command::new("true").status()?.to_string()),
            ["sibling"] => Ok(sibling()?.to_string()),
            ["keep"] => {
                for fd in 3..64 {
                    // SAFETY: changes a flag of a descriptor, or fails where there is none.
                    unsafe { libc::fcntl(fd, libc::F_SETFD, 0) };
                }
                Ok(String::new())
            }
            ["user", user] => {
                let user: libc::uid_t = user.parse()?;
                // SAFETY: no memory is involved. The C library has every thread do it.
                let rc = unsafe { libc::setresuid(user, user, 0) };
                if rc == 0 {
                    Ok(String::new())
                } else {
                    Err(std::io::Error::last_os_error().into())
                }
            }
            ["hide"] => {
                let hidden = rustix::process::DumpableBehavior::NotDumpable;
                rustix::process::set_dumpable_behavior(hidden)?;
                Ok(String::new())
            }
            ["unrandomised"] => {
                // SAFETY: no memory is involved.
                unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
                Ok(String::new())
            }
            ["again"] => Err(Command::new(std::env::current_exe()?).env(AGAIN, "1").exec().into()),
            ["exec"] => Err(Command::new("sleep").arg("600").exec().into()),
            ["exit"] => std::process::exit(0),
            _ => Err("unknown order".into()),
        }
    }

    fn keep(&mut self, name: &str, guard: Guard) -> String {
        self.guards.insert(name.to_owned(), guard);
        String::new()
    }

    /// Threads that stay, each with a lane of its own and one armed guard.
    fn lanes(&mut self, count: usize, time: Duration) -> Result<String, Failure> {
        let worker = self.worker()?;
        let (sender, receiver) = std::sync::mpsc::channel();
        for _ in 0..count {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let guard = worker.expires("lane", time).map_err(|error| error.to_string());
                let failed = guard.as_ref().err().cloned();
                let _ = sender.send(failed);
                loop {
                    std::thread::park();
                }
            });
        }
        match receiver.iter().take(count).flatten().next() {
            Some(failed) => Err(failed.into()),
            None => Ok(String::new()),
        }
    }
}

fn pairs(worker: Worker, count: u64) -> Result<String, Failure> {
    let scope = worker.scope("pair")?;
    for _ in 0..count {
        drop(scope.expires(Duration::from_secs(30))?);
    }
    Ok(count.to_string())
}

/// One thread of this process at a time, each with a lane of its own.
fn churn(worker: Worker, random: &mut Random) -> Result<String, Failure> {
    const LONG: Duration = Duration::from_hours(1);
    let joined = "no thread of the churn panics";
    loop {
        match random.within(0..8) {
            0 => std::thread::spawn(move || worker.expires("visit", LONG).map(drop))
                .join()
                .expect(joined)?,
            1 => drop(
                std::thread::spawn(move || worker.expires("left", LONG)).join().expect(joined)?,
            ),
            2 => {
                let guard = worker.expires("moved", LONG)?;
                std::thread::spawn(move || drop(guard)).join().expect(joined);
            }
            3 => {
                worker.acquire("key", LONG)?;
                worker.acquire("key", LONG)?;
                worker.release("key")?;
            }
            4 => {
                let beat = worker.heartbeat("beat", LONG)?;
                (0..random.within(1..8)).try_for_each(|_| beat.kick())?;
            }
            depth => {
                let guards: Result<Vec<_>, _> =
                    (0..depth).map(|_| worker.expires("nested", LONG)).collect();
                drop(guards?);
            }
        }
    }
}

/// Children that wait for ever, and a child of each.
fn loaders(count: usize) -> Result<String, Failure> {
    let mut pids = Vec::new();
    for _ in 0..count {
        let script = "sleep 600 & echo $!; exec sleep 600";
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(std::process::Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        pids.push(child.id().to_string());
        pids.push(line.trim().to_owned());
    }
    Ok(pids.join(" "))
}

/// The most that forks on and on at once.
const FORKING: usize = 300;

/// Children that are forks of this process: their pids.
fn children(count: usize, how: &str) -> Result<String, Failure> {
    let mut pids = Vec::new();
    for _ in 0..count {
        // SAFETY: the child runs only code below that takes no lock, and never returns.
        let pid = unsafe { libc::fork() };
        match pid {
            -1 => return Err(std::io::Error::last_os_error().into()),
            0 => live_as_child(how),
            pid => pids.push(pid.to_string()),
        }
    }
    Ok(pids.join(" "))
}

fn live_as_child(how: &str) -> ! {
    // SAFETY: ends this process some day, whatever becomes of the test.
    unsafe { libc::alarm(if how == "busy" { 120 } else { 600 }) };
    if how == "forking" {
        // Waited for by nobody: each takes a place.
        for _ in 0..FORKING {
            // SAFETY: as in `children`.
            if unsafe { libc::fork() } == 0 {
                // SAFETY: as above; an alarm is not inherited.
                unsafe { libc::alarm(120) };
                break;
            }
        }
    }
    loop {
        match how {
            "busy" => std::hint::spin_loop(),
            // SAFETY: waits for a signal.
            _ => drop(unsafe { libc::pause() }),
        }
    }
}

/// A process whose parent has ended.
fn daemon() -> Result<String, Failure> {
    let output = Command::new("sh")
        .args(["-c", "sleep 600 >/dev/null 2>&1 & echo $!"])
        .stderr(std::process::Stdio::null())
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// A worker that is this one's child, with a child of its own; it ends with its input.
fn nested() -> Result<String, Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (mut stdin, stdout) = (stdin.ok_or("no input")?, stdout.ok_or("no output")?);
    writeln!(stdin, "attach")?;
    writeln!(stdin, "loaders 1")?;
    let mut answers = BufReader::new(stdout).lines();
    let mut answer =
        || answers.next().ok_or("it is dead").map_err(Failure::from)?.map_err(Failure::from);
    let (attached, loaders) = (answer()?, answer()?);
    // Kept open: it lives as long as this process.
    std::mem::forget((stdin, child));
    Ok(format!("{} {}", attached.trim_start_matches("ok "), loaders.trim_start_matches("ok ")))
}

/// What a forked child sees: inert guards, lanes of its own.
fn fork(worker: Worker) -> String {
    // SAFETY: the child runs this function only, then exits; this process has no other threads that
    // hold locks the child needs (the test forks from a quiet worker).
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = match worker.expires("forked", Duration::from_secs(30)) {
            Ok(guard) => i32::from(guard.release() != hangwatch::Released::InTime),
            Err(_) => 2,
        };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child just forked.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if libc::WIFEXITED(status) {
        libc::WEXITSTATUS(status).to_string()
    } else {
        format!("ended by status {status:#x}")
    }
}
