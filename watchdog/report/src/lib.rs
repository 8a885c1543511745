//! Renders incidents: as text for a terminal, as an HTML page, as a trace.
//!
//! * [`terminal`] is the text of `show`, wrapped to the terminal's width.
//! * [`html`] is the page of `report`: one self-contained file.
//! * [`trace`] is a timeline for Perfetto and `chrome://tracing`.
//!
//! It reads no files and captures nothing: an incident goes in, text comes out.
//!
//! `hangwatch-incident` has the format and the sentences; the command line prints and writes the text.

pub mod html;
pub mod terminal;
pub mod trace;
