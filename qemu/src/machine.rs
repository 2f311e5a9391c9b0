//! A running machine.

use crate::accelerator::Engine;
use crate::command::{self, Paths};
use crate::config::{Boot, Forward, MachineConfig, Network};
use crate::error::{QemuError, io_error, last_lines};
use crate::firmware::Firmware;
use crate::folder::{Folder, short_folder};
use crate::process::Process;
use crate::program::QEMU;
use crate::qmp::{self, Message};
use crate::stream::{self, Shared, State};
use crate::tpm::Tpm;
use ashlar_image::report::Report;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long QEMU may take to open its sockets.
const START: Duration = Duration::from_secs(60);
/// How long QEMU may take to answer a command.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the guest may take to read what is typed.
const TYPING: Duration = Duration::from_secs(30);
/// How long what a dead QEMU wrote may take to be read.
const DRAIN: Duration = Duration::from_secs(10);

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// QEMU's exit status.
    pub status: ExitStatus,
    /// QEMU's reason, if it gave one: `guest-shutdown` (the guest switched itself off), `guest-reset` (it
    /// reset and the machine was told not to start again), `guest-panic`, `host-qmp-quit`, `host-signal`.
    pub reason: Option<String>,
    /// How often the machine was reset before.
    pub resets: u32,
    /// Whether it was killed because its lifetime was over.
    pub overran: bool,
}

impl Exit {
    /// Whether the guest switched the machine off by itself and QEMU ended without an error.
    pub fn orderly(&self) -> bool {
        self.status.success() && self.reason.as_deref() == Some("guest-shutdown")
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.overran {
            return f.write_str("killed, its lifetime was over");
        }
        match &self.reason {
            Some(reason) => write!(f, "{reason}, {}", self.status),
            None => write!(f, "{}", self.status),
        }
    }
}

/// A running machine. Dropping it kills QEMU and swtpm and removes a temporary folder.
///
/// All methods may be called from several threads at once.
#[derive(Debug)]
pub struct Machine {
    // In the order in which they must go.
    qemu: Process,
    tpm: Option<Tpm>,
    readers: Vec<JoinHandle<()>>,
    control: Mutex<UnixStream>,
    keyboard: Mutex<UnixStream>,
    shared: Arc<Shared>,
    engine: Engine,
    forwards: Vec<Forward>,
    _sockets: TempDir,
    folder: Folder,
}

impl Machine {
    /// Starts a machine.
    pub fn start(config: &MachineConfig) -> Result<Self, QemuError> {
        let program = QEMU.find()?;
        let firmware = match &config.boot {
            Boot::Uefi => Some(Firmware::find()?),
            Boot::Firmware(firmware) => Some(firmware.clone()),
            Boot::Bios => None,
        };
        let engine = config.accelerator.resolve()?;
        let folder = Folder::open(config.folder.as_deref())?;
        let variables = match (&firmware, &config.variables) {
            (None, _) => None,
            (_, Some(variables)) => Some(variables.clone()),
            (Some(Firmware { variables, .. }), None) => {
                Some(std::fs::read(variables).map_err(io_error("read", variables))?)
            }
        };
        let disks = folder.prepare(&config.disks, config.disk_format, variables.as_deref())?;
        let sockets = short_folder()?;
        let tpm = if config.tpm {
            Some(Tpm::start(&folder.file("tpm"), sockets.path(), &folder.file("swtpm.log"))?)
        } else {
            None
        };

        let control = Socket::listen(sockets.path().join("control"))?;
        let console = Socket::listen(sockets.path().join("console"))?;
        let report = if config.report { Some(Socket::listen(sockets.path().join("report"))?) } else { None };
        let variables = folder.file("variables.fd");
        let paths = Paths {
            program: &program,
            flash: firmware.as_ref().map(|firmware| (firmware.code.as_path(), variables.as_path())),
            disks: &disks,
            tpm: tpm.as_ref().map(|tpm| tpm.socket.as_path()),
            control: &control.path,
            console: &console.path,
            report: report.as_ref().map(|report| report.path.as_path()),
        };
        let command = command::build(config, engine, &paths);
        let shared = Arc::new(Shared::default());
        let on_end = {
            let shared = Arc::clone(&shared);
            move |ended| shared.update(|state| state.ended = Some(ended))
        };
        let log = folder.file("qemu.log");
        let qemu = Process::start(QEMU, command, &log, config.lifetime, on_end)?;

        let log_path = folder.file("console.log");
        let console_log = File::create(&log_path).map_err(io_error("write", log_path))?;
        let control = control.accept(&qemu, &log)?;
        let control_reader = control.try_clone().map_err(io_error("open", "the control socket"))?;
        let thread = |error| QemuError::Control(format!("cannot start a thread: {error}"));
        let mut readers = vec![stream::control(&shared, control_reader).map_err(thread)?];
        let console = console.accept(&qemu, &log)?;
        let keyboard = console.try_clone().map_err(io_error("open", "the serial console"))?;
        keyboard.set_write_timeout(Some(TYPING)).map_err(io_error("open", "the serial console"))?;
        readers.push(stream::console(&shared, console, console_log, config.console.clone()).map_err(thread)?);
        if let Some(report) = report {
            readers.push(stream::report(&shared, report.accept(&qemu, &log)?).map_err(thread)?);
        }
        let forwards = config.forwards.clone();
        let mut machine = Self {
            qemu,
            tpm,
            readers,
            control: Mutex::new(control),
            keyboard: Mutex::new(keyboard),
            shared,
            engine,
            forwards,
            _sockets: sockets,
            folder,
        };
        machine.negotiate(config.network).map_err(|error| machine.start_error(error))?;
        Ok(machine)
    }

