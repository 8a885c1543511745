//! A file system that never answers: whoever asks it for a file's attributes sleeps uninterruptibly,
//! SIGKILL or not, until the file system is dropped.
//!
//! The kernel lets a killed process give up a FUSE request as long as the daemon has not read it;
//! one that was read is waited for (`request_wait_answer` in `fs/fuse/dev.c`). So the daemon here
//! reads every request, answers the first (`FUSE_INIT`, as `include/uapi/linux/fuse.h` has it), and
//! no other.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::mount::Mount;

const FUSE_INIT: u32 = 26;
/// The bytes of `fuse_in_header` and `fuse_out_header`.
const IN_HEADER: usize = 40;
const OUT_HEADER: u32 = 16;
/// What a request is read into: the kernel insists on room.
const REQUEST_BYTES: usize = 1 << 16;

/// A mounted file system that never answers.
pub struct Mute {
    mount: Option<Mount>,
    end: Option<rustix::fd::OwnedFd>,
    daemon: Option<JoinHandle<io::Result<()>>>,
    is_asked: Arc<AtomicBool>,
}

impl Mute {
    /// Mounts it, in a mount namespace of the calling thread's own and the processes that it starts
    /// from now on; says why `test` is skipped where that may not be.
    ///
    /// # Panics
    /// Where no directory or pipe is to be had.
    pub fn mount(test: &str) -> Option<Mute> {
        let (device, mount) = match mounted() {
            Ok(mounted) => mounted,
            Err(error) => {
                println!("skipped: {test} may not mount a FUSE file system: {error}");
                return None;
            }
        };
        let (told, end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let is_asked = Arc::<AtomicBool>::default();
        let asked = Arc::clone(&is_asked);
        let daemon = std::thread::spawn(move || {
            serve(device, &told, &asked)
            // The device is closed here: the kernel gives all requests up.
        });
        Some(Mute { mount: Some(mount), end: Some(end), daemon: Some(daemon), is_asked })
    }

    /// Whether anybody waits for it, in vain.
    pub fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// A file in it, which nobody will ever see.
    pub fn file(&self) -> PathBuf {
        self.mount.as_ref().expect("it is mounted").path().join("file")
    }
}

impl Drop for Mute {
    fn drop(&mut self) {
        self.end = None;
        let served = self.daemon.take().map(JoinHandle::join);
        // The kernel has given the requests up: nobody waits in it any more.
        self.mount = None;
        if !std::thread::panicking() {
            served.expect("once").expect("the daemon does not panic").expect("it reads requests");
        }
    }
}

fn mounted() -> io::Result<(File, Mount)> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let mount = Mount::new("fuse", &options)?;
    Ok((device, mount))
}

/// Reads requests until the pipe's other end is closed, and answers the first.
fn serve(mut device: File, told: &rustix::fd::OwnedFd, is_asked: &AtomicBool) -> io::Result<()> {
    let mut request = vec![0; REQUEST_BYTES];
    loop {
        let mut polled = [
            PollFd::new(&device, PollFlags::IN),
            PollFd::from_borrowed_fd(told.as_fd(), PollFlags::empty()),
        ];
        poll(&mut polled, None)?;
        if !polled[1].revents().is_empty() {
            return Ok(());
        }
        let read = device.read(&mut request)?;
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().expect("four"));
        if read >= IN_HEADER + 8 && word(4) == FUSE_INIT {
            let reply = init_reply(&request);
            device.write_all(&reply)?;
        } else {
            is_asked.store(true, Ordering::Relaxed);
        }
    }
}

/// `fuse_out_header` and `fuse_init_out`: the kernel's own version, and nothing beyond the least.
fn init_reply(request: &[u8]) -> Vec<u8> {
    const INIT_OUT: u32 = 64;
    let mut reply = Vec::new();
    reply.extend((OUT_HEADER + INIT_OUT).to_ne_bytes());
    reply.extend(0i32.to_ne_bytes()); // no error
    reply.extend(&request[8..16]); // the request's number
    reply.extend(&request[IN_HEADER..IN_HEADER + 8]); // major and minor version
    reply.extend(0u32.to_ne_bytes()); // max_readahead
    reply.extend(0u32.to_ne_bytes()); // flags
    reply.extend(12u16.to_ne_bytes()); // max_background
    reply.extend(9u16.to_ne_bytes()); // congestion_threshold
    reply.extend(4096u32.to_ne_bytes()); // max_write
    reply.extend(1u32.to_ne_bytes()); // time_gran
    reply.resize((OUT_HEADER + INIT_OUT) as usize, 0);
    reply
}
