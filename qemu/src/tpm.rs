//! A TPM 2.0 in software: swtpm, one process per machine.

use crate::error::{QemuError, io_error};
use crate::process::Process;
use crate::program::SWTPM;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(30);

/// A running swtpm.
#[derive(Debug)]
pub struct Tpm {
    process: Process,
    /// Control socket, for QEMU.
    pub socket: PathBuf,
}

impl Tpm {
    /// Starts swtpm with its state in `state`, which is made if it does not exist, and waits until QEMU can
    /// connect. `state` is absolute: swtpm changes its folder.
    pub fn start(state: &Path, sockets: &Path, log: &Path) -> Result<Self, QemuError> {
        let path = state.to_str().filter(|path| !path.contains(','));
        let reason = "swtpm takes only paths of UTF-8 without a comma";
        let path = path.ok_or_else(|| QemuError::Path { path: state.into(), reason })?;
        let mut folder = std::fs::DirBuilder::new();
        folder.recursive(true).mode(0o700).create(state).map_err(io_error("make", state))?;
        let socket = sockets.join("tpm");
        let ready = sockets.join("tpm.pid");
        let mut command = Command::new(SWTPM.find()?);
        command
            .args(["socket", "--tpm2", "--terminate"])
            .arg("--tpmstate")
            .arg(format!("dir={path},mode=0600"))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()))
            .arg("--pid")
            .arg(format!("file={}", ready.display()));
        let process = Process::start(SWTPM, command, log, None, |_| ())?;
        // swtpm listens before it writes its process id. Connecting to try would end it: it serves one
        // connection only.
        let until = Instant::now() + START;
        while !ready.exists() {
            if process.ended().is_some() || Instant::now() > until {
                return Err(process.failure(log));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process, socket })
    }

    /// Process id.
    pub const fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // It ends by itself when QEMU has gone; give it the time to write its state.
        if self.process.wait(Duration::from_secs(3)).is_none() {
            self.process.kill();
        }
    }
}
