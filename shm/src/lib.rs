//! hangwatch library.
