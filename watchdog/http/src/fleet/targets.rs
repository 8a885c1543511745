//! The targets to ask: addresses on the command line, and files of Prometheus' file-based discovery.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use hyper::Uri;
use serde::Deserialize;

/// The default port.
pub const PORT: u16 = 9469;
/// How much of a file is read, bytes.
const MOST_BYTES: u64 = 16 << 20;

/// One watchdog to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The target as it was written.
    pub name: String,
    /// Where it listens.
    pub place: Place,
}

/// Where a watchdog listens. Different spellings of an address compare equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A host's name (in lower case) or address, and a port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

/// Why the targets cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum TargetsError {
    /// A text is not a target.
    #[error("{target:?} {what}")]
    NotATarget {
        /// The text.
        target: String,
        /// What is wrong with it, and what is expected.
        what: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read the targets file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file has the wrong format.
    #[error(
        "the targets file {} is not in the JSON form of Prometheus' file_sd, such as \
         [{{\"targets\": [\"host:9469\"]}}]: {source}",
        path.display()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
}

impl FromStr for Target {
    type Err = TargetsError;

    fn from_str(text: &str) -> Result<Target, TargetsError> {
        let place = place(text.trim())
            .map_err(|what| TargetsError::NotATarget { target: text.to_owned(), what })?;
        Ok(Target { name: text.trim().to_owned(), place })
    }
}

impl Target {
    /// Whether the port is [`PORT`] because none was written.
    #[must_use]
    pub fn lacks_port(&self) -> bool {
        let authority = self.name.trim_end_matches("/state").trim_end_matches('/');
        matches!(self.place, Place::Tcp(_, PORT)) && !authority.ends_with(&format!(":{PORT}"))
    }
}

fn place(text: &str) -> Result<Place, &'static str> {
    const NONE: &str = "is not a target: write http://HOST:PORT, HOST:PORT or unix:/PATH";
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') { Ok(Place::Unix(path.into())) } else { Err(NONE) };
    }
    if text.starts_with("https:") {
        return Err("uses https, which watchdogs do not speak: put a proxy beside this program");
    }
    let uri: Uri = text.parse().map_err(|_| NONE)?;
    let is_http = uri.scheme_str().is_none_or(|scheme| scheme == "http");
    let authority = uri.authority().filter(|_| is_http).ok_or(NONE)?;
    if authority.as_str().contains('@') {
        return Err("contains a user's name, which watchdogs do not ask for");
    }
    if uri.path_and_query().is_some_and(|path| !matches!(path.as_str(), "/" | "/state")) {
        return Err("has a path: leave it out, or write /state");
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(NONE);
    }
    let port = match authority.as_str().rsplit_once(':') {
        // `port_u16` returns `None` for a port out of range as well as for none.
        Some((_, port)) if !port.ends_with(']') => authority.port_u16().ok_or(NONE)?,
        _ => PORT,
    };
    Ok(Place::Tcp(host.to_ascii_lowercase(), port))
}

/// A group in a file of Prometheus' file-based discovery. Its labels are ignored.
#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
}

/// Reads the targets in a file.
///
/// # Errors
/// [`TargetsError`] if the file cannot be read or parsed.
pub fn read(path: &Path) -> Result<Vec<Target>, TargetsError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text))
        .map_err(|source| TargetsError::Read { path: path.to_owned(), source })?;
    let groups: Vec<Group> = serde_json::from_str(&text)
        .map_err(|source| TargetsError::Parse { path: path.to_owned(), source })?;
    groups.iter().flat_map(|group| &group.targets).map(|target| target.parse()).collect()
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Place {
    /// Returns the value of the `Host` header.
    pub(super) fn host_header(&self) -> String {
        match self {
            Place::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp(host, port) => format!("{host}:{port}"),
            Place::Unix(_) => "localhost".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_parsed() {
        let check = |text: &str, host: &str, port: u16| {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.place, Place::Tcp(host.to_owned(), port), "{text}");
            assert_eq!(target.to_string(), text.trim());
        };
        check("http://gpu-1:9000", "gpu-1", 9000);
        check("http://gpu-1:9000/state", "gpu-1", 9000);
        check("http://gpu-1/", "gpu-1", PORT);
        check("gpu-1:9000", "gpu-1", 9000);
        check("gpu-1", "gpu-1", PORT);
        check(" 10.0.0.1:80 ", "10.0.0.1", 80);
        check("[::1]:9000", "::1", 9000);
        check("http://[fe80::1]", "fe80::1", PORT);
        let unix: Target = "unix:/run/hangwatch/a.sock".parse().unwrap();
        assert_eq!(unix.place, Place::Unix("/run/hangwatch/a.sock".into()));
        let unix: Target = "unix:///run/a.sock".parse().unwrap();
        assert_eq!(unix.place, Place::Unix("/run/a.sock".into()));
    }

    #[test]
    fn different_spellings_of_a_place_are_equal() {
        let check = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| text.parse::<Target>().unwrap());
            assert_eq!(one.place, other.place);
        };
        check("gpu-1:9000", "http://gpu-1:9000/");
        check("gpu-1:9000", "HTTP://GPU-1:9000/state");
        check("gpu-1", "gpu-1:9469");
        check("unix:/run/a.sock", "unix:///run/a.sock");
    }

    #[test]
    fn default_port_is_recognised() {
        let lacks = |text: &str| text.parse::<Target>().unwrap().lacks_port();
        for text in ["gpu-1", "http://gpu-1/", "http://gpu-1/state", "[fe80::9469]"] {
            assert!(lacks(text), "{text}");
        }
        for text in ["gpu-1:9469", "http://gpu-1:9469/state", "gpu-1:80", "[::1]:9469", "unix:/a"] {
            assert!(!lacks(text), "{text}");
        }
    }

    #[test]
    fn invalid_target_is_refused_with_the_reason() {
        let check = |text: &str, part: &str| {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("", "not a target");
        check("unix:", "not a target");
        check("unix:run/a.sock", "not a target");
        check("https://gpu-1:9000", "proxy");
        check("ftp://gpu-1", "not a target");
        check("gpu-1:99999", "not a target");
        check("http://gpu-1:9000/metrics", "/state");
        check("http://me:secret@gpu-1", "user's name");
        check("two words", "not a target");
        check(":9000", "not a target");
    }

    #[test]
    fn file_of_prometheus_names_targets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("targets.json");
        let check = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path)
        };
        let good = r#"[{"targets": ["a:1", "b"], "labels": {"rack": "7"}}, {"targets": ["c:3"]}]"#;
        let names: Vec<String> = check(good).unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["a:1", "b", "c:3"]);
        let error = check(r#"[{"targets": "a:1"}]"#).unwrap_err().to_string();
        assert!(error.contains("file_sd") && error.contains("line 1"), "{error}");
        let error = check(r#"[{"targets": ["a:1", "b c"]}]"#).unwrap_err().to_string();
        assert!(error.contains("\"b c\""), "{error}");
        assert!(matches!(read(Path::new("/no/such/file")), Err(TargetsError::Read { .. })));
    }
}
