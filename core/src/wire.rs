//! What lies in shared memory: the words of a segment, and how they are read and written.
//!
//! [`segment`] is the way in: it checks the header once and hands out the parts. The parts are the
//! scope names ([`scope`]), the groups that meet ([`meeting`]), their statistics ([`stats`]) and timeouts ([`timeout`]), and the lanes
//! ([`lane`]) with their timer words ([`timer`]) and rings ([`ring`]) of records ([`record`]).

pub mod clock;
mod hash;
pub mod signal;
pub mod time;
pub mod timer;

pub(crate) mod stamped;

pub mod record;
pub mod ring;

pub mod stats;

pub mod layout;

pub mod scope;

pub mod meeting;

pub mod timeout;

pub mod lane;

pub mod segment;
