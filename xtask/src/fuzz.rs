//! `cargo xtask fuzz`: the parsers of outside bytes under libFuzzer, by cargo-fuzz.
//!
//! A target starts from the inputs in `fuzz/seeds` (in version control, made by `fuzz/seeds.sh`) and those that earlier runs
//! kept in `fuzz/corpus` (not in it). An input that is a finding goes into `fuzz/artifacts`, made small.

use crate::run::{cargo_with, target, workspace};
use clap::Args;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// Most memory of a target in MiB, and longest time for one input in seconds: more of either is a finding.
const LIMITS: [&str; 2] = ["-rss_limit_mb=2048", "-timeout=20"];
/// How long a finding is made smaller, in seconds.
const MINIMISE: u32 = 60;

/// Which targets and for how long.
#[derive(Args)]
pub struct Fuzz {
    /// The targets; all otherwise
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Targets that run at once
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Run each input of seeds and corpus once and look for no new ones: a matter of seconds, for tests
    #[arg(long, conflicts_with = "seconds")]
    corpus_only: bool,
}

/// What came of a target.
struct Outcome {
    target: String,
    seconds: f64,
    executions: u64,
    per_second: u64,
    edges: u64,
    features: u64,
    corpus: u64,
    findings: Vec<String>,
}

impl Fuzz {
    /// Runs the targets and prints a table; fails when there is a finding.
    pub fn run(self) -> Result<(), String> {
        let known = known()?;
        for target in &self.targets {
            if !known.contains(target) {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                return Err(format!("there is no target `{target}`; there are: {}", known.join(", ")));
            }
        }
        let chosen = if self.targets.is_empty() { known.into_iter().collect() } else { self.targets.clone() };
        let host = host()?;
        build(&chosen, &host)?;
        let programs = target().join(&host).join("release");

        let waiting = Mutex::new(chosen.iter());
        let outcomes = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, chosen.len()) {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().ok().and_then(|mut waiting| waiting.next());
                        let Some(target) = next else { break };
                        let outcome = self.one(target, &programs.join(target));
                        if let Ok(mut outcomes) = outcomes.lock() {
                            outcomes.push(outcome);
                        }
                    }
                });
            }
        });
        let outcomes = outcomes.into_inner().map_err(|_| "a thread has failed")?;
        let mut outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        outcomes.sort_by(|a, b| a.target.cmp(&b.target));
        table(&outcomes);
        let findings: Vec<&str> =
            outcomes.iter().flat_map(|outcome| &outcome.findings).map(String::as_str).collect();
        if findings.is_empty() { Ok(()) } else { Err(format!("findings:\n  {}", findings.join("\n  "))) }
    }

    /// Runs one target; what it prints goes into a file.
    fn one(&self, target: &str, program: &Path) -> Result<Outcome, String> {
        let fuzz = workspace().join("fuzz");
        let (corpus, artifacts) = (fuzz.join("corpus").join(target), fuzz.join("artifacts").join(target));
        let logs = crate::run::target().join("fuzz-logs");
        for folder in [&corpus, &artifacts, &logs] {
            fs::create_dir_all(folder).map_err(|e| format!("cannot make `{}`: {e}", folder.display()))?;
        }
        let before = files(&artifacts)?;
        let dictionary = fuzz.join("dictionaries").join(format!("{target}.dict"));
        let log = logs.join(format!("{target}.log"));

        let mut command = Command::new(program);
        command.args(LIMITS).arg("-print_final_stats=1");
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        if self.corpus_only {
            command.arg("-runs=0");
        } else {
            command.arg(format!("-max_total_time={}", self.seconds));
        }
        if dictionary.is_file() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        // New inputs go into the first folder.
        command.arg(&corpus).arg(fuzz.join("seeds").join(target));
        println!("xtask: fuzzing {target}; `{}` tells how it goes", log.display());
        let start = Instant::now();
        let status = into_file(&mut command, &log)?;
        let seconds = start.elapsed().as_secs_f64();

        let text = String::from_utf8_lossy(&fs::read(&log).map_err(|e| format!("cannot read the log: {e}"))?)
            .into_owned();
        let mut findings = Vec::new();
        for found in files(&artifacts)?.difference(&before) {
            findings.push(minimise(program, found, &logs)?.display().to_string());
        }
        if !status.success() && findings.is_empty() {
            // An overflow of the stack, say, leaves no time to write the input down.
            let log = log.display();
            findings.push(format!("{target} ended with {status} and kept no input; see `{log}`"));
        }
        Ok(Outcome {
            target: target.to_owned(),
            seconds,
            executions: statistic(&text, "stat::number_of_executed_units:"),
            per_second: statistic(&text, "stat::average_exec_per_sec:"),
            edges: progress(&text, "cov:"),
            features: progress(&text, "ft:"),
            corpus: progress(&text, "corp:"),
            findings,
        })
    }
}

