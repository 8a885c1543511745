//! The files of `examples/fleet`, and the real Prometheus over watchdogs in network namespaces.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use hangwatch_tests::{Actor, Stage, Watchdog, is_root, program, until};
use serde_json::Value;

fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/fleet").join(file)
}

/// Skips where a program is absent, unless it is said to be required.
fn absent<T>(what: &str, why: &str) -> Option<T> {
    let required =
        std::env::var_os("HANGWATCH_TEST_TOOLS").is_some_and(|value| value == "required");
    assert!(!required, "{what}: {why}");
    println!("skipped: {what} is not there ({why}); `cargo xtask test` installs it");
    None
}

fn promtool(words: &[&str], file: &Path) -> Option<Output> {
    match Command::new("promtool").args(words).arg(file).output() {
        Ok(output) => Some(output),
        Err(error) => absent("promtool", &error.to_string()),
    }
}

#[test]
fn promtool_passes_the_rules_and_the_configuration() {
    let check = |words: &[&str], file: &str| {
        let Some(output) = promtool(words, &example(file)) else { return };
        assert!(output.status.success(), "{words:?} {file}: {output:?}");
    };
    check(&["check", "rules"], "rules.yml");
    check(&["check", "config", "--syntax-only"], "prometheus.yml");
    check(&["test", "rules"], "rules_test.yml");
}

#[test]
fn promtool_would_find_a_rule_that_does_not_fire() {
    let dir = tempfile::tempdir().unwrap();
    let rules = fs::read_to_string(example("rules.yml")).unwrap();
    let broken = rules.replace("outcome=\"reaped\"", "outcome=\"rept\"");
    assert_ne!(rules, broken);
    fs::write(dir.path().join("rules.yml"), broken).unwrap();
    fs::copy(example("rules_test.yml"), dir.path().join("rules_test.yml")).unwrap();
    let Some(output) = promtool(&["test", "rules"], &dir.path().join("rules_test.yml")) else {
        return;
    };
    assert!(!output.status.success(), "{output:?}");
}

/// The names of metrics in a text, those of recorded ones left out.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_word(c));
    words.filter(|word| word.starts_with("hangwatch_")).map(str::to_owned).collect()
}

#[test]
fn every_metric_that_the_rules_and_the_dashboard_name_is_told() {
    let stage = Stage::new("metrics");
    let mut watchdog = stage.watchdog(&["--listen", "127.0.0.1:0"]);
    let listening = until("it listens", || {
        watchdog.events().iter().find(|it| it["event"] == "listening").cloned()
    });
    let address = listening["address"].as_str().unwrap().to_owned();
    let mut worker = stage.actor();
    worker.tell("pairs 10");
    worker.tell("notify reported 1");
    let told = until("everything is told", || {
        let page = get(&address, "/metrics")?;
        let told = metrics_in(&page);
        told.contains("hangwatch_last_expiry_timestamp_seconds").then_some(told)
    });
    let mut named = 0;
    for file in ["rules.yml", "dashboard.json"] {
        let text = fs::read_to_string(example(file)).unwrap();
        for metric in metrics_in(&text) {
            named += 1;
            assert!(told.contains(&metric), "{file} names {metric}, which nobody tells: {told:?}");
        }
    }
    assert!(named > 15, "{named}");
}

