//! The pages: which response a request gets.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | OpenMetrics, or the older text format for clients that accept only that |
//! | `/healthz` | 200 and `ok`, or 503 and the reason |
//! | `/state` | the watchdog and its segment as JSON (see [`crate::state`]) |
//! | `/` | the list of pages |

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use rustix::time::ClockId;

use super::connections::{Answer, Traffic};
use super::metrics::{self, Scrape};
use super::{Subject, classic};
use crate::state::{SCHEMA, SegmentState, WatchdogState};
use hangwatch_server::caught;
use hangwatch_text::to_json;

/// How long a page that is expensive to build is reused.
const FRESH: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "\
hangwatch watches here.

/metrics  OpenMetrics, for Prometheus
/healthz  200 while deadlines are kept, else 503 and why
/state    what each worker waits for, as JSON
";

/// From where the address can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// By TCP, from this host only.
    Loopback,
    /// Through a file, or from other hosts.
    Elsewhere,
}

/// Answers requests.
pub(super) struct Pages {
    subject: Subject,
    reach: Reach,
    traffic: Rc<RefCell<Traffic>>,
    metrics: RefCell<Option<(Instant, Bytes)>>,
    state: RefCell<Option<(Instant, Bytes)>>,
}

type Page = (StatusCode, &'static str, Bytes);

impl Pages {
    pub(super) fn new(subject: Subject, reach: Reach, traffic: Rc<RefCell<Traffic>>) -> Pages {
        let (metrics, state) = (RefCell::default(), RefCell::default());
        Pages { subject, reach, traffic, metrics, state }
    }

    fn page(&self, request: &Request<Incoming>) -> (&'static str, Page) {
        let plain =
            |status, text: &'static str| (status, PLAIN, Bytes::from_static(text.as_bytes()));
        if self.reach == Reach::Loopback && !names_this_host(request.headers()) {
            let text = "this listener answers requests from this host only: use its IP address or localhost\n";
            return ("other", plain(StatusCode::MISDIRECTED_REQUEST, text));
        }
        let is_read = [Method::GET, Method::HEAD].contains(request.method());
        match request.uri().path() {
            _ if !is_read => (
                "other",
                plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are supported\n"),
            ),
            "/metrics" => ("/metrics", self.metrics_page(request.headers())),
            "/healthz" => ("/healthz", self.health_page()),
            "/state" => ("/state", self.state_page()),
            "/" => ("/", plain(StatusCode::OK, INDEX)),
            _ => {
                ("other", plain(StatusCode::NOT_FOUND, "not found; see / for the list of pages\n"))
            }
        }
    }

    fn health_page(&self) -> Page {
        match self.subject.vitals.unhealthy_reason() {
            None => (StatusCode::OK, PLAIN, Bytes::from_static(b"ok\n")),
            Some(unhealthy_reason) => {
                (StatusCode::SERVICE_UNAVAILABLE, PLAIN, format!("{unhealthy_reason}\n").into())
            }
        }
    }

    fn metrics_page(&self, headers: &HeaderMap) -> Page {
        let page = fresh(&self.metrics, || metrics::render(self.scrape()).unwrap_or_default());
        if wants_classic(headers) {
            let text = classic::from_openmetrics(&String::from_utf8_lossy(&page));
            return (StatusCode::OK, CLASSIC, text.into());
        }
        (StatusCode::OK, OPENMETRICS, page)
    }

    fn scrape(&self) -> Scrape {
        let Subject { vitals, tally, host } = &self.subject;
        let used = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
        Scrape {
            host: host.clone(),
            seen: vitals.segment().survey(),
            health: vitals.health(),
            is_healthy: vitals.unhealthy_reason().is_none(),
            at_work: vitals.at_work(),
            lateness: vitals.lateness(),
            tally: tally.snapshot(),
            traffic: self.traffic.borrow().clone(),
            cpu_s: Duration::try_from(used).map_or(0.0, |used| used.as_secs_f64()),
        }
    }

    fn state_page(&self) -> Page {
        let page = fresh(&self.state, || {
            let Subject { vitals, host, .. } = &self.subject;
            let unhealthy_reason = vitals.unhealthy_reason();
            let state = WatchdogState {
                schema: SCHEMA,
                host: host.clone(),
                watchdog_pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                healthy: unhealthy_reason.is_none(),
                reason: unhealthy_reason.map(|unhealthy_reason| unhealthy_reason.to_string()),
                segments: vec![SegmentState::of(&vitals.segment().picture())],
            };
            to_json(&state).unwrap_or_default() + "\n"
        });
        (StatusCode::OK, JSON, page)
    }
}

impl Answer for Pages {
    fn answer(&self, request: &Request<Incoming>) -> (&'static str, Response<Full<Bytes>>) {
        let (path, (status, content_type, body)) =
            caught("hangwatch-listen", || self.page(request)).unwrap_or_else(|message| {
                // Deadlines are kept anyway: a bug in the listener is no reason to end the watchdog.
                tracing::error!(event = "panicked", message_text = message, "a page panicked");
                let text = Bytes::from_static(b"a bug in hangwatch; see its log\n");
                ("other", (StatusCode::INTERNAL_SERVER_ERROR, PLAIN, text))
            });
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        (path, response)
    }
}

/// Returns the kept page, or builds it if it is too old, so that many requests cost no more than a few.
fn fresh(kept: &RefCell<Option<(Instant, Bytes)>>, make: impl FnOnce() -> String) -> Bytes {
    let mut kept = kept.borrow_mut();
    match &*kept {
        Some((at, page)) if at.elapsed() < FRESH => page.clone(),
        _ => {
            let page = Bytes::from(make());
            *kept = Some((Instant::now(), page.clone()));
            page
        }
    }
}

/// Whether the client accepts only Prometheus' older text format.
fn wants_classic(headers: &HeaderMap) -> bool {
    let accepts = |what: &str| {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        accepted.flat_map(|value| value.split(',')).any(|range| range.trim().starts_with(what))
    };
    accepts("text/plain") && !accepts("application/openmetrics-text")
}

/// Whether the request is addressed to this host.
///
/// A website in a browser of this host can send requests under a domain name of its own (DNS rebinding), and
/// would otherwise read the response.
fn names_this_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.is_empty() || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        headers
    }

    #[test]
    fn only_requests_addressed_to_this_host_are_answered() {
        let check = |host: &str, expected: bool| {
            assert_eq!(names_this_host(&headers(HOST, host)), expected, "{host}");
        };
        check("127.0.0.1:9469", true);
        check("localhost:9469", true);
        check("LOCALHOST", true);
        check("[::1]:9469", true);
        check("10.0.0.7", true);
        check("", true);
        check("evil.example:9469", false);
        check("localhost.evil.example", false);
        assert!(names_this_host(&HeaderMap::new()));
    }

    #[test]
    fn older_format_is_for_clients_that_accept_no_other() {
        let check = |accept: &str, expected: bool| {
            assert_eq!(wants_classic(&headers(ACCEPT, accept)), expected, "{accept}");
        };
        check("text/plain;version=0.0.4", true);
        check("text/plain, */*;q=0.1", true);
        check("*/*", false);
        check("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", false);
        assert!(!wants_classic(&HeaderMap::new()));
    }
}
