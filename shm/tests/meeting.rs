//! Meetings on a real segment: what a worker writes of them is what an observer sees.

use std::time::Duration;

use hangwatch::{CreateOptions, Geometry, LaneView, Released, Segment, Worker};
use hangwatch_core::wire::meeting::{Last, Members};
use hangwatch_core::wire::scope::ScopeId;

const LONG: Duration = Duration::from_mins(1);

/// A segment of its own for a test, removed at its end.
struct Named(String);

impl Named {
    fn new(test: &str, scopes: u32) -> Named {
        let name = format!("test-meeting-{test}-{}", std::process::id());
        let geometry = Geometry { lanes: 4, timers: 4, records: 16, scopes, lane_scopes: 4 };
        Segment::create(&name, CreateOptions { geometry, ..CreateOptions::default() }).unwrap();
        Named(name)
    }

    fn lane(&self) -> LaneView {
        Segment::observe(&self.0).unwrap().lanes.remove(0)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        Segment::remove(&self.0).unwrap();
    }
}

/// The armed meetings of a lane, the innermost first, and the last ones of each group.
fn meetings(lane: &LaneView) -> (Vec<String>, Vec<String>) {
    let armed = lane.timers.iter().map(|timer| match &timer.meeting {
        Some(it) => format!("{} #{} of {} ({})", timer.scope, it.sequence, it.group, it.members),
        None => timer.scope.clone(),
    });
    let last = lane.attended.iter().map(|it| format!("{} #{}", it.group, it.sequence));
    (armed.collect(), last.collect())
}

#[test]
fn a_meeting_shows_its_group_and_its_number() {
    let named = Named::new("shows", 8);
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let outer = worker.meeting("all_reduce", "dp", &[2, 0], 8, LONG).unwrap();
    let inner = worker.meeting("barrier", "world", &[], 3, LONG).unwrap();
    let (armed, last) = meetings(&named.lane());
    assert_eq!(armed, ["barrier #3 of world (all ranks)", "all_reduce #8 of dp (ranks 0, 2)"]);
    assert_eq!(last, ["dp #8", "world #3"]);
    assert_eq!([inner.release(), outer.release()], [Released::InTime; 2]);
    // Its timer is used again, by a scope that is no meeting.
    let plain = worker.expires("load", LONG).unwrap();
    assert_eq!(
        meetings(&named.lane()),
        (vec!["load".into()], vec!["dp #8".into(), "world #3".into()])
    );
    drop(plain);
    drop(worker.meeting("all_reduce", "dp", &[0, 2], 9, LONG).unwrap());
    assert_eq!(meetings(&named.lane()).1, ["dp #9", "world #3"]);
}

#[test]
fn groups_of_one_name_with_other_members_are_other_groups() {
    let named = Named::new("names", 8);
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let one = worker.meeting("a", "dp", &[0, 2], 1, LONG).unwrap();
    let other = worker.meeting("a", "dp", &[1, 3], 1, LONG).unwrap();
    let ids: Vec<u16> = named.lane().attended.iter().map(|it| it.group_id).collect();
    assert_ne!(ids[0], ids[1]);
    drop((one, other));
}

#[test]
fn a_group_that_finds_no_room_costs_no_deadline() {
    let named = Named::new("room", 2);
    let worker = Worker::attach(named.0.as_str()).unwrap();
    for group in ["one", "two"] {
        worker.group(group, &[]).unwrap();
    }
    let guard = worker.meeting("a", "three", &[], 1, LONG).unwrap();
    assert_eq!(meetings(&named.lane()), (vec!["a".into()], vec![]));
    assert_eq!(guard.release(), Released::InTime);
}

#[test]
fn a_lane_counts_entries_from_its_attach_on() {
    let named = Named::new("entries", 8);
    let segment = Segment::open(&named.0).unwrap();
    let scope = segment.words().names().intern("step").scope;
    let enter = |count: u32| {
        let worker = Worker::attach(named.0.as_str()).unwrap();
        let step = worker.scope("step").unwrap();
        (0..count).for_each(|_| drop(step.expires(LONG).unwrap()));
        segment.words().lane(0).entries(scope)
    };
    // One thread after the other has lane 0, and no watchdog recycles it.
    for count in [3, 2] {
        let entries = std::thread::scope(|threads| threads.spawn(|| enter(count)).join().unwrap());
        assert_eq!(entries, Some(u64::from(count)));
    }
    assert_eq!(segment.words().lane(0).entries(ScopeId(7)), Some(0));
}

#[test]
fn more_scopes_than_a_lane_counts_leave_its_entries_unknown() {
    let named = Named::new("uncounted", 8);
    let worker = Worker::attach(named.0.as_str()).unwrap();
    for name in ["a", "b", "c", "d"] {
        drop(worker.expires(name, LONG).unwrap());
    }
    let segment = Segment::open(&named.0).unwrap();
    let entries = |name| {
        let scope = segment.words().names().intern(name).scope;
        segment.words().lane(0).entries(scope)
    };
    assert_eq!([entries("a"), entries("c"), entries("d")], [Some(1), Some(1), None]);
}

#[test]
fn what_a_thread_has_attended_outlives_it() {
    let named = Named::new("outlives", 8);
    let segment = Segment::open(&named.0).unwrap();
    let group = segment.words().groups().intern("dp", Members::of(&[0, 1])).unwrap();
    let worker = Worker::attach(named.0.as_str()).unwrap();
    let meet = |sequence| {
        let meets = || drop(worker.meeting("a", "dp", &[0, 1], sequence, LONG).unwrap());
        // Joined: it has left its lane.
        std::thread::scope(|threads| threads.spawn(meets).join().unwrap());
    };
    let lasts = || [0, 1].map(|lane| segment.words().lane(lane).attended(group));
    meet(5);
    assert_eq!(lasts(), [Last::Never, Last::Entered(5)]);
    meet(6); // the next thread goes on with that lane
    assert_eq!(lasts(), [Last::Never, Last::Entered(6)]);
}
