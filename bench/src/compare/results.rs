//! What a comparison found, as it is kept in `bench/results.json`.
//!
//! A [`Comparison`] is one piece of work; its [`Contender`]s did it in turns, at each of its points
//! (sizes, numbers of producers, percentiles). What is kept of the turns is a [`Spread`].

use serde::{Deserialize, Serialize};

use crate::measure::quantile;

/// One run of the comparison.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// When it began, UTC.
    pub taken_at: String,
    /// `full`, or `quick` where few turns were taken.
    pub mode: String,
    /// Where it ran.
    pub machine: Machine,
    /// What was compared.
    pub comparisons: Vec<Comparison>,
}

/// The machine a run was taken on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// How many of its cores there are.
    pub cores: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The kernel's clock source.
    pub clock_source: String,
    /// The load of the last minute before the run.
    pub load_before: f64,
    /// The same after it: what the run itself adds is in it.
    pub load_after: f64,
}

/// One piece of work and everyone who did it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Comparison {
    /// Its name in file names and in goals.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// How it was measured, in whole sentences.
    pub how: String,
    /// The unit of every figure; less is better.
    pub unit: String,
    /// What the points are, `timers` or `producers`; empty where there is one only.
    pub axis: String,
    /// The points.
    pub points: Vec<String>,
    /// The contender that ratios are to.
    pub basis: String,
    /// Who did it.
    pub contenders: Vec<Contender>,
}

/// Who a contender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// hangwatch as it ships.
    Ours,
    /// Shown, and does not compete: hangwatch in another configuration, or what it might have been.
    Variant,
    /// A peer.
    Peer,
    /// What no contender can beat: the machine, or less work.
    Limit,
}

/// One contender's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contender {
    /// Its name.
    pub name: String,
    /// Who it is.
    pub side: Side,
    /// Its figures, by point; `None` where it did not take part.
    pub figures: Vec<Option<Spread>>,
    /// The distribution behind percentiles, for a plot: 200 quantiles; or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distribution: Vec<f64>,
}

/// The median of some turns, and how far the middle four fifths of them lie apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// In the middle.
    pub median: f64,
    /// A tenth is under it.
    pub low: f64,
    /// A tenth is over it.
    pub high: f64,
}

impl Spread {
    /// Of some turns.
    ///
    /// # Panics
    /// Where there are none.
    pub fn of(turns: &[f64]) -> Spread {
        let at = |part| quantile(turns, part);
        Spread { median: at(0.5), low: at(0.1), high: at(0.9) }
    }

    /// Of a figure that was taken once.
    pub fn single(value: f64) -> Spread {
        Spread { median: value, low: value, high: value }
    }
}

impl Contender {
    /// A contender with one figure.
    pub fn single(name: impl Into<String>, side: Side, turns: &[f64]) -> Contender {
        let figures = vec![Some(Spread::of(turns))];
        Contender { name: name.into(), side, figures, distribution: Vec::new() }
    }

    /// A contender whose points are percentiles of `values`.
    pub fn percentiles(
        name: impl Into<String>,
        side: Side,
        values: &[f64],
        percentiles: &[f64],
    ) -> Contender {
        let figure = |&part: &f64| Some(Spread::single(quantile(values, part)));
        let figures = percentiles.iter().map(figure).collect();
        let distribution =
            (0..=200).map(|part| quantile(values, f64::from(part) / 200.0)).collect();
        Contender { name: name.into(), side, figures, distribution }
    }

    /// Its median at a point.
    pub fn median(&self, point: usize) -> Option<f64> {
        Some(self.figures.get(point).copied()??.median)
    }
}

impl Comparison {
    /// The contender of this name.
    pub fn contender(&self, name: &str) -> Option<&Contender> {
        self.contenders.iter().find(|contender| contender.name == name)
    }

    /// How often the basis fits into the contender's figure at a point.
    pub fn ratio(&self, name: &str, point: usize) -> Option<f64> {
        let basis = self.contender(&self.basis)?.median(point)?;
        Some(self.contender(name)?.median(point)? / basis)
    }

    /// Where a peer is more than a tenth better than hangwatch: the point, the best peer, and how
    /// often its figure fits into ours.
    pub fn losses(&self) -> Vec<(String, String, f64)> {
        let Some(ours) = self.contenders.iter().find(|one| one.side == Side::Ours) else {
            return Vec::new();
        };
        let lost = |(point, name): (usize, &String)| {
            let mine = ours.median(point)?;
            let peers = self.contenders.iter().filter(|one| one.side == Side::Peer);
            let best = peers
                .filter_map(|peer| Some((peer.median(point)?, peer)))
                .min_by(|a, b| a.0.total_cmp(&b.0))?;
            (mine > 1.1 * best.0).then(|| (name.clone(), best.1.name.clone(), mine / best.0))
        };
        self.points.iter().enumerate().filter_map(lost).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison() -> Comparison {
        let row = |name: &str, side, figures: [f64; 2]| Contender {
            figures: figures.map(|value| Some(Spread::single(value))).to_vec(),
            ..Contender::single(name, side, &[0.0])
        };
        Comparison {
            points: vec!["1".into(), "2".into()],
            basis: "floor".into(),
            contenders: vec![
                row("hangwatch", Side::Ours, [10.0, 12.0]),
                row("peer", Side::Peer, [9.5, 6.0]),
                row("floor", Side::Limit, [1.0, 2.0]),
            ],
            ..Comparison::default()
        }
    }

    #[test]
    fn a_loss_is_where_a_peer_is_more_than_a_tenth_better() {
        let lost = comparison().losses();
        assert_eq!(lost, [("2".to_owned(), "peer".to_owned(), 2.0)]);
    }

    #[test]
    fn ratios_are_to_the_basis_and_absent_where_a_figure_is() {
        let ratio = comparison().ratio("hangwatch", 1).expect("both have figures");
        assert!((ratio - 6.0).abs() < 1e-9);
        assert_eq!(comparison().ratio("nobody", 0), None);
    }
}
