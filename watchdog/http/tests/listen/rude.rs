//! Clients that are slow, silent, broken, too many, or never read.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::time::Duration;

use hangwatch::CreateOptions;
use hangwatch_core::atomic::Ordering;
use hangwatch_core::wire::segment::Counter;

use crate::client::{Stream, connect, get, sample, say, try_get};
use crate::stage::{Stage, small, until};

/// How many clients connect at once.
const CROWD: usize = 200;

/// Scrapes until a condition is met, even while the crowd displaces the connection.
fn scraped(stage: &Stage, what: &str, met: impl Fn(&str) -> bool) -> String {
    let mut page = String::new();
    until(what, || {
        page = try_get(stage.address(), "/metrics", &[]).map(|it| it.body).unwrap_or_default();
        met(&page)
    });
    page
}

#[test]
fn crowd_of_hostile_clients_delays_neither_tick_nor_scrape() {
    // Long enough that no tick is late on a loaded machine, and shorter than the delay a crowd would cause.
    let max_interval = Duration::from_secs(5);
    let stage = Stage::new("127.0.0.1:0", CreateOptions { max_interval, ..small() });
    let worker = stage.worker();
    until("it is green", || get(stage.address(), "/healthz", &[]).status == 200);
    let huge = "x".repeat(32 << 10);
    let mut crowd: VecDeque<Box<dyn Stream>> = VecDeque::new();
    for number in 0..CROWD {
        let mut client = connect(stage.address());
        // Whether and when they are refused is up to the listener.
        let _ = match number % 5 {
            0 => Ok(()),                                                    // says nothing
            1 => client.write_all(b"GET /metr"),                            // says half
            2 => client.write_all(b"\x16\x03\x01\x02\x00\x01\xff\r\n\r\n"), // speaks TLS
            3 => client.write_all(format!("GET /{huge} HTTP/1.1\r\n").as_bytes()),
            _ => client.write_all(b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n"), // never reads
        };
        crowd.push_back(client);
    }
    // Meanwhile deadlines are kept, other clients get answers, and there is no stall.
    let expired =
        |count| move |page: &str| sample(page, "hangwatch_expiries_total", &[]) == Some(count);
    for round in 1..=3u8 {
        let overdue = worker.expires("forward", Duration::from_millis(20)).unwrap();
        scraped(&stage, "the expiry is told", expired(f64::from(round)));
        drop(overdue);
        // The slow clients continue with a byte from time to time.
        for client in &mut crowd {
            let _ = client.write_all(b"x");
        }
        assert_eq!(get(stage.address(), "/healthz", &[]).body, "ok\n");
    }
    let stalls = stage.segment.words().counter(Counter::Stalls).load(Ordering::Relaxed);
    assert_eq!(stalls, 0);
    let of = |page: &str, end: &str| {
        sample(page, "hangwatch_http_connections_total", &[&format!("end=\"{end}\"")])
    };
    scraped(&stage, "those too many were displaced", |page| {
        of(page, "displaced").is_some_and(|count| count > 0.0)
            && of(page, "broken").is_some_and(|count| count > 0.0)
    });
}

#[test]
fn client_that_takes_too_long_is_disconnected() {
    let stage = Stage::small("127.0.0.1:0");
    let mut silent = connect(stage.address());
    let mut halting = connect(stage.address());
    halting.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    let mut trickling = connect(stage.address());
    until("the trickling one is cut off", || {
        let cut = trickling.write_all(b"G").is_err();
        std::thread::sleep(Duration::from_millis(20));
        cut
    });
    for client in [&mut silent, &mut halting] {
        let mut answer = Vec::new();
        // A reset is an end as well.
        let _ = client.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 408"), "{answer:?}");
    }
    scraped(&stage, "they were counted", |page| {
        sample(page, "hangwatch_http_connections_total", &["end=\"timed_out\""]) == Some(3.0)
    });
}

#[test]
fn request_head_that_is_too_long_is_refused() {
    let stage = Stage::small("127.0.0.1:0");
    let status = |head: String| say(stage.address(), head.as_bytes()).ok().flatten();
    let many = "X-Again: y\r\n".repeat(100);
    let answer = status(format!("GET / HTTP/1.1\r\n{many}\r\n"));
    assert_eq!(answer.map(|answer| answer.status), Some(431));
    // The rest may arrive after the close, which the client sees as a reset.
    let long = status(format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(9000)));
    assert!(long.is_none_or(|answer| answer.status == 431));
    let path = status(format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(9000)));
    assert!(path.is_none_or(|answer| answer.status == 414 || answer.status == 431));
    assert_eq!(get(stage.address(), "/", &[]).status, 200);
}
