//! Results as JSON and as the Markdown table of `docs/performance.md`.

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use serde::Serialize;

use crate::{
    measure::Figure,
    system::{BenchError, io},
};

/// One line of `results.json`.
#[derive(Debug, Serialize)]
struct Row {
    case: String,
    system: String,
    unit: String,
    /// Median of the runs.
    value: f64,
    runs: Vec<f64>,
    /// Median, where the case moves bulk data.
    gbit_per_cpu_s: Option<f64>,
    retransmits: Option<u64>,
    lost_percent: Option<f64>,
}

/// What was measured and what could not be.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    versions: Vec<String>,
    notes: BTreeSet<String>,
}

impl Report {
    /// Adds the runs of a case and prints their median.
    pub(crate) fn add(&mut self, case: &str, system: &str, unit: &str, runs: &[Figure]) {
        let row = Row {
            case: case.into(),
            system: system.into(),
            unit: unit.into(),
            value: median(runs.iter().map(|run| run.value)),
            runs: runs.iter().map(|run| run.value).collect(),
            gbit_per_cpu_s: runs
                .iter()
                .all(|run| run.gbit_per_cpu_s.is_some())
                .then(|| median(runs.iter().filter_map(|run| run.gbit_per_cpu_s))),
            retransmits: runs.iter().filter_map(|run| run.retransmits).max(),
            lost_percent: runs.iter().filter_map(|run| run.lost_percent).reduce(f64::max),
        };
        println!("{case:42} {system:14} {:>10.2} {unit}{}", row.value, row.details());
        self.rows.push(row);
    }

    /// Notes which version of a system was measured.
    pub(crate) fn version(&mut self, system: &str, version: &str) {
        self.versions.push(format!("{system} {version}"));
    }

    /// Notes a system that could not run at all.
    pub(crate) fn missing(&mut self, system: &str, why: &str) {
        self.notes.insert(format!("{system}: not measured: {why}"));
    }

    /// Notes a case that failed.
    pub(crate) fn failed(&mut self, case: &str, system: &str, why: &str) {
        self.notes.insert(format!("{system}, {case}: failed: {why}"));
    }

    /// Writes `results.json` and `table.md` into `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), BenchError> {
        fs::create_dir_all(dir).map_err(io("making the output directory"))?;
        let json = serde_json::to_vec_pretty(&self.rows).unwrap_or_default();
        fs::write(dir.join("results.json"), json).map_err(io("writing results.json"))?;
        let table = self.table();
        fs::write(dir.join("table.md"), &table).map_err(io("writing table.md"))?;
        println!("\n{table}");
        Ok(())
    }

    /// The table and what could not be measured.
    pub(crate) fn table(&self) -> String {
        let systems = unique(self.rows.iter().map(|row| row.system.as_str()));
        let mut text = format!("| case | unit | {} |\n|---|---|", systems.join(" | "));
        text.push_str(&"---|".repeat(systems.len()));
        for case in unique(self.rows.iter().map(|row| row.case.as_str())) {
            let rows = || self.rows.iter().filter(|row| row.case == case);
            let unit = rows().next().map_or("", |row| &row.unit);
            let _ = write!(text, "\n| {case} | {unit} |");
            for system in &systems {
                let cell = rows().find(|row| row.system == *system).map_or("-".into(), Row::cell);
                let _ = write!(text, " {cell} |");
            }
        }
        text.push_str("\n\nIn brackets: Gbit per CPU-second of the whole machine.\n");
        if !self.versions.is_empty() {
            let _ = writeln!(text, "Versions: {}.", self.versions.join(", "));
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
        }
        text
    }
}

impl Row {
    fn cell(&self) -> String {
        match self.gbit_per_cpu_s {
            Some(efficiency) => format!("{:.2} ({efficiency:.2})", self.value),
            None => format!("{:.2}", self.value),
        }
    }

    fn details(&self) -> String {
        let mut text = String::new();
        if let Some(efficiency) = self.gbit_per_cpu_s {
            let _ = write!(text, "  {efficiency:.2} Gbit/CPU-s");
        }
        if let Some(retransmits) = self.retransmits {
            let _ = write!(text, "  {retransmits} retransmits at most");
        }
        if let Some(lost) = self.lost_percent {
            let _ = write!(text, "  {lost:.2} % lost at most");
        }
        text
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
