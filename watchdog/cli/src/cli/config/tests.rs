//! Which source wins, and what is wrong with what they say.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::cli::value::ReapSignal;
use rustix::process::Signal;

/// What `run` is to do by these words, this environment and this file.
fn settle(words: &str, variables: &[(&str, &str)], file: &str) -> Result<Run, String> {
    let mut on_disk = tempfile::NamedTempFile::new().unwrap();
    on_disk.write_all(file.as_bytes()).unwrap();
    let path = on_disk.path().to_str().unwrap().to_owned();
    let words = format!("hangwatch run --config {path} {words}");
    let variables = variables.iter().copied().collect();
    let cli = Cli::try_read_from(words.split_ascii_whitespace(), &variables);
    match cli.map(|cli| cli.command) {
        Ok(Command::Run(run)) => Ok(*run),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.to_string().replace(&path, "FILE")),
    }
}

#[test]
fn the_command_line_overrules_the_environment_and_that_the_file() {
    let file = "segment = \"s\"\nsignal = \"TERM\"\ngrace = \"5s\"\nmax-reaps = 7\nlanes = 8\n";
    let variables = [("HANGWATCH_GRACE", "6s"), ("HANGWATCH_MAX_REAPS", "8")];
    let run = settle("--max-reaps 9", &variables, file).unwrap();
    assert_eq!(run.segment.as_deref(), Some("s"));
    assert_eq!(run.reap.signal, ReapSignal::Signal(Signal::TERM));
    assert_eq!(run.reap.grace, Duration::from_secs(6));
    assert_eq!((run.max_reaps, run.lanes), (Some(9), Some(8)));
    let path = run.settings.config.clone().unwrap();
    assert_eq!(run.origins.of("signal"), Origin::File(path.clone(), 2));
    assert_eq!(run.origins.of("grace"), Origin::Variable("HANGWATCH_GRACE".to_owned()));
    assert_eq!(run.origins.of("max-reaps"), Origin::Flag);
    assert_eq!(run.origins.of("traced"), Origin::Default);
    assert_eq!(run.origins.of("lanes"), Origin::File(path, 5));
}

#[test]
fn what_a_source_overrules_may_contradict_it() {
    let file = "segment = \"s\"\nnotify-only = true\n";
    let run = settle("--signal TERM", &[], file).unwrap();
    assert_eq!(run.reap_signal(), ReapSignal::Signal(Signal::TERM));
    let run = settle("", &[("HANGWATCH_NOTIFY_ONLY", "false")], file).unwrap();
    assert_eq!(run.reap_signal(), ReapSignal::Signal(Signal::KILL));
    let run = settle("--notify-only=false", &[("HANGWATCH_SIGNAL", "INT")], file).unwrap();
    assert_eq!(run.reap_signal(), ReapSignal::Signal(Signal::INT));
    let run = settle("", &[], file).unwrap();
    assert_eq!(run.reap_signal(), ReapSignal::NotifyOnly);
    // A file for the watchdog alone serves one with a command, too.
    let run = settle("-- true", &[], "standby = true\nwarn-at = 0.5\n").unwrap();
    assert_eq!((run.standby, run.warn_at), (false, Some(0.5)));
}

#[test]
fn the_segment_of_the_environment_is_not_a_commands() {
    let outer = [("HANGWATCH_SEGMENT", "outer")];
    assert_eq!(settle("-- true", &outer, "").unwrap().segment, None);
    assert_eq!(settle("", &outer, "").unwrap().segment.as_deref(), Some("outer"));
    let named = settle("-- true", &outer, "segment = \"own\"").unwrap();
    assert_eq!(named.segment.as_deref(), Some("own"));
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "segment = \"named\"").unwrap();
    let variables = [(CONFIG_VARIABLE, file.path().to_str().unwrap())].into_iter().collect();
    let cli = Cli::try_read_from(["hangwatch", "run"], &variables).unwrap();
    let Command::Run(run) = cli.command else { panic!() };
    assert_eq!(run.segment.as_deref(), Some("named"));
    assert_eq!(run.origins.file.as_deref(), Some(file.path()));
}

