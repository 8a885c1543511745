//! Tests the listener with real clients, including hostile ones.

mod client;
mod parsers;
mod rude;
mod stage;

use std::time::Duration;

use hangwatch::sys::clock;
use hangwatch::{CreateOptions, Geometry, Nanos, Released};
use hangwatch_http::state::{SCHEMA, WatchdogState};

use client::{get, sample, say};
use stage::{Stage, small, until};

#[test]
fn pages_show_what_the_watchdog_does() {
    let stage = Stage::small("127.0.0.1:0");
    let worker = stage.worker();
    worker.expires("done", Duration::from_mins(1)).unwrap().release();
    let overdue = worker.expires("forward", Duration::from_millis(20)).unwrap();
    let _waits = worker.expires("waits", Duration::from_mins(1)).unwrap();
    let address = stage.address();
    // A watchdog only reports its own process, so the late release returns `Reported`.
    let expired = ["outcome=\"reported\"", "scope=\"forward\"", "host=\"test-host\""];
    let mut page = String::new();
    until("the expiry is told", || {
        page = get(address, "/metrics", &[]).body;
        sample(&page, "hangwatch_expiries_total", &expired) == Some(1.0)
    });
    assert_eq!(overdue.release(), Released::Reported);
    let of_done = |name: &str| sample(&page, name, &["scope=\"done\""]);
    assert_eq!(of_done("hangwatch_acquires_total"), Some(1.0), "{page}");
    assert_eq!(of_done("hangwatch_releases_total"), Some(1.0));
    assert_eq!(of_done("hangwatch_scope_duration_seconds_count"), Some(1.0));
    let all = ["scope=\"done\"", "le=\"+Inf\""];
    assert_eq!(sample(&page, "hangwatch_scope_duration_seconds_bucket", &all), Some(1.0));
    assert_eq!(sample(&page, "hangwatch_healthy", &[]), Some(1.0));
    assert_eq!(sample(&page, "hangwatch_lanes", &[]), Some(8.0));
    assert_eq!(sample(&page, "hangwatch_timers", &["state=\"armed\""]), Some(1.0));
    let ticks = sample(&page, "hangwatch_ticks_total", &[]).unwrap();
    let at_work = sample(&page, "hangwatch_tick_duration_seconds_count", &[]).unwrap();
    assert!(ticks >= 1.0 && (at_work - ticks).abs() <= 1.0, "{ticks} {at_work}");
    until("it is green", || get(address, "/healthz", &[]).status == 200);

    let answer = get(address, "/state", &[]);
    assert!(answer.head.contains("application/json"), "{}", answer.head);
    let told: WatchdogState = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((told.schema, told.host.as_str()), (SCHEMA, "test-host"));
    assert_eq!(told.watchdog_pid, std::process::id());
    let segment = &told.segments[0];
    assert_eq!((segment.segment.as_str(), segment.lane_count), (stage.segment.name(), 8));
    assert_eq!(segment.lanes[0].timers[0].scope, "waits");
}

#[test]
fn invalid_request_gets_the_right_status() {
    let stage = Stage::small("[::1]:0");
    let address = stage.address();
    let status = |bytes: &str| say(address, bytes.as_bytes()).unwrap().unwrap().status;
    assert_eq!(status("GET / HTTP/1.1\r\nHost: x.localhost\r\n\r\n"), 421);
    assert_eq!(status("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"), 200);
    assert_eq!(status("GET /nowhere HTTP/1.0\r\n\r\n"), 404);
    assert_eq!(status("POST /metrics HTTP/1.0\r\n\r\n"), 405);
    assert_eq!(status("GET /state?all HTTP/1.0\r\n\r\n"), 200);
    let head = say(address, b"HEAD /metrics HTTP/1.0\r\n\r\n").unwrap().unwrap();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let page = get(address, "/metrics", &["Accept: application/openmetrics-text"]);
    assert!(page.head.contains("application/openmetrics-text"), "{}", page.head);
    assert!(page.body.ends_with("# EOF\n"));
    let page = get(address, "/metrics", &["Accept: text/plain"]);
    assert!(page.head.contains("version=0.0.4"), "{}", page.head);
    assert!(!page.body.contains("EOF"));
}

