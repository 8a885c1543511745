//! Every metric, event and crate that there is has a row, and every row is of one that there is.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use hangwatch_tests::{Stage, Watchdog, until};

use crate::{Page, root};

/// The words in code of the first cells of a page's tables.
fn first_cells(page: &Page) -> BTreeSet<String> {
    let rows = page.text.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

fn metrics_page(socket: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.contains("# EOF").then_some(())?;
    Some(answer)
}

#[test]
fn every_metric_is_documented() {
    let (stage, dir) = (Stage::new("documented-metrics"), tempfile::tempdir().unwrap());
    let socket = dir.path().join("s");
    let listen = format!("--listen=unix:{}", socket.display());
    let _watchdog = Watchdog::start(stage.name(), &[&listen], &[]);
    let page = until("there are metrics", || metrics_page(&socket));
    let documented = first_cells(&Page::read("docs/reference/metrics.md"));
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let name = format!("{name}{suffix}");
        assert!(documented.contains(&name), "docs/reference/metrics.md lacks {name}");
    }
    // Of some there are samples only once something has happened.
    let mut text = String::new();
    sources(&root().join("watchdog/http"), &mut text);
    for name in documented {
        let bare = name.strip_prefix("hangwatch_").unwrap();
        let bare = bare.trim_end_matches("_total").trim_end_matches("_info");
        assert!(text.contains(&format!("\"{bare}\"")), "there is no metric {name}");
    }
}

/// The text of every source file of the watchdog.
fn sources(folder: &Path, text: &mut String) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.ends_with("tests") {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *text += &fs::read_to_string(path).unwrap();
        }
    }
}

#[test]
fn every_event_of_the_log_is_documented() {
    let mut text = String::new();
    sources(&root().join("watchdog"), &mut text);
    let page = Page::read("docs/reference/log.md");
    let (events, _) = page.text.split_once("## Fields").unwrap();
    let documented = first_cells(&Page { path: page.path.clone(), text: events.to_owned() });
    let named: BTreeSet<String> = text
        .split("event = \"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect();
    let unknown: Vec<_> = named.difference(&documented).collect();
    assert!(unknown.is_empty(), "docs/reference/log.md lacks {unknown:?}");
    for event in documented {
        assert!(text.contains(&format!("\"{event}\"")), "there is no event {event}");
    }
}

/// The crates of this workspace that a crate uses, tests aside, by the folder's last part.
fn used(manifest: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let (_, dependencies) = text.split_once("[dependencies]\n").unwrap_or_default();
    let dependencies = dependencies.split("\n[").next().unwrap_or_default();
    let names = dependencies.lines().filter_map(|line| line.split(['.', ' ']).next());
    let of_ours = names.filter_map(|name| match name {
        "hangwatch" => Some("shm".to_owned()),
        name => name.strip_prefix("hangwatch-").map(str::to_owned),
    });
    of_ours.collect()
}

#[test]
fn the_codemap_has_every_crate_with_what_it_uses() {
    let page = Page::read("ARCHITECTURE.md");
    let rows = page.text.lines().filter(|line| line.starts_with("| `watchdog/"));
    let mut mapped = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let folder = cells[1].trim_matches('`');
        mapped.insert(folder.to_owned());
        let uses: BTreeSet<String> = cells[3].split(", ").map(str::to_owned).collect();
        let uses = uses.into_iter().filter(|name| !name.is_empty()).collect();
        let there = used(&root().join(folder).join("Cargo.toml"));
        assert!(cells[3] == "all above" || there == uses, "{folder}: {there:?}");
    }
    let folders = fs::read_dir(root().join("watchdog")).unwrap().map(|it| it.unwrap().path());
    let folders = folders.filter(|path| path.join("Cargo.toml").exists());
    let there: BTreeSet<String> =
        folders.map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().into()).collect();
    assert_eq!(mapped, there);
}
