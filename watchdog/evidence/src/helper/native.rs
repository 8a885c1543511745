//! Native stacks: registers, a copy of the stack and unwind tables, made into frames by `framehop`.
//!
//! The worker runs again by the time this is done: nothing here waits for it or reads its memory. The
//! helper is the worker's user by then, and what is wrong with one file costs that file's frames alone.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use framehop::{CacheNative, FrameAddress, MayAllocateDuringUnwind, Unwinder, UnwinderNative};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::modules::Modules;
use super::stop::StoppedThread;
use super::teller::Why;
use hangwatch_incident::schema::Frame;

/// Frames of a stack at most.
const FRAMES: usize = 256;

/// A thread's registers.
pub(super) struct Registers(libc::user_regs_struct);

#[cfg(target_arch = "x86_64")]
impl Registers {
    fn instruction_pointer(&self) -> u64 {
        self.0.rip
    }

    pub(super) fn stack_pointer(&self) -> u64 {
        self.0.rsp
    }

    /// Where the thread's own memory begins: what the C library calls the thread by.
    #[expect(clippy::unnecessary_wraps, reason = "the other processors' registers lack it")]
    pub(super) fn thread_base(&self) -> Option<u64> {
        Some(self.0.fs_base)
    }

    fn unwind(&self) -> framehop::UnwindRegsNative {
        framehop::UnwindRegsNative::new(self.0.rip, self.0.rsp, self.0.rbp)
    }
}

#[cfg(target_arch = "aarch64")]
impl Registers {
    fn instruction_pointer(&self) -> u64 {
        self.0.pc
    }

    pub(super) fn stack_pointer(&self) -> u64 {
        self.0.sp
    }

    /// Not among these registers.
    #[expect(clippy::unused_self, reason = "as on x86-64")]
    pub(super) fn thread_base(&self) -> Option<u64> {
        None
    }

    fn unwind(&self) -> framehop::UnwindRegsNative {
        framehop::UnwindRegsNative::new(self.0.regs[30], self.0.sp, self.0.regs[29])
    }
}

impl Registers {
    /// Those of a thread that is stopped by this one.
    pub(super) fn of(tid: Pid) -> Result<Registers, Errno> {
        nix::sys::ptrace::getregs(tid).map(Registers)
    }
}

/// A stack by its addresses.
pub(super) struct Stack {
    pub(super) tid: u32,
    pub(super) frames: Vec<NativeFrame>,
    /// Whether there are more, beyond what was copied or is told.
    is_cut: bool,
}

/// One frame.
pub(super) struct NativeFrame {
    /// An address in the instruction that is executed, or that called.
    pub(super) address: u64,
    /// The file it lies in.
    pub(super) module: Option<String>,
    /// Where in that file.
    pub(super) offset: u64,
}

impl NativeFrame {
    /// As long as it has no name.
    pub(super) fn unnamed(&self) -> Frame {
        let function = match self.module {
            Some(_) => format!("{:#x}", self.offset),
            None => format!("{:#x}", self.address),
        };
        Frame { function, module: self.module.clone(), ..Frame::default() }
    }
}

impl Stack {
    /// The frames, without names.
    pub(super) fn frames(&self) -> Vec<Frame> {
        self.told(|frame, _| vec![frame.unnamed()])
    }

    /// The frames, each as `frames_of` tells it by its place; and that there are more, if so.
    pub(super) fn told(&self, frames_of: impl Fn(&NativeFrame, usize) -> Vec<Frame>) -> Vec<Frame> {
        let numbered = self.frames.iter().enumerate();
        let mut frames: Vec<Frame> =
            numbered.flat_map(|(place, frame)| frames_of(frame, place)).collect();
        if self.is_cut {
            let function = "(more, which are not told)".to_owned();
            frames.push(Frame { function, ..Frame::default() });
        }
        frames
    }
}

/// Unwinds the stack of each thread.
///
/// The second is what could not be read for it.
pub(super) fn unwind(modules: &Modules, threads: &[StoppedThread]) -> (Vec<Stack>, Vec<Why>) {
    let mut unwinder: UnwinderNative<Vec<u8>, MayAllocateDuringUnwind> = UnwinderNative::new();
    let mut failures: Vec<Why> = modules.left_out().into_iter().collect();
    let name = |address| {
        let path = modules.find(address).and_then(|mapping| mapping.path.as_ref());
        path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
    };
    for address in one_of_each_file(modules, threads) {
        match catch_unwind(AssertUnwindSafe(|| modules.tables(address))) {
            Ok(module) => module.into_iter().for_each(|module| unwinder.add_module(module)),
            Err(_) => {
                failures.push(format!("the unwind tables of {} are malformed", name(address)));
            }
        }
    }
    let mut cache = CacheNative::new();
    let mut stacks = Vec::new();
    for thread in threads {
        let unwound = AssertUnwindSafe(|| unwind_one(modules, &unwinder, &mut cache, thread));
        if let Ok(stack) = catch_unwind(unwound) {
            stacks.push(stack);
        } else {
            cache = CacheNative::new();
            failures.push(format!("thread {} could not be unwound", thread.tid));
        }
    }
    (stacks, failures)
}

/// An address in each file whose code any of the stacks may return to. What is on no stack need not
/// be read: a process may have hundreds of libraries.
fn one_of_each_file(modules: &Modules, threads: &[StoppedThread]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    let mut addresses = Vec::new();
    for thread in threads {
        let words = thread.stack.chunks_exact(8).filter_map(|word| word.try_into().ok());
        let words = words.map(u64::from_ne_bytes);
        for address in std::iter::once(thread.registers.instruction_pointer()).chain(words) {
            if modules.is_code(address)
                && let Some(path) = modules.find(address).and_then(|found| found.path.as_ref())
                && seen.insert(path)
            {
                addresses.push(address);
            }
        }
    }
    addresses
}

fn unwind_one(
    modules: &Modules,
    unwinder: &UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>,
    cache: &mut CacheNative<MayAllocateDuringUnwind>,
    thread: &StoppedThread,
) -> Stack {
    let from = thread.registers.stack_pointer();
    let mut is_cut = false;
    let copied = thread.stack.len() as u64;
    let mut read = |address: u64| {
        is_cut |= thread.is_cut && address.saturating_sub(from) >= copied;
        let at = usize::try_from(address.checked_sub(from).ok_or(())?).map_err(|_| ())?;
        let word = thread.stack.get(at..at.checked_add(8).ok_or(())?).ok_or(())?;
        word.try_into().map(u64::from_ne_bytes).map_err(|_| ())
    };
    let pc = thread.registers.instruction_pointer();
    let mut frames = Vec::new();
    let mut unwinding = unwinder.iter_frames(pc, thread.registers.unwind(), cache, &mut read);
    // Where it cannot go on, what it has found is right all the same.
    while let Ok(Some(frame)) = unwinding.next() {
        frames.push(native_frame(modules, frame));
        if frames.len() == FRAMES {
            break;
        }
    }
    is_cut |= frames.len() == FRAMES;
    Stack { tid: thread.tid, frames, is_cut }
}

fn native_frame(modules: &Modules, frame: FrameAddress) -> NativeFrame {
    let address = frame.address_for_lookup();
    let mapping = modules.find(address);
    let path = mapping.and_then(|mapping| mapping.path.as_ref());
    NativeFrame {
        address,
        module: path.map(|path| path.to_string_lossy().into_owned()),
        offset: mapping.map_or(address, |mapping| mapping.file_offset(address)),
    }
}
