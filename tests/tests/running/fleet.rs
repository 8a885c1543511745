//! `hangwatch fleet` against a thousand simulated hosts, rude ones, and real watchdogs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use hangwatch_bench::hosts::{Hosts, Manner, state};
use hangwatch_tests::{BOUND, Stage, program, until};
use rustix::process::geteuid;
use serde_json::Value;

use super::{complaint, hangwatch, said};

const HOSTS: u32 = 1000;
const RANKS: u32 = 4;

/// The ranks of host `host`; rank 1,234 of the job loads data while the others wait.
fn healthy(host: u32) -> Manner {
    let waiting: &[(&str, u64)] = &[("allreduce", 30), ("step", 31)];
    let scopes = |rank: u32| if rank == 1_234 { &[("load", 45)][..] } else { waiting };
    let ranks: Vec<_> =
        (host * RANKS..(host + 1) * RANKS).map(|rank| (rank, scopes(rank))).collect();
    Manner::Answers("200 OK", state(&format!("gpu-{host}"), "train", HOSTS * RANKS, &ranks))
}

fn json(words: &[&str]) -> Value {
    serde_json::from_str(&said(words)).unwrap()
}

/// A file of targets, in a directory of its own.
fn targets_file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("targets.json");
    fs::write(&path, text).unwrap();
    let name = path.to_str().unwrap().to_owned();
    (dir, name)
}

