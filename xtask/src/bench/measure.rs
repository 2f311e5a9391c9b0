//! Whole programs, measured by the kernel's own accounting of finished children.

use nix::sys::resource::{UsageWho, getrusage};
use std::process::{Command, Stdio};
use std::time::Instant;

/// One run of a program.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Seconds on the clock.
    pub wall: f64,
    /// Seconds of all processors, user and system.
    pub cpu: f64,
}

fn children_cpu() -> Result<f64, String> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("getrusage: {e}"))?;
    let seconds = |time: nix::sys::time::TimeVal| {
        #[allow(clippy::cast_precision_loss)] // seconds for people
        let value = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        value
    };
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Runs a program to its end and gives what it printed; fails when it fails.
pub fn measure(program: &str, arguments: &[&str]) -> Result<(Run, Vec<u8>), String> {
    let (start, before) = (Instant::now(), children_cpu()?);
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("cannot start `{program}`: {e}"))?;
    let run = Run { wall: start.elapsed().as_secs_f64(), cpu: children_cpu()? - before };
    if output.status.success() {
        Ok((run, output.stdout))
    } else {
        Err(format!(
            "`{program} {}` failed: {}\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

/// The middle value; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
