//! The picture of the report page in the README: the incident of a real `hangwatch demo`, as Chromium
//! shows it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::target;
use crate::step::root;

/// Where the picture is kept, from the repository's root.
const PICTURE: &str = "docs/images/report.png";
/// As much of the page as shows the story, the timeline and the call that hangs.
const SIZE: &str = "--window-size=1120,1270";
/// No network, no first-run dialogs, and root may start it.
const CHROMIUM: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    SIZE,
];

/// Runs the demo over `examples/`, writes its report, and takes the picture.
pub(super) fn take() -> Result<(), String> {
    let dir = target().join("picture");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let (incidents, page) = (dir.join("incidents"), dir.join("report.html"));
    let hangwatch = target().join("debug/hangwatch");
    let incidents = incidents.to_string_lossy();
    let page_name = page.to_string_lossy();
    let kept = ["--incidents", &incidents];
    let demo = ["demo", "examples", "--evidence-budget", "60s"];
    run(&hangwatch, &[&demo[..], &kept].concat())?;
    run(&hangwatch, &[&["report", "--output", &page_name][..], &kept].concat())?;
    // Paths of this machine say nothing to others.
    let text = fs::read_to_string(&page).map_err(|error| error.to_string())?;
    let text = text.replace(&format!("{}/", root().display()), "");
    fs::write(&page, text).map_err(|error| error.to_string())?;
    let profile = format!("--user-data-dir={}", dir.join("profile").display());
    let picture = format!("--screenshot={}", root().join(PICTURE).display());
    let address = format!("file://{page_name}");
    run(Path::new("chromium"), &[&CHROMIUM[..], &[&profile, &picture, &address]].concat())
}

fn run(program: &Path, args: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(args).current_dir(root()).stdin(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{} {} ended with {status}", program.display(), args.join(" "))),
        Err(error) => Err(format!("cannot start {}: {error}", program.display())),
    }
}
