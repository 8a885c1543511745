//! Writes settings as TOML: those in force, or all of them with their help.

use std::fmt::Write;

use clap::Arg;

use super::definition::{Definition, name_of};
use super::{Origin, Origins, REREAD, Setting, variable_of};

/// The width of a comment, columns.
const COLUMNS: usize = 78;
/// Example values for settings without a default.
const EXAMPLES: [(&str, &str); 13] = [
    ("segment", "train"),
    ("group", "train"),
    ("max-reaps", "3"),
    ("warn-at", "0.8"),
    ("cascade", "5s"),
    ("cascade-policy", "report"),
    ("on-expire", "logger -t hangwatch hung: $HANGWATCH_SCOPE"),
    ("realtime", "10"),
    ("listen", "127.0.0.1:9469"),
    ("host", "node7"),
    ("deadlines", "/etc/hangwatch/deadlines.toml"),
    ("auto", "torch"),
    ("reap", "tree"),
];

/// The settings in force, each with its source. The text is a valid settings file.
pub fn in_force(origins: &Origins) -> String {
    let definition = Definition::new();
    let mut text = String::new();
    for Setting { name, value, origin } in &origins.settings {
        let default = || default_of(definition.get(name)?);
        let line = match (origin, value.clone().or_else(default)) {
            (Origin::Default, Some(value)) => format!("# {name} = {}", literal(&value)),
            (_, Some(value)) => format!("{name} = {}", literal(&value)),
            (_, None) => format!("# {name} is not set"),
        };
        let _ = writeln!(text, "{line:<40} # {origin}");
    }
    text
}

/// Every setting with its help, commented out.
pub fn every() -> String {
    let mut text = String::from(
        "# Settings of `hangwatch run`, each with its default. To change one, remove the\n\
         # `#` before it. To check the file: `hangwatch run --config FILE --check`.\n\
         # The environment (HANGWATCH_MAX_REAPS=3) overrides this file, the command line\n\
         # (--max-reaps 3) overrides both. Generated from the help of the options.\n",
    );
    for arg in Definition::new().settings() {
        text.push('\n');
        for paragraph in help_of(arg) {
            text += &wrapped(&paragraph);
        }
        let name = name_of(arg);
        let reread = if REREAD.contains(&name) { " Read again on SIGHUP." } else { "" };
        text += &wrapped(&format!("Variable: {}.{reread}", variable_of(name)));
        let _ = match (default_of(arg), example_of(arg)) {
            (Some(value), _) => writeln!(text, "# {name} = {}", literal(&value)),
            (None, value) => writeln!(text, "# {name} = {} # not set by default", literal(&value)),
        };
    }
    text
}

/// The paragraphs of a setting's help, without the default.
fn help_of(arg: &Arg) -> Vec<String> {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    let bare = |paragraph: &str| {
        let paragraph = paragraph.replace('\n', " ");
        paragraph.split(" [default:").next().unwrap_or_default().trim().to_owned()
    };
    help.split("\n\n").map(bare).filter(|paragraph| !paragraph.is_empty()).collect()
}

/// The default of a setting; `None` if it has none.
fn default_of(arg: &Arg) -> Option<String> {
    if let Some(value) = arg.get_default_values().first() {
        return Some(value.to_string_lossy().into_owned());
    }
    // Defaults that an existing segment can override are only in the help text.
    let help = arg.get_help()?.to_string();
    let (_, default) = help.split_once("[default: ")?;
    let default = default.split(']').next()?;
    let is_value = !default.contains(' ') && !["none", "nowhere"].contains(&default);
    is_value.then(|| default.to_owned())
}

fn example_of(arg: &Arg) -> String {
    let example = EXAMPLES.iter().find(|(name, _)| *name == name_of(arg));
    let placeholder = || arg.get_value_names().map_or("VALUE", |names| names[0].as_str());
    example.map_or_else(placeholder, |(_, value)| *value).to_owned()
}

/// A value as TOML.
fn literal(value: &str) -> String {
    let is_bare = value.parse::<u64>().is_ok()
        || ["true", "false"].contains(&value)
        || (value.contains('.') && value.parse::<f64>().is_ok());
    if is_bare { value.to_owned() } else { toml_edit::Value::from(value).to_string() }
}

fn wrapped(paragraph: &str) -> String {
    let mut text = String::new();
    let mut line = String::from("#");
    for word in paragraph.split_whitespace() {
        if line.len() + 1 + word.len() > COLUMNS {
            text += &(line + "\n");
            line = String::from("#");
        }
        line.push(' ');
        line += word;
    }
    text + &line + "\n"
}
