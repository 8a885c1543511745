//! A minimal client, so that the test controls every byte that is sent.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use hangwatch_http::listen::Address;

/// Much longer than an answer takes: only a failing test reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A TCP or Unix connection.
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

/// A response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// Requests a path with additional header lines.
pub(crate) fn get(address: &Address, path: &str, headers: &[&str]) -> Answer {
    try_get(address, path, headers).expect("an answer")
}

/// Like [`get`]; `None` if the connection was closed without a response.
pub(crate) fn try_get(address: &Address, path: &str, headers: &[&str]) -> Option<Answer> {
    let headers = [&["Host: localhost"], headers, &["", ""]].concat().join("\r\n");
    say(address, format!("GET {path} HTTP/1.1\r\n{headers}").as_bytes()).ok()?
}

/// Sends bytes and reads the response; `None` if there is none.
pub(crate) fn say(address: &Address, bytes: &[u8]) -> io::Result<Option<Answer>> {
    let mut stream = connect(address);
    stream.write_all(bytes)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    Ok(Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() }))
}

/// Returns the value of the sample whose name starts with `name` and that has all these labels.
pub(crate) fn sample(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = page.lines().find(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}
