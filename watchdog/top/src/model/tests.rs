use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::super::row::{Direction, Row, SortBy};
use super::super::sample::{model, row, seen, timer};
use super::*;

fn press(model: &mut Model, code: KeyCode) -> Asked {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(model: &mut Model, text: &str) {
    for c in text.chars() {
        assert_eq!(press(model, KeyCode::Char(c)), Asked::Nothing, "{c:?}");
    }
}

fn rows() -> Vec<Row> {
    vec![
        row(0, "alpha", &[timer("forward", 5, 10)]),
        row(1, "beta", &[timer("backward", 7, 10)]),
        row(2, "gamma", &[]),
    ]
}

fn lanes(model: &Model) -> Vec<u32> {
    model.rows().iter().map(|row| row.lane.lane).collect()
}

#[test]
fn keys_sort_filter_and_hide() {
    let mut model = model(rows());
    assert_eq!(lanes(&model), [1, 0, 2]);
    type_in(&mut model, "r");
    assert_eq!(lanes(&model), [2, 0, 1]);
    type_in(&mut model, "C");
    assert_eq!((model.sort, model.direction), (SortBy::Command, Direction::Usual));
    type_in(&mut model, "s");
    assert_eq!(model.sort, SortBy::Scope);
    type_in(&mut model, "Ai");
    assert_eq!(lanes(&model), [1, 0], "without the idle lane");
    type_in(&mut model, "i/FORq");
    assert_eq!(lanes(&model), [0; 0], "q is a letter here");
    press(&mut model, KeyCode::Backspace);
    assert_eq!(lanes(&model), [0]);
    press(&mut model, KeyCode::Enter);
    assert_eq!((model.focus, &*model.filter), (Focus::List, "for"));
    press(&mut model, KeyCode::Esc);
    assert_eq!(lanes(&model), [1, 0, 2], "esc clears the filter");
    type_in(&mut model, "/xyz");
    press(&mut model, KeyCode::Esc);
    assert_eq!((&*model.filter, model.focus), ("", Focus::List));
}

#[test]
fn a_selection_stays_with_its_lane() {
    let mut model = model(rows());
    assert_eq!(model.selected_place(), None);
    press(&mut model, KeyCode::Down);
    assert_eq!(model.selected, Some(1), "the first");
    press(&mut model, KeyCode::Down);
    assert_eq!(model.selected, Some(0));
    type_in(&mut model, "r");
    assert_eq!((model.selected, model.selected_place()), (Some(0), Some(1)));
    for (code, lane) in [
        (KeyCode::End, 1),
        (KeyCode::Down, 1),
        (KeyCode::Home, 2),
        (KeyCode::Up, 2),
        (KeyCode::PageDown, 1),
        (KeyCode::Char('k'), 0),
    ] {
        press(&mut model, code);
        assert_eq!(model.selected, Some(lane), "{code:?}");
    }
    model.show(seen(vec![row(1, "beta", &[])]));
    assert_eq!(model.selected, None, "its lane was given back");
}

#[test]
fn the_detail_pane_opens_moves_and_closes() {
    let mut model = model(rows());
    assert_eq!(press(&mut model, KeyCode::Enter), Asked::Look);
    assert_eq!((model.wanted_detail(), model.focus), (Some(1), Focus::Detail));
    assert_eq!(press(&mut model, KeyCode::Down), Asked::Nothing);
    assert_eq!((model.scroll, model.selected), (1, Some(1)), "it scrolls");
    assert_eq!(press(&mut model, KeyCode::Right), Asked::Look);
    assert_eq!((model.wanted_detail(), model.scroll), (Some(0), 0), "the next lane, from its top");
    press(&mut model, KeyCode::Tab);
    assert_eq!(press(&mut model, KeyCode::Up), Asked::Look, "in the list it selects");
    assert_eq!(model.wanted_detail(), Some(1));
    type_in(&mut model, "?");
    press(&mut model, KeyCode::Down);
    assert_eq!((model.focus, model.help_scroll), (Focus::Help, 1), "it scrolls");
    press(&mut model, KeyCode::Char('q'));
    assert_eq!(model.focus, Focus::Detail, "any other key leaves the help");
    press(&mut model, KeyCode::Esc);
    assert_eq!((model.wanted_detail(), model.focus), (None, Focus::List));
    press(&mut model, KeyCode::Enter);
    model.show(Place::Waiting("gone".to_owned()));
    assert_eq!((model.pane, model.focus), (Pane::Closed, Focus::List));
    assert_eq!(press(&mut model, KeyCode::Enter), Asked::Nothing, "there is nothing to open");
}

#[test]
fn a_pause_holds_the_picture_until_it_ends() {
    let mut model = model(rows());
    assert_eq!(press(&mut model, KeyCode::Char('p')), Asked::Nothing);
    assert_eq!(model.motion, Motion::Paused);
    assert_eq!(press(&mut model, KeyCode::Char(' ')), Asked::Look);
    assert_eq!(model.motion, Motion::Live);
}

#[test]
fn a_segment_is_chosen() {
    let mut model = Model::new();
    let choice = |name: &str| Choice { name: name.to_owned(), about: String::new() };
    model.show(Place::Choosing(vec![choice("a"), choice("b")]));
    press(&mut model, KeyCode::Down);
    press(&mut model, KeyCode::Down);
    assert_eq!(press(&mut model, KeyCode::Enter), Asked::Watch("b".to_owned()));
    model.show(Place::Choosing(vec![choice("0"), choice("a"), choice("b")]));
    assert_eq!(press(&mut model, KeyCode::Enter), Asked::Watch("b".to_owned()), "as before");
    model.show(Place::Choosing(vec![choice("a")]));
    assert_eq!(press(&mut model, KeyCode::Enter), Asked::Watch("a".to_owned()), "b has gone");
    model.show(seen(rows()));
    assert_eq!(press(&mut model, KeyCode::Char('S')), Asked::Choose);
}

#[test]
fn control_keys_work_everywhere() {
    let control = |c: char| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    for focus in [Focus::List, Focus::Detail, Focus::Filter, Focus::Help] {
        let mut model = model(rows());
        model.focus = focus;
        assert_eq!(model.press(control('c')), Asked::Quit);
        assert_eq!(model.press(control('z')), Asked::Suspend);
        assert_eq!(model.press(control('l')), Asked::Redraw);
        assert_eq!(model.press(control('w')), Asked::Nothing);
        assert_eq!(model.filter, "", "none of them is typed");
    }
    assert_eq!(press(&mut model(rows()), KeyCode::Char('q')), Asked::Quit);
}
