//! The live view in a real terminal: its screens, as its users see them.

mod tmux;

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hangwatch::{CreateOptions, Geometry, Segment, Worker};
use rustix::process::{Pid, Signal, kill_process};
use tmux::Pane;

const LONG: Duration = Duration::from_hours(1);

/// A segment of a test's own, gone at its end.
struct Named(String);

impl Named {
    fn new(test: &str) -> Named {
        Named(format!("test-top-{test}-{}", std::process::id()))
    }

    fn made(test: &str) -> Named {
        let named = Named::new(test);
        named.make();
        named
    }

    fn make(&self) {
        let geometry = Geometry { lanes: 8, timers: 8, records: 64, scopes: 32, lane_scopes: 8 };
        Segment::create(&self.0, CreateOptions { geometry, ..CreateOptions::default() }).unwrap();
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = Segment::remove(&self.0);
    }
}

/// A thread of this process with timers armed in these scopes, until it is dropped.
struct Busy {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Busy {
    fn start(named: &Named, thread: &str, scopes: &[(&str, Duration)]) -> Busy {
        let (segment, scopes) = (named.0.clone(), scopes.to_vec());
        let scopes: Vec<(String, Duration)> =
            scopes.into_iter().map(|(scope, allowance)| (scope.to_owned(), allowance)).collect();
        let (end, ended): (Sender<()>, Receiver<()>) = channel();
        let (ready, is_ready) = channel();
        let work = move || {
            let worker = Worker::attach(segment.as_str()).unwrap();
            let guards: Vec<_> = scopes
                .iter()
                .map(|(scope, allowance)| worker.expires(scope, *allowance).unwrap())
                .collect();
            ready.send(()).unwrap();
            let _ = ended.recv();
            drop(guards);
        };
        let thread = std::thread::Builder::new().name(thread.to_owned()).spawn(work).unwrap();
        is_ready.recv().unwrap();
        Busy { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.end = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The view of a segment in a pane; then what it left of the terminal.
fn view(named: &Named, before: &str) -> Pane {
    let binary = env!("CARGO_BIN_EXE_hangwatch");
    let top = format!("{before} {binary} top --interval 100ms --segment {}", named.0);
    Pane::start(&format!("{top}; echo \"ended with $?\"; stty -a; echo done; read"))
}

/// The pid of the view in a pane: its shell's only child.
fn pid(pane: &Pane) -> Pid {
    let shell = pane.fact("pane_pid");
    let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
    Pid::from_raw(children.trim().parse().unwrap()).unwrap()
}

/// The lines of the list: those with the word.
fn order<'s>(screen: &str, words: &[&'s str]) -> Vec<&'s str> {
    screen
        .lines()
        .filter_map(|line| words.iter().find(|word| line.contains(*word)).copied())
        .collect()
}

#[test]
fn the_view_follows_the_terminals_size() {
    if tmux::is_missing() {
        return;
    }
    let named = Named::made("sizes");
    let _old = Busy::start(&named, "old-thread", &[("epoch", LONG), ("forward", LONG)]);
    let _new = Busy::start(&named, "new-thread", &[("backward", Duration::from_millis(1))]);
    let pane = view(&named, "");
    let the_oldest_is_first =
        |screen: &str| order(screen, &["forward", "backward"]) == ["forward", "backward"];
    let title = format!("{}  NO WATCHDOG: no deadline is enforced", named.0);
    let screen = pane.wait("the oldest is first, and the overdue marked", |screen| {
        let lines: Vec<&str> = screen.lines().collect();
        lines.len() == 24
            && lines[0].contains(&title)
            && lines[1].starts_with("1 overdue  2 of 8 lanes  by age")
            && lines[2].contains("PID COMMAND      SCOPE")
            && lines[2].ends_with("AGE OF TIMEOUT        RATE")
            && the_oldest_is_first(screen)
            && lines[4].contains(" !")
            && lines[4].contains("!!!!!!!! 1ms")
            && lines[23].starts_with("q quit  ? help")
    });
    assert!(!screen.contains("epoch"), "only the innermost: {screen}");

    pane.resize(120, 40);
    pane.wait("there is room for threads", |screen| {
        let is_there = screen.contains("THREAD") && screen.contains("old-thread");
        is_there && screen.lines().count() == 40
    });

    pane.resize(40, 10);
    let screen = pane.wait("it is narrow", |screen| {
        let is_whole = screen.contains("OF TIMEOUT") && screen.contains("q quit");
        let is_narrow = !screen.contains("COMMAND") && screen.lines().count() == 10;
        is_whole && is_narrow && the_oldest_is_first(screen)
    });
    assert!(screen.lines().all(|line| line.chars().count() <= 40), "{screen}");

    pane.resize(30, 5);
    pane.wait_for("too small");
    pane.resize(80, 24);
    pane.wait_for("COMMAND");
}

#[test]
fn the_view_waits_for_a_segment_that_comes_and_goes() {
    if tmux::is_missing() {
        return;
    }
    let named = Named::new("goes");
    let pane = view(&named, "");
    pane.wait("it says what it waits for", |screen| {
        screen.contains("Waiting for it") && screen.contains(&named.0)
    });
    named.make();
    pane.wait_for("No worker is attached");
    let busy = Busy::start(&named, "worker", &[("forward", LONG)]);
    pane.wait_for("forward");
    let maps = fs::read_to_string(format!("/proc/{}/maps", pid(&pane))).unwrap();
    let mapped: Vec<&str> = maps.lines().filter(|line| line.contains(&named.0)).collect();
    assert!(mapped.len() == 1 && mapped[0].contains(" r--s "), "read only: {mapped:?}");
    Segment::remove(&named.0).unwrap();
    pane.wait_for("Waiting for it");
    let maps = fs::read_to_string(format!("/proc/{}/maps", pid(&pane))).unwrap();
    assert!(!maps.contains(&named.0), "it keeps nothing of a segment that is gone");
    // Made anew, under the same name.
    drop(busy);
    named.make();
    let busy = Busy::start(&named, "worker", &[("backward", LONG)]);
    pane.wait("it is of the new one", |screen| {
        screen.contains("backward") && !screen.contains("forward")
    });
    // Cut short under the view, which shall not die of it.
    let file = fs::OpenOptions::new().write(true).open(format!("/dev/shm/hangwatch.{}", named.0));
    file.unwrap().set_len(0).unwrap();
    pane.wait_for("0 bytes is no segment's length");
    pane.keys(&["q"]);
    pane.wait_for("ended with 0");
    std::mem::forget(busy); // its release would touch what was cut off
}

#[test]
fn keys_sort_filter_open_the_details_and_quit() {
    if tmux::is_missing() {
        return;
    }
    let named = Named::made("keys");
    let _one = Busy::start(&named, "thread-a", &[("zebra", LONG)]);
    let _two = Busy::start(&named, "thread-b", &[("outer", LONG), ("apple", LONG)]);
    let scopes = ["zebra", "apple"];
    let pane = view(&named, "");
    let sorted = |expected: [&str; 2]| {
        pane.wait("it is sorted", |screen| order(screen, &scopes) == expected);
    };
    sorted(["zebra", "apple"]);
    pane.keys(&["r"]);
    sorted(["apple", "zebra"]);
    pane.keys(&["r"]);
    sorted(["zebra", "apple"]);
    pane.keys(&["O"]);
    sorted(["apple", "zebra"]);
    pane.wait_for("by scope");

    pane.keys(&["/", "T", "H", "R", "E", "A", "D", "-", "B"]);
    pane.wait("it is filtered while it is typed", |screen| {
        screen.contains("filter: thread-b") && order(screen, &scopes) == ["apple"]
    });
    pane.keys(&["Enter"]);
    pane.wait_for("1 shown");

    pane.keys(&["Enter"]);
    let parts = ["thread thread-b", "TIMERS", "STATISTICS", "RECORDS, the newest first"];
    let records = ["acquire  apple for 1h00m", "acquire  outer for 1h00m"];
    pane.wait("the details are there, the newest record first", |screen| {
        parts.iter().all(|part| screen.contains(part)) && order(screen, &records) == records
    });
    pane.resize(120, 40);
    pane.wait("list and details stand together", |screen| {
        screen.contains("OF TIMEOUT") && screen.contains("RECORDS")
    });
    pane.resize(80, 24);
    pane.keys(&["Escape"]);
    pane.wait("the details are closed", |screen| !screen.contains("RECORDS"));
    pane.keys(&["Escape"]);
    sorted(["apple", "zebra"]);

    pane.keys(&["p"]);
    pane.wait_for("PAUSED");
    let _three = Busy::start(&named, "thread-c", &[("middle", LONG)]);
    pane.keys(&["?"]);
    pane.wait_for("help: q back");
    pane.keys(&["x"]);
    let screen = pane.wait("the help is gone", |screen| !screen.contains("help: q back"));
    assert!(!screen.contains("middle"), "the picture stands still: {screen}");
    pane.keys(&["p"]);
    pane.wait_for("middle");
    pane.keys(&["q"]);
    pane.wait_for("ended with 0");
}

#[test]
fn the_last_incident_of_a_worker_is_shown_beside_it() {
    if tmux::is_missing() {
        return;
    }
    let named = Named::made("past");
    let dir = tempfile::tempdir().unwrap();
    let incident = dir.path().join("20260101T000000Z");
    fs::create_dir(&incident).unwrap();
    let written = serde_json::json!({
        "version": 1, "id": "x", "host": "h", "segment": named.0,
        "at": { "utc": "2020-01-01T00:00:00Z", "monotonic_ns": 1 },
        "worker": { "pid": std::process::id(), "name": "w", "command": [], "job": "" },
        "timers": [], "decisions": [], "others": [],
        "ending": { "at": { "utc": "", "monotonic_ns": 1 }, "outcome": "unkillable", "signal": 9,
                    "late_ns": 1 },
        "evidence": { "level": "off", "budget_ns": 0, "taken_ns": 0, "missing": [], "lanes": [],
                      "threads": [] },
    });
    fs::write(incident.join("incident.json"), written.to_string()).unwrap();
    let _busy = Busy::start(&named, "worker", &[("forward", LONG)]);
    let binary = env!("CARGO_BIN_EXE_hangwatch");
    let dir = dir.path().display();
    let pane = Pane::start(&format!("{binary} top --segment {} --incidents {dir}; read", named.0));
    pane.wait_for("INCIDENT");
    pane.keys(&["Enter"]);
    pane.wait_for("ago: unkillable");
}

/// Whether the terminal is as before the view: no alternate screen, a cursor, echo and signals on.
fn is_given_back(pane: &Pane, said: &str) {
    let screen = pane.wait("the shell has the terminal", |screen| screen.contains("done\n"));
    assert!(screen.contains(said), "{said}: {screen}");
    for set in ["echo", "icanon", "isig"] {
        assert!(screen.split_whitespace().any(|word| word == set), "{set}: {screen}");
    }
    assert_eq!((pane.fact("alternate_on"), pane.fact("cursor_flag")), ("0".into(), "1".into()));
}

#[test]
fn the_terminal_is_given_back_however_the_view_ends() {
    if tmux::is_missing() {
        return;
    }
    let named = Named::made("ends");
    let ends = |end: &dyn Fn(&Pane), said: &str| {
        let pane = view(&named, "");
        pane.wait_for("No worker is attached");
        assert_eq!((pane.fact("alternate_on"), pane.fact("cursor_flag")), ("1".into(), "0".into()));
        end(&pane);
        is_given_back(&pane, said);
    };
    let signal = |signal| move |pane: &Pane| kill_process(pid(pane), signal).unwrap();
    ends(&|pane| pane.keys(&["q"]), "ended with 0");
    ends(&|pane| pane.keys(&["C-c"]), "ended with 0");
    ends(&signal(Signal::TERM), "ended with 143");
    ends(&signal(Signal::INT), "ended with 130");
    ends(&signal(Signal::HUP), "ended with 129");
}

#[test]
fn a_stopped_view_leaves_the_terminal_to_others_and_comes_back() {
    if tmux::is_missing() {
        return;
    }
    let named = Named::made("stops");
    let _busy = Busy::start(&named, "worker", &[("forward", LONG)]);
    let pane = Pane::start("exec bash --norc --noprofile -i");
    let binary = env!("CARGO_BIN_EXE_hangwatch");
    let typed = format!("PS1='ready> '; {binary} top --interval 100ms --segment {}", named.0);
    pane.keys(&["-l", &typed]);
    pane.keys(&["Enter"]);
    let stopped = |pane: &Pane| {
        pane.wait("the shell has the terminal", |screen| {
            screen.contains("Stopped") && screen.trim_end().ends_with("ready>")
        });
        assert_eq!((pane.fact("alternate_on"), pane.fact("cursor_flag")), ("0".into(), "1".into()));
        pane.keys(&["clear; fg", "Enter"]);
        pane.wait_for("OF TIMEOUT");
        assert_eq!(pane.fact("alternate_on"), "1");
    };
    pane.wait_for("OF TIMEOUT");
    pane.keys(&["C-z"]);
    stopped(&pane);
    kill_process(pid(&pane), Signal::TSTP).unwrap();
    stopped(&pane);
    // It listens to keys again.
    pane.keys(&["?"]);
    pane.wait_for("help: q back");
    pane.keys(&["x", "q"]);
    pane.wait("it has ended", |screen| screen.trim_end().ends_with("ready>"));
}

#[test]
fn rude_workers_and_no_color_are_heeded() {
    if tmux::is_missing() {
        return;
    }
    let named = Named::made("rude");
    let _rude =
        Busy::start(&named, "t", &[("a\u{1b}]2;owned\u{7}\u{1b}[2Jz", Duration::from_millis(1))]);
    let pane = view(&named, "");
    pane.wait_for("a?]2;owned??[2Jz");
    assert_ne!(pane.fact("pane_title"), "owned");
    // The SGR codes of colours: 30 to 37, 90 to 97, and 38 with a palette.
    let coloured = |pane: &Pane| {
        let screen = pane.capture(&["-e"]);
        let codes = screen.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m'));
        codes
            .flat_map(|(codes, _)| codes.split(';'))
            .any(|code| matches!(code.parse(), Ok(30..=38 | 90..=97)))
    };
    assert!(coloured(&pane), "{:?}", pane.capture(&["-e"]));
    let pane = view(&named, "NO_COLOR=1");
    pane.wait_for("a?]2;owned??[2Jz");
    assert!(!coloured(&pane), "{:?}", pane.capture(&["-e"]));
}

#[test]
fn who_has_no_terminal_is_told_what_to_use() {
    let top = |term: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hangwatch"));
        command.arg("top").stdin(Stdio::null()).env("TERM", term);
        command.output().unwrap()
    };
    let output = top("xterm");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("hangwatch status"), "{text}");
    assert!(output.stdout.is_empty(), "nothing was drawn");
    if tmux::is_missing() {
        return;
    }
    let named = Named::new("dumb");
    let pane = view(&named, "TERM=dumb");
    is_given_back(&pane, "hangwatch status");
}