#[test]
fn unix_socket_serves_and_is_removed_with_the_listener() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("train.sock");
    let stage = Stage::small(&format!("unix:{}", path.display()));
    until("it is green", || get(stage.address(), "/healthz", &[]).body == "ok\n");
    let named = say(stage.address(), b"GET / HTTP/1.1\r\nHost: anything\r\n\r\n").unwrap().unwrap();
    assert_eq!(named.status, 200, "a browser cannot reach a file");
    drop(stage);
    assert!(!path.exists());
}

#[test]
fn ended_server_is_unhealthy_and_says_why() {
    let stage = Stage::small("127.0.0.1:0");
    until("it is green", || get(stage.address(), "/healthz", &[]).status == 200);
    // The listener keeps running when the server ends by itself.
    let path = format!("/dev/shm/hangwatch.{}", stage.segment.name());
    std::fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    stage.server.wait();
    let red = get(stage.address(), "/healthz", &[]);
    assert_eq!(red.status, 503, "{red:?}");
    assert!(red.body.contains("cut short"), "{}", red.body);
    // The pages are answered even though their data is gone.
    assert_eq!(get(stage.address(), "/metrics", &[]).status, 200);
    let told: WatchdogState =
        serde_json::from_str(&get(stage.address(), "/state", &[]).body).unwrap();
    assert!(!told.healthy && told.reason.unwrap().contains("cut short"));
}

#[test]
fn timeouts_and_overruns_are_reported() {
    let stage = Stage::small("127.0.0.1:0");
    let worker = stage.worker();
    worker.expires("free", Duration::from_mins(1)).unwrap().release();
    let page = get(stage.address(), "/metrics", &[]).body;
    assert!(!page.contains("scope_allowance") && !page.contains("_overrun"), "{page}");
    let words = stage.segment.words();
    let allowance = |scope: &str| words.timeout(words.names().intern(scope).scope);
    let forward = allowance("forward");
    forward.set_ns(Some(250_000_000), Nanos(clock::monotonic_ns()));
    allowance("load").set_ns(Some(5_000_000_000), Nanos(clock::monotonic_ns()));
    forward.ended_late(2_000_000_000);
    forward.ended_late(500_000_000);
    forward.died_late();
    // A page is rebuilt after a while.
    let mut page = String::new();
    until("it is told", || {
        page = get(stage.address(), "/metrics", &[]).body;
        page.contains("hangwatch_overruns_total")
    });
    let forward = |name: &str, of: &[&str]| {
        sample(&page, name, &[&["scope=\"forward\""], of].concat()).unwrap_or(f64::NAN)
    };
    let figures = [
        forward("hangwatch_scope_allowance_seconds", &[]),
        forward("hangwatch_overruns_total", &["end=\"released\""]),
        forward("hangwatch_overruns_total", &["end=\"died\""]),
        forward("hangwatch_overrun_seconds_total", &[]),
        forward("hangwatch_overrun_longest_seconds", &[]),
    ];
    assert_eq!(figures.map(|figure| figure.to_string()), ["0.25", "2", "1", "2.5", "2"], "{page}");
    let of = |name: &str, scope: &str| sample(&page, name, &[&format!("scope=\"{scope}\"")]);
    assert_eq!(of("hangwatch_scope_allowance_seconds", "load"), Some(5.0));
    assert_eq!(of("hangwatch_overrun_seconds_total", "load"), Some(0.0), "there to be counted up");
    assert_eq!(of("hangwatch_scope_allowance_seconds", "free"), None);
}

#[test]
fn flood_of_scopes_keeps_the_page_bounded_and_every_count() {
    let geometry = Geometry { scopes: 4096, lane_scopes: 256, ..small().geometry };
    let stage = Stage::new("127.0.0.1:0", CreateOptions { geometry, ..small() });
    let worker = stage.worker();
    for name in 0..10_000 {
        worker.expires(&format!("scope {name}"), Duration::from_mins(1)).unwrap().release();
    }
    let page = get(stage.address(), "/metrics", &[]).body;
    let series = |name: &str| {
        let begins = format!("{name}{{");
        page.lines().filter(|line| line.starts_with(&begins)).count()
    };
    assert_eq!(series("hangwatch_acquires_total"), 129);
    let other = sample(&page, "hangwatch_acquires_total", &["scope=\"(other)\""]).unwrap();
    assert!((other - (10_000.0 - 128.0)).abs() < 1.5, "{other}");
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
    assert!(sample(&page, "hangwatch_scopes_summed_up", &[]).unwrap() > 3900.0);
    assert!(sample(&page, "hangwatch_scopes_overflowed_total", &[]).unwrap() > 5900.0);
}
