//! Lists: every row, whatever is in its file; and how one incident is found.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use hangwatch_incident::schema::Moment;
use rustix::fs::{CWD, Mode, mkfifoat};

use super::sample;
use super::shelf::{Shelf, check_golden};

/// Two incidents of `train`, of which the second is a minute younger, and one of `web`, the oldest.
fn three() -> Shelf {
    let shelf = Shelf::new();
    let at = |second: u64| sample::moment(sample::AT + second * sample::SECOND);
    let with = |incident, at| hangwatch_incident::schema::Incident { at, ..incident };
    shelf.put("20251123T154313.207000Z-web-31", &with(sample::lonely(), at(0)));
    shelf.put("20251123T154413.207000Z-train-4102", &with(sample::ddp(4), at(60)));
    shelf.put("20251123T154513.207000Z-train-4100", &with(sample::innocent(4), at(120)));
    shelf
}

#[test]
fn the_newest_comes_first_and_what_cannot_be_read_says_why() {
    let shelf = three();
    shelf.put_text("20251123T154600.000000Z-train-1", "{\"version\": 1, \"at\": {\"utc\"");
    shelf.put_text("20251123T154700.000000Z-train-2", "{\"version\": 7, \"at\": 5}");
    shelf.put_text("20251123T154800.000000Z-train-3", "hello");
    fs::create_dir(shelf.path().join("20251123T154900.000000Z-train-4")).unwrap();
    fs::create_dir(shelf.path().join(".20251123T155000.000000Z-train-5.new")).unwrap();
    fs::write(shelf.path().join("notes.txt"), "not an incident").unwrap();
    let linked = shelf.path().join("20251123T155100.000000Z-train-6");
    fs::create_dir(&linked).unwrap();
    symlink("/etc/passwd", linked.join("incident.json")).unwrap();
    let text = shelf.says(&["incidents"]);
    let rows: Vec<&str> = text.lines().collect();
    assert!(rows.iter().all(|row| row.chars().count() <= 80), "{text}");
    assert_eq!(text.matches("(unreadable)").count(), 5, "{text}");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "is truncated",
        "of version 7",
        "is not an incident",
        "has no incident.json",
        "not a regular file",
    ] {
        assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
    }
    let place = |id: &str| rows.iter().position(|row| row.contains(id)).unwrap();
    assert!(place("train-4100") < place("train-4102") && place("train-4102") < place("web-31"));
}

#[test]
fn a_list_reads_well() {
    check_golden("incidents.txt", &three().says(&["incidents"]));
}

#[test]
fn the_file_of_somebody_who_has_no_business_there_is_not_read() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let shelf = three();
    let file = shelf.path().join("20251123T154413.207000Z-train-4102/incident.json");
    chown(&file, Some(12_345), None).unwrap();
    let text = shelf.says(&["incidents"]);
    assert!(text.contains("it belongs to uid 12345"), "{text}");
    assert!(shelf.complains(&["show", "20251123T154413"]).contains("belongs to uid 12345"));
    // But where it is that user's directory, it is that user's incident.
    chown(shelf.path(), Some(12_345), None).unwrap();
    assert!(!shelf.says(&["incidents"]).contains("belongs to uid"));
}

#[test]
fn what_nobody_could_have_written_costs_one_row_and_neither_time_nor_memory() {
    let shelf = three();
    let file = |id: &str| {
        let dir = shelf.path().join(id);
        fs::create_dir(&dir).unwrap();
        dir.join("incident.json")
    };
    // Whoever opens a pipe waits for its other end.
    let pipe = file("20251123T160000.000000Z-train-1");
    mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    // Sparse: it takes no room here, and would there.
    let large = file("20251123T160100.000000Z-train-2");
    fs::File::create(large).unwrap().set_len(1 << 40).unwrap();
    // As deep as a parser's stack is not: where an incident has something, and where it has not.
    let deep = "[".repeat(4 << 20);
    let at = "20251123T160200.000000Z-train-3";
    shelf.put_text(at, &format!("{{\"version\": 1, \"timers\": {deep}"));
    let unknown = "20251123T160300.000000Z-train-4";
    shelf.put_text(unknown, &format!("{{\"version\": 1, \"unknown\": {deep}"));
    let text = shelf.says(&["incidents"]);
    assert_eq!(text.matches("(unreadable)").count(), 4, "{text}");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["not a regular file", "1099511627776 bytes, more than any incident"] {
        assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
    }
    for id in [at, unknown] {
        let said = shelf.complains(&["show", id]);
        assert!(said.contains("is not an incident") || said.contains("is truncated"), "{said}");
    }
}

#[test]
fn a_file_that_may_not_be_read_is_a_row_that_says_so() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let shelf = three();
    let file = shelf.path().join("20251123T154413.207000Z-train-4102/incident.json");
    fs::set_permissions(file, fs::Permissions::from_mode(0o000)).unwrap();
    assert!(shelf.says(&["incidents"]).contains("no permission to read it"));
}

