//! Links lead to pages and headings that exist, and files that are named exist.

use std::path::{Component, Path, PathBuf};

use crate::{Page, book, pages, root};

/// Folders of the repository whose files are named in pages.
const FOLDERS: [&str; 11] = [
    "bench/",
    "core/",
    "docs/",
    "examples/",
    "fuzz/",
    "packaging/",
    "python/",
    "shm/",
    "tests/",
    "watchdog/",
    "xtask/",
];
/// Pages that the book includes: a link in them cannot be right in both places.
const INCLUDED: [&str; 2] = ["ARCHITECTURE.md", "SECURITY.md"];

/// The targets of the links in a page, those of other sites left out.
fn targets(page: &Page) -> Vec<String> {
    let prose = page.prose();
    let links = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    links.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// The id of a heading, as mdBook and GitHub make it.
fn id(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| id(line.trim_start_matches('#').trim())).any(|id| id == wanted)
}

/// `..` taken out.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir {
            plain.pop();
        } else {
            plain.push(component);
        }
    }
    plain
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut wrong = Vec::new();
    for page in pages() {
        let is_of_book = page.path.starts_with("docs");
        for target in targets(&page) {
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let folder = page.path.parent().unwrap();
            let path = if file.is_empty() { page.path.clone() } else { plain(&folder.join(file)) };
            let text = std::fs::read_to_string(root().join(&path)).unwrap_or_default();
            let is_there = root().join(&path).exists()
                && (heading.is_empty() || has_heading(&text, heading))
                && (!is_of_book || path.starts_with("docs"));
            let is_included = INCLUDED.iter().any(|name| page.path == Path::new(name));
            if !is_there || is_included {
                wrong.push(format!("{}: {target}", page.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_of_contents_lists_every_page_once() {
    let summary = Page::read("docs/SUMMARY.md");
    let mut listed = targets(&summary);
    listed.sort_unstable();
    let pages = book().into_iter().map(|page| page.path.strip_prefix("docs").unwrap().to_owned());
    let mut there: Vec<String> = pages.map(|path| path.to_str().unwrap().to_owned()).collect();
    there.retain(|path| path != "SUMMARY.md");
    there.sort_unstable();
    assert_eq!(listed, there);
}

#[test]
fn every_file_that_a_page_names_exists() {
    let mut missing = Vec::new();
    for page in pages() {
        let prose = page.prose();
        let is_path = |word: &&str| {
            FOLDERS.iter().any(|folder| word.starts_with(folder))
                && !word.contains(|c: char| c.is_whitespace() || "*<>()".contains(c))
        };
        for path in prose.split('`').skip(1).step_by(2).filter(is_path) {
            if !root().join(path).exists() {
                missing.push(format!("{}: {path}", page.path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
