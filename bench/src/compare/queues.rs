//! Queues that could carry the news from a worker to a watchdog: what a pair costs where its two
//! records go through one of them.
//!
//! A full queue holds its producer up: that is the peer's price, and is counted.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use thingbuf::ThingBuf;

/// A record as hangwatch writes it: 32 bytes.
pub type Message = [u64; 4];

/// Room for the records of one turn.
const CAPACITY: usize = 32_768;

/// The producer's end.
pub trait Input: Send + 'static {
    /// Puts one in; false where there is no room.
    fn push(&mut self, message: Message) -> bool;
}

/// The consumer's end.
pub trait Output: Send + 'static {
    /// Takes one out.
    fn pop(&mut self) -> Option<Message>;
}

/// A kind of queue.
pub trait Queue: 'static {
    /// Its name.
    const NAME: &'static str;
    /// Both ends of a new one.
    fn ends() -> (impl Input, impl Output);
}

/// `rtrb`: a single-producer ring.
pub struct Rtrb;

impl Queue for Rtrb {
    const NAME: &'static str = "`rtrb`";
    fn ends() -> (impl Input, impl Output) {
        rtrb::RingBuffer::<Message>::new(CAPACITY)
    }
}

impl Input for rtrb::Producer<Message> {
    #[inline]
    fn push(&mut self, message: Message) -> bool {
        rtrb::Producer::push(self, message).is_ok()
    }
}

impl Output for rtrb::Consumer<Message> {
    #[inline]
    fn pop(&mut self) -> Option<Message> {
        rtrb::Consumer::pop(self).ok()
    }
}

/// crossbeam's `ArrayQueue`: any number of producers.
pub struct Crossbeam;

impl Queue for Crossbeam {
    const NAME: &'static str = "crossbeam `ArrayQueue`";
    fn ends() -> (impl Input, impl Output) {
        let queue = Arc::new(ArrayQueue::new(CAPACITY));
        (Arc::clone(&queue), queue)
    }
}

impl Input for Arc<ArrayQueue<Message>> {
    #[inline]
    fn push(&mut self, message: Message) -> bool {
        ArrayQueue::push(self, message).is_ok()
    }
}

impl Output for Arc<ArrayQueue<Message>> {
    #[inline]
    fn pop(&mut self) -> Option<Message> {
        ArrayQueue::pop(self)
    }
}

/// `thingbuf`: any number of producers, slots in place.
pub struct Thing;

impl Queue for Thing {
    const NAME: &'static str = "`thingbuf`";
    fn ends() -> (impl Input, impl Output) {
        let queue = Arc::new(ThingBuf::new(CAPACITY));
        (Arc::clone(&queue), queue)
    }
}

impl Input for Arc<ThingBuf<Message>> {
    #[inline]
    fn push(&mut self, message: Message) -> bool {
        ThingBuf::push(self, message).is_ok()
    }
}

impl Output for Arc<ThingBuf<Message>> {
    #[inline]
    fn pop(&mut self) -> Option<Message> {
        ThingBuf::pop(self)
    }
}

/// A pipe: a system call a record, as upstream's file timer.
pub struct Pipe;

/// One end of a pipe.
pub struct PipeEnd(File);

impl Queue for Pipe {
    const NAME: &'static str = "a pipe write";
    fn ends() -> (impl Input, impl Output) {
        let flags = rustix::pipe::PipeFlags::NONBLOCK;
        let (reader, writer) = rustix::pipe::pipe_with(flags).expect("a pipe");
        // What an unprivileged process may have; the turns are sized by it.
        rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20).expect("a megabyte of pipe");
        (PipeEnd(writer.into()), PipeEnd(reader.into()))
    }
}

impl Input for PipeEnd {
    fn push(&mut self, message: Message) -> bool {
        self.0.write(&message.map(u64::to_ne_bytes).concat()).is_ok_and(|bytes| bytes == 32)
    }
}

impl Output for PipeEnd {
    fn pop(&mut self) -> Option<Message> {
        let mut bytes = [0; 32];
        let read = self.0.read(&mut bytes).ok()?;
        assert_eq!(read, bytes.len(), "records are written whole");
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|byte| bytes[8 * at + byte]));
        Some(std::array::from_fn(word))
    }
}

/// Everything that goes in comes out, in order.
///
/// # Panics
/// Where it does not.
pub fn check<Q: Queue>() {
    let (mut input, mut output) = Q::ends();
    for lap in 0..3 {
        for number in 0..1000 {
            assert!(input.push([lap, number, 0, !number]), "{}: room", Q::NAME);
        }
        for number in 0..1000 {
            assert_eq!(output.pop(), Some([lap, number, 0, !number]), "{}", Q::NAME);
        }
        assert_eq!(output.pop(), None, "{}", Q::NAME);
    }
}

/// One pair: an acquire's record and a release's, with a time the caller knows.
#[inline]
fn pair(input: &mut impl Input, now: u64) {
    for message in [[1, now, now + 30_000_000_000, 7], [3, now, 0, 7]] {
        while !input.push(black_box(message)) {
            std::thread::yield_now(); // full: held up until somebody reads
        }
    }
}

/// A turn with nobody reading meanwhile: what was written is taken out after the time is taken.
pub fn alone<Q: Queue>() -> impl FnMut(usize) -> f64 {
    let (mut input, mut output) = Q::ends();
    move |count| {
        assert!(2 * count <= CAPACITY);
        let ns = timed(&mut input, count);
        let mut left = 0;
        while output.pop().is_some() {
            left += 1;
        }
        assert_eq!(left, 2 * count, "{}", Q::NAME);
        ns
    }
}

/// A turn with a reader that takes out what there is every 100 us, as a watchdog would at the least.
pub fn drained<Q: Queue>() -> impl FnMut(usize) -> f64 {
    let (mut input, output) = Q::ends();
    let reader = Reader::start(output);
    move |count| {
        let _ = &reader;
        timed(&mut input, count)
    }
}

fn timed(input: &mut impl Input, count: usize) -> f64 {
    let start = Instant::now();
    for now in 0..count as u64 {
        pair(input, now);
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousand pairs")]
    let ns = start.elapsed().as_secs_f64() * 1e9 / count as f64;
    ns
}

struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    fn start(mut output: impl Output) -> Reader {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let body = move || {
            while !told.load(Ordering::Relaxed) {
                while let Some(message) = output.pop() {
                    black_box(message);
                }
                std::thread::sleep(Duration::from_micros(100));
            }
        };
        Reader { stop, thread: Some(std::thread::spawn(body)) }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        check::<Rtrb>();
        check::<Crossbeam>();
        check::<Thing>();
        check::<Pipe>();
    }

    #[test]
    fn a_turn_ends_with_the_queue_empty() {
        let mut turn = alone::<Rtrb>();
        assert!(turn(100) > 0.0 && turn(100) > 0.0);
    }
}