#[test]
fn an_error_has_its_place_and_its_reason() {
    let check = |variables: &[(&str, &str)], file: &str, expected: &str| {
        let error = settle("--segment s", variables, file).expect_err(file);
        assert!(error.contains(expected), "{file}: {error}");
    };
    check(
        &[],
        "\nmax-reap = 3",
        "FILE:2: there is no setting \"max-reap\"; did you mean max-reaps?",
    );
    check(&[], "max_reaps = 3", "did you mean max-reaps?");
    check(&[], "colour = 3", "FILE:1: there is no setting \"colour\"; see `hangwatch run --help`");
    check(&[], "config = \"x\"", "FILE:1: config works on the command line only");
    check(&[], "grace = \"10 parsecs\"", "FILE:1: grace: \"10 parsecs\" is not a duration");
    check(&[], "grace = \"5M\"", "write m for minutes");
    check(&[], "max-reaps = 0", "FILE:1: max-reaps: \"0\" is not in 1..");
    check(&[], "max-reaps = -3", "FILE:1: max-reaps: \"-3\"");
    check(&[], "traced = \"kill\"", "FILE:1: traced: \"kill\" is not one of reap, report");
    check(&[], "incidents = \"\"", "FILE:1: incidents: \"\" must not be empty");
    check(&[], "lanes = \"many\"", "FILE:1: lanes: \"many\" is not a whole number");
    check(&[], "notify-only = \"yes\"", "FILE:1: notify-only: \"yes\" is not one of true, false");
    check(&[], "log = \"json\"", "FILE:1: there is no setting \"log\"; did you mean log-format?");
    check(&[], "[run]\nlanes = 3", "FILE:1: there is no setting \"run\"");
    check(&[], "listen = \"9469\"", "FILE:1: listen: \"9469\" has no host");
    check(&[], "lanes = 1\nlisten = \"0.0.0.0:1\"", "FILE:2: 0.0.0.0:1 can be reached");
    check(
        &[],
        "listen-anywhere = true",
        "FILE:1: listen-anywhere has no effect without an address",
    );
    check(&[], "signal = TERM", "FILE:1: not valid TOML");
    let both = "notify-only = true\n\ngrace = \"1s\"";
    check(&[], both, "FILE:3: grace conflicts with notify-only (FILE:1)");
    check(&[("HANGWATCH_GRACE", "x")], "", "HANGWATCH_GRACE: \"x\" is not a duration");
    let both = [("HANGWATCH_NOTIFY_ONLY", "true"), ("HANGWATCH_SIGNAL", "TERM")];
    check(&both, "", "HANGWATCH_NOTIFY_ONLY: notify-only conflicts with signal (HANGWATCH_SIGNAL)");
}

#[test]
fn all_errors_are_reported_at_once() {
    let file = "lanes = 0\nmax-reap = 3\ngrace = \"5M\"\n";
    let error = settle("--segment s", &[("HANGWATCH_TIMERS", "many")], file).unwrap_err();
    assert_eq!(error.lines().filter(|line| line.contains(": ")).count(), 4, "{error}");
}

#[test]
fn a_refused_file_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    let error = || {
        let words = ["hangwatch", "run", "--segment", "s", "--config", path.to_str().unwrap()];
        Cli::try_read_from(words, &Variables::default()).unwrap_err().to_string()
    };
    assert!(error().contains("cannot be read: No such file"), "{}", error());
    std::fs::write(&path, "").unwrap();
    let mode = |bits| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(bits)).unwrap();
    };
    mode(0o666);
    assert!(error().contains("chmod o-w"), "{}", error());
    mode(0o644);
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(error().contains("UTF-8"), "{}", error());
    std::fs::write(&path, "#".repeat((1 << 20) + 1)).unwrap();
    assert!(error().contains("not a settings file"), "{}", error());
}

