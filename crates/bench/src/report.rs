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
}

impl Row {
    fn new(case: String, system: &str, unit: &str, runs: Vec<f64>) -> Self {
        let (value, unit) = (median(runs.iter().copied()), unit.into());
        Self { case, system: system.into(), unit, value, runs, gbit_per_cpu_s: None }
    }
}

/// What rows beside a case's own say after its name.
const RETRANSMITS: &str = ": retransmits";
const LOST: &str = ": lost";

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
        let all = |part: fn(&Figure) -> Option<f64>| {
            runs.iter().map(part).collect::<Option<Vec<f64>>>().filter(|all| !all.is_empty())
        };
        let values = runs.iter().map(|run| run.value).collect();
        let mut row = Row::new(case.into(), system, unit, values);
        row.gbit_per_cpu_s = all(|run| run.gbit_per_cpu_s).map(|all| median(all.into_iter()));
        self.rows.push(row);
        let beside = [
            (RETRANSMITS, "segments", all(|run| run.retransmits.map(|count| count as f64))),
            (LOST, "%", all(|run| run.lost_percent)),
        ];
        for (what, unit, values) in beside {
            let row = values.map(|values| Row::new(format!("{case}{what}"), system, unit, values));
            self.rows.extend(row);
        }
        println!("{case:42} {system:14} {:>24} {unit}", self.cell(case, system));
    }

    /// What the table shows of a case and system.
    fn cell(&self, case: &str, system: &str) -> String {
        let row = |what: &str| {
            let is_it = |row: &&Row| {
                row.system == system && row.case.strip_suffix(what).is_some_and(|of| of == case)
            };
            self.rows.iter().find(is_it)
        };
        let Some(main) = row("") else { return "-".into() };
        let mut text = format!("{:.2}", main.value);
        if let Some(efficiency) = main.gbit_per_cpu_s {
            let _ = write!(text, " ({efficiency:.2})");
        }
        if let Some(retransmits) = row(RETRANSMITS) {
            let _ = write!(text, ", {:.0} r", retransmits.value);
        }
        if let Some(lost) = row(LOST) {
            let _ = write!(text, ", {:.2} %", lost.value);
        }
        text
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
        let beside = |case: &str| case.ends_with(RETRANSMITS) || case.ends_with(LOST);
        for case in unique(self.rows.iter().map(|row| row.case.as_str())) {
            if beside(case) {
                continue;
            }
            let unit = self.rows.iter().find(|row| row.case == case).map_or("", |row| &row.unit);
            let _ = write!(text, "\n| {case} | {unit} |");
            for system in &systems {
                let _ = write!(text, " {} |", self.cell(case, system));
            }
        }
        text.push_str(
            "\n\nIn brackets: Gbit per CPU-second of the whole machine; r: TCP segments sent again; %: packets lost.\n",
        );
        if !self.versions.is_empty() {
            let _ = writeln!(text, "Versions: {}.", self.versions.join(", "));
        }
        for note in &self.notes {
            let _ = writeln!(text, "- {note}");
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
