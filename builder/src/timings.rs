//! Where a build's time goes: wall and processor seconds of each stage.

use serde::Serialize;
use std::time::{Duration, Instant};

/// One finished stage.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: &'static str,
    /// Seconds on the clock.
    pub wall_seconds: f64,
    /// Seconds of all processors, user and system, of the whole process.
    pub cpu_seconds: f64,
}

/// The finished stages in order.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Timings {
    /// The stages.
    pub stages: Vec<Stage>,
}

/// Processor time of the whole process so far.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

impl Timings {
    /// Runs a stage and records it, whether it succeeds or not.
    pub fn run<T>(&mut self, name: &'static str, stage: impl FnOnce() -> T) -> T {
        let (wall, cpu) = (Instant::now(), cpu_time());
        let result = stage();
        self.stages.push(Stage {
            name,
            wall_seconds: wall.elapsed().as_secs_f64(),
            cpu_seconds: cpu_time().saturating_sub(cpu).as_secs_f64(),
        });
        result
    }

    /// A table for people, the sum in its last row.
    pub fn table(&self) -> String {
        use std::fmt::Write;
        let mut out = format!("{:<12} {:>9} {:>9}\n", "stage", "wall s", "cpu s");
        let row = |out: &mut String, name: &str, wall: f64, cpu: f64| {
            let _ = writeln!(out, "{name:<12} {wall:>9.3} {cpu:>9.3}");
        };
        for stage in &self.stages {
            row(&mut out, stage.name, stage.wall_seconds, stage.cpu_seconds);
        }
        let sum = |pick: fn(&Stage) -> f64| self.stages.iter().map(pick).sum::<f64>();
        row(&mut out, "all", sum(|s| s.wall_seconds), sum(|s| s.cpu_seconds));
        out
    }
}
