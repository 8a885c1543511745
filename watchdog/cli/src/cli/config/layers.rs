//! Merges the sources of settings: command line over environment over file.

use std::collections::BTreeMap;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};

use super::definition::{Definition, name_of};
use super::file::{self, Line};
use super::{Contents, Origin, Problems, SEGMENT, Variables, variable_of};

/// The value of one setting, and its source.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) value: String,
    pub(super) origin: Origin,
}

impl Said {
    /// Whether the value turns a switch off; then it conflicts with nothing.
    pub(super) fn is_off(&self) -> bool {
        self.value == "false"
    }
}

/// The merged settings of the sources added so far.
pub(super) struct Layers<'a> {
    definition: &'a Definition,
    /// Whether the command line has a command to run.
    has_command: bool,
    said: BTreeMap<String, Said>,
    problems: Problems,
}

impl<'a> Layers<'a> {
    /// Starts with the settings of the command line.
    pub(super) fn new(definition: &'a Definition, flags: &ArgMatches) -> Layers<'a> {
        let mut said = BTreeMap::new();
        for arg in definition.settings() {
            let id = arg.get_id().as_str();
            if flags.value_source(id) == Some(ValueSource::CommandLine) {
                let value = flags.get_raw(id).and_then(|mut values| values.next());
                let value = value.map(|value| value.to_string_lossy().into_owned());
                let said_here = Said { value: value.unwrap_or_default(), origin: Origin::Flag };
                said.insert(name_of(arg).to_owned(), said_here);
            }
        }
        let has_command = flags.value_source("command") == Some(ValueSource::CommandLine);
        Layers { definition, has_command, said, problems: Problems::default() }
    }

    pub(super) fn add_environment(&mut self, variables: &Variables) {
        let mut layer = Vec::new();
        for arg in self.definition.settings() {
            let (name, variable) = (name_of(arg), variable_of(name_of(arg)));
            let Some(value) = variables.get(&variable) else { continue };
            if name == SEGMENT && self.has_command {
                continue;
            }
            let origin = Origin::Variable(variable);
            match self.definition.check(name, &value) {
                Ok(()) => layer.push((arg, Said { value, origin })),
                Err(why) => self.problems.add(&origin, format_args!("{value:?} {why}")),
            }
        }
        self.add(layer);
    }

    /// Adds the settings of the file; `before` is its contents, if they were read before.
    pub(super) fn add_file(&mut self, path: &Path, before: Option<&Contents>) {
        let lines = match file::read(path, before) {
            Ok(lines) => lines,
            Err(error) => {
                self.problems.0.push(error.to_string());
                return;
            }
        };
        let mut layer = Vec::new();
        for Line { number, key, value } in lines {
            let origin = Origin::File(path.to_owned(), number);
            let Some(arg) = self.definition.get(&key) else {
                self.problems.add(&origin, self.definition.unknown(&key));
                continue;
            };
            let checked = value.and_then(|value| match self.definition.check(&key, &value) {
                Ok(()) => Ok(value),
                Err(why) => Err(format!("{value:?} {why}")),
            });
            match checked {
                Ok(value) => layer.push((arg, Said { value, origin })),
                Err(why) => self.problems.add(&origin, format_args!("{key}: {why}")),
            }
        }
        self.add(layer);
    }

    /// Adds the settings of one source, unless they conflict with those of an earlier source.
    fn add(&mut self, layer: Vec<(&Arg, Said)>) {
        let mut seen: Vec<(&Arg, &Said)> = Vec::new();
        for (arg, said) in layer.iter().filter(|(_, said)| !said.is_off()) {
            let against = seen.iter().find(|(other, _)| self.definition.contradict(arg, other));
            if let Some((other, earlier)) = against {
                let what = format!(
                    "{} conflicts with {} ({}): remove one of them",
                    name_of(arg),
                    name_of(other),
                    earlier.origin
                );
                self.problems.add(&said.origin, what);
            }
            seen.push((arg, said));
        }
        let mut taken = Vec::new();
        for (arg, said) in layer {
            let name = name_of(arg);
            let is_overruled = self.said.iter().any(|(other, earlier)| {
                let other = self.definition.get(other).expect("only settings are said");
                !earlier.is_off() && !said.is_off() && self.definition.contradict(arg, other)
            });
            let clashes_with_command = self.has_command && self.definition.contradicts_command(arg);
            if !self.said.contains_key(name) && !is_overruled && !clashes_with_command {
                taken.push((name.to_owned(), said));
            }
        }
        self.said.extend(taken);
    }

    pub(super) fn settle(self) -> Result<BTreeMap<String, Said>, Problems> {
        self.problems.or(self.said)
    }
}
