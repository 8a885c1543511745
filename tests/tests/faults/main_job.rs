//! The main job, end to end: a hung worker is found, named and removed; the others are not touched.

use std::os::unix::process::ExitStatusExt;

use hangwatch_tests::{Stage, until};

#[test]
fn the_hung_worker_is_reaped_and_the_others_are_untouched() {
    let stage = Stage::new("main");
    let mut watchdog = stage.watchdog(&[]);
    let mut actors: Vec<_> = (0..4).map(|_| stage.actor()).collect();
    for actor in &mut actors {
        actor.tell("expires epoch 60000");
    }
    actors[2].tell("expires exchange 50");
    assert_eq!(actors[2].wait().signal(), Some(9));
    let expiry = watchdog.expiry_of(actors[2].pid());
    assert_eq!(
        (expiry["scope"].as_str(), expiry["outcome"].as_str()),
        (Some("exchange"), Some("reaped"))
    );
    until("its lane comes back", || (stage.lanes_taken() == 3).then_some(()));
    for index in [0, 1, 3] {
        assert_eq!(actors[index].tell("release epoch"), "InTime");
        assert!(actors[index].end().success());
    }
    until("all lanes come back", || (stage.lanes_taken() == 0).then_some(()));
    assert!(watchdog.end().success());
}
