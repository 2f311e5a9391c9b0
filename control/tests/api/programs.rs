//! Programs of others, with a deadline.

use std::fs::File;
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The program if it is installed; otherwise the test cannot run here.
pub fn tool(program: &str) -> Option<Command> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).is_file()));
    if found {
        return Some(Command::new(program));
    }
    let strict = std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_some();
    assert!(!strict, "ASHLAR_TESTS_NO_SKIP is set, and `{program}` is not installed (package {program})");
    eprintln!("skipped: `{program}` is not installed (package {program})");
    None
}

/// A process that is killed when it is dropped.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program came to.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

/// Waits for what must come within a minute.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a program that ends within a minute, with this on its standard input.
pub fn output(command: &mut Command, input: &[u8]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    command.stdin(Stdio::piped());
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut process = Process(command.spawn().unwrap());
    // Who does not read it all has its reasons.
    let _ = process.0.stdin.take().unwrap().write_all(input);
    let status = wait_for(&format!("the end of {command:?}"), || process.0.try_wait().unwrap());
    let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    Output { status, stdout: read(out), stderr: read(err) }
}
