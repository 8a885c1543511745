//! Opens and writes files whose names are untrusted.
//!
//! * [`beneath`] opens a name beneath an open directory: no links, only regular files.
//! * [`place`] opens a directory whose path no other user can change.
//! * [`output`] writes the output file of a command: replaces a regular file as a whole, writes to a device or
//!   pipe.
//!
//! It does not know where hangwatch stores its own files.

pub mod beneath;
pub mod output;
pub mod place;
