//! Running programs with a deadline.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest run of any program, in particular of a first build that fetches all packages.
const LIMIT: Duration = Duration::from_secs(900);

/// The top of the checkout.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The folder with the programs `ashlar` and `ashlar-init`.
pub fn folder() -> PathBuf {
    let folder = match std::env::var_os("ASHLAR_PROGRAMS") {
        Some(folder) => workspace().join(folder),
        None => target().join("ashlar"),
    };
    assert!(
        folder.join("ashlar").is_file() && folder.join("ashlar-init").is_file(),
        "no programs in `{}`: run `cargo xtask build` first, or `cargo xtask test`",
        folder.display()
    );
    folder
}

/// Cargo's target folder, which this test lies in.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Run {
    /// The command, for messages.
    pub command: String,
    /// Exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Error output.
    pub stderr: String,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.code.map_or("by a signal".to_owned(), |code| format!("with {code}"));
        write!(f, "`{}` ended {end}\n{}{}", self.command, self.stdout, self.stderr)
    }
}

impl Run {
    /// Runs `command` to its end. Its output goes through files, so that no amount of it can block.
    pub fn of(command: &mut Command) -> Self {
        Self::with(command, Stdio::null())
    }

    /// Runs `command` with this text on its standard input.
    pub fn with_input(command: &mut Command, text: &str) -> Self {
        use std::io::{Seek, Write};
        let mut input = tempfile::tempfile().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        input.rewind().unwrap();
        Self::with(command, input.into())
    }

    fn with(command: &mut Command, input: Stdio) -> Self {
        let (out, err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let text = format!("{command:?}");
        command.stdin(input).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {text}: {error}"));
        let until = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{text} took longer than {} seconds", LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let read = |mut file: std::fs::File| {
            use std::io::{Read, Seek};
            let mut bytes = Vec::new();
            file.rewind().unwrap();
            file.read_to_end(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Self { command: text, code: status.code(), stdout: read(out), stderr: read(err) }
    }

    /// The run, which must have been a success.
    #[must_use]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// The error output as one line without the frame of the report, for comparing texts that were wrapped.
    pub fn error_text(&self) -> String {
        let plain = self.stderr.replace(['│', '╭', '╰', '─', '·', '×', '├', '▶', '┬', '╯'], " ");
        plain.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// The `ashlar` program with nothing of the user's settings.
pub fn ashlar() -> Command {
    let mut command = Command::new(folder().join("ashlar"));
    command.env_remove("ASHLAR_CACHE").env("NO_COLOR", "1").env("COLUMNS", "500");
    command
}