#[test]
fn every_recorded_metric_that_the_dashboard_names_is_recorded() {
    let recorded = fs::read_to_string(example("rules.yml")).unwrap();
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(example("dashboard.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let mut found = 0;
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        let words = expression.split(|c: char| !is_word(c));
        for name in words.filter(|word| word.contains(":hangwatch_")) {
            found += 1;
            assert!(recorded.contains(&format!("record: {name}\n")), "{name}");
        }
    }
    assert!(found >= 2, "{found}");
}

/// What is told under a path, or nothing yet.
fn get(address: &str, path: &str) -> Option<String> {
    answer(address, path).filter(|(head, _)| head.contains(" 200 ")).map(|(_, body)| body)
}

/// The head and the body of an answer.
fn answer(address: &str, path: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// Network namespaces of a test: one for Prometheus, one for each host, a wire between.
struct Net {
    names: Vec<String>,
}

fn ip(words: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(words).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {words:?}: {said}")) }
}

impl Net {
    /// The namespaces, or why they cannot be had.
    fn new(hosts: usize) -> Result<Net, String> {
        let own = std::process::id();
        let centre = format!("hw-test-{own}-p");
        let mut net = Net { names: Vec::new() };
        net.add(&centre)?;
        ip(&["-n", &centre, "link", "set", "lo", "up"])?;
        for host in 1..=hosts {
            let name = format!("hw-test-{own}-{host}");
            net.add(&name)?;
            let (here, there) = (format!("wire{host}"), format!("10.77.{host}.2/24"));
            let wire = ["link", "add", &here, "netns", &centre, "type", "veth"];
            ip(&[&wire[..], &["peer", "name", "eth0", "netns", &name]].concat())?;
            ip(&["-n", &centre, "addr", "add", &format!("10.77.{host}.1/24"), "dev", &here])?;
            ip(&["-n", &centre, "link", "set", &here, "up"])?;
            ip(&["-n", &name, "addr", "add", &there, "dev", "eth0"])?;
            ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        }
        Ok(net)
    }

    fn add(&mut self, name: &str) -> Result<(), String> {
        ip(&["netns", "add", name])?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// A command in a namespace; a host's has a name of its own.
    fn command(&self, index: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[index], "unshare", "--uts", "sh", "-c"]);
        command.arg("echo \"$0\" > /proc/sys/kernel/hostname && exec \"$@\"");
        command.arg(format!("gpu-{index}")).arg(program);
        command
    }

    /// As [`get`], from within Prometheus' namespace.
    fn get(&self, path: &str) -> Option<String> {
        self.ask(path, get)
    }

    /// As [`Net::get`], also where the answer is an error.
    fn get_any(&self, path: &str) -> Option<String> {
        self.ask(path, |address, path| Some(answer(address, path)?.1))
    }

    fn ask(&self, path: &str, get: fn(&str, &str) -> Option<String>) -> Option<String> {
        let (name, path) = (format!("/run/netns/{}", self.names[0]), path.to_owned());
        // A thread's own: it ends with its request.
        let asked = std::thread::spawn(move || {
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            let namespace = fs::File::open(name).ok()?;
            let network = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), network).ok()?;
            get("127.0.0.1:9090", &path)
        });
        asked.join().unwrap()
    }

    /// The alerts that fire.
    fn firing(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/alerts");
        let answer = answer.and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let alerts = answer.as_ref().and_then(|answer| answer["data"]["alerts"].as_array());
        let is_firing = |alert: &&Value| alert["state"] == "firing";
        alerts.into_iter().flatten().filter(is_firing).cloned().collect()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            // The wires go with them.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

/// A Prometheus with the example's rules, looking every second.
struct Prometheus {
    child: Child,
    _dir: tempfile::TempDir,
}

impl Prometheus {
    fn start(net: &Net, hosts: usize) -> Option<Prometheus> {
        let dir = tempfile::tempdir().unwrap();
        let targets: Vec<String> = (1..=hosts).map(|host| format!("10.77.{host}.2:9469")).collect();
        let targets = serde_json::json!([{ "targets": targets }]).to_string();
        fs::write(dir.path().join("targets.json"), targets).unwrap();
        fs::copy(example("rules.yml"), dir.path().join("rules.yml")).unwrap();
        let quicker =
            fs::read_to_string(example("prometheus.yml")).unwrap().replace(": 15s", ": 1s");
        fs::write(dir.path().join("prometheus.yml"), quicker).unwrap();
        if let Err(error) = Command::new("prometheus").arg("--version").output() {
            return absent("prometheus", &error.to_string());
        }
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = net
            .command(0, Path::new("prometheus"))
            .current_dir(&dir)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .args(["--web.listen-address=127.0.0.1:9090", "--log.level=warn"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Prometheus { child, _dir: dir })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_hung_worker_fires_the_alert_with_its_host_rank_and_scope() {
    const HOSTS: usize = 3;
    if !is_root("a_hung_worker_fires_the_alert_with_its_host_rank_and_scope") {
        return;
    }
    let net = match Net::new(HOSTS) {
        Ok(net) => net,
        Err(error) => {
            println!("skipped: no network namespaces are to be had: {error}");
            return;
        }
    };
    let stages: Vec<Stage> = (0..HOSTS).map(|_| Stage::new("host")).collect();
    let watchdogs: Vec<Watchdog> = (1..=HOSTS)
        .map(|host| {
            let mut command = net.command(host, &program("stage-watchdog"));
            let listen = format!("10.77.{host}.2:9469");
            command.args(["run", "--segment", stages[host - 1].name(), "--log", "json"]);
            command.args(["--unprotected", "--listen", &listen, "--listen-anywhere"]);
            command.args(["--evidence", "off"]);
            Watchdog::spawn(command)
        })
        .collect();
    let Some(_prometheus) = Prometheus::start(&net, HOSTS) else { return };
    until("every watchdog is scraped", || {
        let answer: Value =
            serde_json::from_str(&net.get("/api/v1/query?query=sum(hangwatch_healthy)")?).ok()?;
        (answer["data"]["result"][0]["value"][1] == "3").then_some(())
    });
    assert!(net.firing().is_empty(), "{:#?}", net.firing());

    let rank = |rank: usize| {
        let number = rank.to_string();
        let job = [("RANK", number.as_str()), ("WORLD_SIZE", "3"), ("HANGWATCH_JOB", "bert")];
        let mut actor = Actor::start(stages[rank].name(), &job);
        actor.tell("attach");
        actor
    };
    let mut workers: Vec<Actor> = (0..HOSTS).map(rank).collect();
    workers[0].tell("expires forward 600000");
    workers[1].tell("expires forward 50");
    workers[2].tell("expires forward 600000");
    let alert = until("the alert fires", || {
        net.firing().into_iter().find(|it| it["labels"]["alertname"] == "HangwatchWorkerReaped")
    });
    let labels = &alert["labels"];
    assert_eq!((&labels["host"], &labels["rank"]), (&"gpu-2".into(), &"1".into()), "{alert}");
    assert_eq!((&labels["scope"], &labels["job_name"]), (&"forward".into(), &"bert".into()));
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    assert_eq!(summary, "rank 1 of job bert on gpu-2 hung in forward and was removed");
    assert!(workers[0].is_alive() && workers[2].is_alive());
    assert_eq!(net.firing().len(), 1, "{:#?}", net.firing());

    // Something to show in every panel, also in that of who is overdue now.
    workers[2].tell("notify reported 1");
    for (title, expression) in expressions() {
        let query = format!("/api/v1/query?query={}", encoded(&expression));
        until(&format!("{title:?} shows something: {expression}"), || {
            workers[0].tell("pairs 10");
            shows(&net.get_any(&query)?).then_some(())
        });
    }
    for variable in ["host", "segment"] {
        let path = format!("/api/v1/label/{variable}/values?match[]=hangwatch_healthy");
        let values: Value = serde_json::from_str(&net.get(&path).unwrap()).unwrap();
        assert_eq!(values["data"].as_array().unwrap().len(), HOSTS, "{values}");
    }
    drop(watchdogs);
}

fn dashboard() -> Value {
    serde_json::from_str(&fs::read_to_string(example("dashboard.json")).unwrap()).unwrap()
}

/// Each panel's title, and what it asks for, of all hosts and segments.
fn expressions() -> Vec<(String, String)> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let all = panels.flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        panel["targets"].as_array().unwrap().iter().map(move |target| {
            let expression = target["expr"].as_str().unwrap();
            let expression = expression.replace("$host", ".*").replace("$segment", ".*");
            (title.clone(), expression)
        })
    });
    all.collect()
}

/// Whether an answer has a number to show; an error in the expression is one in the dashboard.
fn shows(answer: &str) -> bool {
    let answer: Value = serde_json::from_str(answer).unwrap();
    assert_eq!(answer["status"], "success", "{answer}");
    let results = answer["data"]["result"].as_array().unwrap();
    let number = |result: &Value| result["value"][1].as_str()?.parse::<f64>().ok();
    results.iter().filter_map(number).any(f64::is_finite)
}

fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[test]
fn a_broken_expression_of_the_dashboard_would_be_found() {
    let broken = r#"{"status": "error", "error": "parse error"}"#;
    assert!(std::panic::catch_unwind(|| shows(broken)).is_err());
    assert!(!shows(r#"{"status": "success", "data": {"result": []}}"#));
    assert!(!shows(r#"{"status": "success", "data": {"result": [{"value": [0, "NaN"]}]}}"#));
    assert!(shows(r#"{"status": "success", "data": {"result": [{"value": [0, "3"]}]}}"#));
}

/// What Grafana would show wrong, or not at all, without an error.
#[test]
fn the_dashboard_has_its_panels_side_by_side_and_names_no_variable_it_lacks() {
    let dashboard = dashboard();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let variables: Vec<&str> =
        variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = &panel["title"];
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title} has another's id");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for x in side("x")..side("x") + side("w") {
            assert!(x < 24, "{title} is beyond the right edge");
            for y in side("y")..side("y") + side("h") {
                assert!(taken.insert((x, y)), "{title} lies over another");
            }
        }
        let mut queries = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert!(queries.insert(target["refId"].as_str().unwrap()), "{title}");
            let expression = target["expr"].as_str().unwrap();
            for part in expression.split('$').skip(1) {
                let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
                assert!(variables.contains(&&part[..end]), "{title}: {expression}");
            }
        }
    }
}
