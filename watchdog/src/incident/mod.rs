//! The incident: what is kept of one worker's expiry, from the condemned timer to the end of its reap.
//!
//! [`schema`] says what is in it, as types: they are written as `incident.json`, and read from it by
//! everything that shows an incident. [`claims`] puts what a lane says into them,
//! [`store`] keeps them, in a process of its own ([`writer`]) and a directory that only its user can
//! change ([`place`]), and removes the least worth keeping ([`episode`]), [`text`] is what of them is kept as text,
//! [`catalog`] finds and reads them, [`track`] puts together who did what and when, [`story`],
//! [`crowd`] and [`words`] say it in sentences, [`frames`] finds the line of a stack that hangs.

pub mod catalog;
pub mod claims;
pub mod crowd;
pub mod episode;
pub mod frames;
pub mod moment;
pub mod place;
pub mod schema;
pub mod store;
pub mod story;
pub mod text;
pub mod track;
pub mod words;
pub mod writer;
