//! `hangwatch report`: writes one incident as an HTML page. Also writes the output file of `trace`.

use std::io;
use std::path::{Path, PathBuf};

use super::{Failure, print};
use crate::cli::incidents::Report;
use crate::exit::Exit;
use hangwatch_files::output::{self, NewFile};
use hangwatch_report::html;

pub(super) fn perform(options: &Report) -> Result<Exit, Failure> {
    let (id, incident) = options.place.incident(&options.id)?;
    write(&options.output, &html::page(&id, &incident))?;
    Ok(Exit::Ok)
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Writes to `path`, or to standard output if it is `-`. Only its owner can read a new file.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if path == Path::new("-") {
        return print(text);
    }
    output::write(path, text.as_bytes(), NewFile::Private)
        .map_err(|source| WriteError { path: path.to_owned(), source }.into())
}
