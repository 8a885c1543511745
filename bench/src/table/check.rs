//! The proof that the contenders do the same: the same seeded work on each, and
//! a checksum over what expired, in order.

use super::{DeadlineIndex, IDLE, Resolution, TIMERS_PER_LANE, Visitor, random::Random, visit_all};

const MS: u64 = 1_000_000;
const TICKS: u64 = 200;
const OPERATIONS_A_TICK: usize = 200;

/// What one contender reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Timers that expired.
    pub expired: u64,
    /// Over (pass, deadline, id) of all of them, in order.
    pub checksum: u64,
}

/// Does the same work on every contender and compares what expired with the
/// first. Times are whole milliseconds, so that those of that resolution must
/// agree too; those of a finer one are compared on nanoseconds as well.
///
/// # Panics
///
/// If a contender disagrees.
pub fn check_all(timers: usize) -> Report {
    let mut check = Check { timers, step: MS, first: None };
    visit_all(&mut check);
    Check { timers, step: 1, first: None }.visit_exact();
    check.first.expect("there is a contender")
}

struct Check {
    timers: usize,
    step: u64,
    first: Option<Report>,
}

impl Check {
    fn visit_exact(&mut self) {
        visit_all(self);
    }
}

impl Visitor for Check {
    fn visit<I: DeadlineIndex>(&mut self) {
        if self.step < MS && I::RESOLUTION == Resolution::Millisecond {
            return;
        }
        let report = report::<I>(self.timers, self.step);
        let first = self.first.get_or_insert(report);
        assert_eq!(*first, report, "{} disagrees, {} timers", I::NAME, self.timers);
    }
}

/// Random sets, clears and passes; then everything expires.
fn report<I: DeadlineIndex>(timers: usize, step: u64) -> Report {
    let mut index = I::new(timers);
    let mut random = Random::new(7);
    let mut report = Report { expired: 0, checksum: 0 };
    // The model knows the true next deadline; small work only, for it is slow.
    let mut deadlines = vec![IDLE; timers];
    for tick in 1..=TICKS {
        let now = tick * 10 * MS;
        for _ in 0..OPERATIONS_A_TICK {
            let id = random.below(timers as u64) as usize;
            let ahead = (1 + random.below(5_000 * MS / step)) * step;
            let deadline = if random.below(3) == 0 { IDLE } else { now + ahead };
            index.set(id, deadline);
            deadlines[id] = deadline;
        }
        if tick % 16 == 0 {
            let first = random.below(timers as u64) as usize;
            let ids = first..timers.min(first + TIMERS_PER_LANE);
            index.clear_block(ids.clone());
            deadlines[ids].fill(IDLE);
        }
        check_next(&mut index, deadlines.iter().copied().min().unwrap_or(IDLE));
        pass(&mut index, now + step, &mut deadlines, &mut report);
    }
    pass(&mut index, (TICKS * 10 + 6_000) * MS, &mut deadlines, &mut report);
    assert!(deadlines.iter().all(|&deadline| deadline == IDLE), "{} lost a timer", I::NAME);
    report
}

fn check_next<I: DeadlineIndex>(index: &mut I, true_next: u64) {
    let next = index.next_deadline();
    match I::RESOLUTION {
        Resolution::Exact => assert_eq!(next, true_next, "{}", I::NAME),
        Resolution::LowerBound => assert!(next <= true_next, "{}", I::NAME),
        Resolution::Millisecond => assert!(next <= true_next.saturating_add(MS), "{}", I::NAME),
    }
}

fn pass<I: DeadlineIndex>(index: &mut I, now: u64, deadlines: &mut [u64], report: &mut Report) {
    let mut last = (0, 0);
    index.pop_due(now, |id, deadline| {
        assert!(deadline <= now && (deadline, id) >= last, "{} is out of order", I::NAME);
        assert_eq!(deadlines[id], deadline, "{}, id {id}", I::NAME);
        last = (deadline, id);
        deadlines[id] = IDLE;
        report.expired += 1;
        for word in [now, deadline, id as u64] {
            report.checksum = (report.checksum ^ word).wrapping_mul(0x0000_0100_0000_01B3);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::check_all;

    #[test]
    fn every_contender_expires_the_same_timers_in_the_same_order() {
        for timers in [1, 100, 1_000, 20_000] {
            assert!(check_all(timers).expired > 0);
        }
    }
}
