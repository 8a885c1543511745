//! A run as a page: `bench/RESULTS.md`.

use std::fmt::Write;

use super::goals::goals;
use super::plot;
use super::results::{Comparison, Contender, Results, Side, Spread};

/// The page.
pub fn page(results: &Results) -> String {
    let mut text = head(results);
    text += &goals_table(results);
    text += &losses(results);
    for comparison in &results.comparisons {
        text += &section(comparison);
    }
    text
}

fn head(results: &Results) -> String {
    let machine = &results.machine;
    format!(
        "# hangwatch beside its peers, measured in one run\n\n    \
         cargo xtask bench\n\n\
         wrote this page, [results.json](results.json) and the plots. Taken {} ({} run) on {} cores of \
         {}, kernel {}, clock source {}, load {:.1} before and {:.1} after the run. All contenders \
         took turns; each figure is the ratio of medians first, then the median and, in brackets, \
         what a tenth of the turns was under and over. Less is better everywhere. Ratios hold from \
         machine to machine, nanoseconds do not. What was tried and what it brought is in \
         [NOTES.md](NOTES.md).\n\n",
        results.taken_at,
        results.mode,
        machine.cores,
        machine.processor,
        machine.kernel,
        machine.clock_source,
        machine.load_before,
        machine.load_after,
    )
}

fn goals_table(results: &Results) -> String {
    let mut text = "## What must be reached\n\n| what | measured | at most | |\n\
                    | --- | ---: | ---: | --- |\n"
        .to_owned();
    for goal in goals(results) {
        let verdict = if goal.is_reached() { "reached" } else { "**missed**" };
        let (measured, most) = (short(goal.measured), short(goal.most));
        let _ = writeln!(text, "| {} | {measured} {} | {most} | {verdict} |", goal.what, goal.unit);
    }
    text + "\n"
}

fn losses(results: &Results) -> String {
    let mut rows = String::new();
    for comparison in &results.comparisons {
        let axis = &comparison.axis;
        for (point, peer, ratio) in comparison.losses() {
            let point = match axis.as_str() {
                "" => String::new(),
                "percentile" => format!(", {point}"),
                axis => format!(", {point} {axis}"),
            };
            let _ = writeln!(rows, "| {}{point} | {peer} | {} x |", comparison.title, short(ratio));
        }
    }
    if rows.is_empty() {
        return "## Where hangwatch loses\n\nNowhere in this run, by more than a tenth.\n\n"
            .to_owned();
    }
    format!(
        "## Where hangwatch loses\n\nEvery place where a peer is more than a tenth better. Why, and \
         what was tried, is in [TABLE.md](TABLE.md) for the table and in [NOTES.md](NOTES.md) for the \
         rest.\n\n| work | to | ours is |\n| --- | --- | ---: |\n{rows}\n"
    )
}

fn section(comparison: &Comparison) -> String {
    let mut text = format!("## {}\n\n", comparison.title);
    if !comparison.how.is_empty() {
        let _ = writeln!(text, "{}\n", comparison.how);
    }
    for file in plot::files(comparison) {
        let _ = writeln!(text, "![{}](plots/{file})\n", comparison.title);
    }
    let head = if comparison.axis.is_empty() { "contender" } else { &comparison.axis };
    let points = comparison.points.iter().map(|point| match point.as_str() {
        "" => comparison.unit.as_str(),
        point => point,
    });
    let points: Vec<&str> = points.collect();
    let _ = writeln!(text, "| {head} | {} |", points.join(" | "));
    let _ = writeln!(text, "| --- |{}", " ---: |".repeat(points.len()));
    for contender in &comparison.contenders {
        let cells: Vec<String> =
            (0..comparison.points.len()).map(|point| cell(comparison, contender, point)).collect();
        let _ = writeln!(text, "| {} | {} |", contender.name, cells.join(" | "));
    }
    let basis = &comparison.basis;
    if comparison.contenders.len() > 1 {
        let _ = writeln!(text, "\n{}; x is times *{}*.\n", capital(&comparison.unit), plain(basis));
    } else {
        let _ = writeln!(text, "\n{}.\n", capital(&comparison.unit));
    }
    text
}

fn cell(comparison: &Comparison, contender: &Contender, point: usize) -> String {
    let Some(spread) = contender.figures.get(point).copied().flatten() else {
        return "-".to_owned();
    };
    let figure = figure(spread);
    match comparison.ratio(&contender.name, point) {
        Some(ratio) if comparison.contenders.len() > 1 => format!("{} x ({figure})", short(ratio)),
        _ => figure,
    }
}

#[expect(clippy::float_cmp, reason = "a single figure has one value three times")]
fn figure(spread: Spread) -> String {
    let Spread { median, low, high } = spread;
    if low == high {
        short(median)
    } else {
        format!("{} [{} {}]", short(median), short(low), short(high))
    }
}

/// A name without its marks.
pub(super) fn plain(name: &str) -> String {
    name.replace(['*', '`'], "")
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Three digits or so, thousands apart.
fn short(value: f64) -> String {
    if value >= 1000.0 {
        let whole = format!("{value:.0}");
        let start = whole.len() % 3;
        let mut text = whole[..start].to_owned();
        for at in (start..whole.len()).step_by(3) {
            if !text.is_empty() {
                text.push(',');
            }
            text += &whole[at..at + 3];
        }
        return text;
    }
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// How many contenders are ours: the page says nothing where nobody else took part.
pub fn has_peers(comparison: &Comparison) -> bool {
    comparison.contenders.iter().any(|one| one.side != Side::Ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown = [0.5678, 12.34, 567.8, 1234.5, 1_234_567.0].map(short);
        assert_eq!(shown, ["0.57", "12.3", "568", "1,234", "1,234,567"]);
    }

    #[test]
    fn a_loss_is_said_on_the_page() {
        let row = |name: &str, side, value| Contender::single(name, side, &[value]);
        let comparison = Comparison {
            title: "Pair".into(),
            unit: "ns".into(),
            points: vec![String::new()],
            basis: "peer".into(),
            contenders: vec![row("ours", Side::Ours, 20.0), row("peer", Side::Peer, 10.0)],
            ..Comparison::default()
        };
        let results = Results { comparisons: vec![comparison], ..Results::default() };
        assert!(page(&results).contains("| Pair | peer | 2.00 x |"), "{}", page(&results));
    }
}
