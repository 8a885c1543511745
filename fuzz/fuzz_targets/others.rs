//! Random words in all lanes but one: its hung worker is removed in time.
#![no_main]

#[path = "../../core/tests/watchdog/chaos.rs"]
#[allow(dead_code, reason = "each target calls one of its functions")]
mod chaos;
#[path = "../../core/tests/watchdog/world.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chaos::others_are_served(bytes));
