//! Random words under the whole watchdog: no panic, and nobody signalled but whom the kernel named.
#![no_main]

#[path = "../../core/tests/watchdog/chaos.rs"]
#[allow(dead_code, reason = "each target calls one of its functions")]
mod chaos;
#[path = "../../core/tests/watchdog/world.rs"]
#[allow(dead_code, reason = "the tests use all of it")]
mod world;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| chaos::tick(bytes));
