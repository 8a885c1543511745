//! Worker processes of a bench: the bench's own program, started again with a role.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hangwatch::{Guard, Worker, WorkerOptions};

/// The first argument of a process that plays a role.
pub(crate) const ROLE: &str = "--bench-role";

/// Plays the role this process was started for, if any; then it does not return. Call it first in
/// `main`.
///
/// # Errors
/// What stops it from playing.
pub fn play_role() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [ROLE, "hang", segment, after_ns] => {
            let worker = Worker::attach(segment)?;
            hang(worker, after_ns.parse()?)
        }
        [ROLE, "idle", segment, lanes, timers] => idle(segment, lanes.parse()?, timers.parse()?),
        [ROLE, "wait"] => rest(),
        #[cfg(feature = "server")]
        [ROLE, "hosts", trouble] => crate::compare::fleet::serve(trouble.parse()?),
        #[cfg(feature = "server")]
        [ROLE, "pairs", segment, count] => crate::compare::observed::pairs(segment, count.parse()?),
        #[cfg(feature = "server")]
        [ROLE, "hangwatch", ..] => be_the_program(),
        [ROLE, "spin"] => loop {
            std::hint::spin_loop();
        },
        _ => Ok(()),
    }
}

/// The `hangwatch` program itself, with what follows the role's name.
#[cfg(feature = "server")]
fn be_the_program() -> ! {
    use clap::Parser;
    use hangwatch_cli::{cli::Cli, commands};
    let words = std::env::args_os().skip(2);
    let exit = commands::perform(Cli::parse_from(words).command);
    std::process::exit(exit.code().into())
}

/// The `hangwatch` program with these words, to be started.
///
/// # Errors
/// Where this program cannot be found.
#[cfg(feature = "server")]
pub fn program(words: &[&str]) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([ROLE, "hangwatch"]).args(words).env_remove("HANGWATCH_SEGMENT");
    Ok(command)
}

/// The same in a terminal of 80 x 24, as a child of script(1).
///
/// # Errors
/// Where this program cannot be found.
#[cfg(feature = "server")]
pub fn in_terminal(words: &[&str]) -> std::io::Result<Command> {
    let own = std::env::current_exe()?;
    let mut command = Command::new("script");
    // The words come as the environment has them: what is in them is nothing to the shell.
    command.env("BENCH_PROGRAM", own).env("BENCH_WORDS", words.join("\n"));
    command.env_remove("HANGWATCH_SEGMENT");
    let shell = format!(
        "stty rows 24 cols 80; set -f; IFS='\n'; exec \"$BENCH_PROGRAM\" {ROLE} hangwatch $BENCH_WORDS"
    );
    command.args(["--quiet", "--flush", "--command", &shell, "/dev/null"]);
    Ok(command)
}

fn rest() -> ! {
    println!("ready");
    loop {
        std::thread::park();
    }
}

/// Attaches, and when it is told to, begins a scope that does not end.
fn hang(worker: Worker, after_ns: u64) -> ! {
    let scope = worker.scope("hang").expect("a name");
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).expect("it is told to go on");
    let guard = scope.expires(Duration::from_nanos(after_ns)).expect("a free timer");
    std::mem::forget(guard);
    loop {
        std::thread::park();
    }
}

/// Takes `lanes` lanes, one a thread, each with `timers` timers that are due in an hour.
fn idle(segment: &str, lanes: usize, timers: usize) -> ! {
    let worker = WorkerOptions::new().attach(segment).expect("a lane");
    let scope = worker.scope("idle").expect("a name");
    let (attached, all) = std::sync::mpsc::channel();
    for _ in 0..lanes {
        let attached = attached.clone();
        let body = move || {
            let arm = |_| scope.expires(Duration::from_hours(1)).expect("a free lane");
            let _guards: Vec<Guard> = (0..timers).map(arm).collect();
            attached.send(()).expect("the main thread waits");
            loop {
                std::thread::park();
            }
        };
        std::thread::Builder::new().stack_size(64 << 10).spawn(body).expect("a thread");
    }
    assert_eq!(all.iter().take(lanes).count(), lanes);
    rest()
}

/// A process in a role, killed when dropped.
pub struct Player(Child);

impl Player {
    /// Starts it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(role: &[&str]) -> std::io::Result<Player> {
        let child = Command::new(std::env::current_exe()?)
            .arg(ROLE)
            .args(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Player(child))
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// Where it does not say so.
    pub fn ready(&mut self) {
        assert_eq!(self.line(), "ready\n");
    }

    /// The one line that it says.
    ///
    /// # Panics
    /// Where it says nothing.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.0.stdout.as_mut().expect("it is piped");
        BufReader::new(stdout).read_line(&mut line).expect("it says something");
        line
    }

    /// Tells it to go on.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn go(&mut self) {
        let stdin = self.0.stdin.as_mut().expect("it is piped");
        stdin.write_all(b"go\n").expect("it reads");
    }

    /// Its pid.
    ///
    /// # Panics
    /// Never: a child has one.
    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.0)
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
