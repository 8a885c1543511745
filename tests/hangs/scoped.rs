// A scope waits for a thread that waits for a process which does not write.
// EXPECT culprit process=sleep thread=1
use std::process::{Command, Stdio};
use std::thread;

fn main() {
    let mut child = Command::new("sleep").arg("100000").stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || std::io::read_to_string(output));
    });
}
