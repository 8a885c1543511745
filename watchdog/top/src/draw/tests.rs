use hangwatch::{Nanos, Operation, RecordView, ScopeView};
use hangwatch_core::wire::lane::{TimerKind, TimerSignal};
use hangwatch_core::wire::stats::Counts;
use hangwatch_core::wire::timer::TimerState;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::model::{Choice, Detail, Idle};
use super::super::sample::{model, row, timer};
use super::super::text::Charset;
use super::super::theme::Colour;
use super::*;

const PLAIN: Theme = Theme { colour: Colour::None, charset: Charset::Ascii };
const UNICODE: Theme = Theme { colour: Colour::Ansi, charset: Charset::Unicode };

/// The screen as lines, without the blanks at their ends.
fn drawn(model: &mut Model, columns: u16, rows: u16, theme: Theme) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(frame, model, &mut Memory::default(), theme)).unwrap();
    let buffer = terminal.backend().buffer();
    (0..rows)
        .map(|y| {
            let line: String = (0..columns).map(|x| buffer[(x, y)].symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect()
}

fn busy() -> Model {
    model(vec![
        row(0, "train.py", &[timer("forward", 12, 30), timer("epoch", 90, 3600)]),
        row(1, "train.py", &[timer("all_reduce", 31, 30)]),
        row(2, "loader", &[]),
    ])
}

#[test]
fn eighty_columns_show_who_waits_where_the_oldest_first() {
    let lines = drawn(&mut busy(), 80, 8, PLAIN);
    assert_eq!(
        lines,
        [
            "hangwatch train  watchdog 77",
            "1 overdue  3 of 256 lanes  by age  reaped 2",
            "    PID COMMAND      RANK SCOPE                       AGE OF TIMEOUT        RATE",
            "   1001 train.py        1 all_reduce               !31.0s !!!!!!!! 30.0s      12",
            "   1000 train.py        0 forward                   12.0s ###..... 30.0s      12",
            "   1002 loader          2 (idle)                        -                     12",
            "",
            "q quit  ? help  enter detail  / filter  s sort  r reverse  i idle  p pause",
        ]
    );
}

#[test]
fn a_narrow_terminal_keeps_what_matters_most() {
    let lines = drawn(&mut busy(), 40, 7, PLAIN);
    assert_eq!(
        lines[2..5],
        [
            "    PID SCOPE           AGE OF TIMEOUT",
            "   1001 all_reduce   !31.0s !!!! 30.0s",
            "   1000 forward       12.0s ##.. 30.0s",
        ]
    );
    for (columns, rows) in [(35, 24), (80, 5), (1, 1)] {
        let text = drawn(&mut busy(), columns, rows, PLAIN).join(" ");
        let said = "The terminal is too small".chars().take(columns.into()).collect::<String>();
        assert!(text.starts_with(said.trim_end()), "{columns} x {rows}: {text}");
    }
}

#[test]
fn every_size_can_be_drawn() {
    let mut open = busy();
    (open.selected, open.pane) = (Some(1), Pane::Open);
    let mut help = busy();
    help.focus = Focus::Help;
    let mut choosing = Model::new();
    choosing.show(Place::Choosing(vec![Choice { name: "a".into(), about: "b".into() }]));
    for columns in (1..140).step_by(13) {
        for rows in (1..60).step_by(9) {
            for model in [&mut busy(), &mut open, &mut help, &mut choosing] {
                drawn(model, columns, rows, UNICODE);
            }
        }
    }
}

#[test]
fn rude_workers_cannot_reach_the_terminal() {
    let mut rude = row(0, "\u{1b}[31mcmd", &[timer("a\u{1b}]0;owned\u{7}b", 1, 2)]);
    rude.lane.thread = "\u{9b}2J".to_owned();
    rude.lane.job = "\r\n\u{202e}job".to_owned();
    let mut model = model(vec![rude]);
    (model.selected, model.pane) = (Some(0), Pane::Open);
    if let Place::Watching(seen) = &mut model.place {
        seen.segment = "\u{1b}c".to_owned();
        seen.detail = Some(detail("\u{1b}[2J"));
    }
    for (columns, rows) in [(140, 50), (80, 24)] {
        for theme in [PLAIN, UNICODE] {
            let text = drawn(&mut model, columns, rows, theme).join("\n");
            let rude = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(rude), "{text:?}");
            assert!(text.contains("a?]0;owned?b"), "{text}");
        }
    }
}

fn detail(scope: &str) -> Detail {
    let counts = Counts { acquired: 12_345, ..Counts::default() };
    let record = |operation, ago: u64, deadline: Option<u64>| {
        let mut record = RecordView::default();
        record.operation = operation;
        record.at = Nanos(100_000_000_000 - ago);
        scope.clone_into(&mut record.scope);
        record.deadline = deadline.map(|left| Nanos(100_000_000_000 - ago + left));
        record
    };
    let mut view = ScopeView::default();
    scope.clone_into(&mut view.name);
    view.counts = counts;
    Detail {
        lane: 0,
        arguments: format!("python3 train.py {scope}"),
        scopes: vec![view],
        records: vec![
            record(Operation::Release, 13_000_000_000, None),
            record(Operation::Acquire, 12_000_000_000, Some(30_000_000_000)),
        ],
        at_ns: 100_000_000_000,
    }
}

#[test]
fn what_is_special_about_a_timer_is_never_cut() {
    let long = "a/rather/long/path/to/train.py#1234:forward_backward_and_step";
    let mut own = timer(long, 12, 30);
    (own.kind, own.signal) = (TimerKind::Heartbeat, TimerSignal::NotifyOnly);
    let mut model = busy();
    (model.selected, model.pane, model.focus) = (Some(0), Pane::Open, Focus::Detail);
    if let Place::Watching(seen) = &mut model.place {
        seen.rows[0].lane.timers = vec![own];
        seen.detail = Some(detail(long));
    }
    for columns in [70, 80, 140] {
        let lines = drawn(&mut model, columns, 24, PLAIN);
        let has = |part: &str| lines.iter().any(|line| line.contains(part));
        assert!(has("left heartbeat report only"), "{columns}: {lines:#?}");
        assert!(has("step for 30.0s"), "{columns}: {lines:#?}");
    }
}

#[test]
fn the_detail_pane_tells_timers_counts_and_records() {
    let mut model = busy();
    (model.selected, model.pane, model.focus) = (Some(0), Pane::Open, Focus::Detail);
    if let Place::Watching(seen) = &mut model.place {
        seen.detail = Some(detail("forward"));
    }
    let lines = drawn(&mut model, 80, 24, PLAIN);
    assert_eq!(
        lines[2..17],
        [
            "+ lane 0, pid 1000, rank 0, train.py ------------------------------------------+",
            "|thread thread-0 (tid 1000), job jobs, rank 0 of 8, counter clock, 1.2k records|",
            "|python3 train.py forward                                                      |",
            "|TIMERS, the innermost first                                                   |",
            "|forward                                    12.0s ###.....   18.0s left        |",
            "|epoch                                      1m30s ........  58m30s left        |",
            "|STATISTICS of this lane                                                       |",
            "|scope                                   count     p50     p99     max   late  |",
            "|forward                                 12.3k       -       -       -      0  |",
            "|RECORDS, the newest first                                                     |",
            "|  12.0s ago  acquire  forward for 30.0s                                       |",
            "|  13.0s ago  release  forward                                                 |",
            "|                                                                              |",
            "|                                                                              |",
            "|                                                                              |",
        ]
    );
    // With room for both, the list stays above it.
    let lines = drawn(&mut model, 120, 40, PLAIN);
    assert!(lines.iter().any(|line| line.contains("all_reduce")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("12.0s ago  acquire")), "{lines:#?}");
    // A scroll beyond the end is taken back.
    model.scroll = 500;
    drawn(&mut model, 80, 10, PLAIN);
    assert!(model.scroll < 20, "{}", model.scroll);
}

#[test]
fn the_header_says_how_the_watchdog_is() {
    let check = |watchdog: Watchdog, said: &str| {
        let mut model = busy();
        if let Place::Watching(seen) = &mut model.place {
            seen.watchdog = watchdog;
        }
        let line = drawn(&mut model, 80, 8, PLAIN).swap_remove(0);
        assert!(line.ends_with(said), "{line}");
    };
    check(Watchdog::None, "NO WATCHDOG: no deadline is enforced");
    check(Watchdog::Stuck(7, 3_000_000_000), "watchdog 7 has not ticked for 3.0s");
    check(Watchdog::Braked(7), "watchdog 7, KILL LIMITER ENGAGED");
    check(Watchdog::Unseen, "watchdog in another PID namespace");
}

#[test]
fn pause_filter_and_help_are_shown() {
    let mut model = busy();
    (model.motion, model.idle) = (Motion::Paused, Idle::Hidden);
    model.filter = "all".to_owned();
    let lines = drawn(&mut model, 80, 8, PLAIN);
    assert!(lines[1].starts_with("PAUSED  1 overdue  3 of 256 lanes, 1 shown"), "{}", lines[1]);
    assert!(lines[7].starts_with("filter \"all\""), "{}", lines[7]);
    model.filter = "none of them".to_owned();
    assert!(drawn(&mut model, 80, 8, PLAIN)[2].contains("No lane matches"));
    model.focus = Focus::Filter;
    assert!(drawn(&mut model, 80, 8, PLAIN)[7].starts_with("filter: none of them"));
    model.focus = Focus::Help;
    let text = drawn(&mut model, 80, 24, PLAIN).join("\n");
    assert!(text.contains("needs no watchdog") && text.contains(" help: q back "), "{text}");
}

#[test]
fn help_that_has_no_room_scrolls_to_its_end_and_no_farther() {
    let mut model = busy();
    model.focus = Focus::Help;
    let first = drawn(&mut model, 40, 15, PLAIN).join("\n");
    assert!(first.contains("up down j k") && first.contains("up down scroll, q back"), "{first}");
    model.help_scroll = u16::MAX;
    let last = drawn(&mut model, 40, 15, PLAIN).join("\n");
    assert!(last.contains("watchdog."), "{last}");
    assert!(!last.contains("up down j k"), "{last}");
    assert!(model.help_scroll < 40, "{}", model.help_scroll);
}

#[test]
fn the_row_of_an_overdue_outer_scope_tells_of_that_one() {
    let timers = [timer("inner", 1, 30), timer("outer", 40, 20)];
    let lines = drawn(&mut model(vec![row(0, "train.py", &timers)]), 80, 8, PLAIN);
    let told = &lines[3];
    assert!(told.contains(" outer ") && told.contains("!40.0s !!!!!!!! 20.0s"), "{told}");
}

#[test]
fn colours_are_for_those_who_want_them() {
    let colours = |theme| {
        let mut terminal = Terminal::new(TestBackend::new(80, 8)).unwrap();
        let draw = |frame: &mut Frame<'_>| draw(frame, &mut busy(), &mut Memory::default(), theme);
        terminal.draw(draw).unwrap();
        let cells = terminal.backend().buffer().content().to_vec();
        cells.iter().any(|cell| cell.fg != ratatui::style::Color::Reset)
    };
    assert!(colours(UNICODE));
    assert!(!colours(PLAIN));
}

#[test]
fn a_segment_that_is_not_there_is_waited_for() {
    let mut model = Model::new();
    model.show(Place::Waiting("There is no segment \"x\". Waiting for it to appear.".to_owned()));
    let text = drawn(&mut model, 40, 10, PLAIN).join("\n");
    assert!(text.contains("Waiting for it"), "{text}");
}

#[test]
fn the_state_of_a_timer_is_written_out() {
    for (state, word) in [
        (TimerState::Reported, "reported"),
        (TimerState::Condemned, "expired"),
        (TimerState::Limited, "braked"),
        (TimerState::Paused, "paused"),
    ] {
        let mut view = timer("x", 31, 30);
        view.state = state;
        let mut model = model(vec![row(0, "a", &[view])]);
        for (columns, rows) in [(80, 24), (40, 8)] {
            let lines = drawn(&mut model, columns, rows, PLAIN);
            assert!(lines[3].contains(word), "{columns}: {lines:#?}");
        }
    }
}
