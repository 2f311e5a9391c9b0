//! One child process: watched, killed without a race, never left behind.

use crate::error::{QemuError, io_error, last_lines};
use crate::program::Program;
use crate::spawn;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// Whether it was killed because its time was over.
    pub overran: bool,
}

/// A running child. Dropping it kills it and waits for it.
#[derive(Debug)]
pub struct Process {
    program: Program,
    pid: u32,
    // Signals go to this descriptor, never to a number: a number may be somebody else's by then.
    pidfd: Arc<OwnedFd>,
    end: Arc<End>,
    watcher: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct End {
    ended: Mutex<Option<Ended>>,
    changed: Condvar,
}

impl End {
    fn lock(&self) -> MutexGuard<'_, Option<Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts `command` with its error output in the file `log`. It is killed when it runs longer than
    /// `lifetime`; `on_end` is called once when it has ended.
    pub fn start(
        program: Program,
        mut command: Command,
        log: &Path,
        lifetime: Option<Duration>,
        on_end: impl FnOnce(Ended) + Send + 'static,
    ) -> Result<Self, QemuError> {
        let output = File::create(log).map_err(io_error("write", log))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let failed = |source| QemuError::Spawn { program: program.name, source };
        let mut child = spawn::spawn(command).map_err(failed)?;
        let pid = child.id();
        let pidfd = match rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(pidfd) => Arc::new(pidfd),
            Err(error) => {
                // Not yet waited for, so the number is still its own.
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(error.into()));
            }
        };
        let end = Arc::new(End::default());
        let mut process =
            Self { program, pid, pidfd: Arc::clone(&pidfd), end: Arc::clone(&end), watcher: None };
        let until = lifetime.map(|lifetime| Instant::now() + lifetime);
        let watch = move || {
            let ended = watch(child, &pidfd, until);
            *end.lock() = Some(ended);
            end.changed.notify_all();
            on_end(ended);
        };
        let thread = std::thread::Builder::new().name(format!("{} {pid}", program.name));
        match thread.spawn(watch) {
            Ok(watcher) => process.watcher = Some(watcher),
            Err(error) => {
                process.kill();
                return Err(failed(error));
            }
        }
        Ok(process)
    }

    /// Runs `command` to its end; anything but success is an error with its last words.
    pub fn run(program: Program, command: Command, log: &Path, limit: Duration) -> Result<(), QemuError> {
        let process = Self::start(program, command, log, Some(limit), |_| ())?;
        match process.wait(limit + Duration::from_secs(10)) {
            Some(ended) if ended.status.success() => Ok(()),
            _ => Err(process.failure(log)),
        }
    }

    /// The error of a process that ended when it should not, or that did not come to its end.
    pub fn failure(&self, log: &Path) -> QemuError {
        let status = self.ended().map_or_else(
            || "still running".to_owned(),
            |ended| {
                if ended.overran { "killed, it took too long".to_owned() } else { ended.status.to_string() }
            },
        );
        let words = std::fs::read(log).unwrap_or_default();
        let words = last_lines(&crate::terminal::Plain::default().push(&words));
        QemuError::Failed { program: self.program.name, status, log: words }
    }

    /// Process id, for people and for tests.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Ended> {
        *self.end.lock()
    }

    /// Waits for its end.
    pub fn wait(&self, limit: Duration) -> Option<Ended> {
        let guard = self.end.lock();
        let result = self.end.changed.wait_timeout_while(guard, limit, |ended| ended.is_none());
        *result.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Kills it. One that has ended already is left alone.
    pub fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&*self.pidfd, Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// Waits for the end of `child` and kills it when its time is over.
fn watch(mut child: Child, pidfd: &OwnedFd, until: Option<Instant>) -> Ended {
    let mut overran = false;
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) => {
                overran = true;
                break;
            }
            // Ended, or it cannot be watched: then it must not run.
            Ok(_) | Err(_) => break,
        }
    }
    let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
    let status = child.wait().unwrap_or_default();
    Ended { status, overran }
}
