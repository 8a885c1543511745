//! What pages show to be typed: hangwatch takes it, and where it can be run it does what is shown.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use clap::error::ErrorKind;
use hangwatch_cli::cli::Cli;
use hangwatch_cli::cli::config::Variables;
use hangwatch_tests::program;

use crate::{Page, pages};

/// One command of a `console` block, and what is shown below it.
struct Shown {
    command: String,
    output: Vec<String>,
}

/// The commands of a block: lines that begin with `$ `, continued after a backslash.
fn shown(block: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut goes_on = false;
    for line in block.lines() {
        let (is_command, is_part) = (line.starts_with("$ "), goes_on);
        goes_on = (is_command || is_part) && line.ends_with('\\');
        let text = line.trim_start_matches("$ ").trim_end_matches('\\');
        match all.last_mut() {
            Some(last) if is_part => last.command += text,
            Some(last) if !is_command => last.output.push(line.to_owned()),
            _ => all.push(Shown { command: text.to_owned(), output: Vec::new() }),
        }
    }
    all
}

/// The words of each `hangwatch` in a line of shell, without what the shell makes of the rest.
fn calls(line: &str) -> Vec<Vec<String>> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote) = (None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let is_end = |word: &str| ["|", "||", "&&", "&", ";", ">", "#"].contains(&word);
    let starts = words.iter().enumerate().filter(|(_, word)| *word == "hangwatch");
    starts
        .filter(|(at, _)| *at == 0 || is_end(&words[at - 1]) || words[at - 1].contains('='))
        .map(|(at, _)| words[at..].iter().take_while(|word| !is_end(word)).cloned().collect())
        .collect()
}

#[test]
fn hangwatch_takes_every_command_that_a_page_shows() {
    let mut count = 0;
    for page in pages() {
        let blocks = [page.blocks("console"), page.blocks("console,run")].concat();
        for Shown { command, .. } in blocks.iter().flat_map(|block| shown(block)) {
            for words in calls(&command) {
                count += 1;
                let read = Cli::try_read_from(&words, &Variables::default());
                let error = read.err().filter(|error| error.kind() != ErrorKind::DisplayHelp);
                // A file of settings that is shown need not be there.
                let error = error.filter(|error| !error.to_string().contains("No such file"));
                assert!(error.is_none(), "{}: {words:?}: {error:?}", page.path.display());
            }
        }
    }
    assert!(count > 40, "{count}");
}

/// A line with its numbers and spaces alike.
fn form(line: &str) -> String {
    let mut form = String::new();
    for c in line.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match c {
            '0'..='9' if form.ends_with('0') => {}
            '0'..='9' => form.push('0'),
            _ => form.push(c),
        }
    }
    form
}

/// Runs the commands of a page in one shell. What each wrote, and its exit code.
fn outcomes(commands: &[Shown], dir: &Path) -> BTreeMap<usize, (String, i32)> {
    symlink(program("stage-watchdog"), dir.join("hangwatch")).unwrap();
    let mut script = String::from("code=0\n");
    for (index, Shown { command, .. }) in commands.iter().enumerate() {
        let _ = write!(script, "echo; echo '@@ {index}'; (exit $code)\n{command}\ncode=$?\n");
        let _ = writeln!(script, "echo; echo \"@@ {index} $code\"");
    }
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let work = dir.join("work");
    fs::create_dir(&work).unwrap();
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .current_dir(&work)
        .env("PATH", path)
        .env("HOME", dir)
        .env("HANGWATCH_INCIDENTS", dir.join("incidents"))
        .env_remove("HANGWATCH_SEGMENT")
        .env_remove("HANGWATCH_LOG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let part = |index: usize| {
        let (_, rest) = text.split_once(&format!("@@ {index}\n"))?;
        let (said, rest) = rest.split_once(&format!("@@ {index} "))?;
        Some((index, (said.to_owned(), rest.lines().next()?.parse().ok()?)))
    };
    let outcomes: BTreeMap<_, _> = (0..commands.len()).filter_map(part).collect();
    assert_eq!(outcomes.len(), commands.len(), "{text}");
    outcomes
}

fn check(page: &Page) {
    let commands: Vec<Shown> =
        page.blocks("console,run").iter().flat_map(|block| shown(block)).collect();
    let dir = tempfile::tempdir().unwrap();
    let outcomes = outcomes(&commands, dir.path());
    for (index, Shown { command, output }) in commands.iter().enumerate() {
        let (said, code) = &outcomes[&index];
        let place = format!("{}: {command}", page.path.display());
        let is_asked = commands.get(index + 1).is_some_and(|next| next.command == "echo $?");
        assert!(*code == 0 || is_asked, "{place}: {code}: {said}");
        let forms: Vec<String> = said.lines().map(form).collect();
        for line in output.iter().filter(|line| *line != "...") {
            let is_said = if command == "echo $?" {
                said.lines().any(|it| it == line)
            } else {
                forms.contains(&form(line))
            };
            assert!(is_said, "{place}: {line:?} is not in: {said}");
        }
    }
}

#[test]
fn what_a_page_runs_does_what_it_shows() {
    let with_blocks = |page: &Page| !page.blocks("console,run").is_empty();
    let pages: Vec<Page> = pages().into_iter().filter(with_blocks).collect();
    assert!(pages.len() >= 3, "{}", pages.len());
    pages.iter().for_each(check);
}
