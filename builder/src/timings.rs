//! Where a build's time goes: each stage's beginning, wall and processor seconds, and its thread.

use serde::Serialize;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One finished stage.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Seconds from the build's beginning to its own.
    pub start_seconds: f64,
    /// Seconds on the clock.
    pub wall_seconds: f64,
    /// Seconds of all processors, user and system, of the whole process while the stage ran. With one job this is the
    /// stage's own time; with more, stages that run at the same time are in each other's.
    pub cpu_seconds: f64,
    /// The thread that it ran on, from 0.
    pub thread: usize,
    /// Whether its result was kept from an earlier build.
    pub kept: bool,
}

/// A stage that runs.
#[derive(Debug)]
pub struct Span {
    name: &'static str,
    thread: usize,
    wall: Instant,
    cpu: Duration,
}

/// A span that has ended, still in absolute time.
#[derive(Debug)]
pub struct Ended {
    span: Span,
    wall: Duration,
    cpu: Duration,
    kept: bool,
}

impl Span {
    /// A stage begins.
    pub fn begin(name: &'static str, thread: usize) -> Self {
        Self { name, thread, wall: Instant::now(), cpu: cpu_time() }
    }

    /// It has ended; `kept` when its result was there already.
    pub fn end(self, kept: bool) -> Ended {
        Ended { wall: self.wall.elapsed(), cpu: cpu_time().saturating_sub(self.cpu), kept, span: self }
    }
}

/// The finished stages of a build.
#[derive(Debug)]
pub struct Timings {
    start: Instant,
    stages: Mutex<Vec<Stage>>,
}

/// The stages in the order in which they began, and the sums.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The stages.
    pub stages: Vec<Stage>,
    /// Seconds on the clock from the build's beginning.
    pub wall_seconds: f64,
    /// Seconds of all processors, user and system, of the whole process.
    pub cpu_seconds: f64,
}

/// Processor time of the whole process so far.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

impl Timings {
    /// The build begins.
    pub fn start() -> Self {
        Self { start: Instant::now(), stages: Mutex::new(Vec::new()) }
    }

    /// Runs a stage outside of a graph and records it, whether it succeeds or not.
    pub fn run<T>(&self, name: &'static str, stage: impl FnOnce() -> T) -> T {
        let span = Span::begin(name, 0);
        let result = stage();
        self.add(&span.end(false));
        result
    }

    /// Records a stage.
    pub fn add(&self, ended: &Ended) {
        let stage = Stage {
            name: ended.span.name,
            start_seconds: ended.span.wall.saturating_duration_since(self.start).as_secs_f64(),
            wall_seconds: ended.wall.as_secs_f64(),
            cpu_seconds: ended.cpu.as_secs_f64(),
            thread: ended.span.thread,
            kept: ended.kept,
        };
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).push(stage);
    }

    /// The stages in the order in which they began.
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner).clone();
        stages.sort_by(|a, b| a.start_seconds.total_cmp(&b.start_seconds));
        stages
    }

    /// All of it, at the end of the build.
    pub fn report(&self) -> Report {
        Report {
            stages: self.stages(),
            wall_seconds: self.start.elapsed().as_secs_f64(),
            cpu_seconds: cpu_time().as_secs_f64(),
        }
    }
}

impl Report {
    /// A table for people, the whole in its last row.
    pub fn table(&self) -> String {
        use std::fmt::Write;
        let mut out = format!("{:<14} {:>9} {:>9} {:>9}\n", "stage", "start s", "wall s", "cpu s");
        for stage in &self.stages {
            let (start, wall, cpu) = (stage.start_seconds, stage.wall_seconds, stage.cpu_seconds);
            let kept = if stage.kept { "  kept" } else { "" };
            let _ = writeln!(out, "{:<14} {start:>9.3} {wall:>9.3} {cpu:>9.3}{kept}", stage.name);
        }
        let _ = writeln!(out, "{:<14} {:>9} {:>9.3} {:>9.3}", "all", "", self.wall_seconds, self.cpu_seconds);
        out
    }

    /// The stages as a trace for Perfetto (Trace Event Format, JSON array of complete events; times in microseconds).
    pub fn trace(&self) -> serde_json::Value {
        let micros = |seconds: f64| (seconds * 1e6).round();
        let events = self.stages.iter().map(|stage| {
            serde_json::json!({
                "name": stage.name,
                "cat": if stage.kept { "kept" } else { "run" },
                "ph": "X",
                "ts": micros(stage.start_seconds),
                "dur": micros(stage.wall_seconds),
                "pid": 1,
                "tid": stage.thread,
                "args": { "cpu_seconds": stage.cpu_seconds },
            })
        });
        serde_json::Value::Array(events.collect())
    }
}
