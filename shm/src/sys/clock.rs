//! What time it is: the system's monotonic clock, its coarse sister, and the
//! processor's own counter.
//!
//! Deadlines are `CLOCK_MONOTONIC` nanoseconds everywhere. The counter (TSC on
//! `x86_64`, the virtual counter on `aarch64`) is cheaper and is turned into
//! the same scale by a calibration made of [`CounterSample`]s. Nothing else in
//! hangwatch reads a clock, but for reports: they say when it was on the wall clock.
#![expect(unsafe_code, reason = "the instructions that read the counter")]

use std::sync::OnceLock;

pub(crate) use rustix::time::ClockId;

const NS_PER_S: u64 = 1_000_000_000;

/// How often [`sample_pair`] tries for a narrow window.
const SAMPLE_TRIES: u32 = 16;

const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

/// `CLOCK_MONOTONIC` in nanoseconds.
///
/// One call through the vDSO, as cheap as a bare `clock_gettime`: the clock
/// exists on every Linux, so there is no error to tell.
#[inline]
pub fn monotonic_ns() -> u64 {
    read_ns(ClockId::Monotonic)
}

/// `CLOCK_MONOTONIC_COARSE` in nanoseconds: the monotonic clock as of the
/// kernel's last timer interrupt.
///
/// It is behind [`monotonic_ns`] by up to [`coarse_resolution_ns`] and never
/// ahead of it. A deadline computed from it must have the resolution added, or
/// its timer would fire early.
#[inline]
pub fn coarse_ns() -> u64 {
    read_ns(ClockId::MonotonicCoarse)
}

/// The resolution of [`coarse_ns`] in nanoseconds (4 ms at 250 Hz), asked once.
pub fn coarse_resolution_ns() -> u64 {
    static RESOLUTION_NS: OnceLock<u64> = OnceLock::new();
    *RESOLUTION_NS.get_or_init(|| {
        let resolution = rustix::time::clock_getres(ClockId::MonotonicCoarse);
        resolution.tv_sec.unsigned_abs() * NS_PER_S + resolution.tv_nsec.unsigned_abs()
    })
}

/// The processor's counter: the TSC, or the virtual counter `cntvct_el0`.
///
/// Not ordered against the instructions around it; for a stamp, a few
/// nanoseconds either way are within its uncertainty. Meaningful as time only
/// while [`counter_is_system_clock`] holds.
#[inline(always)]
#[expect(clippy::inline_always, reason = "one instruction, on the hot path of every acquire")]
pub fn counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86_64 processor has the TSC, and Linux leaves it
        // readable for user code unless a process asked otherwise of itself.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
    #[cfg(target_arch = "aarch64")]
    {
        let ticks: u64;
        // SAFETY: Linux leaves the virtual counter readable for user code; its
        // vDSO reads it the same way. It touches neither memory nor flags.
        unsafe {
            core::arch::asm!("mrs {ticks}, cntvct_el0", ticks = out(reg) ticks,
                options(nomem, nostack, preserves_flags));
        }
        ticks
    }
}

/// Whether the kernel keeps its own time by the counter that [`counter`]
/// reads, as of this process's first ask.
///
/// Only then is the counter known to run at one rate and in step on all
/// processors. The kernel may change its mind (an unstable TSC): whoever
/// renews the calibration asks [`counter_is_system_clock_now`].
pub fn counter_is_system_clock() -> bool {
    static AT_FIRST: OnceLock<bool> = OnceLock::new();
    *AT_FIRST.get_or_init(counter_is_system_clock_now)
}

/// As [`counter_is_system_clock`], asked of the kernel anew. False where it
/// does not say.
pub fn counter_is_system_clock_now() -> bool {
    super::proc_file::text(CLOCK_SOURCE).is_ok_and(|name| is_counter(&name))
}

/// The counter and the monotonic clock, read at the same instant as nearly as
/// can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterSample {
    /// What [`counter`] said.
    pub counter: u64,
    /// What [`monotonic_ns`] would have said then.
    pub monotonic_ns: u64,
    /// `monotonic_ns` is right within this much either way.
    pub uncertainty_ns: u64,
}

