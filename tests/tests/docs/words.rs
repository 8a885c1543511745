//! Terms that the glossary has replaced appear in no page.

use crate::{Page, pages};

/// As whole words, outside code.
const REPLACED: [&str; 26] = [
    "allowance",
    "allowances",
    "attestable",
    "clerk",
    "dossier",
    "inspector",
    "kin",
    "porter",
    "roster",
    "sickness",
    "spared",
    "spares",
    "undertaker",
    "vigil",
    "wishes",
    "who hangs",
    "whom the",
    "is told",
    "are told of",
    "is none",
    "takes down",
    "taken down",
    "lets go",
    "goes by",
    "as it stands",
    "nobody who",
];
/// Pages that are rewritten with the code that they describe.
const LATER: [&str; 2] = ["examples/", "python/README.md"];

/// The words outside code, lower case, with one space between them.
fn words(page: &Page) -> String {
    let prose = page.prose();
    let outside = prose.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let is_word = |c: char| c.is_alphanumeric() || "'-_".contains(c);
    let plain: String = outside.chars().map(|c| if is_word(c) { c } else { ' ' }).collect();
    format!(" {} ", plain.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" "))
}

#[test]
fn no_page_uses_a_replaced_term() {
    let mut found = Vec::new();
    for page in pages() {
        let is_generated = page.text.starts_with("<!-- Generated");
        let is_later = LATER.iter().any(|prefix| page.path.starts_with(prefix));
        if is_generated || is_later || page.path.ends_with("glossary.md") {
            continue;
        }
        let words = words(&page);
        let replaced = REPLACED.iter().filter(|term| words.contains(&format!(" {term} ")));
        found.extend(replaced.map(|term| format!("{}: {term}", page.path.display())));
    }
    assert!(found.is_empty(), "{found:#?}");
}
