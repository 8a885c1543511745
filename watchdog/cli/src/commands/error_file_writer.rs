//! `hangwatch error-file-writer`: the process that writes torch's error files for a watchdog.

use std::io;

use super::Failure;
use crate::exit::Exit;
use hangwatch_server::write_error_files;

pub(super) fn perform() -> Result<Exit, Failure> {
    // The watchdog may have lowered its score; if memory runs out, this helper should die first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
    write_error_files(io::stdin().lock(), io::stdout().lock())?;
    Ok(Exit::Ok)
}
