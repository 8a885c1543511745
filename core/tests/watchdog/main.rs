//! The watchdog over a real segment in plain memory: whole ticks without a process.

/// The segment, workers and kernel the tests play in.
mod world;

/// Who may be signalled: admitted, unproved and unattestable workers.
mod admission;
/// A new watchdog takes over what a dead one left.
mod adoption;
/// Suspects reaped before those that wait for them.
mod cascade;
/// The same with random workers, against a model of the rule.
mod cascade_model;
/// Random words in a segment, and under the whole watchdog; the fuzz targets use it too.
mod chaos;
/// Lanes that lie are quarantined, the others served.
mod hostile;
/// From expiry to the end: release, reports, signals, grace, unkillable, kill limiter, held.
mod reap;
/// Lanes of the gone come back with their statistics.
mod recycle;
/// A shadow: what would have been reaped, how late it was, and that a successor goes on with it.
mod shadow;
/// Stalls are given back.
mod stall;
/// How updates of a timer reaches the table, and what is found without any.
mod updates;
