//! What an operator runs beside a watchdog, the doctor, completions and man pages; and the examples:
//! what they say is well-formed, and of commands that there are.

mod command;

use std::fs;
use std::path::Path;
use std::process::Command;

use command::{check, check_says, hangwatch};
use hangwatch_cli::cli::Cli;
use hangwatch_cli::cli::config::Variables;
use serde_json::Value;

#[test]
fn the_doctor_says_whether_this_host_will_do() {
    let output = hangwatch(&["doctor", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Where the other tests run, everything needed is there.
    assert_eq!((report["fit"].as_bool(), output.status.code()), (Some(true), Some(0)), "{report}");
    let text = String::from_utf8(check(&["doctor"], 0).stdout).unwrap();
    for topic in ["kernel", "/dev/shm", "pidfd", "clock", "open files", "container"] {
        assert!(text.lines().any(|line| line[9..].starts_with(topic)), "{topic}: {text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn the_doctor_finds_what_is_missing() {
    if !rustix::process::geteuid().is_root() {
        return; // nobody else may mount
    }
    // Where /dev/shm has too little room, and the limit of open files is low.
    let script = "mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 99; \
                  ulimit -n 200; exec \"$0\" doctor";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_hangwatch")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(99) || text.is_empty() {
        println!("skipped: no mount namespace of one's own here");
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("MISSING  /dev/shm"), "{text}");
    assert!(text.contains("weaker   open files      limit 200"), "{text}");
}

/// Runs a program over files of hangwatch's, if it is there, as `cargo xtask test` makes sure.
fn checked_by(program: &str, args: &[&str]) {
    let required = std::env::var_os("HANGWATCH_TEST_TOOLS").is_some_and(|it| it == "required");
    match Command::new(program).args(args).output() {
        Ok(output) => assert!(output.status.success(), "{program} {args:?}: {output:?}"),
        Err(error) if required => panic!("{program}: {error}"),
        Err(_) => println!("skipped: there is no {program}"),
    }
}

#[test]
fn shells_take_the_completions() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let script = String::from_utf8(check(&["completions", shell], 0).stdout).unwrap();
        for word in ["release-brake", "doctor", "--max-interval"] {
            assert!(script.contains(word.trim_start_matches("--")), "{shell}: {word}");
        }
        assert!(!script.contains("demo-worker"), "{shell}: what is hidden stays so");
        fs::write(dir.path().join(shell), script).unwrap();
    }
    let bash = dir.path().join("bash");
    checked_by("bash", &["-n", bash.to_str().unwrap()]);
    // Asked by a real shell for what may follow.
    let asked = "source \"$0\"; COMP_WORDS=(hangwatch rel); COMP_CWORD=1; \
                 _hangwatch hangwatch rel hangwatch; echo \"${COMPREPLY[@]}\"";
    let output = Command::new("bash").args(["-c", asked]).arg(&bash).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "release-brake", "{output:?}");
    check_says(&["completions", "csh"], 2, "possible values");
}

#[test]
fn every_command_has_a_man_page_without_fault() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join("man1").join(name).to_str().unwrap().to_owned();
    let man1 = dir.path().join("man1");
    check_says(&["man", man1.to_str().unwrap()], 125, "mkdir -p");
    assert!(!man1.exists(), "it is not made");
    fs::create_dir(&man1).unwrap();
    check(&["man", man1.to_str().unwrap()], 0);
    for page in ["hangwatch.1", "hangwatch-run.1", "hangwatch-top.1", "hangwatch-doctor.1"] {
        checked_by("mandoc", &["-T", "lint", "-W", "error", &path(page)]);
    }
    assert!(!Path::new(&path("hangwatch-demo-worker.1")).exists());
    assert!(fs::read_to_string(path("hangwatch-run.1")).unwrap().contains("max\\-interval"));
    let page = check(&["man"], 0).stdout;
    assert_eq!(page, fs::read(path("hangwatch.1")).unwrap());
    check_says(&["man", "/proc/no/such"], 125, "mkdir -p /proc/no/such");
}

