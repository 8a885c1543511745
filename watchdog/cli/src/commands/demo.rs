//! `hangwatch demo`: workers hash files under nested scopes; one deadlocks, one crashes. The watchdog
//! must kill only the worker that hangs, and say why it hung.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{IsTerminal, Read, Seek, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Child, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hangwatch::{SEGMENT_VARIABLE, Segment};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::Signal;

use super::run::Removed;
use super::segments::{self, Origin, Wanted};
use super::status::{brief, shortened, table};
use super::{Failure, complain, print};
use crate::cli::{Demo, Fate};
use crate::exit::Exit;
use crate::program::own_program;
use evidence::Incidents;
use hangwatch_process::relay::{Caught, Relay};
use hangwatch_report::terminal::{Fold, Look};
use hangwatch_server::events::{Expiry, What};
use hangwatch_server::{Server, ServerEvent, ServerOptions};
use hangwatch_text::{count as count_of, plain};

mod evidence;
mod files;
pub(super) mod screen;
pub(super) mod worker;

/// How long the demo waits for its workers before it fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// The most that is read of a worker's output, which is a digest.
const MOST_RESULT_BYTES: u64 = 4096;
/// How long a worker may take to die after SIGKILL.
const DEATH: Duration = Duration::from_secs(5);
/// How often the demo checks whether a worker has died.
const LOOK_FOR_DEATH: Duration = Duration::from_millis(2);
/// How often the table is redrawn.
const FRAME: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
#[error("cannot start a worker: {0}; check the limits on processes, open files and memory")]
struct NoWorker(std::io::Error);

/// A worker of the demo.
struct DemoWorker {
    share: usize,
    fate: Fate,
    child: Child,
    status: Option<ExitStatus>,
    result: String,
}

/// The expiries that the server reported, by the worker's pid.
type Expiries = Arc<Mutex<BTreeMap<u32, Vec<Expiry>>>>;

pub(super) fn perform(options: &Demo) -> Result<Exit, Failure> {
    let count = options.workers as usize;
    let shares = files::shares(&options.dir, count)?;
    let expected: Vec<String> = shares.iter().map(|share| files::digest(share)).collect();
    // Caught, so that an interrupted demo ends its workers and removes its segment.
    let relay = Relay::install_only(&[Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT])?;
    let segment = segments::make_own("demo", Wanted::default())?;
    let name = segment.name();
    let _removed = Removed { name, origin: Origin::Made };
    let expiries = Expiries::default();
    let (incidents, evidence) = Incidents::new(&options.evidence);
    let (told, heard) = (expiries.clone(), incidents.clone());
    let how = ServerOptions { evidence, ..ServerOptions::default() };
    let server = Server::start(segment, how, move |event| {
        heard.hear(&event);
        note(&told, event);
    })?;
    introduce(options, &shares, name)?;

    let begun = Instant::now();
    let mut workers = start_all(&shares, name)?;
    let watched = watch(&mut workers, segment, &expiries, begun, &relay);
    for worker in &mut workers {
        finish(worker)?;
    }
    if let Some(caught) = watched? {
        return Ok(Exit::Signal(caught.signal.as_raw().unsigned_abs() as u8));
    }
    // The server reports its last events before it stops.
    server.stop();
    let expiries = expiries.lock().unwrap_or_else(PoisonError::into_inner);
    let exit = close(&workers, &shares, &expected, &expiries)?;
    print(&incidents.told(Look::of_stdout(Fold::Long)))?;
    Ok(exit)
}

fn note(expiries: &Expiries, event: ServerEvent) {
    if let What::Expired(expiry) = event.what
        && let Some(worker) = &expiry.timer.worker
    {
        let mut expiries = expiries.lock().unwrap_or_else(PoisonError::into_inner);
        expiries.entry(worker.pid).or_default().push(*expiry);
    }
}

fn introduce(options: &Demo, shares: &[Vec<files::File>], name: &str) -> Result<(), Failure> {
    let files: usize = shares.iter().map(Vec::len).sum();
    print(&format!(
        "{} workers hash {files} files of {} under deadlines, in segment {name}.\n\
         Worker 1 will deadlock in a scope with a deadline of 1s; worker 2 will crash.\n\n",
        shares.len(),
        plain(&options.dir.to_string_lossy()),
    ))
}