#[test]
fn filters_leave_what_was_asked_for() {
    let shelf = three();
    let now = humantime::format_rfc3339_nanos(std::time::SystemTime::now()).to_string();
    let mut fresh = sample::lonely();
    fresh.at = Moment { utc: now, monotonic_ns: 1 };
    shelf.put("fresh", &fresh);
    let ids = |words: &[&str]| {
        let words = [&["incidents", "--json"], words].concat();
        let rows: serde_json::Value = serde_json::from_str(&shelf.says(&words)).unwrap();
        let ids = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned());
        ids.collect::<Vec<_>>()
    };
    assert_eq!(ids(&[]).len(), 4);
    assert_eq!(ids(&["--segment", "train"]).len(), 2);
    assert_eq!(ids(&["--since", "1h"]), ["fresh"]);
    assert_eq!(ids(&["--since", "1h", "--segment", "train"]), [""; 0]);
    assert_eq!(
        ids(&["--segment", "train", "--limit", "1"]),
        ["20251123T154513.207000Z-train-4100"]
    );
    let text = shelf.says(&["incidents", "--limit", "1"]);
    assert!(text.ends_with("and 3 older incidents\n"), "{text}");
}

#[test]
fn json_has_what_the_table_has_and_why_a_row_has_not() {
    let shelf = three();
    shelf.put_text("20251123T154600.000000Z-train-1", "");
    let rows: serde_json::Value =
        serde_json::from_str(&shelf.says(&["incidents", "--json"])).unwrap();
    let row =
        |id: &str| rows.as_array().unwrap().iter().find(|row| row["id"] == id).expect(id).clone();
    let hung = row("20251123T154413.207000Z-train-4102");
    assert_eq!((&hung["scope"], &hung["outcome"]), (&"data".into(), &"reaped".into()));
    assert_eq!((&hung["suspect"]["rank"], &hung["worker"]["pid"]), (&2.into(), &4102.into()));
    assert_eq!((&hung["late_ns"], &hung["unreadable"]), (&48_176_000.into(), &().into()));
    let partial = row("20251123T154600.000000Z-train-1");
    assert!(partial["unreadable"].as_str().unwrap().contains("is truncated"), "{partial}");
    assert!(partial["scope"].is_null());
}

#[test]
fn a_directory_that_is_not_there_holds_nothing() {
    let shelf = Shelf::new();
    fs::remove_dir(shelf.path()).unwrap();
    assert!(shelf.says(&["incidents"]).starts_with("no incident in /"));
    assert_eq!(shelf.says(&["incidents", "--json"]), "[]\n");
    assert!(shelf.complains(&["show"]).contains("there is no incident in"));
    fs::write(shelf.path(), "a file").unwrap();
    assert!(shelf.complains(&["incidents"]).contains("cannot list the incidents"));
}

#[test]
fn one_is_found_by_name_beginning_last_and_path() {
    let shelf = three();
    let shows = |key: &str, part: &str| {
        let text = shelf.says(&["show", key]);
        assert!(text.contains(part), "{key}: {text}");
    };
    shows("20251123T154413.207000Z-train-4102", "Rank 2 hung in \"data\"");
    shows("20251123T1543", "Pid 31 hung");
    shows("last", "Rank 0 ran out of time");
    let path = shelf.path().join("20251123T154313.207000Z-web-31");
    shows(path.to_str().unwrap(), "Pid 31 hung");
    shows(path.join("incident.json").to_str().unwrap(), "Pid 31 hung");
    assert!(shelf.says(&["show"]).contains("Rank 0 ran out of time"));
    let several = shelf.complains(&["show", "2025"]);
    assert!(several.contains("matches several incidents: 20251123T154513"), "{several}");
    assert!(shelf.complains(&["show", "1999"]).contains("`hangwatch incidents` lists them"));
    assert!(shelf.complains(&["show", ""]).contains("there is no incident \"\""));
    assert!(shelf.complains(&["show", "../.."]).contains("has no incident.json"));
}

#[test]
fn a_path_that_leads_nowhere_is_told_as_it_was_written() {
    let shelf = three();
    let id = "20251123T154413.207000Z-train-4102";
    let under = |rest: &str| shelf.path().join(rest).to_str().unwrap().to_owned();
    let check = |key: &str, part: &str| {
        let text = shelf.complains(&["show", key]);
        assert!(text.contains(part), "{key}: {text}");
    };
    for key in
        ["/nonexistent/x", "./nope", "/etc/passwd", &under("nope"), &under(&format!("{id}/nope"))]
    {
        check(key, &format!("no directory of an incident at {key}"));
    }
    check(&under(""), "is a directory of incidents, not an incident; use --incidents");
    // As a shell completes it.
    assert!(shelf.says(&["show", &format!("{id}/")]).contains("Rank 2 hung"));
    // By its directory's own name, however it was reached.
    let there = shelf.says(&["show", &under(&format!("{id}/../{id}/."))]);
    assert!(there.contains(id), "{there}");
}

#[test]
fn what_cannot_be_read_is_as_old_as_its_name_and_not_the_last() {
    let shelf = three();
    shelf.put_text("20251123T154600.000000Z-train-1", "{");
    let text = shelf.says(&["incidents"]);
    assert!(text.contains("2025-11-23 15:46:00"), "{text}");
    assert!(
        shelf.says(&["show"]).contains("Rank 0 ran out of time"),
        "the newest that can be read"
    );
}
