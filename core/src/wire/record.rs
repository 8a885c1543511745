//! A record: one event in a lane's ring, 32 bytes.
//!
//! ```text
//! word 0, the stamp:  position (44 bits) | foreign (1) | operation (3) | timer (16)
//! word 1:             time of the event, ns
//! word 2:             deadline, ns (acquire, rearm), or 0
//! word 3:             its subject: lane, kind, signal and scope ([`Subject`])
//! ```
//!
//! A record is foreign where it tells of another lane's timer: a guard that was released by a thread
//! it was moved to. Only then does the drain need the words after the stamp.
//!
//! The position says which lap of the ring a record belongs to. A stamp of 0 is never valid (no
//! operation is 0): it marks a slot that is being written, or never was.
//!
//! [`Subject`]: crate::wire::lane::Subject

use crate::wire::time::Nanos;

/// What happened to a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Operation {
    /// It was armed.
    Acquire = 1,
    /// It was given another deadline while armed: an extension, a kick, an upstream re-acquire.
    Rearm = 2,
    /// It was released in time, or after a report.
    Release = 3,
    /// It was released too late: the watchdog had condemned it.
    TooLate = 4,
    /// Its heartbeat was paused; the record's scope is the reason.
    Pause = 5,
    /// Its heartbeat was resumed.
    Resume = 6,
}

impl Operation {
    fn from_bits(bits: u64) -> Option<Operation> {
        Some(match bits {
            1 => Operation::Acquire,
            2 => Operation::Rearm,
            3 => Operation::Release,
            4 => Operation::TooLate,
            5 => Operation::Pause,
            6 => Operation::Resume,
            _ => return None,
        })
    }
}

/// Whose timer a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// One of the lane that holds the record.
    Own,
    /// Another lane's.
    Foreign,
}

const FOREIGN: u64 = 1 << 19;
const OPERATION_SHIFT: u32 = 16;
const FIRST_OPERATION: u64 = 1 << OPERATION_SHIFT;

/// One event as written and as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What happened.
    pub operation: Operation,
    /// Whether the timer is of the lane that holds the record.
    pub place: Place,
    /// The lane whose timer it happened to.
    pub lane: u32,
    /// The timer, an index in that lane.
    pub timer: u16,
    /// The scope, an index into the segment's names.
    pub scope: u16,
    /// The timer's signal, see [`crate::wire::lane::TimerDetail`].
    pub signal: u8,
    /// When it happened.
    pub at: Nanos,
    /// The new deadline, 0 where there is none.
    pub deadline: Nanos,
}

impl Record {
    /// The three words after the stamp.
    #[inline]
    pub fn payload(&self) -> [u64; 3] {
        let what =
            (u64::from(self.lane) << 32) | (u64::from(self.signal) << 16) | u64::from(self.scope);
        [self.at.0, self.deadline.0, what]
    }

    /// A record from its stamp and payload, `None` where the stamp names no operation.
    #[inline]
    pub fn from_parts(stamp: Stamp, payload: [u64; 3]) -> Option<Record> {
        let [at, deadline, what] = payload;
        Some(Record {
            operation: stamp.operation()?,
            place: stamp.place(),
            lane: (what >> 32) as u32,
            timer: stamp.timer(),
            scope: what as u16,
            signal: (what >> 16) as u8,
            at: Nanos(at),
            deadline: Nanos(deadline),
        })
    }
}

/// The first word of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub u64);

/// The bits of a ring position a stamp carries: it wraps after 2^44 records, a month at full speed,
/// and is compared modulo that.
pub const POSITION_BITS: u32 = 44;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
const POSITION_SHIFT: u32 = 20;

impl Stamp {
    /// A slot that is being written, or never was.
    pub const NONE: Stamp = Stamp(0);

    /// The stamp of the record at `position`.
    #[inline]
    pub fn new(position: u64, operation: Operation, timer: u16) -> Stamp {
        Stamp(
            (position << POSITION_SHIFT)
                | ((operation as u64) << OPERATION_SHIFT)
                | u64::from(timer),
        )
    }

    /// This stamp, for a timer of `place`.
    #[inline]
    #[must_use]
    pub fn with_place(self, place: Place) -> Stamp {
        match place {
            Place::Own => self,
            Place::Foreign => Stamp(self.0 | FOREIGN),
        }
    }

    /// Whose timer the record tells of.
    #[inline]
    pub fn place(self) -> Place {
        if self.0 & FOREIGN == 0 { Place::Own } else { Place::Foreign }
    }

    /// How many positions this stamp lies ahead of `position`, modulo 2^44: 0 is the record asked
    /// for, less than half the newer ones.
    #[inline]
    pub fn ahead_of(self, position: u64) -> u64 {
        (self.0 >> POSITION_SHIFT).wrapping_sub(position) & POSITION_MASK
    }

    /// The timer, where this is the stamp of the record at `position` and tells of a timer of its own
    /// lane: what nearly every stamp does, in two comparisons. [`Stamp::ahead_of`] and the rest say
    /// what another one is.
    #[inline]
    pub fn own_timer_at(self, position: u64) -> Option<u16> {
        let rest = self.0 ^ (position << POSITION_SHIFT);
        (FIRST_OPERATION..FOREIGN).contains(&rest).then_some(rest as u16)
    }

    /// The operation, `None` where the bits name none.
    #[inline]
    pub fn operation(self) -> Option<Operation> {
        Operation::from_bits((self.0 >> OPERATION_SHIFT) & 7)
    }

    /// The timer, an index in its lane; a claim.
    #[inline]
    pub fn timer(self) -> u16 {
        self.0 as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_wire() {
        let record = Record {
            operation: Operation::TooLate,
            place: Place::Foreign,
            lane: u32::MAX,
            timer: 1023,
            scope: u16::MAX,
            signal: 255,
            at: Nanos(u64::MAX),
            deadline: Nanos(1),
        };
        let stamp = Stamp::new(u64::MAX, record.operation, record.timer).with_place(record.place);
        assert_eq!(Record::from_parts(stamp, record.payload()), Some(record));
    }

    #[test]
    fn positions_compare_modulo_their_width() {
        let stamp = Stamp::new(3, Operation::Acquire, 0);
        assert_eq!(stamp.ahead_of(3), 0);
        assert_eq!(stamp.ahead_of(1), 2);
        assert_eq!(stamp.ahead_of((1 << POSITION_BITS) - 1), 4);
        assert!(stamp.ahead_of(4) > 1 << (POSITION_BITS - 1), "behind");
    }

    #[test]
    fn a_lanes_own_record_is_known_at_its_position_only() {
        for position in [0, 1, 77, (1 << POSITION_BITS) - 1, u64::MAX] {
            for (operation, timer) in [(Operation::Acquire, 0), (Operation::Resume, u16::MAX)] {
                let stamp = Stamp::new(position, operation, timer);
                assert_eq!(stamp.own_timer_at(position), Some(timer));
                for other in [position.wrapping_add(1), position.wrapping_sub(1), position ^ 64] {
                    assert_eq!(stamp.own_timer_at(other), None);
                }
                assert_eq!(stamp.with_place(Place::Foreign).own_timer_at(position), None);
            }
            assert_eq!(
                Stamp(position << POSITION_SHIFT).own_timer_at(position),
                None,
                "no operation"
            );
        }
        assert_eq!(Stamp::NONE.own_timer_at(0), None);
    }
}
