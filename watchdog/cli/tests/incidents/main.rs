//! What shows incidents: lists, stories, pages and traces, of incidents made up by code.

/// A real browser.
mod browser;
/// `hangwatch incidents`, and how one is found.
mod lists;
/// `hangwatch report`, in the browser and as text.
mod pages;
/// Incidents made up by code.
mod sample;
/// A directory of incidents, and the binary that reads it.
mod shelf;
/// `hangwatch show`.
mod stories;
/// `hangwatch trace`.
mod traces;
