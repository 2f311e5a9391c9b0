//! The whole-system tests: as many test programs at once as there are processors, because a guest under emulation keeps one busy.

use crate::run::workspace;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

const PACKAGE: &str = "ashlar-tests";
/// Programs whose guests keep all processors busy: they run alone, and first.
const ALONE: &[&str] = &["fleet"];
/// The longest of the others go first, so that the end is not one that waits for the last.
const LONG: &[&str] = &["update", "state", "control", "attack"];

/// A test program and its name.
type Program = (String, PathBuf);

/// Compiles the tests and gives their programs.
fn programs() -> Result<Vec<Program>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--package", PACKAGE, "--no-run", "--message-format", "json-render-diagnostics"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the whole-system tests cannot be compiled: {}", output.status));
    }
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str())
        else {
            continue;
        };
        if message["profile"]["test"] == true {
            found.push((name.to_owned(), PathBuf::from(path)));
        }
    }
    if found.is_empty() { Err("cargo has told of no test program".into()) } else { Ok(found) }
}

/// Runs one, shows what it said, and tells whether all was well.
fn run((name, path): &Program, environment: &[(&str, &str)]) -> bool {
    let begun = Instant::now();
    let output = Command::new(path)
        .current_dir(workspace().join("tests"))
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output();
    let seconds = begun.elapsed().as_secs_f64();
    match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            // One piece, so that two programs do not speak at once.
            println!("\n     Running {name} ({seconds:.1} s, {})\n{}{}", output.status, text[0], text[1]);
            output.status.success()
        }
        Err(error) => {
            println!("{name} cannot be started: {error}");
            false
        }
    }
}

/// Runs all; those that fail do not keep the others from running.
pub fn test(environment: &[(&str, &str)]) -> Result<(), String> {
    let (alone, mut others): (Vec<_>, Vec<_>) =
        programs()?.into_iter().partition(|(name, _)| ALONE.contains(&name.as_str()));
    others.sort_by_key(|(name, _)| LONG.iter().position(|long| long == name).unwrap_or(LONG.len()));
    let failed = Mutex::new(Vec::new());
    let note = |program: &Program| {
        if !run(program, environment) {
            failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(program.0.clone());
        }
    };
    alone.iter().for_each(note);
    let queue = Mutex::new(others.into_iter().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(program) = next() {
                    note(&program);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}
