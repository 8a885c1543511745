//! Settings of `run` from three sources: the command line, the environment, a file.
//!
//! A setting is defined once, as an option of [`Run`]: name, parser, default and help. Its variable and its
//! key in the file follow from the name. Values from all sources go through the option's parser: `settle`
//! inserts an option into the command line for each setting that only the environment or the file has, and
//! lets clap parse the result.
//!
//! `definition` lists the settings, `layers` merges the sources, `file` reads the file, [`page`] prints
//! settings, [`Origins`] records the source of each.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, Parser};

use self::definition::{Definition, name_of, reason};
use self::layers::{Layers, Said};
use super::value::ReapSignal;
use super::{Cli, Command, Run};
use hangwatch_process::reading::Contents;

mod definition;
mod file;
mod layers;
pub mod page;
pub(crate) mod unquoted;

/// The environment variable that names the settings file.
pub const CONFIG_VARIABLE: &str = "HANGWATCH_CONFIG";
const PREFIX: &str = "HANGWATCH_";
/// Options of `run` that are not settings.
const NO_SETTINGS: [&str; 4] = ["config", "check", "help", "version"];
/// The option that names the segment. With a command, its variable names an outer watchdog's segment.
const SEGMENT: &str = "segment";
/// The option that names the directory of incidents.
const INCIDENTS: &str = "incidents";

/// Settings that SIGHUP changes in a running watchdog; any other needs a restart.
pub const REREAD: [&str; 11] = [
    "signal",
    "grace",
    "notify-only",
    "deadlines",
    "max-reaps",
    "warn-at",
    "cascade",
    "cascade-policy",
    "stopped",
    "traced",
    "frozen",
];

/// The `HANGWATCH_*` variables of an environment.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// The contents of the settings file, if they were read before.
    file: Option<(PathBuf, Contents)>,
}

impl Variables {
    /// The variables of this process. Bytes that are not UTF-8 are replaced: no setting has such a value.
    pub fn of_process() -> Variables {
        env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// Adds the contents of the settings file, so that it is not read again.
    pub(crate) fn with_file(mut self, path: PathBuf, contents: Contents) -> Variables {
        self.file = Some((path, contents));
        self
    }

    fn file_at(&self, path: &Path) -> Option<&Contents> {
        self.file.as_ref().filter(|(read, _)| read == path).map(|(_, contents)| contents)
    }

    /// The value of a variable; `None` if it is empty or not set.
    pub fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Variables {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Variables {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let values = variables.filter(|(name, _)| name.starts_with(PREFIX)).collect();
        Variables { values, file: None }
    }
}

/// The environment variable of a setting: `HANGWATCH_MAX_REAPS` for `max-reaps`.
pub fn variable_of(setting: &str) -> String {
    PREFIX.to_owned() + &setting.to_ascii_uppercase().replace('-', "_")
}

/// The source of a setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Variable(String),
    /// A line of the file.
    File(PathBuf, usize),
    /// No source sets it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag => f.write_str("command line"),
            Origin::Variable(name) => f.write_str(name),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A setting with its value and the source of the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name of the option, which is also the key in the file.
    pub name: String,
    /// The value; `None` if it has no value by default.
    pub value: Option<String>,
    /// The source of the value.
    pub origin: Origin,
}

/// The sources of the settings of a [`Run`], and what is needed to read them again.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    words: Vec<OsString>,
    /// The settings file, if there is one.
    pub file: Option<PathBuf>,
    /// All settings, in the order of the help.
    pub settings: Vec<Setting>,
    /// Warnings about variables that look like settings but are not, such as typos.
    pub strange: Vec<String>,
}

/// The end of a warning in [`Origins::strange`] that suggests a setting with a similar name.
const MEANT: &str = "?";

impl Origins {
    /// The warnings of [`Origins::strange`] that suggest a setting with a similar name.
    pub fn misspelt(&self) -> impl Iterator<Item = &str> {
        self.strange.iter().map(String::as_str).filter(|text| text.ends_with(MEANT))
    }

    /// The source of a setting.
    pub fn of(&self, name: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| setting.name == name);
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }
}

/// The errors in the settings, each with its source.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(Vec<String>);

impl Problems {
    /// The error for a settings file that cannot be read.
    pub(crate) fn of_file(path: &Path, source: &std::io::Error) -> Problems {
        Problems(vec![format!("{}: cannot be read: {source}", path.display())])
    }

    fn add(&mut self, place: &impl fmt::Display, what: impl fmt::Display) {
        self.0.push(format!("{place}: {what}"));
    }

    fn or<T>(self, good: T) -> Result<T, Problems> {
        if self.0.is_empty() { Ok(good) } else { Err(self) }
    }
}

impl From<Problems> for clap::Error {
    fn from(problems: Problems) -> clap::Error {
        clap::Error::raw(ErrorKind::ValueValidation, format!("{problems}\n"))
    }
}

