//! Where incidents are kept: `DIR/ID/incident.json`, and beside it what was captured.
//!
//! [`default_dir`] is where they are written and looked for unless somebody says otherwise.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

/// The file in an incident's directory that holds it, as [`schema`] says.
///
/// [`schema`]: super::schema
pub const INCIDENT_FILE: &str = "incident.json";

/// Where root's incidents are.
const SYSTEM_DIR: &str = "/var/lib/hangwatch/incidents";

/// There is no place for incidents.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no place for incidents: neither XDG_STATE_HOME nor HOME is an absolute path; name a \
     directory with --incidents"
)]
pub struct NoStateDirectory;

/// The directory of this user's incidents: `$XDG_STATE_HOME/hangwatch/incidents`, by default
/// `~/.local/state/hangwatch/incidents`; root's are in `/var/lib/hangwatch/incidents`.
///
/// # Errors
///
/// [`NoStateDirectory`].
pub fn default_dir() -> Result<PathBuf, NoStateDirectory> {
    default_dir_of(geteuid().is_root(), |variable| env::var_os(variable))
}

fn default_dir_of(
    is_root: bool,
    get: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, NoStateDirectory> {
    if is_root {
        return Ok(SYSTEM_DIR.into());
    }
    // The XDG Base Directory Specification: a relative path is to be ignored.
    let absolute =
        |variable: &str| get(variable).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or(NoStateDirectory)?;
    Ok(state.join(Path::new("hangwatch/incidents")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_directory_of_its_own() {
        let check = |is_root: bool, state: &str, home: &str, dir: Option<&str>| {
            let get = |variable: &str| match variable {
                "XDG_STATE_HOME" => Some(OsString::from(state)).filter(|dir| !dir.is_empty()),
                "HOME" => Some(OsString::from(home)).filter(|dir| !dir.is_empty()),
                other => panic!("{other} is not asked for"),
            };
            let got = default_dir_of(is_root, get).ok();
            assert_eq!(got.as_deref(), dir.map(Path::new), "{is_root} {state:?} {home:?}");
        };
        check(true, "/elsewhere", "/root", Some("/var/lib/hangwatch/incidents"));
        check(false, "/state", "/home/ada", Some("/state/hangwatch/incidents"));
        check(false, "", "/home/ada", Some("/home/ada/.local/state/hangwatch/incidents"));
        check(false, "state", "/home/ada", Some("/home/ada/.local/state/hangwatch/incidents"));
        check(false, "", "", None);
    }
}
