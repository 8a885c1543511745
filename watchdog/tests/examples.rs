//! The examples: what they say is well-formed, and of commands that there are.

use hangwatch_cli::cli::Cli;
use serde_json::Value;

/// A file of `examples/`, parsed.
fn parsed(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().map(|word| word.as_str().expect("a string")).collect()
}

/// Whether hangwatch takes these words.
fn check_command(words: &[&str]) {
    let words = ["hangwatch"].iter().chain(words);
    if let Err(error) = Cli::try_read_from(words, None) {
        panic!("{error}");
    }
}

#[test]
fn the_containers_of_the_compose_file_share_what_they_must() {
    let file = parsed(include_str!("../../examples/container/compose.yaml"));
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
}

#[test]
fn the_containers_of_the_pod_share_what_they_must() {
    let pod = parsed(include_str!("../../examples/container/sidecar.yaml"));
    let spec = &pod["spec"];
    assert_eq!(spec["shareProcessNamespace"], true);
    assert_eq!(spec["volumes"][0]["emptyDir"]["medium"], "Memory");
    let (watchdog, trainer) = (&spec["initContainers"][0], &spec["containers"][0]);
    assert_eq!(watchdog["restartPolicy"], "Always", "a sidecar");
    for container in [watchdog, trainer] {
        let mount = &container["volumeMounts"][0];
        assert_eq!((&mount["name"], &mount["mountPath"]), (&"shm".into(), &"/dev/shm".into()));
        assert!(container["securityContext"]["runAsUser"].is_null(), "the pod's user");
    }
    let arguments = strings(&watchdog["args"]);
    check_command(&arguments);
    let segment = trainer["env"][0]["value"].as_str().unwrap();
    assert!(arguments.contains(&&*format!("--segment={segment}")), "the same segment");
}
