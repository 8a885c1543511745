//! The watchdog's pass: drain, apply, sweep, expire.

use std::time::Duration;

use super::Mode;
use super::results::{Comparison, Contender, Side, Spread};
use crate::stage::{LiveProducer, Stage, default_lanes, small_lanes};

/// hangwatch's loop.
pub const OURS: &str = "**hangwatch**";
/// Where a producer writes all the time on another core.
pub const LIVE: &str = "hangwatch, a producer live on the other core";
/// What a record may cost where 500 million a second are wanted, ns.
pub const GOAL_NS_A_RECORD: f64 = 2.0;

/// Idle ticks by lanes, the drain, and the mass expiry.
pub fn compare(mode: Mode) -> Vec<Comparison> {
    let turns = mode.of(401, 41);
    vec![idle(turns), drain(turns), mass(turns / 10)]
}

fn us(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

fn idle(turns: usize) -> Comparison {
    let lanes = [64, 1_024, 4_096, 16_384];
    let figure = |lanes: u32| {
        let geometry = if lanes > 4_096 { small_lanes(lanes) } else { default_lanes(lanes) };
        let mut stage = Stage::new(geometry);
        let turns = 0..turns / if lanes > 4_096 { 4 } else { 1 };
        Some(Spread::of(&turns.map(|_| us(stage.time_idle_tick())).collect::<Vec<_>>()))
    };
    Comparison {
        id: "tick".to_owned(),
        title: "A whole tick with nothing due".to_owned(),
        how: "The real loop over a real mapping, with fake owners, hands and sleep: size, drain, \
              sweep over every timer word, 64 armed timers a lane. Upstream's pass is its \
              `_run_watchdog` over the same number of timers with nothing in its queue."
            .to_owned(),
        unit: "us".to_owned(),
        axis: "lanes of 64 timers".to_owned(),
        points: lanes.map(|lanes| lanes.to_string()).to_vec(),
        basis: OURS.to_owned(),
        contenders: vec![Contender {
            name: OURS.to_owned(),
            side: Side::Ours,
            figures: lanes.map(figure).to_vec(),
            distribution: Vec::new(),
        }],
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of some thousand")]
fn drain(turns: usize) -> Comparison {
    let records = [1, 16, 256];
    let mut stage = Stage::new(default_lanes(64));
    let mut quiet = |records: u32| {
        let turn = |_| {
            let (took, drained) = stage.time_drain(records);
            assert_eq!(drained, 64 * records as usize);
            took.as_secs_f64() * 1e9 / drained as f64
        };
        Some(Spread::of(&(0..turns).map(turn).collect::<Vec<_>>()))
    };
    let quiet: Vec<_> = records.iter().map(|&records| quiet(records)).collect();
    let producer = LiveProducer::start(&mut stage);
    let mut live = |_| {
        let (took, drained) = stage.time_live_drain(20_000);
        took.as_secs_f64() * 1e9 / drained as f64
    };
    let live: Vec<f64> = (0..turns / 4).map(&mut live).collect();
    drop(producer);
    let row = |name: &str, side, figures| Contender {
        name: name.to_owned(),
        side,
        figures,
        distribution: Vec::new(),
    };
    Comparison {
        id: "drain".to_owned(),
        title: "Draining and applying news".to_owned(),
        how: "64 lanes, all checks, what the tick does with what waits in the rings. With a live \
              producer the figure is mostly a cache line's way between two cores; upstream registers \
              its requests one at a time in Python."
            .to_owned(),
        unit: "ns a record".to_owned(),
        axis: "records waiting a lane".to_owned(),
        points: records.map(|records| records.to_string()).to_vec(),
        basis: OURS.to_owned(),
        contenders: vec![
            row(OURS, Side::Ours, quiet),
            row(LIVE, Side::Variant, vec![None, None, Some(Spread::of(&live))]),
        ],
    }
}

fn mass(turns: usize) -> Comparison {
    let mut stage = Stage::new(default_lanes(1024));
    let times: Vec<f64> = (0..turns).map(|_| us(stage.time_mass_expiry(10_000))).collect();
    Comparison {
        id: "mass-expiry".to_owned(),
        title: "10,000 timers expire in one tick".to_owned(),
        how: "1,024 workers; the tick condemns, reaps and clears them in the order of their \
              deadlines, which is checked each time. Signals are fakes."
            .to_owned(),
        unit: "us".to_owned(),
        points: vec![String::new()],
        basis: OURS.to_owned(),
        contenders: vec![Contender::single(OURS, Side::Ours, &times)],
        ..Comparison::default()
    }
}