#[test]
fn of_a_thousand_hosts_the_oldest_comes_first_and_the_odd_one_is_marked() {
    let hosts = Hosts::serve((0..HOSTS).map(healthy).collect());
    let (_dir, file) = targets_file(&hosts.file_sd());
    let fleet = json(&["fleet", "--file", &file, "--json", "--timeout", "30s"]);
    let targets = fleet["targets"].as_array().unwrap();
    assert_eq!(targets.len(), HOSTS as usize);
    assert!(targets.iter().all(|target| target["status"] == "ok"), "{targets:#?}");
    let workers = fleet["workers"].as_array().unwrap();
    assert_eq!(workers.len(), (HOSTS * RANKS) as usize);
    assert_eq!((&workers[0]["rank"], &workers[0]["host"]), (&1_234.into(), &"gpu-308".into()));
    assert!(workers.iter().is_sorted_by_key(|row| std::cmp::Reverse(row["age_ns"].as_u64())));
    let odd: Vec<_> = workers.iter().filter(|row| row["odd"] == true).collect();
    assert_eq!(odd.len(), 1, "{odd:#?}");
    assert_eq!(odd[0]["rank"], 1_234);
    assert_eq!(fleet["odd"][0]["scope"], "allreduce");
    assert_eq!(fleet["missing"].as_array().unwrap().len(), 0);

    let table = said(&["fleet", "--file", &file, "--timeout", "30s", "--limit", "3"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "1000 targets: 1000 answered; 4000 workers, 0 overdue");
    assert!(lines[1].starts_with("> suspect: rank 1234 of job train on host gpu-308"), "{table}");
    let rows: Vec<&&str> = lines.iter().skip_while(|line| !line.contains("HOST")).collect();
    assert!(rows[1].starts_with("> gpu-308") && rows[1].contains("load"), "{table}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{table}");
    assert_eq!(rows.len(), 5, "{table}");
}

#[test]
fn of_a_thousand_hosts_some_in_trouble_all_others_answer() {
    let trouble = [
        (Manner::IsSilent, "slow"),
        (Manner::HangsUp, "down"),
        (Manner::Trickles, "slow"),
        (Manner::Babbles(b"SSH-2.0-OpenSSH\r\n".to_vec()), "lying"),
        (Manner::Floods, "lying"),
    ];
    let mut manners: Vec<Manner> = (0..HOSTS).map(healthy).collect();
    let mut expected = vec!["ok"; HOSTS as usize];
    for place in 0..20 {
        let (manner, status) = &trouble[place % trouble.len()];
        manners[place * 50] = manner.clone();
        expected[place * 50] = status;
    }
    let hosts = Hosts::serve(manners);
    let (_dir, file) = targets_file(&hosts.file_sd());
    let fleet = json(&["fleet", "--file", &file, "--json", "--timeout", "6s"]);
    let rows = fleet["targets"].as_array().unwrap();
    let wrong: Vec<_> =
        rows.iter().zip(&expected).filter(|(row, status)| row["status"] != **status).collect();
    assert_eq!(rows.len(), expected.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(fleet["workers"].as_array().unwrap().len(), (HOSTS as usize - 20) * RANKS as usize);
    assert_eq!(fleet["missing"][0]["count"], 20 * RANKS);
}

#[test]
fn hosts_are_not_called_down_for_want_of_descriptors() {
    let hosts = Hosts::serve((0..300).map(healthy).collect());
    let (_dir, file) = targets_file(&hosts.file_sd());
    let mut command = Command::new("sh");
    if geteuid().is_root() {
        // Or it would raise the hard limit.
        command = Command::new("setpriv");
        command.args(["--inh-caps", "-sys_resource", "--bounding-set", "-sys_resource", "sh"]);
    }
    let output = command
        .args(["-c", "ulimit -n 160 && exec \"$@\"", "sh"])
        .arg(program("stage-watchdog"))
        .args(["fleet", "--file", &file, "--json", "--timeout", "30s"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let fleet: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = fleet["targets"].as_array().unwrap();
    assert_eq!(rows.len(), 300);
    assert!(rows.iter().all(|row| row["status"] == "ok"), "{rows:#?}");
}

#[test]
fn hosts_that_are_down_slow_or_lying_are_rows_that_say_so() {
    let deep = format!("{{\"schema\": 1, \"host\": {}", "[".repeat(50_000));
    let rude_name =
        state("evil\u{1b}]0;owned\u{7}\u{1b}[2J", "\u{202e}job", 1, &[(0, &[("s", 1)])]);
    let answers = |body: &str| Manner::Answers("200 OK", body.to_owned());
    let manners = [
        (healthy(0), "ok", ""),
        (Manner::IsSilent, "slow", "no answer"),
        (Manner::Trickles, "slow", "no whole answer"),
        (Manner::HangsUp, "down", "hung up"),
        (Manner::Babbles(b"SSH-2.0-OpenSSH\r\n".to_vec()), "lying", "no HTTP"),
        (Manner::Babbles(vec![0xff; 70_000]), "lying", "no HTTP"),
        (Manner::Answers("503 Service Unavailable", String::new()), "lying", "503"),
        (Manner::Answers("302 Found", String::new()), "lying", "302"),
        (answers("<html>\u{1b}[2Jhello</html>"), "lying", "no state"),
        (answers(&deep), "lying", "no state"),
        (answers("{\"schema\": 77}"), "other_version", "schema 77"),
        (Manner::Floods, "lying", "larger than 16 MiB"),
        (answers(&rude_name), "ok", ""),
    ];
    let hosts = Hosts::serve(manners.iter().map(|(manner, ..)| manner.clone()).collect());
    let mut targets: Vec<String> = (0..manners.len()).map(|index| hosts.address(index)).collect();
    // Nobody listens there: a port that was had and given back.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    targets.push(unused.to_string());
    targets.push("unix:/no/such/socket".to_owned());
    targets.push("no-such-host.invalid:9469".to_owned());
    let words: Vec<&str> = ["fleet", "--timeout", "5s"]
        .into_iter()
        .chain(targets.iter().map(String::as_str))
        .collect();
    let fleet = json(&[&words[..], &["--json"]].concat());
    let rows = fleet["targets"].as_array().unwrap();
    let expected = manners.iter().map(|(_, status, part)| (*status, *part));
    let nobody = [("down", "refused"), ("down", "No such file"), ("down", "")];
    for (row, (status, part)) in rows.iter().zip(expected.chain(nobody)) {
        assert_eq!(row["status"], status, "{row}");
        assert!(row["reason"].as_str().unwrap_or_default().contains(part), "{row}");
    }
    assert_eq!(rows.len(), targets.len());

    let output = hangwatch(&words);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    let is_plain = |c: char| c == '\n' || (!c.is_control() && c != '\u{202e}');
    assert!(table.chars().all(is_plain), "{table:?}");
    assert!(
        table.contains("2 answered, 4 down, 2 slow, 7 malformed response, 1 other version"),
        "{table}"
    );
    for part in ["hung up", "refused", "503", "schema 77", "larger than"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn a_job_that_waits_for_a_host_that_is_gone_says_which_rank_is_missing() {
    let waiting: &[(&str, u64)] = &[("allreduce", 30)];
    let host = |rank| Manner::Answers("200 OK", state("h", "train", 3, &[(rank, waiting)]));
    let hosts = Hosts::serve(vec![host(0), host(2), Manner::HangsUp]);
    let targets: Vec<String> = (0..3).map(|index| hosts.address(index)).collect();
    let words: Vec<&str> = ["fleet", "--timeout", "30s"]
        .into_iter()
        .chain(targets.iter().map(String::as_str))
        .collect();
    let table = said(&words);
    assert!(
        table.contains("> suspect: rank 1 of job train on a host that did not answer"),
        "{table}"
    );
    assert!(table.contains("? 1 of 3 ranks"), "{table}");
}

#[test]
fn a_watch_ends_when_its_reader_has_gone() {
    let hosts = Hosts::serve(vec![healthy(0)]);
    // A pause that nobody waits for: it ends with the reader, too.
    let mut fleet = Command::new(program("stage-watchdog"))
        .args(["fleet", "--watch", "1h", "--timeout", "30s", &hosts.address(0)])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(fleet.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let begun = Instant::now();
    let ended = loop {
        if let Some(status) = fleet.try_wait().unwrap() {
            break Some(status);
        }
        if begun.elapsed() > BOUND {
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    if ended.is_none() {
        fleet.kill().unwrap();
        fleet.wait().unwrap();
    }
    assert!(line.starts_with("1 target: 1 answered; 4 workers, 0 overdue"), "{line}");
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "{ended:?}");
}

#[test]
fn one_watchdog_written_in_several_ways_is_asked_once() {
    let hosts = Hosts::serve(vec![healthy(0)]);
    let plain = hosts.address(0).trim_start_matches("http://").trim_end_matches('/').to_owned();
    let url = format!("http://{plain}/");
    let fleet = json(&["fleet", &plain, &url, "--json", "--timeout", "30s"]);
    assert_eq!(fleet["targets"].as_array().unwrap().len(), 1, "{fleet}");
    assert_eq!(fleet["workers"].as_array().unwrap().len(), RANKS as usize);
}

#[test]
fn a_target_that_is_down_and_names_no_port_says_which_was_asked() {
    let output = hangwatch(&["fleet", "no-such-host.invalid"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(
        table.replace("\n ", "").contains("(port 9469, because the target names none)"),
        "{table}"
    );
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let check = |words: &[&str], code: i32, part: &str| {
        let (found, why) = complaint(&[&["fleet"], words].concat());
        assert_eq!(found, Some(code), "{words:?}: {why}");
        assert!(why.contains(part), "{words:?}: {why}");
    };
    check(&[], 2, "--file");
    check(&["https://gpu-1"], 2, "proxy");
    check(&["--file", "/no/such/file"], 125, "No such file");
    let (_dir, file) = targets_file("[{\"targets\": 5}]");
    check(&["--file", &file], 125, "file_sd");
    check(&["h:1", "--timeout", "0s"], 2, "longer than zero");
    check(&["unix:/no/such/socket"], 125, "");
}

#[test]
fn real_watchdogs_answer_by_tcp_and_by_unix_socket() {
    let stage = Stage::new("fleet");
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", dir.path().join("watchdog.sock").display());
    let _watchdog = stage.watchdog(&["--listen", &socket]);
    let labels =
        [("RANK", "2"), ("WORLD_SIZE", "8"), ("HANGWATCH_JOB", "bert"), ("HANGWATCH_HOST", "h7")];
    let mut worker = hangwatch_tests::Actor::start(stage.name(), &labels);
    worker.tell("attach");
    worker.tell("expires forward 600000");
    let fleet = until("the state tells of it", || {
        let fleet = json(&["fleet", &socket, "--json", "--timeout", "30s"]);
        (fleet["workers"][0]["scopes"][0] == "forward").then_some(fleet)
    });
    let row = &fleet["workers"][0];
    assert_eq!((&row["rank"], &row["world_size"]), (&2.into(), &8.into()));
    assert_eq!((&row["job"], &row["host"]), (&"bert".into(), &"h7".into()));
    assert_eq!(row["pid"], worker.pid());
    assert_eq!(fleet["missing"][0]["count"], 7);
    assert_eq!(fleet["targets"][0]["healthy"], true);
}
