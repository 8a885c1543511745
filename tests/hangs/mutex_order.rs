// Two threads with two mutexes in opposite order.
// EXPECT deadlock process=mutex_order thread=1,2,3
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

fn transfer(from: &Mutex<i64>, to: &Mutex<i64>, both: &Barrier) {
    let mut from = from.lock().unwrap();
    both.wait();
    let mut to = to.lock().unwrap(); // HANGS
    *from -= 1;
    *to += 1;
}

fn main() {
    let accounts = Arc::new((Mutex::new(1), Mutex::new(1), Barrier::new(2)));
    let other = Arc::clone(&accounts);
    let thread = thread::spawn(move || transfer(&other.0, &other.1, &other.2));
    let third = Arc::clone(&accounts);
    let last = thread::spawn(move || transfer(&third.1, &third.0, &third.2));
    thread.join().unwrap();
    last.join().unwrap();
}
