//! Workers killed at each crash point and at random moments: their lanes come back, admitted or not;
//! nobody else's timers change; nothing leaks.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use hangwatch::CreateOptions;
use rustix::process::Signal;

use super::{Part, Run};
use crate::random::Random;
use crate::{Actor, Stage, Watchdog, until};

/// See the module.
pub const PART: Part =
    Part { name: "worker-kills", fault: "a worker is killed anywhere", full: 10_000, inject };

/// Every crash point of a worker.
pub const POINTS: [&str; 9] = [
    "worker-locked",
    "worker-claimed",
    "worker-attached",
    "worker-detail",
    "worker-armed",
    "worker-recorded",
    "worker-released",
    "worker-counted",
    "worker-detached",
];

/// Workers that die together.
const BATCH: u64 = 12;
/// A batch in so many dies before any watchdog has seen it.
const UNATTENDED: u64 = 6;

fn inject(run: &mut Run) {
    let options = CreateOptions { geometry: Stage::geometry(48), ..Default::default() };
    let stage = Stage::with(PART.name, options);
    let mut watchdog = stage.watchdog(&[]);
    let mut bystanders = Bystanders::new(&stage);
    let mut deaths = Deaths::default();
    // The watchdog opens files and closes them again: what never changes is the least ever seen.
    let mut floor = bystanders.admitted(&mut watchdog);
    loop {
        let batch = run.next_batch(BATCH);
        if batch == 0 {
            break;
        }
        let unattended = run.random.one_in(UNATTENDED);
        if unattended {
            assert!(watchdog.end().success(), "a watchdog ends in order");
        }
        let victims: Vec<Victim> =
            (0..batch).map(|_| Victim::start(&stage, &mut run.random)).collect();
        for victim in victims {
            victim.die(&mut deaths);
        }
        if unattended {
            report_signals(run, &mut watchdog);
            watchdog = stage.watchdog(&[]);
            floor = bystanders.admitted(&mut watchdog);
        }
        until("the lanes of the dead come back", || bystanders.have_all_lanes(&stage));
        until("the descriptors of the dead are closed", || {
            let (all, pidfds) = watchdog.descriptors();
            floor = floor.min(all);
            (pidfds == bystanders.count() && all == floor).then_some(())
        });
        bystanders.check(run, &stage);
        run.survived(batch);
    }
    bystanders.end(run);
    until("all lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
    deaths.check(run, &stage);
    report_signals(run, &mut watchdog);
    assert!(watchdog.end().success(), "the watchdog ends in order");
}

/// Nobody of this part's workers is ever overdue: no signal is right. And none runs another program.
fn report_signals(run: &mut Run, watchdog: &mut Watchdog) {
    for event in watchdog.events() {
        match event["event"].as_str() {
            Some("signalled" | "expired") => run.wrongly_killed(event),
            Some("quarantined") => run.lost(event),
            Some("left") if event["how"] != "died" => run.lost(event),
            _ => {}
        }
    }
}

/// Workers that nothing must happen to.
struct Bystanders {
    actors: Vec<Actor>,
    /// Every lane of theirs, word by word.
    lanes: Vec<(u32, Vec<u64>)>,
}

impl Bystanders {
    fn new(stage: &Stage) -> Bystanders {
        let mut actors = vec![stage.actor(), stage.actor()];
        for actor in &mut actors {
            actor.tell("expires outer 3600000");
            actor.tell("thread moved 3600000");
            actor.tell("lanes 2 3600000");
        }
        let lanes = stage.lanes_in_use();
        let lanes = lanes.into_iter().map(|lane| (lane, stage.words_of(lane))).collect();
        Bystanders { actors, lanes }
    }

    fn count(&self) -> usize {
        self.actors.len()
    }

    /// The watchdog's descriptors once it has admitted them, and nobody else.
    fn admitted(&self, watchdog: &mut Watchdog) -> usize {
        let pids: Vec<u32> = self.actors.iter().map(Actor::pid).collect();
        until("the bystanders are admitted", || {
            // A pidfd alone is too early: a worker's memory is opened after it.
            let events = watchdog.events();
            let is_admitted = |pid: &u32| {
                events.iter().any(|event| event["event"] == "admitted" && event["pid"] == *pid)
            };
            if !pids.iter().all(is_admitted) {
                return None;
            }
            let (all, pidfds) = watchdog.descriptors();
            (pidfds == self.count()).then_some(all)
        })
    }

    fn have_all_lanes(&self, stage: &Stage) -> Option<()> {
        let own = self.lanes.iter().map(|(lane, _)| lane);
        stage.lanes_in_use().iter().eq(own).then_some(())
    }

    fn check(&mut self, run: &mut Run, stage: &Stage) {
        for (lane, words) in &self.lanes {
            if *words != stage.words_of(*lane) {
                run.lost(format!("lane {lane} of a bystander was changed"));
            }
        }
        for actor in &mut self.actors {
            if !actor.is_alive() {
                run.wrongly_killed("a bystander");
            }
        }
    }

    fn end(mut self, run: &mut Run) {
        for actor in &mut self.actors {
            for guard in ["outer", "moved"] {
                let released = actor.tell(&format!("release {guard}"));
                if released != "InTime" {
                    run.lost(format!("a bystander's guard: {released}"));
                }
            }
            assert!(actor.end().success(), "a bystander ends in order");
        }
    }
}

/// A worker about to die.
struct Victim {
    actor: Actor,
    /// At a crash point, or after this time.
    at: Result<&'static str, Duration>,
}

impl Victim {
    fn start(stage: &Stage, random: &mut Random) -> Victim {
        let seed = random.next_u64();
        let (at, environment) = if random.one_in(3) {
            (Err(Duration::from_micros(random.within(0..6_000))), vec![])
        } else {
            let point = *random.pick(&POINTS);
            let at = format!("{point}:{}", random.within(1..12));
            (Ok(point), vec![("HANGWATCH_CRASH_AT", at)])
        };
        let environment: Vec<_> = environment.iter().map(|(k, v)| (*k, v.as_str())).collect();
        let mut actor = Actor::start(stage.name(), &environment);
        actor.order("attach");
        actor.order(&format!("churn {seed}"));
        Victim { actor, at }
    }

    fn die(mut self, deaths: &mut Deaths) {
        match self.at {
            Ok(point) => deaths.at_point(point),
            Err(after) => {
                // No synchronisation: a random moment is what is wanted.
                std::thread::sleep(after);
                self.actor.signal(Signal::KILL);
                deaths.random += 1;
            }
        }
        let status = self.actor.wait();
        let said = self.actor.answer();
        assert_eq!(status.signal(), Some(9), "{:?}: {status}, {said:?}", self.at);
    }
}

/// Which deaths were between an acquire's or a release's timer word and its count.
#[derive(Default)]
struct Deaths {
    /// Armed, not counted as acquired.
    uncounted_acquires: u64,
    /// Idle, not counted as released.
    uncounted_releases: u64,
    /// Anywhere.
    random: u64,
}

impl Deaths {
    fn at_point(&mut self, point: &str) {
        match point {
            "worker-armed" | "worker-recorded" => self.uncounted_acquires += 1,
            "worker-released" => self.uncounted_releases += 1,
            _ => {}
        }
    }

    /// Every acquire ended one way: a death between the word and its count is off by one.
    fn check(&self, run: &mut Run, stage: &Stage) {
        let counts = stage.counts();
        let acquired = counts.acquired + self.uncounted_acquires;
        let ended =
            counts.released() + counts.abandoned + counts.condemned + self.uncounted_releases;
        if acquired.abs_diff(ended) > self.random || counts.condemned != 0 {
            run.lost(format!("{acquired} acquires, {ended} ends, {} random deaths", self.random));
        }
    }
}
