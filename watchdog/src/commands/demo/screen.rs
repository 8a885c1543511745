//! The demo's live table: what of it fits the terminal.

use std::io;

use rustix::termios::tcgetwinsize;

/// Columns and rows of the terminal on standard output; no bounds where it does not say.
pub(in crate::commands) fn size() -> (usize, usize) {
    let Ok(size) = tcgetwinsize(io::stdout()) else { return (usize::MAX, usize::MAX) };
    let or_none = |count: u16| if count == 0 { usize::MAX } else { usize::from(count) };
    (or_none(size.ws_col), or_none(size.ws_row))
}

/// As much of a frame as a terminal of this many columns and rows shows at once: a line that wraps,
/// or one that has scrolled away, could not be drawn over. The last row is the cursor's.
pub(in crate::commands) fn clipped(frame: &str, (columns, rows): (usize, usize)) -> String {
    let lines = frame.lines().take(rows.saturating_sub(1));
    lines.flat_map(|line| line.chars().take(columns).chain(['\n'])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_its_terminal() {
        let frame = "segment\nLANE  PID\n   0  é17\n";
        assert_eq!(clipped(frame, (usize::MAX, usize::MAX)), frame);
        assert_eq!(clipped(frame, (7, 4)), "segment\nLANE  P\n   0  é\n");
        assert_eq!(clipped(frame, (80, 3)), "segment\nLANE  PID\n");
        assert_eq!(clipped(frame, (80, 1)), "");
    }
}
