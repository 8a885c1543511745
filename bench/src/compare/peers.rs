//! What the Python programs of `bench/peers/` measured in the same run, taken into the comparisons.
//!
//! Each prints JSON lines: which comparison, which contender, which point, and its turns.

use std::io::{BufRead, Error};
use std::path::Path;

use serde::Deserialize;

use super::results::{Comparison, Contender, Side, Spread};
use crate::measure::quantile;

/// One line of a peer's output.
#[derive(Debug, Deserialize)]
struct Line {
    /// The id of a comparison.
    comparison: String,
    /// The peer.
    contender: String,
    /// The point, as the comparison names it.
    #[serde(default)]
    point: String,
    /// The figures of its turns, in the comparison's unit.
    turns: Vec<f64>,
}

/// Reads the lines of a file into the comparisons they belong to.
///
/// # Errors
/// Where the file cannot be read, or a line names a comparison or point that does not exist.
pub fn take_in(file: &Path, comparisons: &mut [Comparison]) -> Result<(), Error> {
    for line in std::io::BufReader::new(std::fs::File::open(file)?).lines() {
        let line = line?;
        if !line.starts_with('{') {
            continue; // what torch says about itself
        }
        let line: Line = serde_json::from_str(&line)?;
        let Some(comparison) = comparisons.iter_mut().find(|one| one.id == line.comparison) else {
            continue; // left out of this run
        };
        add(comparison, &line).map_err(Error::other)?;
    }
    Ok(())
}

fn add(comparison: &mut Comparison, line: &Line) -> Result<(), String> {
    if line.turns.is_empty() {
        return Err(format!("{} has no turns", line.contender));
    }
    if comparison.axis == "percentile" {
        let parts = comparison.points.iter().map(|point| match point.as_str() {
            "p50" => 0.5,
            "p99" => 0.99,
            _ => 0.999,
        });
        let figures = parts.map(|part| Some(Spread::single(quantile(&line.turns, part)))).collect();
        let name = line.contender.clone();
        comparison.contenders.push(Contender {
            name,
            side: Side::Peer,
            figures,
            distribution: vec![],
        });
        return Ok(());
    }
    let point = comparison.points.iter().position(|point| *point == line.point);
    let point = point.ok_or_else(|| format!("{} has no point {:?}", comparison.id, line.point))?;
    let figure = Some(Spread::of(&line.turns));
    if let Some(known) = comparison.contenders.iter_mut().find(|one| one.name == line.contender) {
        known.figures[point] = figure;
        return Ok(());
    }
    let mut figures = vec![None; comparison.points.len()];
    figures[point] = figure;
    let name = line.contender.clone();
    comparison.contenders.push(Contender { name, side: Side::Peer, figures, distribution: vec![] });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peers_lines_become_contenders() {
        let points = vec!["64".to_owned(), "1024".to_owned()];
        let mut comparisons =
            [Comparison { id: "tick".to_owned(), points, ..Comparison::default() }];
        let file = std::env::temp_dir().join(format!("peers-{}.jsonl", std::process::id()));
        let text = r#"torch says hello
{"comparison":"tick","contender":"torch","point":"1024","turns":[3,1,2]}
{"comparison":"other","contender":"torch","turns":[1]}
"#;
        std::fs::write(&file, text).expect("a file");
        take_in(&file, &mut comparisons).expect("good lines");
        std::fs::remove_file(&file).expect("it is there");
        let torch = comparisons[0].contender("torch").expect("it was taken in");
        assert_eq!((torch.median(0), torch.median(1)), (None, Some(2.0)));
    }
}
