//! The bytes of a segment's file whose locks say who is who: beyond its last byte, so that nobody reads
//! or writes there.

/// Where the segment file's lock range begins: far beyond its last byte.
const LOCK_RANGE: u64 = 1 << 40;

/// The byte whose lock the serving watchdog holds.
pub const WATCHDOG_LOCK_BYTE: u64 = LOCK_RANGE - 1;

/// The byte whose lock the maker of a segment holds that dies with it ([`Lifetime::Makers`](crate::Lifetime::Makers)), from
/// before the segment has a name.
pub const MAKER_LOCK_BYTE: u64 = LOCK_RANGE - 2;

/// The byte whose lock the standby of a maker holds, which takes over when the maker dies: beyond every
/// lane's. Whoever removes a segment that died with its maker asks for this one, too.
pub const HEIR_LOCK_BYTE: u64 = LOCK_RANGE + (1 << 32);

/// The byte whose lock the owner of `lane` holds.
pub fn lane_lock_byte(lane: u32) -> u64 {
    LOCK_RANGE + u64::from(lane)
}
