//! CPU time of the whole machine.

use std::fs;

/// CPU seconds that every processor together has been busy since boot (user, nice, system, irq,
/// softirq of `/proc/stat`).
pub(crate) fn busy_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // Columns: user nice system idle iowait irq softirq steal.
    let ticks: f64 = [0, 1, 2, 5, 6].iter().filter_map(|&column| fields.get(column)).sum();
    ticks / ticks_per_second()
}

pub(crate) fn ticks_per_second() -> f64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64
}
