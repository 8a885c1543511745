//! Disks that do not answer: they hold a process of their own, and neither the watchdog nor its end.

use std::fs;
use std::os::unix::fs::symlink;

use hangwatch_tests::fuse::Mute;
use hangwatch_tests::{Actor, Stage, until};
use rustix::process::Signal;

#[test]
fn settings_on_a_hung_disk_make_no_watchdog_deaf_to_sigterm() {
    let Some(mute) = Mute::mount("settings on a hung disk") else { return };
    let stage = Stage::new("hung-settings");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("settings.toml");
    fs::write(&path, "max-reaps = 100\n").unwrap();
    let mut watchdog = stage.watchdog(&["--config", path.to_str().unwrap()]);
    // The disk has gone since.
    fs::remove_file(&path).unwrap();
    symlink(mute.file(), &path).unwrap();
    watchdog.signal(Signal::HUP);
    until("the settings are asked for", || mute.is_asked().then_some(()));
    watchdog.event(|event| event["event"] == "reload_slow");
    let mut hung = stage.actor();
    hung.tell("expires hung 50");
    assert_eq!(watchdog.expiry_of(hung.pid())["outcome"], "reaped");
    watchdog.signal(Signal::HUP); // asked for again, it is no worse
    watchdog.signal(Signal::TERM);
    assert!(watchdog.wait().success());
}

#[test]
fn an_error_file_on_a_hung_disk_holds_no_watchdogs_end() {
    let Some(mute) = Mute::mount("an error file on a hung disk") else { return };
    let stage = Stage::new("hung-error-file");
    let mut watchdog = stage.watchdog(&[]);
    let path = mute.file().join("error.json");
    let named = [("TORCHELASTIC_ERROR_FILE", path.to_str().unwrap())];
    let mut hung = Actor::start(stage.name(), &named);
    hung.tell("attach");
    hung.tell("expires hung 300");
    assert_eq!(watchdog.expiry_of(hung.pid())["outcome"], "reaped");
    until("the file is asked for", || mute.is_asked().then_some(()));
    watchdog.signal(Signal::TERM);
    assert!(watchdog.wait().success());
}
