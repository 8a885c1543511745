//! What `SECURITY.md` and the page of guarantees promise is tested by tests that exist.

use std::fs;
use std::path::Path;

/// The text of every Rust file below `directory`.
fn sources(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

fn check(page: &str, least: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut text = String::new();
    for crate_directory in ["core", "shm", "watchdog", "tests"] {
        sources(&root.join(crate_directory), &mut text);
    }
    let page = fs::read_to_string(root.join(page)).unwrap();
    let is_test = |word: &&str| {
        word.matches('_').count() >= 3
            && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    let named: Vec<&str> = page.split('`').filter(is_test).collect();
    assert!(named.len() >= least, "{}", named.len());
    for name in named {
        assert!(text.contains(&format!("fn {name}(")), "no test is called {name}");
    }
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    check("SECURITY.md", 30);
}

#[test]
fn every_test_that_the_guarantees_name_is_there() {
    check("docs/guarantees.md", 30);
}
