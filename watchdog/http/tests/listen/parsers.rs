//! Checks the page with its usual readers: Prometheus' `promtool`, and the reference parser of `OpenMetrics`
//! from Debian's Python. `cargo xtask test` installs both.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::client::get;
use crate::stage::{Stage, until};

const REFERENCE: &str = "\
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as families
for family in families(sys.stdin.read()):
    print(family.name, family.type, len(family.samples))
";

/// Runs a program with this input; `None` if it is not installed and not required.
fn fed(program: &str, args: &[&str], input: &str) -> Option<Output> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return absent(program, &error.to_string()),
    };
    // A program that ends before it has read everything says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Some(child.wait_with_output().unwrap())
}

fn absent<T>(what: &str, why: &str) -> Option<T> {
    let required =
        std::env::var_os("HANGWATCH_TEST_TOOLS").is_some_and(|value| value == "required");
    assert!(!required, "{what}: {why}");
    println!("skipped: {what} is not installed ({why}); `cargo xtask test` installs it");
    None
}

/// Returns a page that contains everything.
fn page(stage: &Stage, headers: &[&str]) -> String {
    let worker = stage.worker();
    worker.expires("rude \"name\"\\ of\ntwo lines", Duration::from_mins(1)).unwrap().release();
    let overdue = worker.expires("overdue", Duration::from_millis(10)).unwrap();
    let mut page = String::new();
    until("everything is on it", || {
        page = get(stage.address(), "/metrics", headers).body;
        page.contains("hangwatch_expiries_total{") && page.contains("hangwatch_http_connections")
    });
    drop(overdue);
    page
}

#[test]
fn promtool_accepts_the_page() {
    let stage = Stage::small("127.0.0.1:0");
    let page = page(&stage, &["Accept: text/plain"]);
    let Some(output) = fed("promtool", &["check", "metrics"], &page) else { return };
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}\n{page}");
    let broken = page.replacen("# TYPE hangwatch_ticks_total counter", "# TYPE x nonsense", 1);
    assert!(!fed("promtool", &["check", "metrics"], &broken).unwrap().status.success());
}

#[test]
fn reference_parser_of_openmetrics_reads_the_page() {
    let stage = Stage::small("127.0.0.1:0");
    let page = page(&stage, &[]);
    let Some(output) = fed("/usr/bin/python3", &["-c", REFERENCE], &page) else { return };
    let (said, failed) = (output.stdout, String::from_utf8_lossy(&output.stderr).into_owned());
    if failed.contains("ModuleNotFoundError") {
        return absent("python3-prometheus-client", "no module prometheus_client").unwrap_or(());
    }
    assert!(output.status.success(), "{failed}\n{page}");
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("hangwatch_scope_duration_seconds histogram 62"), "{said}");
    assert!(said.contains("hangwatch_build info 1"), "{said}");
}
