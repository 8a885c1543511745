//! The book and the other pages: links lead somewhere, commands work, references are complete.
//!
//! * `links`: links, files that are named, the table of contents
//! * `commands`: commands of `console` blocks are parsed; those of `console,run` blocks are executed
//! * `reference`: the pages of commands and settings are what the command line says
//! * `complete`: every metric and every event of the log is documented
//! * `words`: terms that the glossary has replaced

mod commands;
mod complete;
mod links;
mod reference;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A page of Markdown.
struct Page {
    /// From the repository's root.
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: &str) -> Page {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        Page { path: path.into(), text }
    }

    /// The text without code blocks.
    fn prose(&self) -> String {
        let mut is_code = false;
        let is_prose = |line: &&str| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        };
        self.text.split_inclusive('\n').filter(is_prose).collect()
    }

    /// The code blocks whose first line is ```` ```INFO ````.
    fn blocks(&self, info: &str) -> Vec<String> {
        let opening = format!("```{info}\n");
        let starts_line = |at: usize| at == 0 || self.text[..at].ends_with('\n');
        let openings = self.text.match_indices(&opening).filter(|(at, _)| starts_line(*at));
        openings
            .map(|(at, _)| {
                let rest = &self.text[at + opening.len()..];
                rest.split("\n```").next().unwrap_or_default().to_owned()
            })
            .collect()
    }
}

/// Every page of the book, and what stands beside it for people to read.
fn pages() -> Vec<Page> {
    let mut pages = book();
    let others = [
        "README.md",
        "ARCHITECTURE.md",
        "SECURITY.md",
        "examples/container/README.md",
        "examples/fleet/README.md",
        "examples/torch_ddp/README.md",
        "python/README.md",
    ];
    pages.extend(others.iter().map(|path| Page::read(path)));
    pages
}

/// Every page of the book.
fn book() -> Vec<Page> {
    fn below(folder: &Path, pages: &mut Vec<Page>) {
        let mut entries: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                below(&path, pages);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(Page::read(path.strip_prefix(root()).unwrap().to_str().unwrap()));
            }
        }
    }
    let mut pages = Vec::new();
    below(&root().join("docs"), &mut pages);
    pages
}
