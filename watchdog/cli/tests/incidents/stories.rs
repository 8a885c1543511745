//! Stories: what `hangwatch show` writes.

use hangwatch_incident::schema::Incident;
use hangwatch_report::terminal::{self, Colour, Fold, Look};

use super::sample;
use super::shelf::{Shelf, check_golden};

const PLAIN: Look = Look { columns: 80, colour: Colour::None, fold: Fold::Long };

fn story(incident: &Incident, look: Look) -> String {
    terminal::text(sample::ID, incident, look)
}

#[test]
fn a_story_reads_well() {
    check_golden("show-ddp.txt", &story(&sample::ddp(4), PLAIN));
    check_golden("show-innocent.txt", &story(&sample::innocent(64), PLAIN));
    check_golden("show-lonely.txt", &story(&sample::lonely(), PLAIN));
    check_golden("show-command.txt", &story(&sample::command(), PLAIN));
}

#[test]
fn every_line_fits() {
    let samples = [
        sample::ddp(64),
        sample::innocent(4),
        sample::lonely(),
        sample::hostile(),
        sample::command(),
    ];
    for incident in samples {
        for columns in [40, 80, 110] {
            for fold in [Fold::Long, Fold::Nothing] {
                let text = story(&incident, Look { columns, fold, ..PLAIN });
                for line in text.lines() {
                    assert!(line.chars().count() <= columns, "{columns}: {line}");
                }
            }
        }
    }
}

#[test]
fn nothing_a_worker_says_reaches_the_terminal_as_a_command() {
    for fold in [Fold::Long, Fold::Nothing] {
        let text = story(&sample::hostile(), Look { fold, ..PLAIN });
        let obeyed = text.chars().find(|c| *c != '\n' && (c.is_control() || *c == '\u{202e}'));
        assert_eq!(obeyed, None);
        assert!(text.contains("\\u{1b}[2J"), "it is spelt out");
    }
    let shelf = Shelf::new();
    shelf.put("esc\u{1b}[2J", &sample::hostile());
    for words in [&["show"][..], &["incidents"]] {
        let text = shelf.says(words);
        assert!(!text.contains('\u{1b}'), "{words:?}: {text:?}");
    }
}

#[test]
fn what_is_long_is_folded_until_asked_for() {
    let incident = sample::hostile();
    let (folded, whole) =
        (story(&incident, PLAIN), story(&incident, Look { fold: Fold::Nothing, ..PLAIN }));
    let calls = |text: &str| text.matches("frame_").count();
    assert!(folded.contains("186 more calls"), "{folded}");
    assert!(folded.ends_with("--all unfolds everything.\n"));
    assert!(calls(&folded) < calls(&whole) && !whole.contains("--all"));
    assert!(whole.contains("variable"), "the environment too");
}

#[test]
fn colours_are_only_where_they_are_wanted() {
    let coloured = story(&sample::ddp(4), Look { colour: Colour::Ansi, ..PLAIN });
    let plain = story(&sample::ddp(4), PLAIN);
    assert!(coloured.starts_with("\u{1b}[") && !plain.contains('\u{1b}'));
    // And they are all there is between the two.
    let mut without = coloured;
    for code in ["\u{1b}[1m", "\u{1b}[2m", "\u{1b}[31m", "\u{1b}[0m"] {
        without = without.replace(code, "");
    }
    assert_eq!(without, plain);
    let shelf = Shelf::new();
    shelf.put(sample::ID, &sample::ddp(4));
    assert_eq!(shelf.says(&["show"]), plain, "a pipe is no terminal");
}

#[test]
fn every_field_of_an_incident_is_documented() {
    fn names(value: &serde_json::Value, known: &mut std::collections::BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                known.insert(name.clone());
                names(value, known);
            }),
            serde_json::Value::Array(items) => items.iter().for_each(|item| names(item, known)),
            _ => {}
        }
    }
    let docs = include_str!("../../../../docs/reference/incidents.md");
    let mut known = std::collections::BTreeSet::new();
    names(&serde_json::to_value(sample::ddp(4)).unwrap(), &mut known);
    names(&serde_json::to_value(sample::command()).unwrap(), &mut known);
    assert!(known.len() > 70, "{known:?}");
    for name in known {
        assert!(docs.contains(&format!("`{name}`")), "docs/reference/incidents.md lacks `{name}`");
    }
}
