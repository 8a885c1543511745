//! The window of time that the chart shows, and its scale.

use hangwatch_incident::schema::Incident;
use hangwatch_incident::track::Track;

/// The window shows at most so many times the time that passed from the acquire to the incident.
const MOST_HANGS: u64 = 4;

/// From when to when, `CLOCK_MONOTONIC` ns, and the moment of the incident between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit of each")]
pub(super) struct Window {
    pub(super) from_ns: u64,
    pub(super) at_ns: u64,
    pub(super) to_ns: u64,
}

/// A line of the scale.
pub(super) struct Tick {
    /// Where, percent of the width.
    pub(super) x: f64,
    /// What it says: `-5 s`, `0`.
    pub(super) label: String,
}

impl Window {
    /// Around the hang: from before the scopes that were condemned, or the last thing the suspect did,
    /// until after the end.
    pub(super) fn around(incident: &Incident, suspects: &[Track], tracks: &[&Track]) -> Window {
        let at_ns = incident.at.monotonic_ns;
        let acquired = incident.timers.iter().map(|timer| timer.acquired.monotonic_ns);
        let shortest = acquired.clone().filter(|acquired| *acquired < at_ns).max();
        let hang_ns = at_ns.saturating_sub(shortest.unwrap_or(at_ns)).max(1_000_000);
        let earliest = at_ns.saturating_sub(hang_ns.saturating_mul(MOST_HANGS));
        let stood_still = suspects.iter().filter_map(Track::last_ns);
        let begin = acquired.chain(stood_still).filter(|at| *at < at_ns).min();
        let begin = begin.unwrap_or(at_ns - hang_ns.min(at_ns)).max(earliest);
        let before = (at_ns - begin) / 10 * 3;
        let known = tracks.iter().map(|track| track.from_ns).min().unwrap_or(0);
        let from_ns = begin.saturating_sub(before).max(known.min(begin));
        let shown = (at_ns - from_ns).max(1_000);
        let end = incident.ending.as_ref().map_or(at_ns, |ending| ending.at.monotonic_ns);
        let end = end.clamp(at_ns, at_ns.saturating_add(shown / 2));
        let from_ns = from_ns.saturating_sub(shown / 50);
        Window { from_ns, at_ns, to_ns: end.saturating_add(shown / 100 * 7) }
    }

    /// Where a point in time is, percent of the width; what lies outside is at the edge.
    pub(super) fn x(&self, at_ns: u64) -> f64 {
        let at = at_ns.clamp(self.from_ns, self.to_ns) - self.from_ns;
        #[expect(clippy::cast_precision_loss, reason = "percent of a picture's width")]
        let share = at as f64 / (self.to_ns - self.from_ns).max(1) as f64;
        share * 100.0
    }

    /// Whether a point in time is in it.
    pub(super) fn holds(&self, at_ns: u64) -> bool {
        (self.from_ns..=self.to_ns).contains(&at_ns)
    }

    /// The lines of the scale, in round steps from the incident.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let step = round_step((self.to_ns - self.from_ns) / 5);
        let before = (self.at_ns - self.from_ns) / step;
        let after = (self.to_ns - self.at_ns) / step;
        let earlier = (1..=before)
            .rev()
            .map(|n| (self.at_ns - n * step, format!("\u{2212}{}", told(n * step))));
        let later = (1..=after).map(|n| (self.at_ns + n * step, format!("+{}", told(n * step))));
        earlier
            .chain([(self.at_ns, "0".to_owned())])
            .chain(later)
            .map(|(at, label)| Tick { x: self.x(at), label })
            .collect()
    }
}

/// The units of a scale with their steps, ns.
const UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The round number of some unit that is nearest above: 1, 2, 5, 10, 20, 50, ...; of minutes and
/// seconds 15 and 30.
fn round_step(ns: u64) -> u64 {
    let steps: [u64; 11] = [1, 2, 5, 10, 15, 20, 30, 50, 100, 200, 500];
    let all = UNITS.iter().flat_map(|(name, unit)| {
        let fits = move |step: &u64| match *name {
            "s" | "min" => *step < 60 && *step != 50,
            "h" => true,
            _ => *step != 15 && *step != 30,
        };
        steps.into_iter().filter(fits).map(move |step| step * unit)
    });
    all.into_iter().find(|step| *step >= ns).unwrap_or(u64::MAX / 8)
}

fn told(ns: u64) -> String {
    let (name, unit) = UNITS
        .iter()
        .rev()
        .find(|(_, unit)| ns >= *unit && ns.is_multiple_of(*unit))
        .unwrap_or(&UNITS[0]);
    format!("{} {name}", ns / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangwatch_incident::schema::{Ending, Moment, Timer};

    fn moment(monotonic_ns: u64) -> Moment {
        Moment { monotonic_ns, ..Moment::default() }
    }

    #[test]
    fn the_hang_and_its_end_are_in_the_window() {
        let second = 1_000_000_000;
        let timer = Timer { acquired: moment(100 * second), ..Timer::default() };
        let ending = Ending { at: moment(111 * second), ..Ending::default() };
        let incident = Incident {
            at: moment(110 * second),
            timers: vec![timer],
            ending: Some(ending),
            ..Incident::default()
        };
        let window = Window::around(&incident, &[], &[]);
        assert!(window.from_ns < 100 * second && window.to_ns > 111 * second, "{window:?}");
        assert!((0.0..=100.0).contains(&window.x(0)) && window.x(u64::MAX) <= 100.0);
        let labels: Vec<String> = window.ticks().into_iter().map(|tick| tick.label).collect();
        assert_eq!(labels, ["\u{2212}10 s", "\u{2212}5 s", "0"]);
    }

    #[test]
    fn an_incident_that_says_nothing_has_a_window_all_the_same() {
        for at in [0, 1, u64::MAX] {
            let incident = Incident { at: moment(at), ..Incident::default() };
            let window = Window::around(&incident, &[], &[]);
            assert!(window.holds(at), "{window:?}");
            assert!(window.ticks().len() < 20, "{window:?}");
        }
    }

    #[test]
    fn steps_are_round() {
        let check = |ns: u64, text: &str| assert_eq!(told(round_step(ns)), text);
        check(3_100_000_000, "5 s");
        check(14_000_000_000, "15 s");
        check(55_000_000_000, "1 min");
        check(700_000, "1 ms");
        check(120, "200 ns");
    }
}
