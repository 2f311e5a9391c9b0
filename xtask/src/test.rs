//! `cargo xtask test`: what `.ci/run` calls.

use crate::run::cargo;
use crate::{build, judges, programs};
use nix::sys::resource::{UsageWho, getrusage};
use std::time::Instant;

/// Name of the variable by which tests find the programs that users have.
const PROGRAMS: &str = "ASHLAR_PROGRAMS";
/// Name of the variable by which a test that would skip fails.
const NO_SKIP: &str = "ASHLAR_TESTS_NO_SKIP";

/// How long each step took, wall and processor seconds; told when it is dropped, so after a failure too.
#[derive(Default)]
struct Steps(Vec<(&'static str, f64, f64)>);

/// Processor seconds, user and system, of all children that have ended.
fn children_cpu() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return 0.0 };
    let seconds = |time: nix::sys::time::TimeVal| {
        #[allow(clippy::cast_precision_loss)] // seconds for people
        let value = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        value
    };
    seconds(usage.user_time()) + seconds(usage.system_time())
}

impl Steps {
    fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let (start, before) = (Instant::now(), children_cpu());
        let result = step();
        self.0.push((name, start.elapsed().as_secs_f64(), children_cpu() - before));
        result
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        println!("{:<16} {:>8} {:>8}", "step", "wall s", "cpu s");
        for (name, wall, cpu) in &self.0 {
            println!("{name:<16} {wall:>8.1} {cpu:>8.1}");
        }
    }
}

/// Formatting, lints, then the tests of every crate, those of booted machines last: what is quick fails first.
pub fn test() -> Result<(), String> {
    let mut steps = Steps::default();
    // On a machine that is set up for it, a test that cannot run has failed.
    let strict = std::env::var_os("CI").is_some();
    let mut environment = if strict { vec![(NO_SKIP, "1")] } else { Vec::new() };
    steps.run("format", || cargo(&["fmt", "--all", "--check"]))?;
    steps.run("lints", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
    })?;
    steps.run("judges", || match judges::judges() {
        // Without them one test skips, and says so.
        Err(error) if !strict => {
            eprintln!("xtask: {error}");
            Ok(())
        }
        result => result,
    })?;
    // Compiling is a step of its own, so that what the tests themselves take is seen.
    let tests = steps.run("compile tests", programs::compile)?;
    steps.run("crates", || programs::crates(&tests, &environment))?;
    let folder = steps.run("programs", build::for_tests)?.display().to_string();
    environment.push((PROGRAMS, &folder));
    steps.run("machines", || programs::machines(&tests, &environment))
}
