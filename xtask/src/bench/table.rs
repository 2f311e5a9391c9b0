//! The one table that a measurement prints, or the same as JSON.

use super::measure::{Run, median};
use serde_json::{Map, Value, json};

/// One thing that was measured.
#[derive(Debug, Default)]
struct Row {
    name: String,
    runs: Vec<Run>,
    /// Other figures by column.
    figures: Vec<(&'static str, f64)>,
    /// Name of the row that it is compared with.
    beside: Option<String>,
    /// A wish and whether it was met.
    goal: Option<String>,
}

/// All that was measured, in the order in which it was first seen.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// Column of sizes, in bytes.
pub const SIZE: &str = "bytes";
/// Column of the whole machine's processor seconds.
pub const MACHINE: &str = "machine_cpu_seconds";

impl Row {
    fn median(&self, of: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let values: Vec<f64> = self.runs.iter().filter_map(of).collect();
        if values.is_empty() { None } else { Some(median(values)) }
    }

    fn wall(&self) -> Option<f64> {
        self.median(|run| Some(run.wall))
    }

    fn cpu(&self) -> Option<f64> {
        self.median(|run| Some(run.cpu))
    }

    #[allow(clippy::cast_precision_loss)] // far below 2^52
    fn peak(&self) -> Option<f64> {
        self.median(|run| run.peak.map(|bytes| bytes as f64))
    }

    fn figure(&self, name: &str) -> Option<f64> {
        let values: Vec<f64> = self.figures.iter().filter(|(key, _)| *key == name).map(|(_, v)| *v).collect();
        if values.is_empty() { None } else { Some(median(values)) }
    }

