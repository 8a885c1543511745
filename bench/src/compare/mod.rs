//! The comparison: hangwatch and its peers on the same work, in one run, in alternating order.
//!
//! Each file here is one part of it and gives [`Comparison`](results::Comparison)s: [`worker`] (an
//! acquire and its release), [`producers`] (many at once), [`tables`] (the deadline index), [`ticks`]
//! (the watchdog's pass), [`signals`] (from the deadline to the signal and the death), [`life`]
//! (attach, restart, memory), [`observed`] (what a listener and `top` cost), [`fleet`] (`hangwatch fleet`
//! over a thousand hosts). [`peers`] takes in what the Python programs of `bench/peers/` measured.
//! [`goals`] says what must be reached, [`markdown`] and [`plot`] show everything.

pub mod fleet;
pub mod goals;
pub mod life;
pub mod machine;
pub mod markdown;
pub mod observed;
pub mod peers;
pub mod plot;
pub mod producers;
pub mod queues;
pub mod results;
pub mod signals;
pub mod tables;
pub mod ticks;
pub mod turns;
pub mod worker;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What is published.
    Full,
    /// A look, in a minute or two.
    Quick,
}

impl Mode {
    /// `full` or `quick` of something.
    pub fn of<T>(self, full: T, quick: T) -> T {
        match self {
            Mode::Full => full,
            Mode::Quick => quick,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.of("full", "quick")
    }
}
