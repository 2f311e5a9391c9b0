//! Whole programs, measured by the kernel's own accounting of the finished child.

use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::time::Instant;
use wait4::Wait4;

/// One run of a program or of a part of one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Run {
    /// Seconds on the clock.
    pub wall: f64,
    /// Seconds of all processors, user and system, with the program's own children that it has waited for.
    pub cpu: f64,
    /// Most memory that was resident at once, in bytes; none for a part of a program. The kernel begins with what its
    /// parent, which is small, has resident.
    pub peak: Option<u64>,
}

/// Runs a program to its end and gives what it printed; fails when it fails.
pub fn measure(program: &str, arguments: &[&str]) -> Result<(Run, Vec<u8>), String> {
    // Files: nothing has to read them while it runs.
    let file = || tempfile::tempfile().map_err(|e| format!("cannot create a temporary file: {e}"));
    let (mut out, mut errors) = (file()?, file()?);
    let to = |file: &File| file.try_clone().map(Stdio::from).map_err(|e| e.to_string());
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(to(&out)?).stderr(to(&errors)?);
    let start = Instant::now();
    let used = command
        .spawn()
        .and_then(|mut child| child.wait4())
        .map_err(|e| format!("cannot start `{program}`: {e}"))?;
    let run = Run {
        wall: start.elapsed().as_secs_f64(),
        cpu: (used.rusage.utime + used.rusage.stime).as_secs_f64(),
        peak: Some(used.rusage.maxrss),
    };
    let text = |file: &mut File| {
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(|e| e.to_string())?;
        Ok::<_, String>(bytes)
    };
    if used.status.success() {
        return Ok((run, text(&mut out)?));
    }
    Err(format!(
        "`{program} {}` failed: {}\n{}",
        arguments.join(" "),
        used.status,
        String::from_utf8_lossy(&text(&mut errors)?)
    ))
}

/// Runs a shell command with arguments `$1` and on.
pub fn shell(command: &str, arguments: &[&str]) -> Result<Run, String> {
    Ok(measure("sh", &[&["-euc", command, "sh"], arguments].concat())?.0)
}

/// Lets the disk write what earlier runs have left, so that it does not fall into the next one.
pub fn settle() -> Result<(), String> {
    measure("sync", &[]).map(drop)
}

/// The middle value; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
