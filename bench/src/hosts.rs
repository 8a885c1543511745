//! Simulated hosts for `hangwatch fleet`: so many watchdogs' `/state`, each at an address of its own, from one thread.
//!
//! All of 127.0.0.0/8 is this host: one listener at one port is as many targets as wanted, told apart
//! by the address that was connected to. What each answers is made by who serves them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::net::listen;

/// Connections that wait to be accepted: one socket stands for all hosts, and each may be asked at once.
const BACKLOG: i32 = 4096;

/// What one host does with a request.
#[derive(Clone, Debug)]
pub enum Manner {
    /// Answers with this status line and body.
    Answers(&'static str, String),
    /// Answers nothing.
    IsSilent,
    /// Closes the connection.
    HangsUp,
    /// Says this, which is no HTTP.
    Babbles(Vec<u8>),
    /// Sends a body without end.
    Floods,
    /// Sends a byte now and then.
    Trickles,
}

/// Simulated hosts, served until their process ends.
pub struct Hosts {
    port: u16,
    count: usize,
}

impl Hosts {
    /// As many hosts as there are manners.
    ///
    /// # Panics
    /// Where no port can be had.
    pub fn serve(manners: Vec<Manner>) -> Hosts {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        // The standard library's backlog is 128; what comes beyond it is dropped, and sent again after a
        // second.
        listen(&listener, BACKLOG).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (count, manners) = (manners.len(), Arc::new(manners));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(SocketAddr::V4(own)) = stream.local_addr() else { continue };
                let manner = manners.get(index_of(*own.ip())).cloned();
                let Some(manner) = manner else { continue };
                match manner {
                    // Long ones have a thread of their own; the rest is too short to need one.
                    Manner::Floods | Manner::Trickles | Manner::IsSilent => {
                        thread::spawn(move || serve(stream, &manner));
                    }
                    _ => serve(stream, &manner),
                }
            }
        });
        Hosts { port, count }
    }

    /// The address of a host.
    pub fn address(&self, index: usize) -> String {
        format!("{}:{}", IpAddr::V4(address_of(index)), self.port)
    }

    /// All of them, as Prometheus' file discovery has them.
    pub fn file_sd(&self) -> String {
        let targets: Vec<String> = (0..self.count).map(|index| self.address(index)).collect();
        serde_json::json!([{ "targets": targets, "labels": { "job": "hangwatch" } }]).to_string()
    }
}

fn address_of(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 77, (index >> 8) as u8, (index & 0xff) as u8)
}

fn index_of(address: Ipv4Addr) -> usize {
    let [_, _, high, low] = address.octets();
    usize::from(high) << 8 | usize::from(low)
}

/// A client that leaves ends it.
fn serve(mut stream: TcpStream, manner: &Manner) {
    // A bound for clients that say nothing themselves.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let mut request = [0; 4096];
    let asked = stream.read(&mut request).unwrap_or(0);
    let is_state = request[..asked].starts_with(b"GET /state HTTP/1.1\r\n");
    let _ = match manner {
        _ if !is_state => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        Manner::Answers(status, body) => {
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())
        }
        Manner::HangsUp => Ok(()),
        Manner::Babbles(bytes) => stream.write_all(bytes),
        // Until the client has left.
        Manner::IsSilent => stream.read(&mut request).map(drop),
        Manner::Floods => flood(&mut stream),
        Manner::Trickles => trickle(&mut stream),
    };
}

fn flood(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    let chunk = [b'['; 8_192];
    loop {
        stream.write_all(&chunk)?;
    }
}

fn trickle(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    loop {
        stream.write_all(b" ")?;
        thread::sleep(Duration::from_millis(20));
    }
}

/// The state of a host with these workers: rank, scopes with their ages in seconds, innermost first.
pub fn state(host: &str, job: &str, world_size: u32, ranks: &[(u32, &[(&str, u64)])]) -> String {
    let timer = |(scope, age_s): &(&str, u64)| {
        let age_ns = age_s * 1_000_000_000;
        serde_json::json!({
            "timer": 0, "scope": scope, "state": "armed", "kind": "guard", "signal": null,
            "notify_only": false, "age_ns": age_ns, "allowance_ns": 60_000_000_000_u64,
            "left_ns": 60_000_000_000_i64 - age_ns.cast_signed(),
        })
    };
    let lane = |(rank, scopes): &(u32, &[(&str, u64)])| {
        serde_json::json!({
            "lane": rank, "pid": 1000 + rank, "tid": 1000 + rank, "command": "python3",
            "thread": "main", "job": job, "host": host, "rank": rank, "world_size": world_size,
            "local_rank": 0, "clock": "counter", "attached_at_ns": 1, "records": 2,
            "quarantined": false, "timers": scopes.iter().map(timer).collect::<Vec<_>>(),
        })
    };
    let lanes: Vec<_> = ranks.iter().map(lane).collect();
    let scope = serde_json::json!({
        "scope": "step", "acquired": 5, "released": 4, "reported": 0, "condemned": 0,
        "abandoned": 0, "p50_ns": 1, "p99_ns": 2, "p999_ns": 3, "max_ns": 4,
    });
    serde_json::json!({
        "schema": 1, "host": host, "watchdog_pid": 1, "version": "0.1.0", "healthy": true,
        "reason": null,
        "segments": [{
            "segment": "run-1", "at_ns": 5, "watchdog_pid": 1, "watchdog_last_tick_at_ns": 5,
            "braked": false, "lane_count": 256, "lanes": lanes, "scopes": [scope],
            "scopes_overflowed": 0, "counters": { "ticks": 9 },
        }],
    })
    .to_string()
}
