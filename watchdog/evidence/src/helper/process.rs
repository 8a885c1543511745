//! What `/proc` says about the process.

use hangwatch_core::wire::signal;
use procfs::process::Status;

use super::files;
use super::target::{READ_BYTES, Target, why};
use super::teller::Why;
use crate::piece::Piece;
use crate::redact::Redactor;
use hangwatch_incident::schema::{Child, Missing, Process, Worker};

/// Children listed at most.
const CHILDREN: usize = 256;

/// Tells the process, then the process with its sockets, which may take longer to find.
pub(super) fn capture(
    target: &Target,
    redactor: &Redactor,
    tell: &mut dyn FnMut(Piece),
) -> Result<(), Why> {
    let proc = target.proc()?;
    let status = proc.status().map_err(|error| why(&error))?;
    let arguments = redactor.arguments(&arguments_of(target));
    let name = target.read("comm").unwrap_or_default().trim_end().to_owned();
    tell(Piece::Worker(Worker { name, command: arguments, ..Worker::default() }));

    let path = |path: procfs::ProcResult<std::path::PathBuf>| {
        path.ok().map(|path| path.to_string_lossy().into_owned())
    };
    let mut process = Process {
        executable: path(proc.exe()),
        directory: path(proc.cwd()),
        parent: u32::try_from(status.ppid).ok(),
        cgroups: target.read("cgroup").unwrap_or_default().lines().map(str::to_owned).collect(),
        environment: environment_of(target, redactor, tell),
        resident_bytes: status.vmrss.map(|kib| kib * 1024),
        virtual_bytes: status.vmsize.map(|kib| kib * 1024),
        swap_bytes: status.vmswap.map(|kib| kib * 1024),
        children: children_of(target),
        ..signals_of(&status)
    };
    match files::list(&proc) {
        Ok(files) => {
            process.files = files.files;
            process.files_left_out = files.left_out;
        }
        Err(why) => tell(Piece::Missing(Missing { what: "files".to_owned(), why })),
    }
    tell(Piece::Process(Box::new(process.clone())));
    if files::name_sockets(&proc, &mut process.files) {
        tell(Piece::Process(Box::new(process)));
    }
    Ok(())
}

fn arguments_of(target: &Target) -> Vec<String> {
    let text = target.read("cmdline").unwrap_or_default();
    let text = text.trim_end_matches('\0');
    if text.is_empty() { Vec::new() } else { text.split('\0').map(str::to_owned).collect() }
}

fn environment_of(
    target: &Target,
    redactor: &Redactor,
    tell: &mut dyn FnMut(Piece),
) -> Vec<String> {
    match target.read("environ") {
        Ok(text) => {
            if text.len() as u64 >= READ_BYTES {
                let why = format!("it is longer than {READ_BYTES} bytes: the rest was left out");
                tell(Piece::Missing(Missing { what: "environment".to_owned(), why }));
            }
            let variables = text.split('\0').filter(|variable| !variable.is_empty());
            variables.map(|variable| redactor.variable(variable)).collect()
        }
        Err(error) => {
            let why = super::target::why_io(&error);
            tell(Piece::Missing(Missing { what: "environment".to_owned(), why }));
            Vec::new()
        }
    }
}

fn signals_of(status: &Status) -> Process {
    Process {
        signals_blocked: signal_names(status.sigblk),
        signals_ignored: signal_names(status.sigign),
        signals_caught: signal_names(status.sigcgt),
        signals_pending: signal_names(status.sigpnd | status.shdpnd),
        ..Process::default()
    }
}

/// The names of the signals in a mask of `/proc/PID/status`.
fn signal_names(mask: u64) -> Vec<String> {
    (1..=signal::LAST)
        .filter(|number| mask & (1 << (number - 1)) != 0)
        .map(signal::spelled)
        .collect()
}

/// Its children, as the kernel lists them for each of its threads.
fn children_of(target: &Target) -> Vec<Child> {
    let tids = target.tids().unwrap_or_default();
    let lists = tids.iter().filter_map(|tid| target.read(format!("task/{tid}/children")).ok());
    let pids: Vec<u32> = lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .take(CHILDREN)
        .collect();
    pids.into_iter().filter_map(child).collect()
}

fn child(pid: u32) -> Option<Child> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    let state = rest.split_whitespace().next()?.to_owned();
    Some(Child { pid, name: name.to_owned(), state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_is_signals_by_their_names() {
        assert_eq!(signal_names(1 << 8 | 1 << 14 | 1 << 33), ["SIGKILL", "SIGTERM", "SIGRTMIN"]);
        assert!(signal_names(0).is_empty());
    }

    #[test]
    fn a_process_is_a_child_by_its_own_name() {
        let child = child(std::process::id()).unwrap();
        assert_eq!(child.pid, std::process::id());
        assert!(!child.name.is_empty() && !child.state.is_empty(), "{child:?}");
    }
}
