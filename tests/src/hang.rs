//! Real hangs, each in a line of its own that a stack must show: [`line_of`] finds it.

use std::io::Read;
use std::sync::{Arc, Barrier, Mutex};

/// Hangs for ever: in a `deadlock` of two threads, in a read from a `pipe` that nobody writes, in a
/// loop (`spin`) that calls nothing, or reading the FIFO at a path.
///
/// # Panics
/// Where it does not hang.
pub fn hang(how: &str) -> ! {
    match how {
        "deadlock" => two_locks(),
        "pipe" => read_a_pipe(),
        "spin" => spin(),
        path => read_a_fifo(path),
    }
    panic!("{how} did not hang");
}

/// The line in this file that ends with the comment `here: WHAT`.
///
/// # Panics
/// Where there is none.
pub fn line_of(what: &str) -> u32 {
    let mark = format!("// here: {what}");
    let lines = include_str!("hang.rs").lines().zip(1..);
    let found = lines.filter(|(line, _)| line.ends_with(&mark)).map(|(_, number)| number).next();
    found.unwrap_or_else(|| panic!("no line is marked {mark:?}"))
}

#[inline(never)]
fn two_locks() {
    let locks = Arc::new((Mutex::new(()), Mutex::new(())));
    let both_hold_one = Arc::new(Barrier::new(2));
    let (theirs, barrier) = (Arc::clone(&locks), Arc::clone(&both_hold_one));
    let other = std::thread::Builder::new().name("other".to_owned()).spawn(move || {
        let _second = theirs.1.lock();
        barrier.wait();
        let _first = theirs.0.lock(); // here: the other thread
    });
    let _first = locks.0.lock();
    both_hold_one.wait();
    let _second = locks.1.lock(); // here: deadlock
    let _ = other.map(std::thread::JoinHandle::join);
}

#[inline(never)]
fn read_a_pipe() {
    let (mut reader, _writer) = std::io::pipe().expect("a pipe");
    let _ = reader.read(&mut [0]); // here: pipe
}

// The loop stands on one line: a sample may find the thread at any of its instructions.
#[rustfmt::skip]
#[inline(never)]
fn spin() {
    let mut count = 0u64;
    loop { count = std::hint::black_box(count.wrapping_add(1)); } // here: spin
}

#[inline(never)]
fn read_a_fifo(path: &str) {
    let _ = std::fs::read(path); // here: fifo
}
