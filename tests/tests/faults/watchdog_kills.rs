//! The watchdog killed anywhere: its successor finds everything, and does nothing twice.

use std::os::unix::process::ExitStatusExt;

use hangwatch_core::wire::segment::Counter;
use hangwatch_tests::soak::{self, watchdog_kills};
use hangwatch_tests::{Stage, Watchdog, until};

#[test]
fn watchdogs_killed_anywhere_under_load_lose_nothing_and_wrong_nobody() {
    soak::check(&watchdog_kills::PART, 48);
}

/// Each crash point for itself, first passing.
#[test]
fn a_watchdog_killed_at_each_point_is_succeeded_without_loss() {
    for (point, _) in watchdog_kills::POINTS {
        let stage = Stage::new("watchdog-point");
        let mut first = Watchdog::start_only(stage.name(), &[], &[("HANGWATCH_CRASH_AT", point)]);
        let (mut hung, mut fine, mut leaver) = (stage.actor(), stage.actor(), stage.actor());
        fine.tell("expires fine 3600000");
        hung.tell("expires hung 30");
        leaver.tell("expires left 3600000");
        leaver.tell("pairs 25");
        leaver.order("exit");
        assert!(leaver.wait().success());
        let (status, said) = first.last_words();
        assert_eq!(status.signal(), Some(9), "{point}: {said}");
        fine.tell("pairs 1000");
        let mut second = stage.watchdog(&[]);
        assert_eq!(until(point, || hung.has_ended()).signal(), Some(9), "{point}");
        until(point, || (stage.lanes_in_use().len() == 1).then_some(()));
        assert_eq!(fine.tell("release fine"), "InTime", "{point}");
        assert!(fine.end().success());
        until(point, || stage.lanes_in_use().is_empty().then_some(()));
        assert!(second.end().success());
        let counts = |scope: &str| {
            let scopes = stage.picture().scopes;
            let counts = scopes.into_iter().find(|view| view.name == scope).unwrap().counts;
            (counts.acquired, counts.released(), counts.condemned, counts.abandoned)
        };
        assert_eq!(counts("hung"), (1, 0, 1, 0), "{point}");
        assert_eq!(counts("left"), (1, 0, 0, 1), "{point}");
        assert_eq!(counts("fine"), (1, 1, 0, 0), "{point}");
        assert_eq!(counts("pair"), (1025, 1025, 0, 0), "{point}");
        let uncounted = u64::from(point == "condemn");
        assert_eq!(stage.counter(Counter::Condemned), 1 - uncounted, "{point}");
    }
}