/// All targets, sorted.
fn known() -> Result<BTreeSet<String>, String> {
    let targets = files(&workspace().join("fuzz/fuzz_targets"))?;
    Ok(targets.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect())
}

/// The files in a folder.
fn files(folder: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let unreadable = |e: std::io::Error| format!("cannot read `{}`: {e}", folder.display());
    fs::read_dir(folder)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(unreadable))
        .collect()
}

/// The platform that the compiler builds for.
fn host() -> Result<String, String> {
    let output =
        Command::new("rustc").arg("-vV").output().map_err(|e| format!("cannot start `rustc`: {e}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "`rustc -vV` does not name the host".into())
}

/// Builds the targets with debug assertions and checks of overflows. The coverage instrumentation needs no nightly
/// toolchain; the sanitizers would.
fn build(targets: &[String], host: &str) -> Result<(), String> {
    let common = ["fuzz", "build", "--sanitizer", "none", "--target", host];
    let built = match targets {
        [one] => cargo_with(&[&common[..], &[one]].concat(), &[]),
        _ => cargo_with(&common, &[]),
    };
    built.map_err(|error| format!("{error}\nif cargo has no `fuzz`: cargo install cargo-fuzz --locked"))
}

/// Runs a program with all that it prints in a file.
fn into_file(command: &mut Command, log: &Path) -> Result<std::process::ExitStatus, String> {
    let failed = |e: std::io::Error| format!("cannot write `{}`: {e}", log.display());
    let out = File::create(log).map_err(failed)?;
    command.stdin(Stdio::null()).stdout(out.try_clone().map_err(failed)?).stderr(out);
    command.status().map_err(|e| format!("cannot start `{}`: {e}", command.get_program().display()))
}

/// Makes an input that is a finding smaller, as far as that goes in a minute, and gives the smallest.
fn minimise(program: &Path, finding: &Path, logs: &Path) -> Result<PathBuf, String> {
    // Only crashes: another input that is slow, or takes much memory, need not be so for the same reason.
    let name = finding.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !name.starts_with("crash-") {
        return Ok(finding.to_owned());
    }
    let small = finding.with_file_name(name.replacen("crash-", "minimised-", 1));
    let mut command = Command::new(program);
    command.args(LIMITS).args(["-minimize_crash=1", &format!("-max_total_time={MINIMISE}")]);
    command.arg(format!("-exact_artifact_path={}", small.display())).arg(finding);
    into_file(&mut command, &logs.join(format!("{name}.log")))?;
    Ok(if small.is_file() { small } else { finding.to_owned() })
}

/// The number after a name in the statistics at the end.
fn statistic(log: &str, name: &str) -> u64 {
    let value = log.lines().rev().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// The number after a name in the last line that has it (`#123 DONE cov: 45 ft: 67 corp: 8/9Kb …`).
fn progress(log: &str, name: &str) -> u64 {
    let digits = |line: &str| {
        let rest = line.split_once(name)?.1.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    };
    log.lines().rev().filter(|line| line.starts_with('#')).find_map(digits).unwrap_or(0)
}

/// In Markdown, as `docs/fuzzing.md` has it.
fn table(outcomes: &[Outcome]) {
    println!("\n| target | seconds | executions | per second | edges | features | corpus | findings |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for outcome in outcomes {
        println!(
            "| {} | {:.0} | {} | {} | {} | {} | {} | {} |",
            outcome.target,
            outcome.seconds,
            outcome.executions,
            outcome.per_second,
            outcome.edges,
            outcome.features,
            outcome.corpus,
            outcome.findings.len()
        );
    }
}
