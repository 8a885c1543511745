//! The incident: what hangwatch keeps of one worker whose deadline passed.
//!
//! * [`schema`] is the published format, `incident.json`, as types.
//! * [`store`] writes incidents into a directory that only its user can change and removes the
//!   least useful ones ([`episode`]); [`catalog`] finds and reads them.
//! * [`track`] joins records and timers into who did what and when; [`story`], [`crowd`] and [`words`] put
//!   it into sentences; [`frames`] finds the frame of a stack that hangs; [`text`] is the incident as a plain
//!   text file.
//! * [`moment`] is one point in time on both clocks.
//!
//! What it does not do: it captures nothing and knows no segment.
//!
//! Neighbours: `hangwatch-evidence` makes incidents, the command line shows them.

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
