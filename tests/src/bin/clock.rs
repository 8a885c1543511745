//! Steps the wall clock for a test: a line is a number of hours, off the true time, and is answered
//! once the clock says so. At the end of its input, also where the test was killed, the clock is set
//! right again.

use std::io::{BufRead, stdin};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

const NS_PER_S: i64 = 1_000_000_000;

fn now(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * NS_PER_S + now.tv_nsec
}

fn main() {
    // The boot clock is not stepped, and counts while the machine is suspended.
    let true_offset = now(ClockId::Realtime) - now(ClockId::Boottime);
    let set = |hours: i64| {
        let ns = now(ClockId::Boottime) + true_offset + hours * 3600 * NS_PER_S;
        clock_settime(ClockId::Realtime, Timespec { tv_sec: ns / NS_PER_S, tv_nsec: ns % NS_PER_S })
    };
    for line in stdin().lock().lines().map_while(Result::ok) {
        let Ok(hours) = line.parse() else { break };
        match set(hours) {
            Ok(()) => println!("ok"),
            Err(error) => println!("no {error}"),
        }
    }
    set(0).expect("what could be set once can be set right");
}
