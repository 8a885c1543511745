//! Settings of `run` from three sources: the command line, the environment, a file.
//!
//! A setting is defined once, as an option of [`Run`]: its name, its parser, its default and its help.
//! Its variable and its key in the file follow from its name, and what they say goes through the
//! option's own parser: `settle` has clap read the words of the command line again, with a word put
//! before them for each setting that only the environment or the file has.
//!
//! `definition` asks clap what the settings are, `layers` puts the sources one before the other, `file`
//! reads the file, [`page`] shows settings, [`Origins`] remembers where each came from.

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

/// The environment variable that names the file.
pub const CONFIG_VARIABLE: &str = "HANGWATCH_CONFIG";
const PREFIX: &str = "HANGWATCH_";
/// Options of `run` that say what to do, and are no settings.
const NO_SETTINGS: [&str; 4] = ["config", "check", "help", "version"];
/// The option that names the segment: with a command, its variable is a watchdog's around this one.
const SEGMENT: &str = "segment";
/// The option that names the directory of incidents.
const INCIDENTS: &str = "incidents";

/// Settings that are read again while the watchdog serves; any other takes a restart.
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

/// The variables of hangwatch in an environment.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    values: BTreeMap<String, String>,
    /// What was read before of the file of settings.
    file: Option<(PathBuf, Contents)>,
}

impl Variables {
    /// Those of this process. What is not UTF-8 is no value that any setting has.
    pub fn of_process() -> Variables {
        env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// With what stands in the file of settings, so that it is not read again.
    pub(crate) fn with_file(mut self, path: PathBuf, contents: Contents) -> Variables {
        self.file = Some((path, contents));
        self
    }

    fn file_at(&self, path: &Path) -> Option<&Contents> {
        self.file.as_ref().filter(|(read, _)| read == path).map(|(_, contents)| contents)
    }

    /// The value of a variable; an empty one is as good as none.
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

/// The variable of a setting.
pub fn variable_of(setting: &str) -> String {
    PREFIX.to_owned() + &setting.to_ascii_uppercase().replace('-', "_")
}

/// Where a setting's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Variable(String),
    /// A line of the file.
    File(PathBuf, usize),
    /// Nobody said anything.
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

/// What a setting is, and who says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name: that of the option, and the key in the file.
    pub name: String,
    /// Its value; `None` where it has none, which is its default.
    pub value: Option<String>,
    /// Where that comes from.
    pub origin: Origin,
}

/// Where the settings of a [`Run`] come from, and how to settle them anew.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    words: Vec<OsString>,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// Every setting, in the order of the help.
    pub settings: Vec<Setting>,
    /// What to say of variables that look like a setting's and are none: slips of the pen, perhaps.
    pub strange: Vec<String>,
}

/// How the end of [`Origins::strange`]'s text reads where a setting has nearly the same name.
const MEANT: &str = " meant?";

impl Origins {
    /// Those of [`Origins::strange`] that have nearly the name of a setting.
    pub fn misspelt(&self) -> impl Iterator<Item = &str> {
        self.strange.iter().map(String::as_str).filter(|text| text.ends_with(MEANT))
    }

    /// Where this setting comes from.
    pub fn of(&self, name: &str) -> Origin {
        let setting = self.settings.iter().find(|setting| setting.name == name);
        setting.map_or(Origin::Default, |setting| setting.origin.clone())
    }
}

/// What is wrong with the settings, each thing with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Problems(Vec<String>);

impl Problems {
    /// The file could not be read.
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

/// Settles what `run` is to do, from words that are known to be good by themselves.
///
/// # Errors
/// The error there is to print.
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

/// The words of `exec` or `demo`, with those of the settings of `run` that they have, too, and that the
/// environment says and the words do not.
///
/// # Errors
/// What is wrong with a variable.
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
        // The segment's variable and the incidents' are read by all commands, in one place.
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

/// The words without switches that are turned off: they say no more than nothing, and clap would have
/// them exclude what they do not.
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

/// The most that is read of a file of settings, bytes.
pub(crate) const FILE_BYTES: u64 = file::MOST;

/// Settles the same command line again: the file may say something else by now.
///
/// # Errors
/// What is wrong with the file, or with the settings together.
pub fn reread(origins: &Origins, variables: &Variables) -> Result<Run, Problems> {
    let words = std::iter::once("hangwatch".into()).chain(origins.words[1..].iter().cloned());
    let cli = Cli::try_read_from(words, variables);
    match cli.map(|cli| cli.command) {
        Ok(Command::Run(run)) => Ok(*run),
        Ok(_) => unreachable!("the words begin with run"),
        Err(error) => Err(Problems(vec![reason(&error)])),
    }
}

/// What no single setting is to blame for.
fn contradictions(run: &Run) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let at = |name: &str| run.origins.of(name);
    if run.reap.signal == ReapSignal::NotifyOnly && !run.reap.grace.is_zero() {
        let what = "grace delays the KILL after a signal, and signal = \"none\" sends none";
        problems.add(&at("grace"), what);
    }
    if run.cascade.asked().is_none() {
        let what = "cascade-policy \"hold\" needs to know for how long: set cascade, such as 5s";
        problems.add(&at("cascade-policy"), what);
    }
    if run.hook.on_expire.is_none() && at("on-expire-timeout") != Origin::Default {
        let what = "on-expire-timeout is a hook's, and there is none: set on-expire (--on-expire)";
        problems.add(&at("on-expire-timeout"), what);
    }
    let listen = &run.listen;
    match &listen.listen {
        None if listen.listen_anywhere => {
            let what = "listen-anywhere takes an address to listen at: set listen, too";
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
