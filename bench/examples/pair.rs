//! What an acquire and its release cost with each clock, beside a bare clock read: a quick look,
//! `cargo bench` tells more. Arguments: pairs a round (default 20,000), and which clock (0 to 2).

use hangwatch_bench::pair::{Bench, CLOCKS};

const ROUNDS: usize = 101;

fn main() -> Result<(), std::num::ParseIntError> {
    let mut args = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let pairs = args.next().transpose()?.unwrap_or(20_000);
    let only = args.next().transpose()?;
    let bench = Bench::new();
    for (index, kind) in CLOCKS.into_iter().enumerate() {
        if only.is_some_and(|only| only != index) {
            continue;
        }
        let (pair_ns, clock_ns) = bench.beside_clock(kind, ROUNDS, pairs);
        let ratio = pair_ns / clock_ns;
        println!("{kind:?}: pair {pair_ns:.1} ns, clock {clock_ns:.1} ns, ratio {ratio:.2}");
    }
    Ok(())
}
