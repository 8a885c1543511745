//! A client as plain as can be: what it sends and gets is in the test's own hands.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hangwatch_http::listen::Address;

/// Far longer than an answer takes: reached only when a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A connection of either kind.
pub(crate) trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

pub(crate) fn connect(address: &Address) -> Box<dyn Stream> {
    match address {
        Address::Tcp(at) => {
            let stream = TcpStream::connect_timeout(at, PATIENCE).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream)
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            Box::new(stream)
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Asks for a path, with further header lines.
pub(crate) fn get(address: &Address, path: &str, headers: &[&str]) -> Answer {
    try_get(address, path, headers).expect("an answer")
}

/// As [`get`]; `None` where the connection was cut off.
pub(crate) fn try_get(address: &Address, path: &str, headers: &[&str]) -> Option<Answer> {
    let headers = [&["Host: localhost"], headers, &["", ""]].concat().join("\r\n");
    say(address, format!("GET {path} HTTP/1.1\r\n{headers}").as_bytes()).ok()?
}

/// Sends these bytes and reads the answer; `None` where there was none.
pub(crate) fn say(address: &Address, bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut stream = connect(address);
    stream.write_all(bytes)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Ok(Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() }))
}

/// The value of the sample that begins with `name` and has all of these labels.
pub(crate) fn sample(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = page.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}
