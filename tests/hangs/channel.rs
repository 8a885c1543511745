// A receiver that holds a sender of its own channel.
// EXPECT deadlock process=channel thread=1 function=drain
use std::sync::mpsc::{Receiver, channel};

fn drain(receiver: &Receiver<u32>) -> u32 {
    receiver.iter().sum() // HANGS
}

fn main() {
    let (sender, receiver) = channel();
    sender.send(1).unwrap();
    println!("{}", drain(&receiver));
    drop(sender);
}
