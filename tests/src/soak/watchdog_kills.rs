//! The watchdog killed at each crash point and at random moments, while workers toil, hang, and leave
//! with timers armed; the next one adopts. Every timer keeps its deadline, whoever hangs is reaped,
//! nobody else; no count is lost or doubled; no worker is held up.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use hangwatch::CreateOptions;
use hangwatch_core::wire::lane::OwnerWord;
use hangwatch_core::wire::segment::Counter;
use hangwatch_core::wire::stats::Counts;

use super::{Part, Run};
use crate::random::Random;
use crate::{Actor, Stage, Watchdog, toil, until};

/// See the module.
pub const PART: Part =
    Part { name: "watchdog-kills", fault: "the watchdog is killed anywhere", full: 3_000, inject };

/// Every crash point of the watchdog that each service passes, and how often it may be passed before
/// it counts.
pub const POINTS: [(&str, u64); 16] = [
    ("adopt", 1),
    ("sleep", 20),
    ("ticked", 20),
    ("attestor", 8),
    ("verdict", 1),
    ("condemn", 1),
    ("condemned", 1),
    ("signal", 1),
    ("signalled", 1),
    ("recycling", 8),
    ("fold-logged", 20),
    ("fold-committed", 20),
    ("fold-added", 20),
    ("fold-emptied", 20),
    ("folded", 8),
    ("recycled", 8),
];

/// A random moment lies within so much of a watchdog's start.
const A_WHILE_US: u64 = 60_000;

/// Lanes, and how many may be in use before a watchdog is let live: many in a row may be killed before
/// any of them has given a lane back.
const LANES: u32 = 48;
const LANES_BEFORE_RESPITE: usize = 32;

fn inject(run: &mut Run) {
    let options = CreateOptions { geometry: Stage::geometry(LANES), ..Default::default() };
    let stage = Stage::with(PART.name, options);
    let mut workers = Workers::new(&stage);
    while run.next_batch(1) == 1 {
        if stage.lanes_in_use().len() > LANES_BEFORE_RESPITE {
            workers.have_respite(&stage);
        }
        workers.hang_and_leave(&stage, &mut run.random);
        kill_one(&stage, &mut run.random);
        workers.check(run, &stage);
        run.survived(1);
    }
    let mut last = stage.watchdog(&[]);
    workers.end(run, &stage);
    assert!(last.end().success(), "the last watchdog ends in order");
    if stage.picture().watchdog.limited || stage.segment.words().is_folding() {
        run.lost("something was left half-done");
    }
}

/// One watchdog's life: to a crash point, or to a random moment.
fn kill_one(stage: &Stage, random: &mut Random) {
    if random.one_in(3) {
        let mut watchdog = Watchdog::start_only(stage.name(), &[], &[]);
        // No synchronisation: a random moment is what is wanted.
        std::thread::sleep(Duration::from_micros(random.within(0..A_WHILE_US)));
        watchdog.kill();
        return;
    }
    let (point, passings) = *random.pick(&POINTS);
    let at = format!("{point}:{}", random.within(1..passings + 1));
    let environment = [("HANGWATCH_CRASH_AT", at.as_str())];
    let mut watchdog = Watchdog::start_only(stage.name(), &[], &environment);
    let (status, said) = watchdog.last_words();
    assert_eq!(status.signal(), Some(9), "{at}: {status}: {said}");
}

struct Workers {
    /// They acquire and release at full speed.
    toilers: Vec<Actor>,
    /// They have timers armed all the while.
    waiting: Vec<Actor>,
    /// The timer words of those, and their lanes' owners.
    words: Vec<(u32, Vec<u64>)>,
    /// They hang.
    hung: Vec<Actor>,
    hangs: u64,
    leavers: u64,
}

impl Workers {
    fn new(stage: &Stage) -> Workers {
        let mut waiting = vec![stage.actor(), stage.actor()];
        for actor in &mut waiting {
            actor.tell("expires outer 3600000");
            actor.tell("thread moved 3600000");
            actor.tell("beat heart 3600000");
        }
        let lanes = stage.lanes_in_use().into_iter();
        let words = lanes.map(|lane| (lane, timer_words(stage, lane))).collect();
        let mut toilers = vec![stage.actor(), stage.actor()];
        for toiler in &mut toilers {
            drop(toiler.tell("toil 1"));
        }
        Workers { toilers, waiting, words, hung: Vec::new(), hangs: 0, leavers: 0 }
    }

