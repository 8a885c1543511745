//! The fleet: the states of many watchdogs, asked for at once and put side by side.
//!
//! [`targets`] says whom to ask, `ask` asks them, `time_budget` for how long; [`view`] makes rows of the
//! answers and finds the odd one out. Every target is a stranger: what it answers is bounded, checked and
//! cleaned, and one that is down, slow or lying is a row that says so and holds up nobody.
//!
//! The client is hyper's, which the listener has already: a few thousand connections need no thread
//! each, a Unix socket is as good as TCP, and a body can be bounded while it comes.

pub mod answer;
pub mod ask;
pub mod targets;
mod time_budget;
pub mod view;

pub use answer::{Answer, TargetError};
pub use ask::{Asker, Asking};
pub use targets::{Target, TargetsError};
pub use view::Fleet;
