//! The options of `run` that are settings, and checks of a value by the parser of its option.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, CommandFactory, Parser};

use super::{MEANT, NO_SETTINGS, PREFIX, Variables, variable_of};
use crate::cli::Cli;

/// The options of `run`, or of a subcommand that shares some of them.
pub(super) struct Definition(clap::Command);

impl Definition {
    pub(super) fn new() -> Definition {
        Definition::of("run")
    }

    /// The options of another subcommand.
    pub(super) fn of(subcommand: &str) -> Definition {
        let mut command = Cli::command();
        command.build();
        Definition(command.find_subcommand(subcommand).expect("it is defined").clone())
    }

    pub(super) fn settings(&self) -> impl Iterator<Item = &Arg> {
        let is_setting =
            |arg: &&Arg| arg.get_long().is_some_and(|long| !NO_SETTINGS.contains(&long));
        self.0.get_arguments().filter(is_setting)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arg> {
        self.settings().find(|arg| name_of(arg) == name)
    }

    /// The setting as a word of the command line; a switch is only its name.
    pub(super) fn word(&self, name: &str, value: &str) -> String {
        if self.is_bare(name) { format!("--{name}") } else { format!("--{name}={value}") }
    }

    fn is_bare(&self, name: &str) -> bool {
        self.get(name).is_some_and(|arg| matches!(arg.get_action(), ArgAction::SetTrue))
    }

    /// Checks a value with the parser of its option.
    pub(super) fn check(&self, name: &str, value: &str) -> Result<(), String> {
        if self.is_bare(name) && value == "false" {
            return Ok(()); // the same as not set
        }
        if self.is_bare(name) && value != "true" {
            return Err("is not one of true, false".to_owned());
        }
        match try_word(self.0.get_name(), &self.word(name, value)) {
            // The value is valid; an option that it requires may come from another source.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => Ok(()),
            checked => checked.map_err(|error| reason(&error)),
        }
    }

    /// Whether clap refuses the two options together.
    pub(super) fn contradict(&self, one: &Arg, other: &Arg) -> bool {
        let excludes = |one: &Arg, other: &Arg| {
            self.0.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
        };
        excludes(one, other) || excludes(other, one)
    }

    /// Whether clap refuses the option together with a command to run.
    pub(super) fn contradicts_command(&self, arg: &Arg) -> bool {
        self.0.get_positionals().next().is_some_and(|command| self.contradict(arg, command))
    }

    /// Warnings about variables that look like settings but are not.
    pub(super) fn strange(&self, variables: &Variables) -> Vec<String> {
        // Variables of workers, hooks, tests and the log.
        let others = [
            "AUTO_SAID",
            "CONFIG",
            "INCIDENT",
            "JOB",
            "LOCAL_RANK",
            "LOG",
            "OPTIONAL",
            "OUTCOME",
            "PID",
            "PROGRAM",
            "PTRACER",
            "RANK",
            "SCOPE",
            "SEGMENT",
            "TORCH",
            "WORLD_SIZE",
        ];
        let families = ["TEST_", "CRASH_", "TORCH_", "EXEC"];
        let strange = |name: &String| {
            let rest = &name[PREFIX.len()..];
            let setting = rest.to_ascii_lowercase().replace('_', "-");
            let is_known = others.contains(&rest)
                || families.iter().any(|family| rest.starts_with(family))
                || self.get(&setting).is_some();
            if is_known {
                return None;
            }
            let ask = |meant: String| format!("; did you mean {}{MEANT}", variable_of(&meant));
            let meant = self.meant_by(&setting).map(ask).unwrap_or_default();
            Some(format!("the environment variable {name} is not a setting of run{meant}"))
        };
        variables.values.keys().filter_map(strange).collect()
    }

    /// The setting with a name similar to this unknown name.
    fn meant_by(&self, key: &str) -> Option<String> {
        let is_alias =
            |arg: &&Arg| arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&key));
        if let Some(arg) = self.settings().find(is_alias) {
            return Some(name_of(arg).to_owned());
        }
        let error = try_word("run", &format!("--{key}=x")).err()?;
        let Some(ContextValue::String(option)) = error.get(ContextKind::SuggestedArg) else {
            return None;
        };
        let meant = option.trim_start_matches("--").split('=').next()?;
        self.get(meant).map(|arg| name_of(arg).to_owned())
    }

    /// The error for a key of the file that is not a setting.
    pub(super) fn unknown(&self, key: &str) -> String {
        if NO_SETTINGS.contains(&key) {
            return format!("{key} works on the command line only");
        }
        match self.meant_by(key) {
            Some(meant) => format!("there is no setting {key:?}; did you mean {meant}?"),
            None => format!("there is no setting {key:?}; see `hangwatch run --help`"),
        }
    }
}

pub(super) fn name_of(arg: &Arg) -> &str {
    arg.get_long().expect("settings are options")
}

fn try_word(subcommand: &str, word: &str) -> Result<(), clap::Error> {
    Cli::try_parse_from(["hangwatch", subcommand, word]).map(|_| ())
}

/// The text of the error, without the option: the user wrote a variable or a line of the file instead.
pub(super) fn reason(error: &clap::Error) -> String {
    use std::error::Error;
    if let Some(source) = error.source() {
        let is_not_a_number = source.is::<std::num::ParseIntError>();
        if is_not_a_number {
            return "is not a whole number in range".into();
        }
        // Such a text repeats the value: "0 is not in 1..=9".
        let text = source.to_string();
        let value = error.get(ContextKind::InvalidValue).map(ToString::to_string);
        let rest = value.and_then(|value| text.strip_prefix(&value)?.strip_prefix(' '));
        return rest.unwrap_or(&text).to_owned();
    }
    if let (ErrorKind::InvalidValue, Some(ContextValue::Strings(known))) =
        (error.kind(), error.get(ContextKind::ValidValue))
    {
        if known.is_empty() {
            return "must not be empty".to_owned();
        }
        return format!("is not one of {}", known.join(", "));
    }
    let text = error.to_string();
    let text = text.split("\n\nUsage:").next().unwrap_or_default();
    text.trim_start_matches("error: ").trim_end().to_owned()
}
