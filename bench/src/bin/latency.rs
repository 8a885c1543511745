//! From the deadline to the signal, hangwatch beside the machine's own limit. Argument: samples of
//! either (default 60).

use std::time::Duration;

use hangwatch_bench::{latency, measure::quantile, process};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    process::play_role()?;
    let samples = std::env::args().nth(1).map_or(Ok(60), |count| count.parse())?;
    println!("| deadline | | p50 | p90 | p99 | ratio of p50 | ratio of p99 |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for ahead in [Duration::from_millis(5), Duration::from_millis(250)] {
        let lateness = latency::measure(ahead, samples)?;
        let us = |values: &[f64], at| quantile(values, at) / 1e3;
        for (name, values) in [("limit", &lateness.limit), ("hangwatch", &lateness.hangwatch)] {
            let ratio = |at| quantile(values, at) / quantile(&lateness.limit, at);
            println!(
                "| {ahead:?} | {name} | {:.1} us | {:.1} us | {:.1} us | {:.2} | {:.2} |",
                us(values, 0.5),
                us(values, 0.9),
                us(values, 0.99),
                ratio(0.5),
                ratio(0.99),
            );
        }
    }
    Ok(())
}
