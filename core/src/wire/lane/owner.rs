//! Who owns a lane: the owner word, and what the owner says about itself.

/// Where a lane is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LaneState {
    /// Nobody's.
    Free = 0,
    /// A worker holds its lock and is writing its identity.
    Claimed = 1,
    /// A worker's.
    Attached = 2,
    /// Given back; its statistics still stand in it. A worker may claim it as it is.
    Detached = 3,
    /// The watchdog folds its statistics and frees it.
    Recycling = 4,
}

/// The owner word: state (8 bits), epoch (24), the pid the owner claims to be (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnerWord(pub u64);

impl OwnerWord {
    /// Packs an owner word; the epoch is taken modulo 2^24.
    pub fn new(state: LaneState, epoch: u32, pid: u32) -> OwnerWord {
        OwnerWord(((state as u64) << 56) | (u64::from(epoch & 0xff_ffff) << 32) | u64::from(pid))
    }

    /// The state, `None` where the bits name none.
    #[inline]
    pub fn state(self) -> Option<LaneState> {
        Some(match self.0 >> 56 {
            0 => LaneState::Free,
            1 => LaneState::Claimed,
            2 => LaneState::Attached,
            3 => LaneState::Detached,
            4 => LaneState::Recycling,
            _ => return None,
        })
    }

    /// How often the lane was claimed, modulo 2^24.
    #[inline]
    pub fn epoch(self) -> u32 {
        (self.0 >> 32) as u32 & 0xff_ffff
    }

    /// The pid the owner claims, in its own PID namespace.
    pub fn pid(self) -> u32 {
        self.0 as u32
    }

    pub(super) fn with_state(self, state: LaneState) -> OwnerWord {
        OwnerWord::new(state, self.epoch(), self.pid())
    }
}

/// What an owner says about itself at attach. Claims all: the watchdog asks the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The thread, in the owner's PID namespace.
    pub tid: u64,
    /// The process's start time, clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start_ticks: u64,
    /// The process's inode in pidfs, 0 before Linux 6.9.
    pub pidfd_inode: u64,
    /// The inode of the owner's PID namespace.
    pub pid_namespace: u64,
    /// When it attached, ns.
    pub attached_at: u64,
    /// The descriptor that holds the lane's lock: where `fdinfo` is asked first.
    pub descriptor: u64,
    /// The clock its statistics were made with, see [`crate::wire::clock::ClockKind`].
    pub clock: u64,
    /// Its rank in its job plus one, 0 where it has none.
    pub rank: u64,
    /// The number of ranks in its job, 0 where unknown.
    pub world_size: u64,
    /// Its rank on this host plus one, 0 where it has none.
    pub local_rank: u64,
}

impl Identity {
    pub(super) const WORDS: usize = 10;

    pub(super) fn words(self) -> [u64; Self::WORDS] {
        [
            self.tid,
            self.start_ticks,
            self.pidfd_inode,
            self.pid_namespace,
            self.attached_at,
            self.descriptor,
            self.clock,
            self.rank,
            self.world_size,
            self.local_rank,
        ]
    }

    pub(super) fn from_words(words: [u64; Self::WORDS]) -> Identity {
        let [
            tid,
            start_ticks,
            pidfd_inode,
            pid_namespace,
            attached_at,
            descriptor,
            clock,
            rank,
            world_size,
            local_rank,
        ] = words;
        Identity {
            tid,
            start_ticks,
            pidfd_inode,
            pid_namespace,
            attached_at,
            descriptor,
            clock,
            rank,
            world_size,
            local_rank,
        }
    }
}
