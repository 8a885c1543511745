//! Protocols that a worker and the watchdog run together over the words of [`wire`](crate::wire).
//!
//! [`wake`] decides who rings the doorbell, [`calibration`] gives workers a clock that costs no system
//! call, [`stall`] credits the time in which nothing ran, [`flight`] reads the newest records of a lane
//! while its owner writes them.

pub mod calibration;
pub mod flight;
pub mod stall;
pub mod wake;
