//! What processes have used, by the word of `/proc`.

use std::fs;

/// Processor seconds and bytes of memory of every process that the present one, an init, can see, and
/// of those that it has reaped.
pub(crate) fn of_all_processes() -> (f64, u64) {
    // SAFETY: plain system call.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
    let page = 4096;
    let reaped = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN);
    let mut cpu_sec = reaped.map_or(0.0, |used| {
        let seconds = |t: nix::sys::time::TimeVal| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6;
        seconds(used.user_time()) + seconds(used.system_time())
    });
    let mut memory = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_process = name.to_str().is_some_and(|n| n.parse::<u32>().is_ok_and(|pid| pid != 1));
        let Some(stat) = is_process.then(|| fs::read_to_string(entry.path().join("stat")).ok())
        else {
            continue;
        };
        // The name in parentheses may hold anything, parentheses too.
        let Some((_, fields)) = stat.as_deref().and_then(|text| text.rsplit_once(") ")) else {
            continue;
        };
        let field = |n: usize| {
            fields.split(' ').nth(n).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        // utime, stime and those of reaped children; then the resident pages.
        cpu_sec += (11..=14).map(field).sum::<u64>() as f64 / ticks;
        memory += field(21) * page;
    }
    (cpu_sec, memory)
}

/// Processor seconds and bytes of memory of a process and all that it has started.
pub(crate) fn of_family(root: u32) -> (f64, u64) {
    // SAFETY: plain system call.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
    let mut all = std::collections::HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<u64> = fields.split(' ').map(|text| text.parse().unwrap_or(0)).collect();
        all.insert(pid, fields);
    }
    let field = |pid: &u32, n: usize| all.get(pid).and_then(|f| f.get(n)).copied().unwrap_or(0);
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(all.keys().filter(|pid| field(pid, 1) == u64::from(parent)));
        next += 1;
    }
    let cpu: u64 = family.iter().map(|pid| field(pid, 11) + field(pid, 12)).sum();
    let pages: u64 = family.iter().map(|pid| field(pid, 21)).sum();
    (cpu as f64 / ticks, pages * 4096)
}