/// Reads the counter between two reads of the monotonic clock, several times,
/// and gives the reading with the narrowest window.
pub fn sample_pair() -> CounterSample {
    let mut best = sample_once();
    for _ in 1..SAMPLE_TRIES {
        let sample = sample_once();
        if sample.uncertainty_ns < best.uncertainty_ns {
            best = sample;
        }
    }
    best
}

/// Reads the counter once between two reads of the monotonic clock. How far apart those were is in
/// `uncertainty_ns`: the thread may have been interrupted.
pub fn sample_once() -> CounterSample {
    let before_ns = monotonic_ns();
    let counter = ordered_counter();
    let window_ns = monotonic_ns().saturating_sub(before_ns);
    CounterSample {
        counter,
        monotonic_ns: before_ns + window_ns / 2,
        uncertainty_ns: window_ns.div_ceil(2),
    }
}

/// The counter, read after everything before it in the program is done. (The
/// clock read after it orders itself in the same way.)
fn ordered_counter() -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: lfence is part of SSE2, which every x86_64 processor has.
        unsafe { core::arch::x86_64::_mm_lfence() };
    }
    #[cfg(target_arch = "aarch64")]
    {
        // SAFETY: a barrier for the instruction stream; it changes nothing.
        unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) };
    }
    counter()
}

/// A clock that every Linux has, in nanoseconds.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the hot path: a call more for each acquire")]
pub(crate) fn read_ns(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec.cast_unsigned() * NS_PER_S + time.tv_nsec.cast_unsigned()
}

/// Whether the clock source of this name is the counter that [`counter`] reads.
fn is_counter(clock_source: &str) -> bool {
    let ours = if cfg!(target_arch = "x86_64") { "tsc" } else { "arch_sys_counter" };
    clock_source.trim_end() == ours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_time_never_goes_back_and_agrees_with_std() {
        let first = monotonic_ns();
        let std_first = std::time::Instant::now();
        let mut last = first;
        for _ in 0..10_000 {
            let now = monotonic_ns();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        let std_elapsed = u64::try_from(std_first.elapsed().as_nanos()).unwrap();
        assert!(monotonic_ns() - first >= std_elapsed);
    }

    #[test]
    fn coarse_time_is_never_ahead_and_behind_by_no_more_than_a_few_resolutions() {
        assert!(coarse_resolution_ns() > 0);
        for _ in 0..1_000 {
            let before = coarse_ns();
            let precise = monotonic_ns();
            let after = coarse_ns();
            assert!(before <= precise, "coarse {before} ahead of {precise}");
            // A tick may come late on a busy virtual machine; a second never.
            assert!(precise <= after + coarse_resolution_ns() + NS_PER_S);
        }
    }

    #[test]
    fn the_counter_advances_with_the_clock_where_the_kernel_uses_it() {
        if !counter_is_system_clock() {
            println!("skipped: the kernel does not keep time by the counter here");
            return;
        }
        let first = sample_pair();
        while monotonic_ns() < first.monotonic_ns + 20_000_000 {
            std::hint::spin_loop();
        }
        let second = sample_pair();
        assert!(second.counter > first.counter);
        assert!(second.monotonic_ns > first.monotonic_ns);
    }

    #[test]
    fn a_sample_lies_between_clock_reads_around_it() {
        let before = monotonic_ns();
        let sample = sample_pair();
        let after = monotonic_ns();
        assert!(before <= sample.monotonic_ns && sample.monotonic_ns <= after, "{sample:?}");
        assert!(sample.uncertainty_ns <= after - before);
    }

    #[test]
    fn only_this_architectures_counter_counts_as_the_clock_source() {
        let (ours, other) = if cfg!(target_arch = "x86_64") {
            ("tsc\n", "arch_sys_counter\n")
        } else {
            ("arch_sys_counter\n", "tsc\n")
        };
        assert!(is_counter(ours));
        for foreign in [other, "hpet\n", "kvm-clock\n", "tsc-early\n", ""] {
            assert!(!is_counter(foreign), "{foreign:?}");
        }
    }
}