fn fate_of(share: usize) -> Fate {
    match share {
        1 => Fate::Deadlock,
        2 => Fate::Crash,
        _ => Fate::Finish,
    }
}

/// The list of a share's files as a memory file; writing to a pipe could block.
fn list_of(share: &[files::File]) -> std::io::Result<File> {
    let mut list = File::from(memfd_create("hangwatch-demo", MemfdFlags::CLOEXEC)?);
    list.write_all(&files::listed(share))?;
    list.rewind()?;
    Ok(list)
}

fn start_all(shares: &[Vec<files::File>], name: &str) -> Result<Vec<DemoWorker>, Failure> {
    let program = own_program();
    let count = shares.len();
    let mut workers = Vec::new();
    for (share, files) in shares.iter().enumerate() {
        let fate = fate_of(share);
        let fate_name = match fate {
            Fate::Finish => "finish",
            Fate::Deadlock => "deadlock",
            Fate::Crash => "crash",
        };
        let started = list_of(files).and_then(|list| {
            process::Command::new(&program)
                .args(["demo-worker", "--fate", fate_name])
                .env(SEGMENT_VARIABLE, name)
                .env("RANK", share.to_string())
                .env("WORLD_SIZE", count.to_string())
                .stdin(list)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
        });
        match started {
            Ok(child) => {
                workers.push(DemoWorker {
                    share,
                    fate,
                    child,
                    status: None,
                    result: String::new(),
                });
            }
            Err(error) => {
                for worker in &mut workers {
                    finish(worker)?;
                }
                return Err(NoWorker(error).into());
            }
        }
    }
    Ok(workers)
}

/// Waits for the workers and shows the segment meanwhile: as a live table on a terminal, else as lines.
///
/// Returns early with the signal if the demo is interrupted.
fn watch(
    workers: &mut [DemoWorker],
    segment: Segment,
    expiries: &Expiries,
    begun: Instant,
    relay: &Relay,
) -> Result<Option<Caught>, Failure> {
    let live = std::io::stdout().is_terminal();
    let mut drawn = 0;
    let mut told = 0;
    while begun.elapsed() < PATIENCE {
        if let Some(caught) = relay.next()? {
            return Ok(Some(caught));
        }
        if live {
            let frame = screen::clipped(&table(&segment.picture()), screen::size());
            print(&redraw(&frame, drawn))?;
            drawn = frame.lines().count();
        } else {
            told = tell_new(expiries, told)?;
        }
        let mut left = false;
        for worker in workers.iter_mut() {
            if worker.status.is_none()
                && let Some(status) = worker.child.try_wait()?
            {
                worker.status = Some(status);
                if !live {
                    print(&format!("worker {} ended: {}\n", worker.share, describe(status)))?;
                }
            }
            left |= worker.status.is_none();
        }
        if !left {
            break;
        }
        std::thread::sleep(FRAME);
    }
    if live {
        print(&redraw("", drawn))?;
    } else {
        tell_new(expiries, told)?;
    }
    Ok(None)
}

/// Draws the frame over the last one, which had `drawn` lines.
fn redraw(frame: &str, drawn: usize) -> String {
    let up = if drawn > 0 { format!("\u{1b}[{drawn}A") } else { String::new() };
    // Clears the rest of each line and what is below it. Clearing the whole screen would push each
    // frame into the scrollback of some terminals.
    let lines = frame.replace('\n', "\u{1b}[K\n");
    format!("{up}\r{lines}\u{1b}[J")
}

/// Prints one line for each new expiry; returns how many have been printed in total.
fn tell_new(expiries: &Expiries, told: usize) -> Result<usize, Failure> {
    let expiries = expiries.lock().unwrap_or_else(PoisonError::into_inner);
    let all: Vec<&Expiry> = expiries.values().flatten().collect();
    for expiry in all.iter().skip(told) {
        print(&format!(
            "the worker with pid {} missed the deadline of scope {:?}: {}\n",
            expiry.timer.worker.as_ref().map_or(0, |worker| worker.pid),
            expiry.timer.scope,
            expiry.outcome.name()
        ))?;
    }
    Ok(all.len())
}

