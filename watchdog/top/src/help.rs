//! The help overlay: all keys, and the meaning of the columns.

use ratatui::text::Line;

/// The width of the help, columns.
pub(super) const COLUMNS: u16 = 64;

const KEYS: [&str; 13] = [
    "up down j k      select         pgup pgdn home end  by more",
    "enter            details of the lane: timers, counts, records",
    "left right       in the details: the previous, the next lane",
    "tab              switch between list and details",
    "esc              back; or clear the filter",
    "/                filter: pid, command, scope, thread, job, rank",
    "s                sort by the next column   r  reverse",
    "A L R P N C O    sort by age, time left, rate, pid, rank,",
    "                 command, scope",
    "i                lanes with no timer armed: show or hide",
    "p space          pause and resume the display",
    "S                choose another segment",
    "ctrl-l redraw    ctrl-z suspend    q ctrl-c quit",
];

const MEANING: &str = "A row marked ! has an overdue timer: SCOPE, AGE and the bar show the timer that is \
    overdue the longest. In other rows they show the innermost scope. The bar shows the age in relation \
    to the timeout. A row is yellow when a timer has used four fifths of its timeout, red when one is \
    overdue. RATE is records per second. top only reads the segment and needs no watchdog.";

/// The help in lines of at most this many columns.
pub(super) fn lines(columns: usize) -> Vec<Line<'static>> {
    let columns = columns.min(COLUMNS.into()).saturating_sub(1);
    let keys = KEYS.iter().flat_map(|line| wrapped(line, columns, "  "));
    let lines = keys.chain([String::new()]).chain(wrapped(MEANING, columns, ""));
    lines.map(|line| Line::raw(format!(" {line}"))).collect()
}

/// Wraps a line between words; all lines but the first begin with `indent`.
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
    fn the_help_fits_and_loses_no_word() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let whole = words(&format!("{} {MEANING}", KEYS.join(" ")));
        for columns in [34, 38, 64, 200] {
            let lines: Vec<String> = lines(columns).iter().map(ToString::to_string).collect();
            let widest = lines.iter().map(String::len).max();
            assert!(widest <= Some(columns.min(COLUMNS.into())), "{columns}: {lines:#?}");
            assert_eq!(words(&lines.join(" ")), whole, "{columns}");
        }
        // An 80 x 24 terminal shows all of it.
        assert!(lines(78).len() <= 22);
        assert_eq!(lines(78).len(), lines(usize::from(COLUMNS)).len());
    }
}
