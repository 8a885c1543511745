//! Opens and writes files whose names somebody else may have chosen.
//!
//! * [`beneath`] opens a name beneath a held directory: no links, nothing but regular files.
//! * [`place`] opens a directory that nobody else can change the way to.
//! * [`output`] writes the file that a user asked for: a regular file is replaced as a whole, a device or a
//!   pipe is written to.
//!
//! What it does not do: it does not say where hangwatch keeps its own files.

pub mod beneath;
pub mod output;
pub mod place;
