//! Words of `exec` and `run` as people type them: the `--` before the command may be left out, and the
//! deadline of `exec` may stand alone, as with `timeout(1)`.
//!
//! [`marked`] turns `exec 30s make test` into `exec --deadline 30s -- make test`. It reads options only as
//! far as it must to tell an option's value from the command; what they mean is for clap.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command, CommandFactory};

use super::{Cli, value};

/// The words with the deadline named and the command marked.
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

/// What a word is where an option may stand.
enum Word {
    /// The end of the options.
    Mark,
    /// An option; with its value it is so many words.
    Option { words: usize, is_deadline: bool },
    /// An option that there is not.
    Unknown,
    /// No option.
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

    /// Short options in one word: the first that takes a value has the rest, or the next word, for it.
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

/// Whether the word after the option is its value. A switch may have one (`--notify-only=false`), in the
/// same word.
fn takes_a_value(arg: &Arg) -> bool {
    let needs_one = arg.get_num_args().is_none_or(|count| count.min_values() > 0);
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && needs_one
}

/// Whether a word is meant for a duration: also one that is refused, such as `0s`.
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
    fn the_deadline_may_stand_alone() {
        check("hangwatch exec 30s make test", "hangwatch exec --deadline 30s -- make test");
        check("hangwatch exec 30 -- make", "hangwatch exec --deadline 30 -- make");
        check("hangwatch exec -k 5s 1m sh -c x", "hangwatch exec -k 5s --deadline 1m -- sh -c x");
        check("hangwatch exec -k5s 1m sh", "hangwatch exec -k5s --deadline 1m -- sh");
        check("hangwatch exec --signal=TERM 2 x", "hangwatch exec --signal=TERM --deadline 2 -- x");
        check("hangwatch exec 0s true", "hangwatch exec --deadline 0s -- true");
    }

    #[test]
    fn the_mark_before_the_command_may_be_left_out() {
        check("hangwatch exec --deadline 5s make -j8", "hangwatch exec --deadline 5s -- make -j8");
        check("hangwatch exec --deadline=5s 7z x", "hangwatch exec --deadline=5s -- 7z x");
        check("hangwatch run make test", "hangwatch run -- make test");
        check("hangwatch run --grace 1s 5s", "hangwatch run --grace 1s -- 5s");
        check("hangwatch run --notify-only make", "hangwatch run --notify-only -- make");
        check("hangwatch exec make", "hangwatch exec -- make");
    }

    #[test]
    fn whatever_else_is_left_as_it_is() {
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
