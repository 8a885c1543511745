//! A step: one command of the checks, with its name, purpose and environment.
//!
//! Steps are built by `test`, `fuzz`, `bench` and `python` and run by `runner`.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::Tool;

/// One command to run from the repository's root.
#[derive(Debug)]
pub(crate) struct Step {
    /// The word for `--only`; unique in its list.
    pub(crate) name: &'static str,
    /// What it checks, in one line of at most 50 columns.
    pub(crate) what: &'static str,
    /// What must be installed before it can run.
    pub(crate) needs: Vec<Tool>,
    /// Says why the step cannot be run here, where it cannot; then it is skipped by name.
    pub(crate) unless: Option<fn() -> Option<String>>,
    /// The program and what comes before `args`, as one would type it; `cargo` is the cargo that
    /// started this program.
    program: Vec<OsString>,
    /// Where it runs, from the repository's root.
    dir: PathBuf,
    args: Vec<OsString>,
    /// Set for the command, on top of the environment this process has.
    set: Vec<(&'static str, OsString)>,
    /// Taken out of the command's environment, because it would override `set`.
    unset: Vec<&'static str>,
}

impl Step {
    /// A step that runs cargo with these arguments.
    pub(crate) fn cargo(name: &'static str, what: &'static str, args: &[&str]) -> Self {
        Self::program(name, what, "cargo", args)
    }

    /// A step that runs another program with these arguments.
    pub(crate) fn program(
        name: &'static str,
        what: &'static str,
        program: impl Into<OsString>,
        args: &[&str],
    ) -> Self {
        let args = args.iter().map(OsString::from).collect();
        let (program, dir) = (vec![program.into()], PathBuf::new());
        let (needs, set, unset) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, what, needs, unless: None, program, dir, args, set, unset }
    }

    /// A step that runs the nightly toolchain's cargo with these arguments.
    pub(crate) fn nightly_cargo(name: &'static str, what: &'static str, args: &[&str]) -> Self {
        // What the stable cargo that runs this program told it about itself.
        let unset = vec!["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"];
        let program = ["rustup", "run", "nightly", "cargo"].map(OsString::from).to_vec();
        Self { program, unset, ..Self::cargo(name, what, args) }
    }

    /// Requires a tool, which is installed before the step runs if it is missing.
    pub(crate) fn needs(mut self, tool: Tool) -> Self {
        self.needs.push(tool);
        self
    }

    /// Skips the step where `why_not` has a reason, and says so at the end.
    pub(crate) fn unless(mut self, why_not: fn() -> Option<String>) -> Self {
        self.unless = Some(why_not);
        self
    }

    /// Runs it in a directory below the repository's root.
    pub(crate) fn dir(mut self, dir: &str) -> Self {
        self.dir = dir.into();
        self
    }

    /// Appends arguments.
    pub(crate) fn args(mut self, args: impl IntoIterator<Item = OsString>) -> Self {
        self.args.extend(args);
        self
    }

    /// Sets an environment variable.
    pub(crate) fn env(mut self, key: &'static str, value: impl Into<OsString>) -> Self {
        self.set.push((key, value.into()));
        self
    }

    /// Sets an environment variable, unless the caller's environment has it already.
    pub(crate) fn env_default(self, key: &'static str, value: &str) -> Self {
        if env::var_os(key).is_some() { self } else { self.env(key, value) }
    }

    /// Adds compiler flags to those of the caller's environment. `key` is `RUSTFLAGS`
    /// or `RUSTDOCFLAGS`; cargo's encoded forms, which take precedence over both, are
    /// taken out.
    pub(crate) fn flags(mut self, key: &'static str, flags: &str) -> Self {
        self.unset.push(match key {
            "RUSTDOCFLAGS" => "CARGO_ENCODED_RUSTDOCFLAGS",
            _ => "CARGO_ENCODED_RUSTFLAGS",
        });
        match env::var(key) {
            Ok(inherited) if !inherited.trim().is_empty() => {
                self.env(key, format!("{inherited} {flags}"))
            }
            _ => self.env(key, flags),
        }
    }

    /// Builds into a directory of its own below the usual one, so that other compiler
    /// flags do not make cargo build everything anew at each change between them.
    pub(crate) fn own_target_dir(self, name: &str) -> Self {
        let usual = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        self.env("CARGO_TARGET_DIR", usual.join(name))
    }

    /// The command, ready to be started.
    pub(crate) fn command(&self) -> Command {
        let mut command = match &self.program[..] {
            [program, args @ ..] if *program != "cargo" => {
                let mut command = Command::new(program);
                command.args(args);
                command
            }
            _ => Command::new(cargo()),
        };
        command.args(&self.args).current_dir(root().join(&self.dir));
        for key in &self.unset {
            command.env_remove(key);
        }
        command.envs(self.set.iter().map(|(key, value)| (key, value)));
        command
    }
}

/// The step as one would type it in a shell, on two lines where it has an environment.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, value) in &self.set {
            write!(f, "{key}={} ", quoted(&value.to_string_lossy()))?;
        }
        if !self.set.is_empty() {
            write!(f, "\\\n     ")?;
        }
        let words = self.program.iter().chain(&self.args);
        for (index, word) in words.enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{}", quoted(&word.to_string_lossy()))?;
        }
        Ok(())
    }
}

/// The cargo that started this program, else the one on the path.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the repository's root")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::Step;

    #[test]
    fn a_step_is_shown_as_a_shell_would_take_it() {
        let step = Step::cargo("loom", "models", &["test", "--test", "loom*"])
            .env("FLAGS", "--cfg loom")
            .env("N", "3");
        assert_eq!(step.to_string(), "FLAGS='--cfg loom' N=3 \\\n     cargo test --test 'loom*'");
    }
}
