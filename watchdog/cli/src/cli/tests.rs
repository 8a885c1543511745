//! What the command line takes, refuses and says.

use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind;
use hangwatch_core::watchdog::policy::Cascade;
use rustix::process::Signal;

use super::config::Variables;
use super::value::ReapSignal;
use super::{Cli, Command, Exec, Run, SEGMENT_VARIABLE};
use hangwatch_log::Format;

fn read(line: &str) -> Result<Command, clap::Error> {
    let words = std::iter::once("hangwatch").chain(line.split_ascii_whitespace());
    Cli::try_read_from(words, &Variables::default()).map(|cli| cli.command)
}

fn run(line: &str) -> Run {
    match read(line) {
        Ok(Command::Run(run)) => *run,
        other => panic!("{line}: {other:?}"),
    }
}

fn exec(line: &str) -> Exec {
    match read(line) {
        Ok(Command::Exec(exec)) => exec,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn run_has_the_documented_defaults() {
    let run = run("run -- train --lanes 3");
    assert_eq!(run.command, ["train", "--lanes", "3"]);
    assert_eq!((run.segment.as_deref(), run.lanes, run.timers), (None, None, None));
    assert_eq!((run.max_interval, run.max_reaps, run.warn_at), (None, None, None));
    assert_eq!(run.reap_signal(), ReapSignal::Signal(Signal::KILL));
    assert_eq!(run.reap.grace, Duration::ZERO);
    assert_eq!(run.log.format, Format::Text);
    assert!(!run.standby);
}

#[test]
fn a_cascade_is_held_reported_or_off() {
    let check = |line: &str, asked: Cascade| {
        assert_eq!(run(&format!("run --segment s {line}")).cascade.asked(), Some(asked), "{line}");
    };
    let hold = Cascade::Hold { hold_ns: 5_000_000_000 };
    check("", Cascade::Off);
    check("--cascade 5s", hold);
    check("--cascade 5s --cascade-policy hold", hold);
    check("--cascade 5s --cascade-policy report", Cascade::Report);
    check("--cascade-policy report", Cascade::Report);
    check("--cascade 5s --cascade-policy off", Cascade::Off);
    for line in ["run --segment s --cascade-policy hold", "run --cascade-policy hold -- true"] {
        let error = read(line).expect_err(line);
        assert!(error.to_string().contains("needs a duration"), "{error}");
    }
}

#[test]
fn run_takes_every_option() {
    let run = run("run --segment s --lanes 8 --timers 4 --max-interval 50ms --signal TERM \
         --grace 2s --max-reaps 3 --warn-at 0.5 --group root --log json");
    assert_eq!(run.segment.as_deref(), Some("s"));
    assert_eq!((run.lanes, run.timers, run.max_reaps), (Some(8), Some(4), Some(3)));
    assert_eq!(run.max_interval, Some(Duration::from_millis(50)));
    assert_eq!(run.reap_signal(), ReapSignal::Signal(Signal::TERM));
    assert_eq!(run.reap.grace, Duration::from_secs(2));
    assert_eq!((run.warn_at, run.group), (Some(0.5), Some(0)));
    assert_eq!(run.log.format, Format::Json);
    assert!(run.command.is_empty());
}

#[test]
fn notify_only_is_signal_none() {
    assert_eq!(run("run --segment s --notify-only").reap_signal(), ReapSignal::NotifyOnly);
    assert_eq!(run("run --segment s --signal none").reap_signal(), ReapSignal::NotifyOnly);
}

#[test]
fn run_takes_the_segment_from_the_environment_only_without_a_command() {
    let read = |words: &[&str], segment: Option<&str>| match Cli::try_read_from(
        words,
        &segment.map(|segment| (SEGMENT_VARIABLE, segment)).into_iter().collect(),
    ) {
        Ok(Cli { command: Command::Run(run) }) => Ok(run.segment),
        Err(error) => Err(error.kind()),
        other => panic!("{other:?}"),
    };
    let alone = ["hangwatch", "run"];
    let around = ["hangwatch", "run", "--", "true"];
    let named = ["hangwatch", "run", "--segment", "own"];
    assert_eq!(read(&alone, Some("outer")), Ok(Some("outer".to_owned())));
    assert_eq!(read(&alone, None), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(read(&alone, Some("")), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(read(&around, Some("outer")), Ok(None));
    assert_eq!(read(&named, Some("outer")), Ok(Some("own".to_owned())));
}

#[test]
fn an_empty_segment_variable_is_as_good_as_none() {
    let segment = |line: &str, variable: &str| {
        let words = std::iter::once("hangwatch").chain(line.split_ascii_whitespace());
        match Cli::try_read_from(words, &[(SEGMENT_VARIABLE, variable)].into_iter().collect())
            .unwrap()
            .command
        {
            Command::Exec(exec) => exec.segment,
            Command::Status(status) => status.observed.segment,
            Command::ReleaseBrake(brake) => brake.segment,
            other => panic!("{other:?}"),
        }
    };
    for line in ["exec --deadline 5s -- true", "status"] {
        assert_eq!(segment(line, ""), None, "{line}");
        assert_eq!(segment(line, "outer").as_deref(), Some("outer"), "{line}");
    }
    assert_eq!(segment("status --segment=", "outer").as_deref(), Some(""));
    assert_eq!(segment("release-brake", "outer").as_deref(), Some("outer"));
}

#[test]
fn exec_reads_what_timeout_reads() {
    let plain = exec("exec 30s make -j8 --deadline 3s");
    assert_eq!((plain.deadline, plain.reap.signal.number()), (Duration::from_secs(30), Some(9)));
    assert_eq!(plain.command, ["make", "-j8", "--deadline", "3s"]);
    let gentle = exec("exec -k 5s --preserve-status --foreground 1m sleep 99");
    assert_eq!(
        (gentle.reap.grace, gentle.reap.signal.number()),
        (Duration::from_secs(5), Some(15))
    );
    assert!(gentle.preserve_status);
    let named = exec("exec -k5s -s INT 1m sleep 99");
    assert_eq!(named.reap.signal.number(), Some(2));
}

#[test]
fn exec_takes_a_deadline_and_a_command() {
    let exec = exec(
        "exec --deadline 5s --scope nightly --signal TERM --grace 1 -- make -j8 --deadline 3s",
    );
    assert_eq!(exec.deadline, Duration::from_secs(5));
    assert_eq!(exec.scope.as_deref(), Some("nightly"));
    assert_eq!(exec.reap.grace, Duration::from_secs(1));
    assert_eq!(exec.command, ["make", "-j8", "--deadline", "3s"]);
}

#[test]
fn what_is_wrong_is_refused_and_says_why() {
    let check = |line: &str, part: &str| {
        let error = read(line).expect_err(line);
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2, "{line}: {text}");
        assert!(text.contains(part), "{line}: {text}");
    };
    check("exec --deadline -5s -- true", "negative");
    check("exec --deadline 0s -- true", "longer than zero");
    check("exec --deadline 11y -- true", "ten years");
    check("exec --deadline soon -- true", "not a duration");
    check("exec --deadline 5s --grace 10s -- true", "--signal TERM");
    check("exec --deadline 5s --grace 10s --signal none -- true", "--signal TERM");
    check("run --segment s --grace 10s --signal none", "sends no signal");
    check("rm --stale s", "cannot be used with");
    check("exec -- true", "--deadline");
    check("exec true", "--deadline");
    check("exec 0s true", "longer than zero");
    check("exec --deadlin 5s true", "--deadline");
    check("exec -k 1s --grace 2s 5s true", "cannot be used with");
    check("exec --deadline 5s", "CMD");
    check("exec --deadline 5s --scope= -- true", "--scope");
    check("run --segment s --signal STOP", "does not end a process");
    check("run --segment s --signal BANG", "is not a signal");
    check("run --segment s --lanes 0", "1..=65536");
    check("run --segment s --max-reaps -3", "-3 is not in 1..");
    check("fleet localhost --limit -1", "invalid value '-1' for '--limit");
    check("learn --min-acquires -1", "invalid value '-1' for '--min-acquires");
    check("run --segment s --timers 5000", "1..=1024");
    check("run --segment s --warn-at 1.5", "below 1");
    check("run --segment s --max-interval 0s", "longer than zero");
    check("run --segment s --max-interval 2m", "1ms to 1m");
    check("run --segment s --max-reaps 0", "not in");
    check("run --segment s --notify-only --signal TERM", "cannot be used with");
    check("run --standby --segment s -- true", "cannot be used with");
    check("run --segment s --log xml", "possible values: text, json");
    check("run", "HANGWATCH_SEGMENT");
    check("release-brake", "HANGWATCH_SEGMENT");
    check("demo --workers 3", "4..=64");
    check("rm", "NAME");
}

#[test]
fn a_word_that_is_not_utf8_is_named() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(b"tr\xffain".to_vec());
    let read = |words: &[OsString]| Cli::try_read_from(words.to_vec(), &Variables::default());
    let error = read(&["hangwatch".into(), "rm".into(), odd.clone()]).unwrap_err();
    assert!(error.to_string().contains(r"tr\xffain"), "{error}");
    let words = ["hangwatch", "run", "--"].map(OsString::from);
    assert!(read(&[&words[..], &[odd]].concat()).is_ok(), "a command may be anything");
}

#[test]
fn every_help_fits_80_columns() {
    let mut command = super::help::laid_out(Cli::command());
    command.build();
    let names: Vec<String> =
        command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let mut helps = vec![command.render_long_help().to_string()];
    helps.extend(
        names
            .iter()
            .map(|name| command.find_subcommand_mut(name).unwrap().render_long_help().to_string()),
    );
    for line in helps.iter().flat_map(|help| help.lines()) {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
}

#[test]
fn a_trace_is_of_an_incident_or_of_a_segment() {
    let read = |line: &str, variable: Option<&str>| {
        let words = std::iter::once("hangwatch").chain(line.split_ascii_whitespace());
        let variables = variable.map(|variable| (SEGMENT_VARIABLE, variable)).into_iter().collect();
        match Cli::try_read_from(words, &variables).map(|cli| cli.command) {
            Ok(Command::Trace(trace)) => Ok((trace.id, trace.segment)),
            Err(error) => Err(error.kind()),
            other => panic!("{other:?}"),
        }
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(read("trace last -o t", Some("outer")), Ok((some("last"), None)));
    assert_eq!(read("trace -o t", Some("outer")), Ok((None, some("outer"))));
    assert_eq!(read("trace --segment own -o t", Some("outer")), Ok((None, some("own"))));
    assert_eq!(read("run --leave-workers", None), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(read("trace -o t", None), Err(ErrorKind::MissingRequiredArgument));
    assert_eq!(read("trace last --segment s -o t", None), Err(ErrorKind::ArgumentConflict));
    assert_eq!(read("trace last", None), Err(ErrorKind::MissingRequiredArgument));
}

#[test]
fn incidents_are_shown_from_the_last_on() {
    assert!(matches!(read("show"), Ok(Command::Show(show)) if show.id == "last" && !show.all));
    assert!(matches!(read("report -o r"), Ok(Command::Report(report)) if report.id == "last"));
    assert!(read("incidents --since yesterday").is_err());
    assert!(read("incidents --limit 0").is_err());
}

/// Every option and positional of a command, with the heading it is shown under.
fn headings(command: &str) -> Vec<(String, Option<String>)> {
    let mut cli = Cli::command();
    cli.build();
    let command = cli.find_subcommand(command).unwrap();
    let heading =
        |arg: &clap::Arg| (arg.get_id().to_string(), arg.get_help_heading().map(str::to_owned));
    command.get_arguments().map(heading).collect()
}

#[test]
fn every_option_of_run_is_under_the_heading_it_belongs_to() {
    let expected = [
        ("Segment", "segment lanes timers scopes max_interval group"),
        ("Kills", "signal grace notify_only max_reaps reach"),
        ("Deadlines", "deadlines auto auto_together auto_alone warn_at"),
        ("Cascades", "cascade cascade_policy"),
        ("Hook", "on_expire on_expire_timeout"),
        ("Stopped, traced and frozen workers", "stopped traced frozen"),
        ("Evidence", "level budget helper_mib redact dir most mib no_error_files"),
        ("Watchdog", "unprotected realtime standby no_standby leave_workers"),
        ("HTTP", "listen listen_anywhere host"),
        ("Log", "format"),
        ("Settings", "config check"),
    ];
    for (id, heading) in headings("run") {
        let under = expected.iter().find(|(_, ids)| ids.split(' ').any(|known| known == id));
        assert_eq!(heading.as_deref(), under.map(|(heading, _)| *heading), "{id}");
    }
}

#[test]
fn no_positional_and_no_help_is_under_a_heading() {
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands() {
        for arg in command.get_arguments() {
            let is_general =
                arg.is_positional() || ["help", "version"].contains(&arg.get_id().as_str());
            let heading = arg.get_help_heading();
            assert!(!is_general || heading.is_none(), "{} {arg}: {heading:?}", command.get_name());
        }
    }
    let own = |id: &str| headings("exec").into_iter().find(|(it, _)| it == id).unwrap().1;
    assert_eq!((own("deadline"), own("level")), (None, Some("Evidence".to_owned())));
}

#[test]
fn help_is_a_command_too() {
    let check = |line: &str, part: &str| {
        let error = read(line).expect_err(line);
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::DisplayHelp, 0), "{line}");
        assert!(error.to_string().contains(part), "{line}: {error}");
    };
    check("help", "Examples:");
    check("help run", "--max-reaps <N>");
    check("run --help", "Examples:\n  hangwatch run --auto");
    check("help exec", "--deadline <DURATION>");
    assert_eq!(read("help nosuch").expect_err("none").exit_code(), 2);
}

#[test]
fn every_command_that_has_incidents_takes_their_directory_from_the_environment() {
    let dir = |line: &str, variable: &str| {
        let words = std::iter::once("hangwatch").chain(line.split_ascii_whitespace());
        let variables = [("HANGWATCH_INCIDENTS", variable)].into_iter().collect();
        let mut command = Cli::try_read_from(words, &variables).unwrap().command;
        match &mut command {
            Command::Run(run) => run.evidence.incidents.dir.clone(),
            other => other.incidents_dir().expect(line).clone(),
        }
    };
    for line in [
        "run --segment s",
        "run -- true",
        "exec --deadline 5s -- true",
        "demo",
        "top",
        "incidents",
        "show",
        "report -o -",
        "trace last -o -",
    ] {
        assert_eq!(dir(line, "/var/own").as_deref(), Some("/var/own".as_ref()), "{line}");
        assert_eq!(dir(line, ""), None, "{line}");
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let named = format!("{first} --incidents /named {rest}");
        assert_eq!(dir(&named, "/var/own").as_deref(), Some("/named".as_ref()), "{line}");
    }
}

#[test]
fn exec_and_demo_obey_the_variables_of_the_settings_that_they_have() {
    let read = |words: &[&str], variables: &[(&str, &str)]| {
        let variables = variables.iter().copied().collect();
        Cli::try_read_from(words, &variables).map(|cli| cli.command)
    };
    let exec =
        ["hangwatch", "exec", "--deadline", "5s", "--signal", "INT", "--", "true", "--grace"];
    let variables = [
        ("HANGWATCH_REDACT", "internal-.*"),
        ("HANGWATCH_EVIDENCE", "off"),
        ("HANGWATCH_SIGNAL", "TERM"),
        ("HANGWATCH_GRACE", "3s"),
        ("HANGWATCH_MAX_REAPS", "no setting of exec"),
        ("HANGWATCH_LOG", "debug"),
    ];
    let Ok(Command::Exec(exec)) = read(&exec, &variables) else { panic!("exec") };
    assert_eq!(exec.evidence.redact, ["internal-.*"]);
    assert_eq!(exec.evidence.level, hangwatch_evidence::options::Level::Off);
    assert_eq!(exec.reap.signal, ReapSignal::Signal(Signal::INT), "the command line counts most");
    assert_eq!((exec.reap.grace, exec.command.len()), (Duration::from_secs(3), 2));
    let Ok(Command::Demo(demo)) = read(&["hangwatch", "demo"], &variables) else { panic!("demo") };
    assert_eq!(demo.evidence.redact, ["internal-.*"]);
    for command in
        [&["hangwatch", "demo"][..], &["hangwatch", "exec", "--deadline", "1", "--", "true"]]
    {
        let error = read(command, &[("HANGWATCH_REDACT", "(")]).unwrap_err().to_string();
        assert!(error.contains("HANGWATCH_REDACT"), "{error}");
    }
}

#[test]
fn help_of_help_is_the_help() {
    for line in ["help --help", "help -h", "help run --help"] {
        assert_eq!(read(line).expect_err(line).kind(), ErrorKind::DisplayHelp, "{line}");
    }
}
