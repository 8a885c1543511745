//! Workers that do not die of the first signal, or of none.

use std::os::unix::process::ExitStatusExt;

use hangwatch_core::wire::segment::Counter;
use hangwatch_tests::fuse::Mute;
use hangwatch_tests::{Actor, Stage, until};

#[test]
fn a_worker_that_ignores_sigterm_is_killed_after_its_grace() {
    let stage = Stage::new("deaf");
    let mut watchdog = stage.watchdog(&["--signal", "TERM", "--grace", "300ms"]);
    let (mut deaf, mut polite) = (stage.actor(), stage.actor());
    deaf.tell("ignore 15");
    deaf.tell("expires deaf 30");
    polite.tell("expires polite 30");
    let signals = |watchdog: &mut hangwatch_tests::Watchdog, pid: u32| -> Vec<u64> {
        let sent = watchdog.events().iter();
        let sent = sent.filter(|event| event["event"] == "signalled" && event["pid"] == pid);
        sent.map(|event| event["signal"].as_u64().unwrap()).collect()
    };
    assert_eq!(deaf.wait().signal(), Some(9));
    assert_eq!(polite.wait().signal(), Some(15));
    let expiry = watchdog.expiry_of(deaf.pid());
    assert_eq!((expiry["outcome"].as_str(), expiry["signal"].as_u64()), (Some("reaped"), Some(9)));
    assert_eq!(signals(&mut watchdog, deaf.pid()), [15, 9]);
    assert_eq!(signals(&mut watchdog, polite.pid()), [15]);
}

/// On a thread of its own: the mount namespace is that thread's, and ends with it.
#[test]
fn a_worker_that_cannot_be_killed_is_said_to_be_and_delays_nobody() {
    std::thread::spawn(check_unkillable).join().unwrap();
}

fn check_unkillable() {
    // Declared first, hence dropped last: nobody can wait for it before the file system is gone.
    let mut stuck;
    let Some(mute) = Mute::mount("an unkillable worker") else { return };
    let stage = Stage::new("unkillable");
    let mut watchdog = stage.watchdog(&[]);
    stuck = stage.actor();
    stuck.tell("expires stuck 100");
    stuck.order(&format!("look {}", mute.file().display()));
    let unkillable = watchdog.expiry_of(stuck.pid());
    println!("{unkillable}");
    assert_eq!(unkillable["outcome"], "unkillable");
    assert_eq!(unkillable["wait_channel"], "request_wait_answer", "where it sleeps is said");
    assert!(stuck.is_alive(), "it survived SIGKILL");
    assert_eq!(stage.counter(Counter::Unkillable), 1);
    // Meanwhile the others are served.
    for _ in 0..3 {
        let mut hung = stage.actor();
        hung.tell("expires hung 30");
        let expiry = watchdog.expiry_of(hung.pid());
        println!("beside an unkillable worker: {} ms late", expiry["late_ms"]);
        assert_eq!(expiry["outcome"], "reaped");
        assert_eq!(hung.wait().signal(), Some(9));
    }
    assert!(stuck.is_alive());
    // A successor goes on with it.
    watchdog.kill();
    let mut second = stage.watchdog(&[]);
    assert_eq!(second.expiry_of(stuck.pid())["outcome"], "unkillable");
    drop(mute);
    let reaped = second.expiry_of(stuck.pid());
    assert_eq!(reaped["outcome"], "reaped", "its death ends the reap: {reaped}");
    assert_eq!(until("it dies", || stuck.has_ended()).signal(), Some(9));
    until("its lane comes back", || stage.lanes_in_use().is_empty().then_some(()));
    let counts = stage.picture().scopes.into_iter().find(|view| view.name == "stuck").unwrap();
    assert_eq!((counts.counts.acquired, counts.counts.condemned), (1, 1), "reaped once");
}

/// On a thread of its own: the mount namespace is that thread's, and ends with it.
#[test]
fn a_disk_that_hangs_under_an_error_file_saves_no_hung_worker() {
    std::thread::spawn(check_hung_disk).join().unwrap();
}

fn check_hung_disk() {
    // Declared first, hence dropped last: its writer is stuck until the file system is gone.
    let mut watchdog;
    let Some(mute) = Mute::mount("an error file on a disk that hangs") else { return };
    let stage = Stage::new("hung-disk");
    watchdog = stage.watchdog(&[]);
    let path = mute.file().display().to_string();
    let environment = [("TORCHELASTIC_ERROR_FILE", path.as_str())];
    // The second one's file waits behind the first one's for ever.
    for _ in 0..2 {
        let mut hung = Actor::start(stage.name(), &environment);
        hung.tell("attach");
        hung.tell("expires hung 30");
        assert_eq!(until("it is reaped", || hung.has_ended()).signal(), Some(9));
        assert_eq!(watchdog.expiry_of(hung.pid())["outcome"], "reaped");
    }
    assert!(watchdog.events().iter().all(|event| event["event"] != "error_file"));
    drop(mute);
    watchdog.event(|event| event["event"] == "error_file");
}