    /// Agrees on the protocol, learns the ports and lets the machine run.
    fn negotiate(&mut self, network: Network) -> Result<(), QemuError> {
        match self.answer()? {
            Message::Greeting => {}
            other => return Err(QemuError::Control(format!("no greeting but {other:?}"))),
        }
        self.order("qmp_capabilities", &[])?;
        if network != Network::Off && !self.forwards.is_empty() {
            let arguments = [("command-line", "info usernet")];
            let text = self.order("human-monitor-command", &arguments)?.unwrap_or_default();
            self.resolve_ports(&text)?;
        }
        self.order("cont", &[])?;
        Ok(())
    }

    /// Fills in the host ports that QEMU chose.
    fn resolve_ports(&mut self, usernet: &str) -> Result<(), QemuError> {
        let mut taken: Vec<u16> = self.forwards.iter().map(|forward| forward.host).collect();
        for forward in self.forwards.iter_mut().filter(|forward| forward.host == 0) {
            let free = qmp::forwarded(usernet, forward.guest).into_iter().find(|port| !taken.contains(port));
            forward.host = free.ok_or_else(|| {
                QemuError::Control(format!("no host port for guest port {}", forward.guest))
            })?;
            taken.push(forward.host);
        }
        Ok(())
    }

    /// The error of a start that failed: what QEMU itself says is better than a broken socket.
    fn start_error(&self, error: QemuError) -> QemuError {
        match self.qemu.wait(Duration::from_secs(1)) {
            Some(_) => self.qemu.failure(&self.folder.file("qemu.log")),
            None => error,
        }
    }

    /// What executes the guest's instructions.
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// The port forwards with the host ports that are in use.
    pub fn forwards(&self) -> &[Forward] {
        &self.forwards
    }

    /// The folder with the machine's state and logs. A temporary one goes with the machine.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Process ids of QEMU and, if there is one, of swtpm.
    pub fn pids(&self) -> Vec<u32> {
        std::iter::once(self.qemu.pid()).chain(self.tpm.as_ref().map(Tpm::pid)).collect()
    }

    /// The text of the serial console so far (its last 16 MiB), without terminal control sequences.
    pub fn console(&self) -> String {
        self.shared.lock().console.clone()
    }

    /// Waits until the console shows `needle`, from its beginning on.
    pub fn wait_console(&self, needle: &str, limit: Duration) -> Result<(), QemuError> {
        self.wait_console_any(&[needle], limit).map(|_| ())
    }

    /// Waits until the console shows one of `needles`, and says which: the first in the list that is there.
    pub fn wait_console_any(&self, needles: &[&str], limit: Duration) -> Result<usize, QemuError> {
        let what = format!("`{}` on the console", needles.join("` or `"));
        self.wait_for(&what, limit, |state| needles.iter().position(|needle| state.console.contains(needle)))
    }

    /// Types into the serial console, as fast as the guest reads. Line ends are what the guest's terminal
    /// takes for them; Linux takes `\r` and `\n`.
    pub fn type_text(&self, text: &str) -> Result<(), QemuError> {
        let mut keyboard = self.keyboard.lock().unwrap_or_else(PoisonError::into_inner);
        keyboard.write_all(text.as_bytes()).map_err(QemuError::Typing)
    }

    /// How often the guest has not fed its watchdog, see [`MachineConfig::watchdog`].
    pub fn watchdog_expired(&self) -> u32 {
        self.shared.lock().watchdog
    }

    /// Waits for the report of the guest's init.
    pub fn wait_report(&self, limit: Duration) -> Result<Report, QemuError> {
        let line = self.wait_for("report", limit, |state| state.report.clone())?;
        stream::parse_report(&line)
    }

    /// Waits for the end of the machine.
    pub fn wait_exit(&self, limit: Duration) -> Result<Exit, QemuError> {
        let ended = self.shared.wait(limit, |state| state.ended);
        ended.ok_or_else(|| self.deadline("end of the machine", limit))?;
        Ok(self.exit())
    }

    /// How the machine ended, if it has.
    pub fn ended(&self) -> Option<Exit> {
        let ended = self.shared.lock().ended;
        ended.map(|_| self.exit())
    }

