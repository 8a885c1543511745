//! Memory that lies: nobody is signalled whom the kernel does not name, bad lanes are quarantined,
//! the others served on.

use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};

use hangwatch::sys::clock::monotonic_ns;
use hangwatch::sys::host::pid_namespace;
use hangwatch_core::wire::lane::{Identity, LaneNames, LaneState, OwnerWord};
use hangwatch_core::wire::segment::Counter;
use hangwatch_process::attest::{Identity as ProcessIdentity, Process};
use hangwatch_process::proc::start_time;
use hangwatch_tests::mutator::Mutator;
use hangwatch_tests::random::{Random, seed};
use hangwatch_tests::soak::{self, mutations};
use hangwatch_tests::{Actor, Stage, until};
use rustix::process::Pid;

#[test]
fn a_segment_overwritten_at_random_gets_nobody_signalled_who_is_not_its_worker() {
    soak::check(&mutations::PART, 500_000);
}

fn lane_of(stage: &Stage, actor: &Actor) -> u32 {
    let lanes = stage.picture().lanes;
    lanes.iter().find(|lane| lane.pid == actor.pid()).unwrap().lane
}

#[test]
fn lanes_that_lie_are_quarantined_and_the_others_are_served() {
    let stage = Stage::new("liars");
    let mut watchdog = stage.watchdog(&[]);
    let mut fine = stage.actor();
    fine.tell("expires fine 3600000");
    // A lane before the liars', for who hangs: a liar that is reaped leaves its lane to others.
    let mut first = stage.actor();
    let liars: Vec<Actor> = (0..4).map(|_| stage.actor()).collect();
    let lanes: Vec<u32> = liars.iter().map(|liar| lane_of(&stage, liar)).collect();
    assert!(first.end().success());
    until("its lane comes back", || (stage.lanes_in_use().len() == 5).then_some(()));
    let mut reaped: Vec<u32> = liars.iter().map(Actor::pid).collect();
    let pids = vec![fine.pid(), watchdog.pid().as_raw_pid().unsigned_abs()];
    let random = Random::new(seed("liars"));
    let mut mutator = Mutator::of_lanes(&stage, &lanes, pids, random);
    for _ in 0..10 {
        mutator.write(5_000);
        let mut hung = stage.actor();
        hung.tell("expires hung 20");
        reaped.push(hung.pid());
        for _ in 0..20 {
            mutator.write(500);
        }
        let expiry = watchdog.expiry_of(hung.pid());
        assert_eq!(
            (expiry["outcome"].as_str(), &expiry["scope"]),
            (Some("reaped"), &"hung".into())
        );
        assert_eq!(hung.wait().signal(), Some(9));
        assert!(fine.is_alive());
        until("its lane comes back", || {
            stage.picture().lanes.iter().all(|lane| lane.pid != hung.pid()).then_some(())
        });
    }
    until("a lane is quarantined", || (stage.counter(Counter::Quarantined) > 0).then_some(()));
    let said = watchdog.events().iter().filter(|event| event["event"] == "quarantined").count();
    assert!(said > 0);
    let signalled = watchdog.events().iter().filter(|event| event["event"] == "signalled");
    for event in signalled {
        assert!(reaped.iter().any(|pid| event["pid"] == *pid), "{event}");
    }
    for mut liar in liars {
        liar.wait_or_kill();
    }
    assert_eq!(fine.tell("release fine"), "InTime");
    assert!(watchdog.end().success());
}

/// A process that never heard of hangwatch.
struct Bystander(Child);

impl Bystander {
    fn new() -> Bystander {
        Bystander(Command::new("sleep").arg("infinity").spawn().unwrap())
    }

    /// What a lane of its own would say.
    fn identity(&self) -> Identity {
        let pid = Pid::from_child(&self.0);
        let process = Process::open(pid).unwrap().unwrap();
        Identity {
            tid: u64::from(self.0.id()),
            start_ticks: start_time(pid).unwrap().unwrap(),
            pidfd_inode: match process.identity {
                ProcessIdentity::PidfdInode(inode) => inode,
                ProcessIdentity::StartTime { .. } => 0,
            },
            pid_namespace: pid_namespace().unwrap(),
            attached_at: monotonic_ns(),
            descriptor: 3,
            ..Identity::default()
        }
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A perfect forgery but for the lock, which only the kernel gives.
#[test]
fn a_lane_that_claims_someone_elses_pid_gets_nobody_signalled() {
    let stage = Stage::new("forged");
    let mut watchdog = stage.watchdog(&[]);
    let mut bystander = Bystander::new();
    let words = stage.segment.words();
    words.note_lane_used(5);
    let lane = words.lane(5);
    let claimed = lane.claim(bystander.0.id()).unwrap();
    lane.raise_high_water(1);
    stage.arm_overdue(5);
    lane.attach(claimed, bystander.identity(), LaneNames::default());
    lane.raise_high_water(1);
    stage.segment.ring();
    until("the lane comes back", || (lane.owner().state() == Some(LaneState::Free)).then_some(()));
    let signalled = watchdog.events().iter().filter(|event| event["event"] == "signalled").count();
    assert_eq!(signalled, 0);
    assert!(bystander.is_alive());
    assert_eq!(stage.counter(Counter::Condemned), 0);
}

/// A worker that claims, in its own lane, to be someone else: it is the worker who answers for it.
#[test]
fn a_worker_that_claims_to_be_someone_else_is_reaped_itself() {
    let stage = Stage::new("impostor");
    let mut watchdog = stage.watchdog(&[]);
    let mut bystander = Bystander::new();
    let mut impostor = stage.actor();
    let index = lane_of(&stage, &impostor);
    let seen = stage.segment.words().lane(index).owner();
    let forged = OwnerWord::new(LaneState::Attached, seen.epoch(), bystander.0.id());
    let identity = bystander.identity();
    let file = std::fs::OpenOptions::new().write(true).open(stage.path()).unwrap();
    let layout = *stage.segment.words().layout();
    let (front, back) = (layout.front_at(index), layout.back_at(index));
    for (word, bits) in
        [(back + 1, identity.start_ticks), (back + 2, identity.pidfd_inode), (front, forged.0)]
    {
        file.write_all_at(&bits.to_ne_bytes(), word as u64 * 8).unwrap();
    }
    let lane = stage.segment.words().lane(index);
    let claims = (lane.owner(), lane.identity().start_ticks, lane.identity().pidfd_inode);
    assert_eq!(claims, (forged, identity.start_ticks, identity.pidfd_inode));
    assert_eq!(stage.picture().lanes[0].pid, bystander.0.id(), "it says so");
    impostor.tell("expires hung 50");
    let expiry = watchdog.expiry_of(impostor.pid());
    assert_eq!(expiry["outcome"], "reaped", "{expiry}");
    assert_eq!(impostor.wait().signal(), Some(9));
    assert!(bystander.is_alive());
}
