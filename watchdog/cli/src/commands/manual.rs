//! `hangwatch completions` and `hangwatch man`: generated from the definition of the command line.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Failure, print};
use crate::cli::{Cli, Completions, Manual};
use crate::exit::Exit;
use hangwatch_files::output::{self, NewFile};

#[derive(Debug, thiserror::Error)]
enum ManualError {
    #[error("the directory {path} does not exist; create it: mkdir -p {path}", path = path.display())]
    NoDirectory { path: PathBuf },
    #[error("{path} is not a directory; give a directory for the man pages", path = path.display())]
    NotADirectory { path: PathBuf },
    #[error("cannot write the man page {path}: {source}; give a directory that you can write to", path = path.display())]
    NotWritten { path: PathBuf, source: io::Error },
}

pub(super) fn completions(options: &Completions) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut shown(&Cli::command()), "hangwatch", &mut text);
    print(&String::from_utf8(text)?)?;
    Ok(Exit::Ok)
}

/// The command line without hidden commands, which the generator would offer.
fn shown(command: &clap::Command) -> clap::Command {
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    clap::Command::new("hangwatch")
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(subcommands.cloned())
}

/// Writes a page for each command to the directory, or hangwatch(1) to standard output.
pub(super) fn man(options: &Manual) -> Result<Exit, Failure> {
    match &options.dir {
        None => {
            let mut page = Vec::new();
            Man::new(documented()).render(&mut page)?;
            print(&String::from_utf8(page)?)?;
        }
        Some(dir) => write_pages(dir)?,
    }
    Ok(Exit::Ok)
}

/// Writes a page for each command that is not hidden to an existing directory.
fn write_pages(dir: &Path) -> Result<(), ManualError> {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(ManualError::NotADirectory { path: dir.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ManualError::NoDirectory { path: dir.to_owned() });
        }
        Err(source) => return Err(ManualError::NotWritten { path: dir.to_owned(), source }),
    }
    let command = documented();
    let below = command.get_subcommands().filter(|below| !below.is_hide_set());
    [&command].into_iter().chain(below).try_for_each(|command| write_page(dir, command))
}

/// The command line for the man pages. After the build its commands are named `hangwatch-run` and so on.
fn documented() -> clap::Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

fn write_page(dir: &Path, command: &clap::Command) -> Result<(), ManualError> {
    let man = Man::new(command.clone());
    let path = dir.join(man.get_filename());
    let mut page = Vec::new();
    man.render(&mut page)
        .and_then(|()| output::write(&path, &page, NewFile::Shared))
        .map_err(|source| ManualError::NotWritten { path, source })
}
