//! Plots of a run, as SVG that is readable on light and on dark pages.
//!
//! The drawing is `plotters`'. It knows one set of colours: black and white stand for ink and paper
//! there, and a style sheet in the file exchanges them where the reader's page is dark.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::markdown::plain;
use super::results::{Comparison, Contender, Side};

type Failed = Box<dyn std::error::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (860, 460);
/// Contenders beyond these colours share the last.
const COLOURS: [RGBColor; 12] = [
    RGBColor(214, 92, 48),
    RGBColor(43, 125, 188),
    RGBColor(62, 148, 94),
    RGBColor(148, 103, 189),
    RGBColor(188, 142, 33),
    RGBColor(23, 160, 172),
    RGBColor(200, 82, 140),
    RGBColor(120, 130, 140),
    RGBColor(140, 104, 86),
    RGBColor(107, 142, 35),
    RGBColor(106, 110, 190),
    RGBColor(190, 150, 150),
];
/// Paper and ink change places on a dark page; the grid's greys are translucent already.
const STYLE: &str = "<style>text{font-family:system-ui,sans-serif}\
    @media (prefers-color-scheme:dark){\
    [fill=\"#FFFFFF\"]{fill:#14171a}[fill=\"#000000\"]{fill:#d8dde3}\
    [stroke=\"#000000\"]{stroke:#d8dde3}[stroke=\"#FFFFFF\"]{stroke:#14171a}}</style>";

/// The files of a comparison's plots.
pub fn files(comparison: &Comparison) -> Vec<String> {
    kind(comparison).map(|_| format!("{}.svg", comparison.id)).into_iter().collect()
}

/// What is drawn of a comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Cost against size.
    Sizes,
    /// How many were faster than how long.
    Distribution,
}

fn kind(comparison: &Comparison) -> Option<Kind> {
    if comparison.contenders.iter().any(|one| !one.distribution.is_empty()) {
        return Some(Kind::Distribution);
    }
    let is_numbers = comparison.points.iter().all(|point| point.parse::<f64>().is_ok());
    (is_numbers && comparison.points.len() > 1 && comparison.contenders.len() > 1)
        .then_some(Kind::Sizes)
}

/// Draws every comparison that can be drawn into a folder.
///
/// # Errors
/// Where a file cannot be written.
pub fn draw_all(comparisons: &[Comparison], folder: &Path) -> Result<(), Failed> {
    fs::create_dir_all(folder)?;
    for comparison in comparisons {
        let mut svg = String::new();
        match kind(comparison) {
            Some(Kind::Sizes) => sizes(comparison, &mut svg)?,
            Some(Kind::Distribution) => distribution(comparison, &mut svg)?,
            None => continue,
        }
        let opened = svg.find('>').ok_or("an SVG begins with a tag")? + 1;
        svg.insert_str(opened, STYLE);
        fs::write(folder.join(format!("{}.svg", comparison.id)), svg)?;
    }
    Ok(())
}

fn sizes(comparison: &Comparison, svg: &mut String) -> Result<(), Failed> {
    let points: Vec<f64> =
        comparison.points.iter().map(|point| point.parse()).collect::<Result<_, _>>()?;
    let lines: Vec<Line> = comparison.contenders.iter().map(|one| Line::of(one, &points)).collect();
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let y_title = format!("{} (log)", comparison.unit);
    draw(&area, &comparison.title, &format!("{} (log)", comparison.axis), &y_title, &lines)
}

fn distribution(comparison: &Comparison, svg: &mut String) -> Result<(), Failed> {
    // The share of those that are later, so that a log scale opens the tail.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred quantiles")]
    let line = |one: &Contender| {
        let many = one.distribution.len().max(1);
        let share = |index: usize| 1.0 - index as f64 / many as f64;
        let points = one.distribution.iter().enumerate();
        Line {
            name: plain(&one.name),
            side: one.side,
            points: points.map(|(index, &value)| (value.max(0.1), share(index))).collect(),
        }
    };
    let with_one = comparison.contenders.iter().filter(|one| !one.distribution.is_empty());
    let lines: Vec<Line> = with_one.map(line).collect();
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let x_title = format!("{} after the deadline (log)", comparison.unit);
    draw(&area, &comparison.title, &x_title, "share that is later still (log)", &lines)
}

