//! What a reader must know of the machine.

use std::fs;

use super::results::Machine;

/// Looks at this machine.
pub fn look() -> Machine {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = text("/proc/cpuinfo");
    let processor = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned());
    let source = text("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    Machine {
        processor,
        cores: cores(),
        kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        clock_source: source.trim().to_owned(),
        load_before: load(),
        load_after: 0.0,
    }
}

/// The cores this process may run on.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The load of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}
