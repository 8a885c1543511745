//! The table of deadlines beside what else could keep them, at every size.

use super::Mode;
use super::results::{Comparison, Contender, Side, Spread};
use crate::table::check::check_all;
use crate::table::floor::Floor;
use crate::table::work::{Figures, MIXED, WORKS, time_all};
use crate::table::{DeadlineIndex, Visitor, visit_all};

/// hangwatch's table among the contenders.
pub const OURS: &str = "**hangwatch: minima, exact**";
/// The id of a work's comparison.
pub fn id(work: &str) -> String {
    format!("table-{}", work.replace(", ", "-").replace(' ', "-"))
}

/// Variants: shapes of our own that were not taken.
const VARIANTS: [&str; 2] = ["minima, lazy", "hierarchical wheel, intrusive"];

/// The works that a bare array does too: they are seen beside it.
const FLOOR_WORKS: [&str; 4] =
    ["churn pair", "re-arm", "mixed, with expiry", "heartbeats in order"];

/// A comparison a work, and that of the longest tick.
pub fn compare(mode: Mode, huge: bool) -> Vec<Comparison> {
    [1, 1_000, 20_000].into_iter().for_each(|timers| {
        check_all(timers);
    });
    let mut sizes = mode.of(vec![100, 1_000, 10_000, 100_000, 1_000_000], vec![100, 10_000]);
    if huge {
        sizes.push(10_000_000);
    }
    // The slow contenders need minutes at ten million.
    let turns = |timers| if timers > 1_000_000 { 3 } else { mode.of(5, 2) };
    let runs: Vec<Run> = sizes.iter().map(|&timers| Run::take(timers, turns(timers))).collect();
    let points: Vec<String> = sizes.iter().map(ToString::to_string).collect();
    let works = WORKS.iter().enumerate().map(|(work, name)| {
        let basis = if FLOOR_WORKS.contains(name) { Floor::NAME } else { OURS };
        let figure = move |run: &Run, contender: usize| {
            let turns: Vec<f64> =
                run.contenders[contender].1.iter().map(|figures| figures.ns[work]).collect();
            Spread::of(&turns)
        };
        comparison(name, &points, &runs, basis, "ns an operation", figure)
    });
    let worst = |run: &Run, contender: usize| {
        // An interrupt is not the contender's fault, and would have to come in every turn.
        let turns = run.contenders[contender].1.iter();
        let least = turns.map(|figures| figures.worst_ns[0]).min().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "some seconds at most")]
        Spread::single(least as f64 / 1e3)
    };
    let longest = comparison("longest tick", &points, &runs, OURS, "us", worst);
    works.chain([longest]).collect()
}

fn comparison(
    name: &str,
    points: &[String],
    runs: &[Run],
    basis: &str,
    unit: &str,
    figure: impl Fn(&Run, usize) -> Spread,
) -> Comparison {
    let contender = |(index, (name, _)): (usize, &(&'static str, Vec<Figures>))| Contender {
        name: (*name).to_owned(),
        side: side(name),
        figures: runs.iter().map(|run| Some(figure(run, index))).collect(),
        distribution: Vec::new(),
    };
    let mut contenders: Vec<Contender> =
        runs[0].contenders.iter().enumerate().map(contender).collect();
    if basis == OURS {
        contenders.retain(|one| one.side != Side::Limit); // the floor answers nothing
    }
    let how = match name {
        "longest tick" => format!(
            "The longest single pass of \"{}\", the least over the turns: what comes in every turn \
             is the contender's.",
            WORKS[MIXED]
        ),
        _ => String::new(),
    };
    Comparison {
        id: id(name),
        title: format!("Table: {name}"),
        how,
        unit: unit.to_owned(),
        axis: "timers".to_owned(),
        points: points.to_vec(),
        basis: basis.to_owned(),
        contenders,
    }
}

fn side(name: &str) -> Side {
    match name {
        OURS => Side::Ours,
        Floor::NAME => Side::Limit,
        name if VARIANTS.contains(&name) => Side::Variant,
        _ => Side::Peer,
    }
}

/// One size: what every contender needed, turn by turn.
struct Run {
    timers: usize,
    seed: u64,
    contenders: Vec<(&'static str, Vec<Figures>)>,
}

impl Run {
    fn take(timers: usize, turns: usize) -> Run {
        let mut run = Run { timers, seed: 0, contenders: Vec::new() };
        for turn in 0..turns {
            eprintln!("  table: {timers} timers, turn {} of {turns}", turn + 1);
            run.seed = turn as u64;
            run.visit::<Floor>();
            visit_all(&mut run);
        }
        run
    }
}

impl Visitor for Run {
    fn visit<I: DeadlineIndex>(&mut self) {
        let figures = time_all::<I>(self.timers, self.seed);
        match self.contenders.iter_mut().find(|(name, _)| *name == I::NAME) {
            Some((_, turns)) => turns.push(figures),
            None => self.contenders.push((I::NAME, vec![figures])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::exact::Exact;

    #[test]
    fn our_own_is_found_among_the_contenders() {
        assert_eq!(side(Exact::NAME), Side::Ours);
        assert_eq!(side("`BTreeSet` + array"), Side::Peer);
    }
}