#[test]
fn a_changed_file_is_read_again_with_the_same_command_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "max-reaps = 3\ngrace = \"5s\"\nsignal = \"TERM\"").unwrap();
    let path = file.path().to_str().unwrap();
    let words = ["hangwatch", "run", "--segment", "s", "--max-reaps", "9", "--config", path];
    let cli = Cli::try_read_from(words, &Variables::default()).unwrap();
    let Command::Run(run) = cli.command else { panic!() };
    std::fs::write(file.path(), "max-reaps = 4\ngrace = \"6s\"\n").unwrap();
    let again = reread(&run.origins, &Variables::default()).unwrap();
    assert_eq!((again.max_reaps, again.reap.grace), (Some(9), Duration::from_secs(6)));
    assert_eq!(again.reap.signal, ReapSignal::Signal(Signal::KILL));
    std::fs::write(file.path(), "grace = 6 s\n").unwrap();
    let problems = reread(&again.origins, &Variables::default()).unwrap_err().to_string();
    assert!(problems.contains(":1: not valid TOML"), "{problems}");
}

#[test]
fn settings_in_force_are_a_valid_settings_file() {
    let file = "segment = \"s\"\ngrace = \"5s\"\nsignal = \"TERM\"\nwarn-at = 0.5\n";
    let run = settle("--max-reaps 9 --standby", &[("HANGWATCH_LANES", "8")], file).unwrap();
    let page = page::in_force(&run.origins);
    for line in ["lanes = 8 ", "max-reaps = 9 ", "standby = true ", "# traced = \"report\" "] {
        assert!(page.contains(line), "{line}: {page}");
    }
    assert!(page.contains("# HANGWATCH_LANES\n") && page.contains("# command line\n"), "{page}");
    let again = settle("", &[], &page).unwrap();
    let values = |run: &Run| -> Vec<(String, Option<String>)> {
        run.origins.settings.iter().map(|it| (it.name.clone(), it.value.clone())).collect()
    };
    assert_eq!(values(&run), values(&again));
}

/// `HANGWATCH_TEST_BLESS=1` writes the page where it differs.
#[test]
fn packaged_settings_file_matches_the_options() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/hangwatch.toml");
    let page = page::every();
    if env::var_os("HANGWATCH_TEST_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(page == written, "HANGWATCH_TEST_BLESS=1 cargo test -p hangwatch-cli writes it anew");
    assert!(page.lines().all(|line| line.len() <= 80), "{page}");
    // As it is, it sets nothing; and each of its lines is valid.
    assert!(settle("--segment s", &[], &page).is_ok());
    for line in page.lines().filter(|line| line.starts_with("# ") && line.contains(" = ")) {
        let line = line.trim_start_matches("# ");
        // The group, the file and the hook of these may not exist.
        if !["group", "deadlines", "on-expire-timeout"].iter().any(|name| line.starts_with(name)) {
            let alone = format!("{line}\n");
            let more = if line.starts_with("segment") { "" } else { "--segment s" };
            settle(more, &[], &alone).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }
}

#[test]
fn every_setting_that_is_read_again_exists() {
    let definition = Definition::new();
    for name in REREAD {
        assert!(definition.get(name).is_some(), "{name}");
        assert!(super::super::SETTINGS.replace('\n', " ").contains(name), "{name}");
    }
}

#[test]
fn a_misspelt_variable_gets_a_suggestion() {
    let variables = [
        ("HANGWATCH_MAX_REAP", "3"),
        ("HANGWATCH_COLOUR", "red"),
        ("HANGWATCH_GRACE", "3s"),
        ("HANGWATCH_RANK", "3"),
    ];
    let run = settle("--segment s", &variables, "").unwrap();
    assert_eq!(
        run.origins.strange,
        [
            "the environment variable HANGWATCH_COLOUR is not a setting of run",
            "the environment variable HANGWATCH_MAX_REAP is not a setting of run; did you mean \
             HANGWATCH_MAX_REAPS?",
        ]
    );
    let misspelt: Vec<&str> = run.origins.misspelt().collect();
    assert_eq!(
        misspelt,
        [run.origins.strange[1].as_str()],
        "the other is not similar to a setting"
    );
    // With another error, both are reported.
    let variables = [("HANGWATCH_LANES", "0"), ("HANGWATCH_SINGAL", "TERM")];
    let error = settle("--segment s", &variables, "").unwrap_err();
    assert!(error.contains("HANGWATCH_LANES: \"0\" is not in 1..=65536"), "{error}");
    assert!(error.contains("did you mean HANGWATCH_SIGNAL?"), "{error}");
}
