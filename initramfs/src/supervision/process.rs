//! Services and containers as processes: start, output, end.

use crate::error::Error;
use crate::journal::Journal;
use crate::journal::lines::Lines;
use crate::oci::bundle;
use crate::supervision::unit::{Exit, State, Unit};
use crate::{cgroup, console, mounts, sys};
use ashlar_image::manifest::{Container, Manifest, Service};
use ashlar_image::report::ServiceState;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::SIGTERM;
use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The OCI runtime in the root.
pub const RUNTIME: &str = "/usr/bin/crun";
/// Where it keeps its state.
const RUNTIME_STATE: &str = "/run/crun";
/// What is read from a pipe at once, in bytes.
const READ_SIZE: usize = 16 << 10;
/// Environment of services unless the manifest says otherwise.
const PATH: &str = "/usr/sbin:/usr/bin";

/// What runs.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A program of the root.
    Service(Service),
    /// A container of the image.
    Container(Box<Container>),
}

/// A service or container with its state, process and output.
#[derive(Debug)]
pub struct Supervised {
    /// Its name.
    pub name: String,
    /// What runs.
    pub kind: Kind,
    /// Its state.
    pub unit: Unit,
    /// Its main process, or the runtime of the container.
    pub pid: Option<Pid>,
    output: Option<PipeReader>,
    lines: Lines,
    last_line: String,
}

/// All that the manifest names, services first.
pub fn from_manifest(manifest: &Manifest, now: Duration) -> Vec<Supervised> {
    let services = manifest
        .services
        .iter()
        .map(|(name, service)| (name, Unit::new(service.restart, now), Kind::Service(service.clone())));
    let containers = manifest.containers.iter().map(|(name, container)| {
        (name, Unit::new(container.restart, now), Kind::Container(Box::new(container.clone())))
    });
    services
        .chain(containers)
        .map(|(name, unit, kind)| Supervised {
            name: name.clone(),
            kind,
            unit,
            pid: None,
            output: None,
            lines: Lines::default(),
            last_line: String::new(),
        })
        .collect()
}

impl Supervised {
    /// `service NAME` or `container NAME`, for people.
    pub fn title(&self) -> String {
        match self.kind {
            Kind::Service(_) => format!("service {}", self.name),
            Kind::Container(_) => format!("container {}", self.name),
        }
    }

    /// Starts its main process.
    pub fn start(&mut self) -> Result<(), Error> {
        let (mut command, procs) = match &self.kind {
            Kind::Service(service) => service_command(&self.name, service)?,
            Kind::Container(container) => container_command(&self.name, container)?,
        };
        let (reader, writer) = io::pipe().map_err(Error::io("make", "a pipe"))?;
        rustix::io::ioctl_fionbio(&reader, true).map_err(|e| Error::io("set up", "a pipe")(e.into()))?;
        let duplicate = writer.try_clone().map_err(Error::io("make", "a pipe"))?;
        command.stdin(Stdio::null()).stdout(duplicate).stderr(writer);
        sys::start_in_group(&mut command, procs);
        let program = command.get_program().to_owned();
        let child = command.spawn().map_err(Error::io("execute", program))?;
        self.pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // The pipe of a process before, if one that it left behind still held it open, is of no interest.
        self.output = Some(reader);
        self.lines = Lines::default();
        Ok(())
    }

    /// Asks its main process to end. The runtime passes the signal on to the container. Where nobody would listen,
    /// nothing is asked and everything is killed at once.
    pub fn terminate(&self) {
        if matches!(self.kind, Kind::Container(_)) && is_deaf(&cgroup::container(&self.name)) {
            self.kill();
            return;
        }
        if let Some(pid) = self.pid
            && let Err(error) = rustix::process::kill_process(pid, Signal::TERM)
        {
            console::warning(format_args!("{}: cannot send a signal: {error}", self.title()));
        }
    }

    /// Kills everything in its control group.
    pub fn kill(&self) {
        match self.kind {
            Kind::Service(_) => cgroup::kill(&cgroup::service(&self.name)),
            Kind::Container(_) => cgroup::kill(&cgroup::container(&self.name)),
        }
    }

