//! A program of the corpus: built, running, and gone with all that it has started.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use hangwatch_incident::schema::{Dump, Incident};
use hangwatch_tests::incidents::Incidents;
use rustix::process::{Pid, Signal, kill_process_group};

/// Where the programs are.
fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hangs")
}

/// The programs of the corpus.
pub(crate) fn files() -> Vec<String> {
    let entries = std::fs::read_dir(dir()).unwrap().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

pub(crate) fn text(file: &str) -> String {
    std::fs::read_to_string(dir().join(file)).unwrap()
}

/// What a program is about, as its first line says.
pub(crate) fn first_line(file: &str) -> String {
    let text = text(file);
    text.lines().next().unwrap_or_default().trim_start_matches(['/', '#', ' ']).to_owned()
}

/// A sentence without what differs from run to run.
pub(crate) fn without_numbers(sentence: &str) -> String {
    let word = |word: &str| {
        if word.starts_with("0x") || word.starts_with("socket:[") {
            return "0x…".to_owned();
        }
        word.to_owned()
    };
    let words: Vec<String> = sentence.split(' ').map(word).collect();
    words.join(" ")
}

/// A program that can be run.
pub(crate) struct Built {
    command: Vec<String>,
    /// What was built for it, and its temporary files; removed with this.
    dir: tempfile::TempDir,
}

impl Built {
    /// A program that is there.
    pub(crate) fn of(command: &[&str]) -> Built {
        let command = command.iter().map(|&word| word.to_owned()).collect();
        Built { command, dir: tempfile::tempdir().unwrap() }
    }

    /// Builds one; `None` where there is no compiler or interpreter of its language.
    pub(crate) fn new(file: &str) -> Option<Built> {
        let path = dir().join(file);
        let scratch = tempfile::tempdir().unwrap();
        let (name, language) = file.rsplit_once('.').unwrap();
        let built = scratch.path().join(name);
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let (source, target) = (path.to_str().unwrap(), built.to_str().unwrap());
        let compiler = match language {
            "c" => words(&["cc", "-g", "-O0", "-w", "-pthread", "-o", target, source]),
            "cc" => {
                words(&["c++", "-std=c++20", "-g", "-O0", "-w", "-pthread", "-o", target, source])
            }
            "rs" => words(&["rustc", "-g", "-o", target, source]),
            "py" => return Some(Built { command: words(&["python3", source]), dir: scratch }),
            _ => return Some(Built { command: words(&["sh", source]), dir: scratch }),
        };
        let Ok(status) = Command::new(&compiler[0]).args(&compiler[1..]).status() else {
            println!("skipped: there is no {}", compiler[0]);
            return None;
        };
        assert!(status.success(), "{compiler:?}");
        Some(Built { command: vec![target.to_owned()], dir: scratch })
    }
}

impl Built {
    /// What `exec` keeps of it when this deadline passes, and what it logs.
    pub(crate) fn exec(&self, deadline_s: u32) -> (Incident, String) {
        let incidents = Incidents::new();
        let mut command = Command::new(hangwatch_tests::program("stage-watchdog"));
        command.args(["exec", "--deadline", &format!("{deadline_s}s"), "--log", "json"]);
        command.args(incidents.options("full", &["--evidence-budget", "60s"])).arg("--");
        command.args(&self.command).env_remove("HANGWATCH_LOG").env_remove("HANGWATCH_SEGMENT");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let log = String::from_utf8(command.output().unwrap().stderr).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        let mut lines = lines.filter(|line: &serde_json::Value| line["incident"].is_string());
        let line = lines.next().unwrap_or_else(|| panic!("no incident: {log}"));
        (incidents.of(&line), log)
    }
}

/// A program that runs, in a process group of its own.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(built: &Built) -> Running {
        let mut command = Command::new(&built.command[0]);
        command.args(&built.command[1..]).process_group(0).env_remove("HANGWATCH_SEGMENT");
        command.env("TMPDIR", built.dir.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Running(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What `dump` says of it.
    pub(crate) fn dump(&self) -> Dump {
        let mut command = Command::new(hangwatch_tests::program("stage-watchdog"));
        command.args(["dump", "--json", &self.0.id().to_string()]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL); // it may have ended
        }
        let _ = self.0.wait();
    }
}