/// A file of `examples/`, parsed.
fn parsed(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|word| word.as_str().expect("a string")).collect()
}

/// Whether a watchdog with these variables keeps its incidents in the volume that is mounted there.
fn check_incidents(variables: &[(&str, &str)], mounted: &str) {
    let words = ["hangwatch", "run", "--segment", "train"];
    let read = Cli::try_read_from(words, &variables.iter().copied().collect());
    let Ok(Cli { command: hangwatch_cli::cli::Command::Run(run) }) = read else {
        panic!("{read:?}");
    };
    assert_eq!(run.evidence.incidents.dir.as_deref(), Some(Path::new(mounted)));
}

/// Whether hangwatch takes these words.
fn check_command(words: &[&str]) {
    let words = ["hangwatch"].iter().chain(words);
    if let Err(error) = Cli::try_read_from(words, &Variables::default()) {
        panic!("{error}");
    }
}

#[test]
fn the_containers_of_the_compose_file_share_what_they_must() {
    let file = parsed(include_str!("../../../examples/container/compose.yaml"));
    let services = &file["services"];
    assert_eq!(services["sandbox"]["ipc"], "shareable");
    let (watchdog, trainer) = (&services["watchdog"], &services["trainer"]);
    for service in [watchdog, trainer] {
        assert_eq!((&service["ipc"], &service["pid"]), (&watchdog["ipc"], &watchdog["pid"]));
        assert_eq!(service["pid"], "service:sandbox");
        assert_eq!(service["user"], "1000:1000");
    }
    let command = strings(&watchdog["command"]);
    check_command(&command);
    let segment = &trainer["environment"]["HANGWATCH_SEGMENT"];
    assert!(command.contains(&segment.as_str().unwrap()), "the same segment");
    let mounted = strings(&watchdog["volumes"])[0].split_once(':').unwrap();
    assert!(file["volumes"].as_object().unwrap().contains_key(mounted.0));
    let dir = watchdog["environment"]["HANGWATCH_INCIDENTS"].as_str().unwrap();
    check_incidents(&[("HANGWATCH_INCIDENTS", dir)], mounted.1);
    let image = include_str!("../../../examples/container/Dockerfile");
    assert!(image.contains(&format!("HANGWATCH_INCIDENTS={dir}\n")), "its owner's own");
}

#[test]
fn the_containers_of_the_pod_share_what_they_must() {
    let file = include_str!("../../../examples/container/sidecar.yaml");
    let (claim, pod) = file.split_once("\n---\n").expect("two documents");
    let (claim, pod) = (parsed(claim), parsed(pod));
    let spec = &pod["spec"];
    let incidents = &spec["volumes"][1];
    assert_eq!(incidents["persistentVolumeClaim"]["claimName"], claim["metadata"]["name"]);
    assert_eq!(spec["shareProcessNamespace"], true);
    assert_eq!(spec["volumes"][0]["emptyDir"]["medium"], "Memory");
    let (watchdog, trainer) = (&spec["initContainers"][0], &spec["containers"][0]);
    assert_eq!(watchdog["restartPolicy"], "Always", "a sidecar");
    for container in [watchdog, trainer] {
        let mount = &container["volumeMounts"][0];
        assert_eq!((&mount["name"], &mount["mountPath"]), (&"shm".into(), &"/dev/shm".into()));
        assert!(container["securityContext"]["runAsUser"].is_null(), "the pod's user");
    }
    let mounted = &watchdog["volumeMounts"][1];
    assert_eq!(mounted["name"], incidents["name"]);
    let variables = watchdog["env"].as_array().unwrap();
    let set: Vec<(&str, &str)> = variables
        .iter()
        .map(|it| (it["name"].as_str().unwrap(), it["value"].as_str().unwrap()))
        .collect();
    check_incidents(&set, mounted["mountPath"].as_str().unwrap());
    let arguments = strings(&watchdog["args"]);
    check_command(&arguments);
    let segment = trainer["env"][0]["value"].as_str().unwrap();
    assert!(arguments.contains(&&*format!("--segment={segment}")), "the same segment");
}