/// Kills a worker that still runs, waits for it, and reads its output.
///
/// Gives up on a worker that does not die because the disk of its files does not answer.
fn finish(worker: &mut DemoWorker) -> Result<(), Failure> {
    let until = Instant::now() + DEATH;
    if worker.status.is_none() {
        worker.child.kill()?;
    }
    while worker.status.is_none() {
        worker.status = worker.child.try_wait()?;
        if Instant::now() > until && worker.status.is_none() {
            let (share, pid) = (worker.share, worker.child.id());
            complain(&format_args!("worker {share} (pid {pid}) does not die after SIGKILL"));
            return Ok(());
        }
        std::thread::sleep(LOOK_FOR_DEATH);
    }
    if let Some(stdout) = worker.child.stdout.take() {
        stdout.take(MOST_RESULT_BYTES).read_to_string(&mut worker.result)?;
    }
    Ok(())
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "finished".to_owned(),
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(9)) => "killed by SIGKILL".to_owned(),
        (None, Some(6)) => "crashed (SIGABRT)".to_owned(),
        (None, Some(signal)) => format!("died of signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Prints what happened and whether it was as expected.
fn close(
    workers: &[DemoWorker],
    shares: &[Vec<files::File>],
    expected: &[String],
    expiries: &BTreeMap<u32, Vec<Expiry>>,
) -> Result<Exit, Failure> {
    let mut text = format!("{:<8} {:>8}  {:<20} {}\n", "WORKER", "PID", "END", "WHAT HAPPENED");
    let mut right = true;
    for worker in workers {
        let (pid, status) = (worker.child.id(), worker.status.unwrap_or_default());
        let missed = expiries.get(&pid).map_or(&[][..], Vec::as_slice);
        let (story, as_it_should) = match worker.fate {
            Fate::Finish => {
                let share = worker.share;
                let (story, is_right) = judged(&worker.result, &shares[share], &expected[share]);
                (story, is_right && status.success() && missed.is_empty())
            }
            Fate::Deadlock => (story_of(missed), status.signal() == Some(9) && !missed.is_empty()),
            Fate::Crash => {
                let untouched = status.signal() == Some(6) && missed.is_empty();
                ("crashed by itself; its lane is free again".to_owned(), untouched)
            }
        };
        let mark = if as_it_should { "" } else { "  <- NOT AS EXPECTED" };
        right &= as_it_should;
        let end = describe(status);
        let _ = writeln!(text, "{:<8} {pid:>8}  {end:<20} {story}{mark}", worker.share);
    }
    let verdict = if right {
        "\nOnly the worker that hung was killed; all others ended as expected.\n"
    } else {
        "\nThis is NOT the expected result; please report it.\n"
    };
    print(&(text + verdict))?;
    Ok(if right { Exit::Ok } else { Exit::Failed })
}

/// Describes a worker's result, and whether it is right. Files that changed meanwhile are not an error.
fn judged(result: &str, share: &[files::File], expected: &str) -> (String, bool) {
    if result.trim() == expected {
        return ("result is right".to_owned(), true);
    }
    let changed = share.iter().filter(|file| file.has_changed()).count();
    // A change within the resolution of the file times shows only in the digest.
    if changed == 0 && files::digest(share) == expected {
        return ("RESULT IS WRONG".to_owned(), false);
    }
    let files = count_of(changed.max(1), "file");
    (format!("not compared: {files} changed meanwhile"), true)
}

/// The scope in which a worker hung, and how late the kill came.
fn story_of(missed: &[Expiry]) -> String {
    let Some(first) = missed.first() else {
        return "was not killed".to_owned();
    };
    let late = Duration::from_nanos(first.late_ns);
    format!("hung in {:?}, killed {} late", shortened(&first.timer.scope, 16), brief(late))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_result_is_an_error_only_if_no_file_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "before").unwrap();
        let share = files::shares(dir.path(), 1).unwrap().remove(0);
        let expected = files::digest(&share);
        assert!(judged(&format!("{expected}\n"), &share, &expected).1);
        let wrong = judged("another", &share, &expected);
        assert_eq!(wrong, ("RESULT IS WRONG".to_owned(), false));
        std::fs::write(&path, "and after").unwrap();
        let told = judged("another", &share, &expected);
        assert_eq!(told, ("not compared: 1 file changed meanwhile".to_owned(), true));
    }
}
