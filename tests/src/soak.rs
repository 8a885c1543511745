//! The soak: every fault injected by the hundred or thousand, with a table at the end.
//!
//! A [`Part`] injects one kind of fault. It is run in full by `cargo xtask soak` (`src/bin/soak.rs`),
//! and with a smaller count by a test in `tests/faults/`, through [`check`]. To add a part: a module
//! beside the others, and its `PART` in [`PARTS`].

pub mod descendants;
pub mod load;
pub mod mutations;
pub mod races;
pub mod stalls;
pub mod storms;
pub mod takeovers;
pub mod unkillables;
pub mod watchdog_kills;
pub mod worker_kills;

use std::fmt::{Display, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::random::Random;

/// Every part, in the order of the table.
pub const PARTS: &[Part] = &[
    watchdog_kills::PART,
    takeovers::PART,
    worker_kills::PART,
    races::PART,
    stalls::PART,
    storms::PART,
    unkillables::PART,
    mutations::PART,
    load::PART,
    descendants::PART,
];

/// One kind of fault, injected many times.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The word for `--only` and `--count`.
    pub name: &'static str,
    /// The fault, for the table; at most 36 columns.
    pub fault: &'static str,
    /// How often the soak injects it.
    pub full: u64,
    /// Injects it as often as [`Run::next_batch`] says.
    pub inject: fn(&mut Run),
}

/// What came of a part's faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many were injected.
    pub injected: u64,
    /// After how many all was as it must be.
    pub survived: u64,
    /// Timers, lanes, counts and descriptors that were lost, and whatever else was not as it must be.
    pub lost: u64,
    /// Processes that should have lived, or signals that went to the wrong one.
    pub wrongly_killed: u64,
}

impl Tally {
    /// Whether every fault was survived.
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.wrongly_killed == 0 && self.survived == self.injected
    }
}

/// One run of a part: how much is left to do, and what came of it.
#[derive(Debug)]
pub struct Run {
    /// The run's own sequence.
    pub random: Random,
    part: &'static str,
    left: u64,
    until: Option<Instant>,
    tally: Tally,
}

impl Run {
    /// How many faults to inject next, `most` at most; 0 where the run is at its end.
    pub fn next_batch(&mut self, most: u64) -> u64 {
        let is_over = self.until.is_some_and(|until| Instant::now() >= until);
        let batch = if is_over { 0 } else { most.min(self.left) };
        self.left -= batch;
        self.tally.injected += batch;
        batch
    }

    /// How many faults are left to inject, if there is time for all.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// So many faults were survived.
    pub fn survived(&mut self, faults: u64) {
        self.tally.survived += faults;
    }

    /// Something was lost.
    pub fn lost(&mut self, what: impl Display) {
        self.tally.lost += 1;
        println!("{}: LOST: {what}", self.part);
    }

    /// Somebody was killed who should not have been.
    pub fn wrongly_killed(&mut self, whom: impl Display) {
        self.tally.wrongly_killed += 1;
        println!("{}: WRONGLY KILLED: {whom}", self.part);
    }
}

/// Runs a part: so many faults, or until then. A part that panics has lost something.
pub fn run(part: &Part, seed: u64, count: u64, until: Option<Instant>) -> Tally {
    let random = Random::new(seed);
    let mut run = Run { random, part: part.name, left: count, until, tally: Tally::default() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (part.inject)(&mut run))) {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        run.lost(said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic"));
    }
    run.tally
}

/// A part as a test: so many faults, all survived.
///
/// # Panics
/// Where one was not.
pub fn check(part: &Part, count: u64) {
    let tally = run(part, crate::random::seed(part.name), count, None);
    assert!(tally.is_clean() && tally.injected == count, "{tally:?}");
}

/// The closing table.
pub fn table(rows: &[(&Part, Tally)]) -> String {
    let mut text = format!(
        "\n{:<36}  {:>8}  {:>8}  {:>4}  {:>14}\n",
        "fault", "injected", "survived", "lost", "wrongly killed"
    );
    for (part, tally) in rows {
        let Tally { injected, survived, lost, wrongly_killed } = tally;
        let _ = writeln!(
            text,
            "{:<36}  {injected:>8}  {survived:>8}  {lost:>4}  {wrongly_killed:>14}",
            part.fault
        );
    }
    text
}
