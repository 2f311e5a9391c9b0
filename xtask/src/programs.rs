//! The tests' programs. All are compiled by one `cargo test --workspace`: compiled package by package, what they share would have other
//! features each time and be compiled again.

use crate::run::{cargo_with, workspace};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// The package of the whole-system tests.
const MACHINES: &str = "tests";
/// Programs whose guests keep all processors busy: they run alone, and first.
const ALONE: &[&str] = &["fleet"];
/// The longest of the others go first, so that the end is not one that waits for the last.
const LONG: &[&str] = &["update", "state", "control", "attack"];

/// A test program.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    path: PathBuf,
    /// The folder of its package, in which it runs.
    folder: PathBuf,
}

impl Program {
    fn is_of_machines(&self) -> bool {
        self.folder == workspace().join(MACHINES)
    }
}

/// Compiles all tests and gives their programs.
pub fn compile() -> Result<Vec<Program>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--workspace", "--no-run", "--message-format", "json-render-diagnostics"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("the tests cannot be compiled: {}", output.status));
    }
    let mut found = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let (Some(name), Some(path), Some(manifest)) =
            (text(&message["target"]["name"]), text(&message["executable"]), text(&message["manifest_path"]))
        else {
            continue;
        };
        if message["profile"]["test"] == true {
            let folder = Path::new(&manifest).parent().unwrap_or(Path::new("/")).to_owned();
            found.push(Program { name, path: path.into(), folder });
        }
    }
    if found.is_empty() { Err("cargo has told of no test program".into()) } else { Ok(found) }
}

/// Runs one, shows what it said, and tells whether all was well.
fn run(program: &Program, environment: &[(&str, &str)]) -> bool {
    let begun = Instant::now();
    let output = Command::new(&program.path)
        .current_dir(&program.folder)
        .env("CARGO_MANIFEST_DIR", &program.folder)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output();
    let (name, seconds) = (&program.name, begun.elapsed().as_secs_f64());
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

/// What has failed.
fn verdict(failed: Mutex<Vec<String>>) -> Result<(), String> {
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", "))) }
}

/// Runs the tests of all crates, one program after the other, and the examples of their documentation.
pub fn crates(all: &[Program], environment: &[(&str, &str)]) -> Result<(), String> {
    let failed = Mutex::new(Vec::new());
    for program in all.iter().filter(|program| !program.is_of_machines()) {
        if !run(program, environment) {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(program.name.clone());
        }
    }
    verdict(failed)?;
    cargo_with(&["test", "--workspace", "--doc", "--quiet"], environment)
}

/// Runs the whole-system tests: as many programs at once as there are processors, because a guest under emulation keeps one
/// busy. Those that fail do not keep the others from running.
pub fn machines(all: &[Program], environment: &[(&str, &str)]) -> Result<(), String> {
    let ours = all.iter().filter(|program| program.is_of_machines()).cloned();
    let (alone, mut others): (Vec<_>, Vec<_>) =
        ours.partition(|program| ALONE.contains(&program.name.as_str()));
    others.sort_by_key(|program| LONG.iter().position(|long| *long == program.name).unwrap_or(LONG.len()));
    let failed = Mutex::new(Vec::new());
    let note = |program: &Program| {
        if !run(program, environment) {
            failed.lock().unwrap_or_else(PoisonError::into_inner).push(program.name.clone());
        }
    };
    alone.iter().for_each(note);
    let queue = Mutex::new(others.into_iter().collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
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
    verdict(failed)
}
