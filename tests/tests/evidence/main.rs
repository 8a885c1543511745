//! Evidence: why a worker hung, and the reap on time whatever becomes of it.
//!
//! * `command`: a command under `exec`, and what descends from it
//! * `crowd`: many workers expire in one tick
//! * `hostile`: workers and users who would have root do what they may not
//! * `hangs`: real hangs, each with the line that hangs
//! * `levels`: how much is captured
//! * `looks`: what a worker is left as by who looked at it
//! * `python`: Python stacks
//! * `trouble`: helpers, permissions and disks that fail

mod command;
mod crowd;
mod hangs;
mod hostile;
mod levels;
mod looks;
mod python;
mod trouble;
