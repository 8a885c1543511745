//! `hangwatch file-reader`: the process that reads a settings file for a running watchdog.

use std::io;

use super::Failure;
use crate::cli::FileReader;
use crate::exit::Exit;
use hangwatch_process::reading;

pub(super) fn perform(options: &FileReader) -> Result<Exit, Failure> {
    // The watchdog may have lowered its score; if memory runs out, this helper should die first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    reading::tell(&options.path, options.most_bytes, io::stdout().lock())?;
    Ok(Exit::Ok)
}
