//! A real terminal for tests: tmux on a server of its own, with one pane in it.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Far longer than anything here takes: reached only when a test fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether a test must do without a terminal. It may not where `cargo xtask test` has installed one.
pub(crate) fn is_missing() -> bool {
    let is_required =
        std::env::var_os("HANGWATCH_TEST_TOOLS").is_some_and(|value| value == "required");
    if is_required || Command::new("tmux").arg("-V").output().is_ok() {
        return false;
    }
    println!("skipped: there is no tmux; apt-get install tmux");
    true
}

/// One pane, gone with its server when dropped.
pub(crate) struct Pane {
    /// The server's socket lies in it.
    dir: tempfile::TempDir,
}

impl Pane {
    /// A terminal of 80 x 24 in which `command`, a shell command, runs. It stays when that has ended.
    pub(crate) fn start(command: &str) -> Pane {
        let pane = Pane { dir: tempfile::tempdir().unwrap() };
        let size = ["-x", "80", "-y", "24"];
        let mut words = vec!["-u", "-f", "/dev/null", "new-session", "-d"];
        words.extend(size);
        // The shell waits to be told to go on: nothing is drawn before the options are set.
        let waiting = format!("read go; {command}");
        words.push(&waiting);
        pane.tmux(&words);
        pane.tmux(&["set-option", "-g", "remain-on-exit", "on"]);
        pane.tmux(&["set-option", "-g", "status", "off"]);
        pane.resize(80, 24);
        pane.keys(&["Enter"]);
        pane
    }

    fn tmux(&self, words: &[&str]) -> Output {
        let output = self.command(words).output();
        let output = output.unwrap_or_else(|error| panic!("tmux: {error}"));
        assert!(output.status.success(), "tmux {words:?}: {output:?}");
        output
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(self.dir.path().join("tmux")).args(words);
        command.env("LC_ALL", "C.UTF-8").env_remove("TMUX").env_remove("NO_COLOR");
        command.env_remove("HANGWATCH_SEGMENT").env("SHELL", "/bin/bash");
        command
    }

    /// Presses keys, by tmux's names.
    pub(crate) fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Gives the terminal another size.
    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        let (columns, rows) = (columns.to_string(), rows.to_string());
        self.tmux(&["resize-window", "-x", &columns, "-y", &rows]);
    }

    /// What tmux knows of the pane, by the name of a format variable.
    pub(crate) fn fact(&self, name: &str) -> String {
        let format = format!("#{{{name}}}");
        let output = self.tmux(&["display-message", "-p", &format]);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// What is on the screen, without blanks at the ends of lines.
    pub(crate) fn screen(&self) -> String {
        self.capture(&[])
    }

    /// What is on the screen, with further options of `capture-pane`.
    pub(crate) fn capture(&self, options: &[&str]) -> String {
        let output = self.tmux(&[&["capture-pane", "-p"], options].concat());
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until the screen is as hoped, and gives it.
    ///
    /// What is to be seen on it belongs into `met`, all of it: tmux reads a frame in pieces, and a
    /// screen that has one part of it may be caught without the next.
    pub(crate) fn wait(&self, what: &str, mut met: impl FnMut(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let screen = self.screen();
            if met(&screen) {
                return screen;
            }
            assert!(started.elapsed() < PATIENCE, "in vain waited until {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until this text is on the screen.
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait(text, |screen| screen.contains(text));
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        // It hangs up on whatever runs in the pane.
        let _ = self.command(&["kill-server"]).output();
    }
}