/// Merges the settings of all sources. The command line must have been parsed without an error before.
///
/// # Errors
/// The error to print.
pub(super) fn settle(words: Vec<OsString>, variables: &Variables) -> Result<Run, clap::Error> {
    let definition = Definition::new();
    let flags = matches(words.clone())?;
    let mut layers = Layers::new(&definition, &flags);
    layers.add_environment(variables);
    let path: Option<PathBuf> = flags.get_one::<PathBuf>("config").cloned();
    let path = path.or_else(|| variables.get(CONFIG_VARIABLE).map(PathBuf::from));
    if let Some(path) = &path {
        layers.add_file(path, variables.file_at(path));
    }
    let strange = definition.strange(variables);
    let with_strange = |problems: Problems| Problems([problems.0, strange.clone()].concat());
    let said = layers.settle().map_err(with_strange)?;
    let mut all = without_off(&words, &said);
    let is_extra = |said: &Said| said.origin != Origin::Flag && !said.is_off();
    let extra = said.iter().filter(|(_, said)| is_extra(said));
    let extra = extra.map(|(name, said)| definition.word(name, &said.value).into());
    let extra: Vec<OsString> = extra.collect();
    all.splice(2..2, extra);
    let settled = matches(all.clone())?;
    let cli = Cli::try_parse_from(&all)?;
    let Command::Run(mut run) = cli.command else { unreachable!("the words begin with run") };
    run.settings.config.clone_from(&path);
    let settings = definition.settings().map(|arg| {
        let name = name_of(arg).to_owned();
        let value = settled.get_raw(arg.get_id().as_str()).and_then(|mut values| values.next());
        let value = value.map(|value| value.to_string_lossy().into_owned());
        let origin = said.get(&name).map_or(Origin::Default, |said| said.origin.clone());
        Setting { name, value, origin }
    });
    let settings = settings.collect();
    run.origins = Origins { words, file: path, settings, strange };
    contradictions(&run)?;
    Ok(*run)
}

/// Adds settings from the environment to the command line of `exec` or `demo`.
///
/// Adds settings of `run` that the subcommand has, too, unless the command line sets them.
///
/// # Errors
/// A variable has an invalid value.
pub(super) fn with_environment(
    words: &[OsString],
    subcommand: &str,
    variables: &Variables,
) -> Result<Vec<OsString>, Problems> {
    let (of_run, own) = (Definition::new(), Definition::of(subcommand));
    let flags = matches(words.to_vec()).map_err(|error| Problems(vec![reason(&error)]))?;
    let (mut more, mut problems) = (Vec::new(), Problems::default());
    for arg in own.settings() {
        let name = name_of(arg);
        let is_said = flags.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        // `Cli::try_read_from` reads the variables of the segment and of the incidents for all commands.
        if is_said || name == SEGMENT || name == INCIDENTS || of_run.get(name).is_none() {
            continue;
        }
        let variable = variable_of(name);
        let Some(value) = variables.get(&variable) else { continue };
        match own.check(name, &value) {
            Ok(()) => more.push(own.word(name, &value).into()),
            Err(why) => problems.add(&variable, format_args!("{value:?} {why}")),
        }
    }
    let mut all = words.to_vec();
    all.splice(2..2, more);
    problems.or(all)
}

/// Removes switches that are off (`--notify-only=false`), which clap would count as conflicts.
fn without_off(words: &[OsString], said: &BTreeMap<String, Said>) -> Vec<OsString> {
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let off: Vec<String> = said
        .iter()
        .filter(|(_, said)| said.is_off())
        .map(|(name, _)| format!("--{name}=false"))
        .collect();
    let is_off = |word: &OsString| off.iter().any(|off| word == off.as_str());
    let words = words.iter().enumerate();
    let words = words.filter(|(index, word)| *index >= end || !is_off(word));
    words.map(|(_, word)| word.clone()).collect()
}

/// The most that is read of a settings file, bytes.
pub(crate) const FILE_BYTES: u64 = file::MOST;

/// Parses the same command line again, with the current contents of the settings file.
///
/// # Errors
/// The file is invalid, or settings contradict each other.
pub fn reread(origins: &Origins, variables: &Variables) -> Result<Run, Problems> {
    let words = std::iter::once("hangwatch".into()).chain(origins.words[1..].iter().cloned());
    let cli = Cli::try_read_from(words, variables);
    match cli.map(|cli| cli.command) {
        Ok(Command::Run(run)) => Ok(*run),
        Ok(_) => unreachable!("the words begin with run"),
        Err(error) => Err(Problems(vec![reason(&error)])),
    }
}

/// Checks for settings that contradict each other.
fn contradictions(run: &Run) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let at = |name: &str| run.origins.of(name);
    if run.reap.signal == ReapSignal::NotifyOnly && !run.reap.grace.is_zero() {
        let what =
            "grace is the time between a signal and KILL, but signal = \"none\" sends no signal";
        problems.add(&at("grace"), what);
    }
    if run.cascade.asked().is_none() {
        let what = "cascade-policy \"hold\" needs a duration: set cascade, for example to 5s";
        problems.add(&at("cascade-policy"), what);
    }
    if run.hook.on_expire.is_none() && at("on-expire-timeout") != Origin::Default {
        let what = "on-expire-timeout has no effect without a hook: set on-expire (--on-expire)";
        problems.add(&at("on-expire-timeout"), what);
    }
    let listen = &run.listen;
    match &listen.listen {
        None if listen.listen_anywhere => {
            let what = "listen-anywhere has no effect without an address: set listen, too";
            problems.add(&at("listen-anywhere"), what);
        }
        Some(address) if !listen.listen_anywhere && !address.is_local() => {
            let what = hangwatch_http::listen::ListenError::NotLocal { address: address.clone() };
            problems.add(&at("listen"), what);
        }
        _ => {}
    }
    problems.or(())
}

fn matches(words: Vec<OsString>) -> Result<ArgMatches, clap::Error> {
    let mut matches = Cli::command().try_get_matches_from(words)?;
    let (_, of_subcommand) = matches.remove_subcommand().expect("one is required");
    Ok(of_subcommand)
}

#[cfg(test)]
mod tests;
