//! What the watchdog concludes from a segment. Nothing here asks the operating system.
//!
//! [`tick`] is the loop. It takes [`updates`] from the rings, [`expiry`] keeps every timer in a
//! [`table`] and returns those that have expired, [`cascade`] finds the [`culprit`] that the others
//! wait for, and [`reap`] removes workers by a [`policy`]. [`fold`] saves the statistics of lanes whose
//! owner is gone; [`advice`] derives timeouts from them.

pub mod advice;
pub mod fold;
pub mod worker;

pub mod policy;
pub mod tick;

pub mod table;
pub mod updates;

pub mod culprit;

pub mod cascade;
pub mod expiry;
pub mod reap;