/// One contender's line.
struct Line {
    name: String,
    side: Side,
    points: Vec<(f64, f64)>,
}

impl Line {
    fn of(contender: &Contender, at: &[f64]) -> Line {
        let point = |(index, &x): (usize, &f64)| Some((x, contender.median(index)?.max(0.01)));
        Line {
            name: plain(&contender.name),
            side: contender.side,
            points: at.iter().enumerate().filter_map(point).collect(),
        }
    }
}

fn draw(area: &Area<'_>, title: &str, x: &str, y: &str, lines: &[Line]) -> Result<(), Failed> {
    area.fill(&WHITE)?;
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let bounds = |pick: fn((f64, f64)) -> f64| {
        let least = all().map(pick).fold(f64::INFINITY, f64::min);
        let most = all().map(pick).fold(0.0, f64::max);
        (least * 0.8)..(most * 1.3)
    };
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 19))
        .margin(14)
        .set_label_area_size(LabelAreaPosition::Left, 62)
        .set_label_area_size(LabelAreaPosition::Bottom, 44)
        .margin_right(270)
        .build_cartesian_2d(bounds(|at| at.0).log_scale(), bounds(|at| at.1).log_scale())?;
    let grid = RGBColor(128, 128, 128);
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .x_label_formatter(&|value| number(*value))
        .y_label_formatter(&|value| number(*value))
        .bold_line_style(grid.mix(0.25))
        .light_line_style(grid.mix(0.08))
        .axis_style(BLACK)
        .label_style(("sans-serif", 13))
        .draw()?;
    for ((index, line), top) in lines.iter().enumerate().zip((60..).step_by(24)) {
        let colour = COLOURS[index.min(COLOURS.len() - 1)];
        let width = if line.side == Side::Ours { 4 } else { 2 };
        let style = colour.stroke_width(width);
        chart.draw_series(LineSeries::new(line.points.iter().copied(), style))?;
        if line.points.len() < 20 {
            let dot = |&at: &(f64, f64)| Circle::new(at, width + 1, colour.filled());
            chart.draw_series(line.points.iter().map(dot))?;
        }
        // The legend stands beside the plot: over it, lines would hide it.
        let left = SIZE.0.cast_signed() - 262;
        area.draw(&PathElement::new(vec![(left, top), (left + 22, top)], style))?;
        let font = ("sans-serif", 13).into_font().color(&BLACK);
        area.draw(&Text::new(line.name.clone(), (left + 30, top - 7), font))?;
    }
    area.present()?;
    Ok(())
}

/// A number on an axis.
fn number(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e3 => format!("{}k", value / 1e3),
        value if value >= 1.0 => format!("{value:.0}"),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::results::Spread;

    #[test]
    fn a_plot_holds_its_contenders_and_both_colour_schemes() {
        let row = |name: &str, side, figures: [f64; 2]| Contender {
            figures: figures.map(|value| Some(Spread::single(value))).to_vec(),
            ..Contender::single(name, side, &[0.0])
        };
        let comparison = Comparison {
            id: "sizes".into(),
            axis: "timers".into(),
            points: vec!["100".into(), "1000".into()],
            contenders: vec![
                row("**ours**", Side::Ours, [1.0, 2.0]),
                row("peer", Side::Peer, [10.0, 20.0]),
            ],
            ..Comparison::default()
        };
        let folder = std::env::temp_dir().join(format!("plots-{}", std::process::id()));
        draw_all(&[comparison], &folder).expect("it can be drawn");
        let svg = fs::read_to_string(folder.join("sizes.svg")).expect("it was written");
        fs::remove_dir_all(&folder).expect("it is there");
        for text in ["ours", "peer", "timers", "prefers-color-scheme:dark"] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(!svg.contains("**"));
    }
}
