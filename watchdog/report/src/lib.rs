//! Incidents for people: what is printed, and what is opened in a browser.
//!
//! * [`terminal`] is the text of `show`, wrapped to the terminal's width.
//! * [`html`] is the page of `report`: one file that loads nothing from anywhere.
//! * [`trace`] is a timeline for Perfetto and `chrome://tracing`.
//!
//! What it does not do: it reads no files and captures nothing; an incident goes in, text comes out.
//!
//! Neighbours: `hangwatch-incident` has the format and the sentences, the command line prints and writes.

pub mod html;
pub mod terminal;
pub mod trace;