    /// Every value that it has, by name.
    fn values(&self, extra: &[&'static str]) -> Vec<(&'static str, f64)> {
        let fixed = [("wall_seconds", self.wall()), ("cpu_seconds", self.cpu()), ("peak_bytes", self.peak())];
        let more = extra.iter().map(|key| (*key, self.figure(key)));
        fixed.into_iter().chain(more).filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// A value as people read it.
fn shown(key: &str, value: f64) -> String {
    if key.ends_with("bytes") { format!("{:.2}", value / f64::from(1 << 20)) } else { format!("{value:.3}") }
}

/// A column's name as people read it.
fn head(key: &str) -> String {
    match key.strip_suffix("bytes") {
        Some(what) => format!("{} MiB", what.replace('_', " ")).trim().to_owned(),
        None => key.replace("_seconds", " s").replace('_', " "),
    }
}

impl Table {
    fn row(&mut self, name: &str) -> &mut Row {
        let index = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), ..Row::default() });
            self.rows.len() - 1
        });
        &mut self.rows[index]
    }

    /// Counts a run.
    pub fn run(&mut self, name: &str, run: Run) {
        self.row(name).runs.push(run);
    }

    /// Notes another figure of a row.
    pub fn figure(&mut self, name: &str, column: &'static str, value: f64) {
        self.row(name).figures.push((column, value));
    }

    /// Compares a row with another one.
    pub fn beside(&mut self, name: &str, peer: &str) {
        self.row(name).beside = Some(peer.to_owned());
    }

    /// The same for a row that is not compared yet.
    pub fn beside_if_alone(&mut self, name: &str, peer: &str) {
        self.row(name).beside.get_or_insert_with(|| peer.to_owned());
    }

    /// Says something below the table.
    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The median of a row's seconds: wall, processors; 0 where it has none.
    pub fn seconds(&self, name: &str) -> (f64, f64) {
        let row = self.rows.iter().find(|row| row.name == name);
        row.map_or((0.0, 0.0), |row| (row.wall().unwrap_or(0.0), row.cpu().unwrap_or(0.0)))
    }

    /// The median of a figure of a row; 0 where it has none.
    pub fn median(&self, name: &str, column: &str) -> f64 {
        self.rows.iter().find(|row| row.name == name).and_then(|row| row.figure(column)).unwrap_or(0.0)
    }

    /// The median of a row's peak memory, in bytes.
    pub fn peak(&self, name: &str) -> f64 {
        self.rows.iter().find(|row| row.name == name).and_then(Row::peak).unwrap_or(0.0)
    }

    /// Adds to a row's goals.
    pub fn goal(&mut self, name: &str, what: &str, met: bool) {
        let goal = format!("{what}: {}", if met { "met" } else { "MISSED" });
        let row = self.row(name);
        row.goal = Some(row.goal.take().map_or(goal.clone(), |before| format!("{before}; {goal}")));
    }

    /// A row's values as parts of its peer's.
    fn ratios(&self, row: &Row, extra: &[&'static str]) -> Vec<(&'static str, f64)> {
        let peer = row.beside.as_ref().and_then(|name| self.rows.iter().find(|row| row.name == *name));
        let Some(peer) = peer else { return Vec::new() };
        let theirs = peer.values(extra);
        let both = row.values(extra).into_iter().filter_map(|(key, ours)| {
            let (_, value) = theirs.iter().find(|(name, _)| *name == key)?;
            (*value > 0.0).then(|| (key, ours / value))
        });
        both.collect()
    }

    fn columns(&self) -> Vec<&'static str> {
        let mut columns = Vec::new();
        for (key, _) in self.rows.iter().flat_map(|row| &row.figures) {
            if !columns.contains(key) {
                columns.push(*key);
            }
        }
        columns
    }

    fn json(&self) -> Value {
        let extra = self.columns();
        let map = |values: Vec<(&'static str, f64)>| {
            values.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect::<Map<_, _>>()
        };
        let rows = self.rows.iter().map(|row| {
            let mut all = map(row.values(&extra));
            all.insert("name".into(), json!(row.name));
            all.insert("runs".into(), json!(row.runs.len()));
            if let Some(peer) = &row.beside {
                all.insert("beside".into(), json!(peer));
                all.insert("ratios".into(), Value::Object(map(self.ratios(row, &extra))));
            }
            if let Some(goal) = &row.goal {
                all.insert("goal".into(), json!(goal));
            }
            Value::Object(all)
        });
        json!({ "rows": rows.collect::<Vec<_>>(), "notes": self.notes })
    }

    fn text(&self) -> String {
        use std::fmt::Write;
        let extra = self.columns();
        let timed = self.rows.iter().any(|row| !row.runs.is_empty());
        let fixed: &[&'static str] = if timed { &["wall_seconds", "cpu_seconds", "peak_bytes"] } else { &[] };
        let columns = [fixed, &extra].concat();
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        let mut out = format!("{:<width$}", "");
        for key in &columns {
            let _ = write!(out, " {:>12}", head(key));
        }
        out.push('\n');
        for row in &self.rows {
            let _ = write!(out, "{:<width$}", row.name);
            let values = row.values(&extra);
            for key in &columns {
                let value = values.iter().find(|(name, _)| name == key);
                let _ = write!(out, " {:>12}", value.map_or("-".into(), |(key, value)| shown(key, *value)));
            }
            let ratios = self.ratios(row, &extra);
            if let (Some(peer), false) = (&row.beside, ratios.is_empty()) {
                let list: Vec<String> = ratios
                    .iter()
                    .filter(|(key, _)| *key != "peak_bytes")
                    .map(|(key, ratio)| {
                        let what = key.trim_end_matches("_seconds").replace('_', " ");
                        format!("{what} {ratio:.2}")
                    })
                    .collect();
                let _ = write!(out, "   {} of `{peer}`", list.join(", "));
            }
            if let Some(goal) = &row.goal {
                let _ = write!(out, "   {goal}");
            }
            out.push('\n');
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        out
    }

    /// Prints it.
    pub fn print(&self, json: bool) {
        if json {
            println!("{:#}", self.json());
        } else {
            print!("{}", self.text());
        }
    }
}
