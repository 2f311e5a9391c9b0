//! A TPM 2.0 in software: swtpm, one process per machine.

use crate::error::{QemuError, io_error};
use crate::folder::short_folder;
use crate::process::Process;
use crate::program::SWTPM;
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START: Duration = Duration::from_secs(30);
/// How long a TPM command may take; making an RSA key takes seconds by itself.
const COMMAND: Duration = Duration::from_secs(60);
/// Longest answer that is read, in bytes (TPM 2.0 Library, part 4: a TPM's buffers are 4096).
const ANSWER: usize = 4096;

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
        let path = plain(state)?;
        make(state)?;
        let socket = sockets.join("tpm");
        let ready = sockets.join("tpm.pid");
        let mut command = Command::new(SWTPM.find()?);
        command
            .args(["socket", "--tpm2", "--terminate"])
            .arg("--tpmstate")
            .arg(format!("dir={path},mode=0600"))
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}", socket.display()));
        Ok(Self { process: start(command, &ready, log)?, socket })
    }

    /// Process id.
    pub const fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it: nothing more is written to its state.
    pub fn kill(&self) {
        self.process.kill();
    }
}

fn make(state: &Path) -> Result<(), QemuError> {
    let mut folder = std::fs::DirBuilder::new();
    folder.recursive(true).mode(0o700).create(state).map_err(io_error("make", state))
}

/// A path that swtpm's options can carry.
fn plain(path: &Path) -> Result<&str, QemuError> {
    let reason = "swtpm takes only paths of UTF-8 without a comma";
    let text = path.to_str().filter(|path| !path.contains(','));
    text.ok_or_else(|| QemuError::Path { path: path.into(), reason })
}

/// Starts swtpm and waits until it listens.
fn start(mut command: Command, ready: &Path, log: &Path) -> Result<Process, QemuError> {
    command.arg("--pid").arg(format!("file={}", ready.display()));
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
    Ok(process)
}

impl Drop for Tpm {
    fn drop(&mut self) {
        // It ends by itself when QEMU has gone; give it the time to write its state.
        if self.process.wait(Duration::from_secs(3)).is_none() {
            self.process.kill();
        }
    }
}

/// The TPM of a machine that is off: started (`TPM2_Startup(CLEAR)` is done) with nobody attached. It is shut
/// down in order when this is dropped.
#[derive(Debug)]
pub struct OfflineTpm {
    process: Process,
    socket: PathBuf,
    _sockets: TempDir,
}

impl OfflineTpm {
    /// Starts swtpm with the state in `state`.
    pub(crate) fn start(state: &Path, log: &Path) -> Result<Self, QemuError> {
        make(state)?;
        let path = plain(state)?;
        let sockets = short_folder()?;
        let socket = sockets.path().join("tpm");
        let mut command = Command::new(SWTPM.find()?);
        command
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={path},mode=0600"))
            .arg("--server")
            .arg(format!("type=unixio,path={},disconnect", socket.display()))
            // Where tpm2-tss looks for it.
            .arg("--ctrl")
            .arg(format!("type=unixio,path={}.ctrl", socket.display()));
        let process = start(command, &sockets.path().join("pid"), log)?;
        Ok(Self { process, socket, _sockets: sockets })
    }

    /// The socket for commands (a TPM command, then its answer), one connection at a time.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What tpm2-tools want to be given with `-T` to speak with it.
    pub fn tcti(&self) -> String {
        format!("swtpm:path={}", self.socket.display())
    }

    /// Sends one command and gives the whole answer, whatever it says.
    pub fn exchange(&self, command: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(COMMAND))?;
        stream.set_write_timeout(Some(COMMAND))?;
        stream.write_all(command)?;
        let mut answer = vec![0; 10];
        stream.read_exact(&mut answer)?;
        let length = answer.get(2..6).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if !(10..=ANSWER).contains(&length) {
            return Err(std::io::Error::other(format!("an answer of {length} bytes")));
        }
        answer.resize(length, 0);
        stream.read_exact(answer.get_mut(10..).unwrap_or_default())?;
        Ok(answer)
    }

    /// A command that must succeed: what follows the answer's header.
    fn command(&self, name: &'static str, command: &[u8]) -> Result<Vec<u8>, QemuError> {
        let failed = |why: String| QemuError::Tpm { command: name, why };
        let answer = self.exchange(command).map_err(|error| failed(error.to_string()))?;
        match answer.get(6..10) {
            Some([0, 0, 0, 0]) => Ok(answer.get(10..).unwrap_or_default().to_vec()),
            Some(code) => Err(failed(format!("it answered {code:02x?}"))),
            None => Err(failed("a short answer".into())),
        }
    }

    /// Clears it as the firmware's menu does (`TPM2_Clear` by the lockout hierarchy without a password): a new
    /// storage seed, no persistent keys, no NV indexes of the owner.
    pub fn clear(&self) -> Result<(), QemuError> {
        let mut command = vec![0x80, 0x02, 0, 0, 0, 27, 0, 0, 0x01, 0x26];
        command.extend([0x40, 0, 0, 0x0a]); // TPM_RH_LOCKOUT
        command.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]); // TPM_RS_PW, empty
        self.command("TPM2_Clear", &command).map(drop)
    }

    /// The count of failed authorisations (`TPM2_PT_LOCKOUT_COUNTER`). At the TPM's limit nothing that the
    /// dictionary-attack logic protects can be used.
    pub fn lockout_counter(&self) -> Result<u32, QemuError> {
        const COUNTER: [u8; 4] = [0, 0, 0x02, 0x0e];
        let mut command = vec![0x80, 0x01, 0, 0, 0, 22, 0, 0, 0x01, 0x7a];
        command.extend([0, 0, 0, 6]); // TPM_CAP_TPM_PROPERTIES
        command.extend(COUNTER);
        command.extend([0, 0, 0, 1]);
        let answer = self.command("TPM2_GetCapability", &command)?;
        // moreData, capability, count, then the property and its value.
        let value = match answer.get(9..17) {
            Some([p0, p1, p2, p3, value @ ..]) if [*p0, *p1, *p2, *p3] == COUNTER => value.try_into().ok(),
            _ => None,
        };
        let why = "an answer without the property".to_owned();
        value.map(u32::from_be_bytes).ok_or(QemuError::Tpm { command: "TPM2_GetCapability", why })
    }
}

impl Drop for OfflineTpm {
    fn drop(&mut self) {
        // TPM2_Shutdown(CLEAR): what ends without it counts as a crash, and some of those as an attack.
        let _ = self.exchange(&[0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x45, 0, 0]);
        self.process.kill();
    }
}
