//! The hangwatch binary.
fn main() {}
