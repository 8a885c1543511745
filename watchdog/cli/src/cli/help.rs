//! The layout of the help pages: commands grouped by task, examples before the options.
//!
//! Man pages and the reference do not use it: there the examples come last, as is usual.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::builder::Resettable;
use clap::{Command, CommandFactory, FromArgMatches};

use super::Cli;

/// The commands by task. Every command that is not hidden is in exactly one group.
const GROUPS: [(&str, &[&str]); 5] = [
    ("A process hangs now", &["dump", "status", "top", "fleet"]),
    ("Guard a command or a job", &["exec", "run", "release-brake"]),
    ("Find out why a worker hung", &["show", "incidents", "report", "trace", "analyze"]),
    ("Choose deadlines", &["scopes", "learn", "shadow"]),
    ("Set up and clean up", &["demo", "doctor", "completions", "man", "rm"]),
];

/// The help of a command: what it does, examples, usage, options, the rest.
const PAGE: &str = "\
{about-with-newline}
{before-help}{usage-heading} {usage}

{all-args}{after-help}";

/// Parses the command line as [`clap::Parser::try_parse_from`] does, with the help of this module.
pub(super) fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = laid_out(Cli::command());
    let mut matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// The command line with its help laid out: examples first, and the commands by task.
pub(super) fn laid_out(command: Command) -> Command {
    let page = PAGE.replace("{all-args}", &(grouped(&command) + "Options:\n{options}"));
    examples_first(command).mut_subcommands(examples_first).help_template(page)
}

/// The list of commands, grouped by task.
fn grouped(command: &Command) -> String {
    let mut text = String::new();
    for (task, names) in GROUPS {
        let _ = writeln!(text, "{task}:");
        for name in names {
            let about = command.find_subcommand(name).and_then(Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(text, "  {name:<13}  {about}");
        }
        text.push('\n');
    }
    text + "Help for one command: hangwatch COMMAND --help\n\n"
}

/// Moves the examples from the end of a command's help to before its usage.
fn examples_first(command: Command) -> Command {
    let after = command.get_after_long_help().or_else(|| command.get_after_help());
    let after = after.map(ToString::to_string).unwrap_or_default();
    let (examples, rest): (Vec<&str>, Vec<&str>) =
        after.split("\n\n").partition(|paragraph| paragraph.starts_with("Example"));
    if examples.is_empty() {
        return command;
    }
    let (examples, rest) = (examples.join("\n\n"), rest.join("\n\n"));
    let command = command.before_help(examples).help_template(PAGE).after_help(Resettable::Reset);
    if rest.is_empty() {
        command.after_long_help(Resettable::Reset)
    } else {
        command.after_long_help(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_exactly_one_group() {
        let mut grouped: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| *names).copied().collect();
        let command = Cli::command();
        let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
        let mut shown: Vec<&str> = shown.map(Command::get_name).collect();
        grouped.sort_unstable();
        shown.sort_unstable();
        assert_eq!(grouped, shown);
    }

    #[test]
    fn every_command_shows_its_examples_before_its_options() {
        let mut command = laid_out(Cli::command());
        command.build();
        for subcommand in command.get_subcommands_mut().filter(|command| !command.is_hide_set()) {
            if subcommand.get_name() == "help" {
                continue;
            }
            for help in [subcommand.render_help(), subcommand.render_long_help()] {
                let help = help.to_string();
                let [examples, usage] = ["\nExample", "\nUsage: "].map(|part| help.find(part));
                assert!(examples.is_some() && examples < usage, "{help}");
            }
        }
    }
}
