//! What hangwatch writes into shared memory and what it concludes from it, with no operating
//! system and no `unsafe`.
//!
//! The modules follow the data flow, and a file uses only files before it in this order:
//!
//! * [`wire`]: what lies in shared memory
//! * [`shared`]: protocols that a worker and the watchdog run together
//! * [`watchdog`]: what the watchdog concludes
//!
//! A segment is a slice of atomic 64-bit words, `&[AtomicU64]`: whatever maps it (the crate
//! `hangwatch`), builds it in a test or fills it at random (the fuzzer) hands over that slice, and
//! nothing here can read outside it. Every value read from it is a claim until it is checked.

#![forbid(unsafe_code)]
#![cfg_attr(not(any(test, loom, feature = "crash-points")), no_std)]

extern crate alloc;

pub mod atomic;
#[cfg_attr(not(feature = "crash-points"), doc(hidden))]
pub mod crash;

pub mod wire;

pub mod shared;

pub mod watchdog;
