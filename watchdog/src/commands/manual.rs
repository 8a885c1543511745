//! `hangwatch completions` and `hangwatch man`: what shells and man(1) want to know of the command
//! line, made from the command line itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_mangen::Man;

use super::{Failure, print};
use crate::cli::{Cli, Completions, Manual};
use crate::exit::Exit;

#[derive(Debug, thiserror::Error)]
#[error("cannot write the man pages to {path}: {source}; name a directory that you may write to")]
struct NotWritten {
    path: PathBuf,
    source: io::Error,
}

pub(super) fn completions(options: &Completions) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut shown(&Cli::command()), "hangwatch", &mut text);
    print(&String::from_utf8(text)?)?;
    Ok(Exit::Ok)
}

/// The command line without what is hidden, which the generator would offer.
fn shown(command: &clap::Command) -> clap::Command {
    let subcommands = command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set());
    clap::Command::new("hangwatch")
        .version(env!("CARGO_PKG_VERSION"))
        .args(command.get_arguments().cloned())
        .subcommands(subcommands.cloned())
}

/// Writes a page a command into the directory, or the first of them to standard output.
pub(super) fn man(options: &Manual) -> Result<Exit, Failure> {
    match &options.dir {
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command()).render(&mut page)?;
            print(&String::from_utf8(page)?)?;
        }
        Some(dir) => write(dir).map_err(|source| NotWritten { path: dir.clone(), source })?,
    }
    Ok(Exit::Ok)
}

fn write(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
