//! hangwatch library.

#[doc(hidden)]
pub mod sys;
