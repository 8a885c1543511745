// A search that never finds anything, in a thread that is joined.
// EXPECT culprit process=endless thread=2
use std::thread;

fn collatz(start: u64) -> u64 {
    let mut n = start;
    let mut steps = 0_u64;
    while n != 3 {
        n = if n % 2 == 0 { n / 2 } else { n.wrapping_mul(3).wrapping_add(1) };
        steps = steps.wrapping_add(1);
    }
    steps
}

fn main() {
    let search = thread::spawn(|| collatz(27));
    println!("{}", search.join().unwrap());
}
