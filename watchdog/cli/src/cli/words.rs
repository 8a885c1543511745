//! The short forms of `exec` and `run`: without `--` before the command, and without `--deadline`.
//!
//! [`marked`] turns `exec 30s make test`, the form of `timeout(1)`, into `exec --deadline 30s -- make test`.
//! It parses options only to find where the command begins; clap parses the result.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::{Cli, value};

/// Inserts `--deadline` before a bare deadline, and `--` before the command.
pub(super) fn marked(mut words: Vec<OsString>) -> Vec<OsString> {
    let Some(name) = words.get(1).and_then(|word| word.to_str()) else { return words };
    if name != "exec" && name != "run" {
        return words;
    }
    let takes_a_deadline = name == "exec";
    let mut all = Cli::command();
    all.build();
    let Some(command) = all.find_subcommand(name) else { return words };
    let mut has_deadline = !takes_a_deadline;
    let mut place = 2;
    while let Some(word) = words.get(place) {
        match Word::of(word, command) {
            Word::Mark | Word::Unknown => return words,
            Word::Option { words: count, is_deadline } => {
                has_deadline |= is_deadline;
                place += count;
            }
            Word::Plain if !has_deadline && is_duration(word) => {
                has_deadline = true;
                words.insert(place, "--deadline".into());
                place += 2;
            }
            Word::Plain => {
                words.insert(place, "--".into());
                return words;
            }
        }
    }
    words
}

/// A word before the command.
enum Word {
    /// `--`, the end of the options.
    Mark,
    /// An option; `words` counts it and its value.
    Option { words: usize, is_deadline: bool },
    /// An option that the command does not have.
    Unknown,
    /// Not an option.
    Plain,
}

impl Word {
    fn of(word: &OsStr, command: &Command) -> Word {
        let Some(text) = word.to_str() else { return Word::Plain };
        if text == "--" {
            return Word::Mark;
        }
        if let Some(long) = text.strip_prefix("--") {
            let (name, has_value) = match long.split_once('=') {
                Some((name, _)) => (name, true),
                None => (long, false),
            };
            return match command.get_arguments().find(|arg| is_named(arg, name)) {
                Some(arg) => Word::Option {
                    words: if takes_a_value(arg) && !has_value { 2 } else { 1 },
                    is_deadline: name == "deadline",
                },
                None => Word::Unknown,
            };
        }
        match text.strip_prefix('-') {
            None | Some("") => Word::Plain,
            Some(letters) => Word::of_letters(letters, command),
        }
    }

    /// Short options in one word: the first that takes a value takes the rest of the word, or the next word.
    fn of_letters(letters: &str, command: &Command) -> Word {
        for (at, letter) in letters.char_indices() {
            let Some(arg) = command.get_arguments().find(|arg| arg.get_short() == Some(letter))
            else {
                return Word::Unknown;
            };
            if takes_a_value(arg) {
                let is_last = at + letter.len_utf8() == letters.len();
                return Word::Option { words: if is_last { 2 } else { 1 }, is_deadline: false };
            }
        }
        Word::Option { words: 1, is_deadline: false }
    }
}

fn is_named(arg: &Arg, name: &str) -> bool {
    let aliases = arg.get_all_aliases().unwrap_or_default();
    arg.get_long() == Some(name) || aliases.contains(&name)
}

/// Whether the next word is the option's value. A switch has its value in the same word
/// (`--notify-only=false`).
fn takes_a_value(arg: &Arg) -> bool {
    let needs_one = arg.get_num_args().is_none_or(|count| count.min_values() > 0);
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && needs_one
}

/// Whether a word is probably a duration, even an invalid one such as `0s`.
fn is_duration(word: &OsStr) -> bool {
    let Some(text) = word.to_str() else { return false };
    value::duration(text).is_ok() || text.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        assert_eq!(marked(words(line)), words(expected), "{line}");
    }

    #[test]
    fn deadline_option_name_may_be_omitted() {
        check("hangwatch exec 30s make test", "hangwatch exec --deadline 30s -- make test");
        check("hangwatch exec 30 -- make", "hangwatch exec --deadline 30 -- make");
        check("hangwatch exec -k 5s 1m sh -c x", "hangwatch exec -k 5s --deadline 1m -- sh -c x");
        check("hangwatch exec -k5s 1m sh", "hangwatch exec -k5s --deadline 1m -- sh");
        check("hangwatch exec --signal=TERM 2 x", "hangwatch exec --signal=TERM --deadline 2 -- x");
        check("hangwatch exec 0s true", "hangwatch exec --deadline 0s -- true");
    }

    #[test]
    fn double_dash_before_the_command_may_be_omitted() {
        check("hangwatch exec --deadline 5s make -j8", "hangwatch exec --deadline 5s -- make -j8");
        check("hangwatch exec --deadline=5s 7z x", "hangwatch exec --deadline=5s -- 7z x");
        check("hangwatch run make test", "hangwatch run -- make test");
        check("hangwatch run --grace 1s 5s", "hangwatch run --grace 1s -- 5s");
        check("hangwatch run --notify-only make", "hangwatch run --notify-only -- make");
        check("hangwatch exec make", "hangwatch exec -- make");
    }

    #[test]
    fn other_command_lines_are_unchanged() {
        for line in [
            "hangwatch",
            "hangwatch status train",
            "hangwatch exec --deadline 5s -- make -- test",
            "hangwatch exec --deadlin 5s make",
            "hangwatch exec -x 5s make",
            "hangwatch run --segment train",
            "hangwatch exec --help",
        ] {
            check(line, line);
        }
    }
}
