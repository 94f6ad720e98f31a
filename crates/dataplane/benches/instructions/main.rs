//! Instructions that the hot path takes, counted by callgrind and compared with a committed
//! baseline: unlike times they are the same on a busy machine.
//!
//! `make bench-instructions` compares; with `BENCH_ARGS=--update` it writes the baseline and the
//! table in `docs/performance.md` anew. Needs Debian's valgrind, and a processor with AVX2.

mod count;
mod operations;

use std::{
    collections::BTreeMap,
    process::{Command, ExitCode},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use serde::{Deserialize, Serialize};

use operations::CASES;

/// From the package's directory, where cargo runs benchmarks.
const BASELINE: &str = "benches/instructions.json";

/// How far a count may be above the baseline, in percent.
const TOLERANCE: f64 = 3.0;
/// The same where another compiler than the baseline's has built it.
const OTHER_COMPILER_TOLERANCE: f64 = 10.0;

/// The committed counts.
#[derive(Serialize, Deserialize)]
struct Baseline {
    /// What `rustc --version` said.
    compiler: String,
    counts: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, case] = &args[..]
        && flag == count::DO
    {
        return match case.parse() {
            Ok(case) if case < CASES.len() => {
                count::perform(case);
                ExitCode::SUCCESS
            }
            _ => ExitCode::FAILURE,
        };
    }
    if !args.iter().any(|arg| arg == "--bench") {
        println!("instruction counts: nothing to do but under `cargo bench`");
        return ExitCode::SUCCESS;
    }
    if let Err(why) = count::comparable() {
        println!("instruction counts: not compared: {why}");
        println!("0 passed, 0 failed, {} skipped", CASES.len());
        return ExitCode::SUCCESS;
    }
    let update = args.iter().any(|arg| arg == "--update");
    match if update { write() } else { compare() } {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instruction counts: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Instructions of each case; as many are counted at once as there are cores.
fn counts() -> Result<BTreeMap<String, u64>, String> {
    let next = AtomicUsize::new(0);
    let some = || {
        let mut counted = Vec::new();
        loop {
            let case = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, _)) = CASES.get(case) else { return Ok(counted) };
            counted.push(((*name).to_owned(), count::count(case)?));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let all: Result<Vec<Vec<_>>, String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(some)).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|some| some.unwrap_or_else(|_| Err("counting panicked".into()))).collect()
    });
    Ok(all?.into_iter().flatten().collect())
}

fn compiler() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).arg("--version").output().map_err(|e| format!("rustc: {e}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn write() -> Result<bool, String> {
    let baseline = Baseline { compiler: compiler()?, counts: counts()? };
    let text = serde_json::to_string_pretty(&baseline).map_err(|e| e.to_string())?;
    std::fs::write(BASELINE, text + "\n").map_err(|e| format!("writing {BASELINE}: {e}"))?;
    let row = |(name, _): &operations::Case| format!("| {name} | {} |\n", baseline.counts[*name]);
    let rows: String = CASES.iter().map(row).collect();
    let table = format!("| operation | instructions |\n|---|---|\n{rows}");
    gvpn_lab::figures::write("performance.md", "instructions", &table)
        .map_err(|e| format!("writing docs/performance.md: {e}"))?;
    print!("{table}");
    Ok(true)
}

fn compare() -> Result<bool, String> {
    let text = std::fs::read_to_string(BASELINE).map_err(|e| format!("reading {BASELINE}: {e}"))?;
    let baseline: Baseline =
        serde_json::from_str(&text).map_err(|e| format!("reading {BASELINE}: {e}"))?;
    let (compiler, counts) = (compiler()?, counts()?);
    let mut limit = TOLERANCE;
    if compiler != baseline.compiler {
        limit = OTHER_COMPILER_TOLERANCE;
        println!(
            "built by {compiler}, the baseline by {}: up to {limit} % more passes",
            baseline.compiler
        );
    }
    let (mut dearer, mut cheaper) = (Vec::new(), 0);
    for (name, _) in CASES {
        let count = counts[*name];
        let Some(&before) = baseline.counts.get(*name) else {
            println!("{name:40} {count:>9}    NOT IN THE BASELINE");
            dearer.push(format!("{name}: {count} instructions, and the baseline has none"));
            continue;
        };
        let change = (count as f64 / before.max(1) as f64 - 1.0) * 100.0;
        let verdict = if change > limit { "MORE THAN THE BASELINE" } else { "ok" };
        println!("{name:40} {count:>9} {change:>+7.1} %  {verdict}");
        cheaper += usize::from(change < -TOLERANCE);
        if change > limit {
            dearer.push(format!(
                "{name}: {count} instructions, {change:.1} % more than the {before} of the baseline (limit {limit} %)"
            ));
        }
    }
    println!("{} passed, {} failed", CASES.len() - dearer.len(), dearer.len());
    const UPDATE: &str = "`make bench-instructions BENCH_ARGS=--update` writes a new baseline";
    if !dearer.is_empty() {
        eprintln!("these operations of the data path have got dearer:");
        dearer.iter().for_each(|line| eprintln!("  {line}"));
        eprintln!("if that is meant, {UPDATE}; commit it and say why");
    } else if cheaper > 0 {
        println!("{cheaper} got cheaper by more than {TOLERANCE} %: {UPDATE}, so that it stays so");
    }
    Ok(dearer.is_empty())
}
