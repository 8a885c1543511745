//! The fleet: asks many watchdogs for their states at once, and compares them.
//!
//! [`targets`] parses addresses, `ask` asks them within their `time_budget`, and [`view`] turns the answers
//! into rows and finds the culprit of each job. Answers are untrusted: they are bounded, checked and made safe
//! to print. A target that is down, slow or sends a malformed response is a row that says so, and delays no
//! other.
//!
//! The client is hyper's, which the listener uses as well: thousands of connections need no threads, Unix
//! sockets work like TCP, and a body can be bounded while it arrives.

pub mod answer;
pub mod ask;
pub mod targets;
mod time_budget;
pub mod view;

pub use answer::{Answer, TargetError};
pub use ask::{Asker, Asking};
pub use targets::{Target, TargetsError};
pub use view::Fleet;
