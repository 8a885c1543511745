//! What hangwatch writes into shared memory and what it concludes from it, with no operating
//! system and no `unsafe`.
//!
//! The modules stand in the order of the data's way; a file may know those before it:
//!
//! * the wire: [`signal`], [`time`], [`timer`], [`layout`], [`segment`], [`scope`], [`stats`], [`record`],
//!   [`ring`], [`lane`], [`flight`], [`fold`]
//! * between both sides: [`wake`], [`calibration`], [`stall`], [`allowance`]; [`advice`] from [`stats`]
//! * the watchdog: [`tick`] (the loop and its traits), [`news`], [`table`], [`expiry`], [`policy`],
//!   [`odd`], [`cascade`], [`reap`]
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

pub mod signal;
pub mod time;
pub mod timer;

pub mod layout;
pub mod segment;

pub mod scope;
pub mod stats;

pub mod record;
pub mod ring;

pub mod lane;

pub mod flight;
pub mod fold;

pub mod advice;
pub mod allowance;
pub mod calibration;
pub mod stall;
pub mod wake;

pub mod table;

pub mod odd;

pub mod cascade;
pub mod expiry;
pub mod news;
pub mod policy;
pub mod reap;
pub mod tick;
