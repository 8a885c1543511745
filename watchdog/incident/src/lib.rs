//! The incident: the record of one expired deadline.
//!
//! * [`schema`] is the published format, `incident.json`, as types.
//! * [`store`] writes incidents to a directory that only its user can change, and removes the least useful
//!   ones ([`episode`]); [`catalog`] finds and reads them.
//! * [`track`] joins records and timers into spans per thread; [`story`], [`crowd`] and [`words`] write
//!   sentences; [`frames`] finds the frame that hung; [`text`] writes the text files of an incident.
//! * [`moment`] is a time on both clocks.
//!
//! It captures nothing and does not know segments.
//!
//! `hangwatch-evidence` builds incidents, the command line shows them.

pub mod catalog;
pub mod crowd;
pub mod episode;
pub mod frames;
pub mod moment;
pub mod schema;
pub mod store;
pub mod story;
pub mod text;
pub mod track;
pub mod words;