    /// One worker more hangs, and one leaves with a timer armed.
    fn hang_and_leave(&mut self, stage: &Stage, random: &mut Random) {
        let mut hung = stage.actor();
        hung.tell(&format!("expires hung {}", random.within(1..40)));
        self.hung.push(hung);
        self.hangs += 1;
        let mut leaver = stage.actor();
        leaver.tell("expires left 3600000");
        leaver.order("exit");
        assert!(leaver.wait().success(), "it exits");
        self.leavers += 1;
    }

    /// A watchdog lives until everybody's lanes have come back who hung or left.
    fn have_respite(&mut self, stage: &Stage) {
        let mut watchdog = stage.watchdog(&[]);
        let staying: Vec<u32> = self.waiting.iter().chain(&self.toilers).map(Actor::pid).collect();
        until("the lanes of the dead come back", || {
            let lanes = stage.lanes_in_use().into_iter();
            let owners = lanes.map(|lane| stage.segment.words().lane(lane).owner());
            let dead = |owner: OwnerWord| owner.pid() != 0 && !staying.contains(&owner.pid());
            (!owners.into_iter().any(dead)).then_some(())
        });
        assert!(watchdog.end().success(), "a watchdog ends in order");
    }

    fn check(&mut self, run: &mut Run, stage: &Stage) {
        for (lane, words) in &self.words {
            if *words != timer_words(stage, *lane) {
                run.lost(format!("a deadline of lane {lane}"));
            }
        }
        for worker in self.waiting.iter_mut().chain(&mut self.toilers) {
            if !worker.is_alive() {
                run.wrongly_killed("a worker that was in time");
            }
        }
        self.hung.retain_mut(Actor::is_alive);
    }

    /// With a watchdog that lives: whoever hangs is reaped, all lanes come back, the counts add up.
    fn end(mut self, run: &mut Run, stage: &Stage) {
        for hung in &mut self.hung {
            let signal = until("the hung are reaped", || hung.has_ended()).signal();
            assert_eq!(signal, Some(9), "a hung worker does not end by itself");
        }
        let mut toiled = 0;
        for toiler in &mut self.toilers {
            toiled += toiler.tell("rest").parse::<u64>().expect("it says how many");
            assert!(toiler.end().success(), "it ends in order");
        }
        let mut waited = 0;
        for worker in &mut self.waiting {
            for guard in ["outer", "moved"] {
                let released = worker.tell(&format!("release {guard}"));
                if released != "InTime" {
                    run.lost(format!("a guard: {released}"));
                }
                waited += 1;
            }
            assert!(worker.end().success(), "it ends in order");
        }
        until("all lanes come back", || stage.lanes_in_use().is_empty().then_some(()));
        let zero = Counts::default();
        let hung = Counts { acquired: self.hangs, condemned: self.hangs, ..zero.clone() };
        let left = Counts { acquired: self.leavers, abandoned: self.leavers, ..zero };
        for (scope, expected, released) in [
            ("hung", hung, 0),
            ("left", left, 0),
            (toil::SCOPE, Counts { acquired: toiled, ..Counts::default() }, toiled),
            ("outer", Counts { acquired: waited / 2, ..Counts::default() }, waited / 2),
        ] {
            check_counts(run, stage, scope, &expected, released);
        }
        // Counted after the timer is condemned: a kill in between loses the header's count (not the
        // scope's), and nothing doubles it.
        let condemned = stage.counter(Counter::Condemned);
        if condemned > self.hangs || stage.counter(Counter::Quarantined) > 0 {
            run.lost(format!("{condemned} condemned, {} hung", self.hangs));
        }
    }
}

fn check_counts(run: &mut Run, stage: &Stage, scope: &str, expected: &Counts, released: u64) {
    let scopes = stage.picture().scopes;
    let found = scopes.iter().find(|view| view.name == scope).expect("it was used");
    let ends = |counts: &Counts| (counts.acquired, counts.condemned, counts.abandoned);
    let counts = &found.counts;
    if ends(counts) != ends(expected) || counts.released() != released {
        run.lost(format!(
            "{scope}: acquired, condemned, abandoned {:?} instead of {:?}; released {} of {released}",
            ends(counts),
            ends(expected),
            counts.released()
        ));
    }
}

fn timer_words(stage: &Stage, lane: u32) -> Vec<u64> {
    use hangwatch_core::atomic::Ordering;
    let lane = stage.segment.words().lane(lane);
    let timers = lane.timers().iter().map(|word| word.load(Ordering::Acquire));
    timers.chain([lane.owner().0]).collect()
}