    /// Presses the power button and waits for the guest to switch the machine off. A machine that has not
    /// done so in time is killed, and that is an error.
    pub fn power_down(&self, limit: Duration) -> Result<Exit, QemuError> {
        let result = self.order("system_powerdown", &[]).and_then(|_| self.wait_exit(limit));
        if result.is_err() && self.ended().is_none() {
            self.kill();
        }
        match (result, self.ended()) {
            // It went between the order and its answer.
            (Err(QemuError::Control(_)), Some(exit)) => Ok(exit),
            (result, _) => result,
        }
    }

    /// Resets the machine, as its reset button does.
    pub fn reset(&self) -> Result<(), QemuError> {
        self.order("system_reset", &[]).map(|_| ())
    }

    /// Kills QEMU and the TPM at once, as a power cut does, and waits until QEMU has gone. Data that the
    /// guest has written and not flushed is in the host's memory and lasts: a cut of the host's own power is
    /// harder than this.
    pub fn cut_power(&self) {
        if let Some(tpm) = &self.tpm {
            tpm.kill();
        }
        self.kill();
    }

    /// Kills QEMU and waits until it has gone. The TPM may write its state before it goes.
    pub fn kill(&self) {
        self.qemu.kill();
        let _ = self.shared.wait(DRAIN, |state| state.ended);
    }

    /// Whether QEMU says that the guest runs (`running`), or what else (`paused`, `internal-error`).
    pub fn status(&self) -> Result<String, QemuError> {
        let text = self.order("human-monitor-command", &[("command-line", "info status")])?;
        let text = text.unwrap_or_default();
        Ok(text.trim().trim_start_matches("VM status: ").to_owned())
    }

    /// Sends a command and waits for its answer.
    fn order(&self, name: &str, arguments: &[(&str, &str)]) -> Result<Option<String>, QemuError> {
        let failed = |error: std::io::Error| QemuError::Control(format!("`{name}` cannot be sent: {error}"));
        // Held until the answer is there: answers carry no name.
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.write_all(qmp::command(name, arguments).as_bytes()).map_err(failed)?;
        match self.answer()? {
            Message::Done(text) => Ok(text),
            Message::Refused(why) => Err(QemuError::Control(format!("`{name}` was refused: {why}"))),
            other => Err(QemuError::Control(format!("no answer to `{name}` but {other:?}"))),
        }
    }

    fn answer(&self) -> Result<Message, QemuError> {
        let found = self.shared.wait(ANSWER, |state| {
            let answer = state.answers.pop_front().map(Ok);
            let failed = || state.control_failed.clone().map(Err);
            let ended = || state.ended.map(|ended| Err(format!("QEMU ended ({})", ended.status)));
            answer.or_else(failed).or_else(ended)
        });
        found
            .unwrap_or_else(|| Err(format!("no answer within {} seconds", ANSWER.as_secs())))
            .map_err(QemuError::Control)
    }

    /// Waits for something in the state. What a machine wrote before its end still counts.
    fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut found: impl FnMut(&State) -> Option<T>,
    ) -> Result<T, QemuError> {
        let outcome = self.shared.wait(limit, |state| match found(state) {
            Some(value) => Some(Some(value)),
            None if state.ended.is_some() && state.open == 0 => Some(None),
            None => None,
        });
        match outcome {
            Some(Some(value)) => Ok(value),
            Some(None) => Err(QemuError::Ended {
                what: what.into(),
                exit: self.exit().to_string(),
                console: last_lines(&self.console()),
            }),
            None => Err(self.deadline(what, limit)),
        }
    }

    /// How it ended, when it has: everything that QEMU said before has been read.
    fn exit(&self) -> Exit {
        let _ = self.shared.wait(DRAIN, |state| (state.open == 0).then_some(()));
        let state = self.shared.lock();
        let status = state.ended.map(|ended| ended.status).unwrap_or_default();
        let overran = state.ended.is_some_and(|ended| ended.overran);
        Exit { status, reason: state.shutdown.clone(), resets: state.resets, overran }
    }

    fn deadline(&self, what: &str, after: Duration) -> QemuError {
        QemuError::Deadline { what: what.into(), after, console: last_lines(&self.console()) }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
    }
}

/// A socket that QEMU connects to.
struct Socket {
    path: PathBuf,
    listener: UnixListener,
}

impl Socket {
    fn listen(path: PathBuf) -> Result<Self, QemuError> {
        let listener = UnixListener::bind(&path).map_err(io_error("make", &path))?;
        listener.set_nonblocking(true).map_err(io_error("make", &path))?;
        Ok(Self { path, listener })
    }

    /// Waits for QEMU, for as long as it lives.
    fn accept(self, qemu: &Process, log: &Path) -> Result<UnixStream, QemuError> {
        let until = Instant::now() + START;
        let look = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).map_err(io_error("open", self.path))?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(io_error("open", self.path)(error)),
            }
            if qemu.ended().is_some() || Instant::now() > until {
                return Err(qemu.failure(log));
            }
            let _ = rustix::event::poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&look));
        }
    }
}
