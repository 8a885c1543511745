//! The help overlay: every key, and what the columns mean.

use ratatui::text::Line;

/// The widest line.
pub(super) const COLUMNS: u16 = 63;

const TEXT: [&str; 19] = [
    "up down j k      select         pgup pgdn home end  by more",
    "enter            details of the lane: timers, counts, records",
    "left right       in the details: the lane before, the next",
    "tab              between list and details, where both show",
    "esc              back; or clear the filter",
    "/                filter: pid, command, scope, thread, job, rank",
    "s                sort by the next column   r  the other way",
    "A L R P N C O    sort by age, time left, rate, pid, rank,",
    "                 command, scope",
    "i                lanes with no timer armed: show or hide",
    "p space          pause: the picture stands still",
    "S                choose another segment",
    "ctrl-l redraw    ctrl-z suspend    q ctrl-c quit",
    "",
    "! overdue. SCOPE and AGE are of the innermost timer; the bar",
    "is its age against its allowance. A row is yellow from four",
    "fifths of any of its timers, red once any is overdue.",
    "RATE is records a second. Nothing is written to the segment,",
    "and the watchdog need not run.",
];

/// As many of its lines as fit, the keys first.
pub(super) fn lines(most: usize) -> Vec<Line<'static>> {
    TEXT.iter().take(most).map(|line| Line::raw(format!(" {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_as_wide_as_it_says() {
        let widest = TEXT.iter().map(|line| line.len()).max();
        assert!(widest <= Some(usize::from(COLUMNS)), "{widest:?}");
    }
}
