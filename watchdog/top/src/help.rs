//! The help overlay: every key, and what the columns mean.

use ratatui::text::Line;

/// The widest line.
pub(super) const COLUMNS: u16 = 64;

const KEYS: [&str; 13] = [
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
];

const MEANING: &str = "In a row marked ! a timer is overdue: SCOPE, AGE and bar are of that timer, \
    the longest overdue of several; else they are of the innermost. The bar is its age against its \
    allowance. A row is yellow from four fifths of any of its timers, red once any is overdue. RATE \
    is records a second. Nothing is written to the segment, and the watchdog need not run.";

/// All of it, in lines of at most so many columns, the keys first.
pub(super) fn lines(columns: usize) -> Vec<Line<'static>> {
    let columns = columns.min(COLUMNS.into()).saturating_sub(1);
    let keys = KEYS.iter().flat_map(|line| wrapped(line, columns, "  "));
    let lines = keys.chain([String::new()]).chain(wrapped(MEANING, columns, ""));
    lines.map(|line| Line::raw(format!(" {line}"))).collect()
}

/// A line in as many as it takes, cut between words; all but the first begin with `indent`.
fn wrapped(line: &str, columns: usize, indent: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let last = lines.last_mut().expect("there is always one");
        if !last.trim().is_empty() && last.len() + word.trim_end().len() > columns {
            lines.push(format!("{indent}{word}"));
        } else {
            last.push_str(word);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_is_as_wide_as_it_may_be_and_loses_no_word() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let whole = words(&format!("{} {MEANING}", KEYS.join(" ")));
        for columns in [34, 38, 64, 200] {
            let lines: Vec<String> = lines(columns).iter().map(ToString::to_string).collect();
            let widest = lines.iter().map(String::len).max();
            assert!(widest <= Some(columns.min(COLUMNS.into())), "{columns}: {lines:#?}");
            assert_eq!(words(&lines.join(" ")), whole, "{columns}");
        }
        // A usual terminal shows it at once.
        assert!(lines(78).len() <= 22);
        assert_eq!(lines(78).len(), lines(usize::from(COLUMNS)).len());
    }
}