    /// Where its output comes in.
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Reads what it has written and puts it into its log.
    pub fn read_output(&mut self, now: Duration, journal: &mut Journal) {
        let Some(output) = &mut self.output else { return };
        let mut buffer = [0; READ_SIZE];
        let lines = match output.read(&mut buffer) {
            Ok(0) => {
                self.output = None;
                self.lines.finish().into_iter().collect()
            }
            Ok(length) => self.lines.push(buffer.get(..length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            Err(_) => {
                self.output = None;
                return;
            }
        };
        for line in lines {
            journal.line(&self.name, &line, now);
            self.last_line = line;
        }
    }

    /// Its main process has ended. Whatever went wrong is told with its last words.
    pub fn tell_end(&mut self, exit: &Exit, now: Duration, journal: &mut Journal) {
        self.read_output(now, journal);
        self.pid = None;
        let title = self.title();
        let mut words = std::mem::take(&mut self.last_line);
        if !words.is_empty() {
            words = format!("; its last words: {words}");
        }
        match (exit.is_success(), matches!(self.unit.state, State::Stopping { .. })) {
            (true, _) | (false, true) => console::info(format_args!("{title} ended: {exit}")),
            (false, false) => console::error(format_args!("{title} failed: {exit}{words}")),
        }
    }

    /// Its state for the report.
    pub fn state(&self) -> ServiceState {
        ServiceState {
            name: self.name.clone(),
            running: self.unit.is_running(),
            starts: self.unit.starts,
            last_exit: self.unit.last_exit.as_ref().map(ToString::to_string),
            ..Default::default()
        }
    }
}

/// Whether SIGTERM has no effect on the first process of the container in `group`: the kernel gives the first
/// process of a PID namespace no signal that it neither handles nor blocks (pid_namespaces(7)).
fn is_deaf(group: &Path) -> bool {
    let procs = fs::read_to_string(group.join("payload/cgroup.procs")).unwrap_or_default();
    procs
        .lines()
        .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .find_map(|status| first_process_listens(&status))
        .is_some_and(|listens| !listens)
}

/// Whether a process listens to SIGTERM, from its `/proc/PID/status`; none if it is not the first of its PID
/// namespace.
fn first_process_listens(status: &str) -> Option<bool> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    field("NSpid:")?.split_whitespace().next_back().filter(|pid| *pid == "1")?;
    let has = |mask: &str| u64::from_str_radix(mask.trim(), 16).map(|mask| mask >> (SIGTERM - 1) & 1 == 1);
    Some(has(field("SigBlk:")?).ok()? || has(field("SigCgt:")?).ok()?)
}

fn service_command(name: &str, service: &Service) -> Result<(Command, fs::File), Error> {
    let (program, arguments) = service.command.split_first().ok_or_else(|| {
        Error::io("execute", name.to_owned())(io::Error::other("the manifest gives no command"))
    })?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).envs(&service.environment).current_dir("/");
    let limits = cgroup::Limits { memory_max: service.memory_max, cpu_milli: service.cpu_milli };
    Ok((command, cgroup::enter_service(name, limits)?))
}

/// Writes the container's bundle and gives the runtime's command line.
fn container_command(name: &str, container: &Container) -> Result<(Command, fs::File), Error> {
    let folder = bundle::folder(name);
    mounts::make_dir(&folder, 0o700)?;
    let mut overlays = bundle::overlays(name, container);
    // Only over a file of its own: a link could lead anywhere.
    overlays.retain(|overlay| {
        fs::symlink_metadata(bundle::rootfs(name).join(overlay.target)).is_ok_and(|found| found.is_file())
    });
    for (file, text) in [
        ("config.json", bundle::config(name, container, &overlays).to_string()),
        ("hostname", format!("{name}\n")),
        ("hosts", bundle::hosts(name)),
    ] {
        let path = folder.join(file);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    // A runtime that was killed leaves its state behind, and would refuse the name. Nothing of the container is
    // alive: its control group was killed when it ended.
    let state = Path::new(RUNTIME_STATE).join(name);
    match fs::remove_dir_all(&state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::io("remove", state)(error));
        }
        _ => {}
    }
    let mut command = Command::new(RUNTIME);
    command
        .args(["--root", RUNTIME_STATE, "--cgroup-manager=cgroupfs", "run", "--bundle"])
        .arg(&folder)
        .arg(name)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/");
    Ok((command, cgroup::enter_runtime(name)?))
}

/// How a process ended, from what the kernel says; none if it only stopped or went on.
fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Status).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// The processes that have ended since the last call, orphans included.
pub fn reap() -> Vec<(Pid, Exit)> {
    let mut ended = Vec::new();
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended.extend(exit_of(status).map(|exit| (pid, exit))),
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_to_sigterm() {
        let status = |pids: &str, blocked: u64, caught: u64| {
            format!("Name:\tx\nNSpid:\t{pids}\nSigBlk:\t{blocked:016x}\nSigIgn:\t0\nSigCgt:\t{caught:016x}\n")
        };
        assert_eq!(first_process_listens(&status("188\t1", 0, 0x3fff)), Some(false));
        assert_eq!(first_process_listens(&status("188\t1", 0, 0x4000)), Some(true));
        assert_eq!(first_process_listens(&status("188\t1", 0x4000, 0)), Some(true));
        assert_eq!(first_process_listens(&status("189\t7", 0, 0)), None);
        assert_eq!(first_process_listens("Name:\tx\n"), None);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "waitpid collects them")]
    fn ends_of_processes() {
        let child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (_, status) = rustix::process::waitpid(pid, WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(exit_of(status), Some(Exit::Status(3)));
        let child = Command::new("/bin/sh").args(["-c", "kill -9 $$"]).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (_, status) = rustix::process::waitpid(pid, WaitOptions::empty()).unwrap().unwrap();
        assert_eq!(exit_of(status), Some(Exit::Signal(9)));
    }
}
