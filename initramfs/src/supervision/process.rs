//! A service or container as a process: start, output, signs of life, end.

use super::command::{self, Launch, Overrides};
use super::notify::{Message, Notify};
use super::unit::Exit;
use super::{command::Kind, probe};
use crate::error::Error;
use crate::journal::Journal;
use crate::journal::lines::{Lines, priority};
use crate::journal::rate::Limiter;
use crate::{cgroup, console, sys};
use ashlar_image::manifest::Readiness;
use ashlar_image::report::Usage;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use signal_hook::consts::SIGTERM;
use std::fs;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is read from a pipe at once, in bytes.
const READ_SIZE: usize = 16 << 10;
/// So often is read what something that has ended left in its pipe: the pipe holds 64 KiB.
const LAST_READS: usize = 8;
/// How often is looked whether something is ready that does not say so itself.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(200);
/// A lack of memory is a problem for so long.
const OOM_REMEMBERED: Duration = Duration::from_secs(3600);
/// Priority of what init says in a unit's log: warning.
const WARNING: u8 = 4;

/// A service or container with its process and output.
#[derive(Debug)]
pub struct Process {
    /// Its name.
    pub name: String,
    /// What runs.
    pub kind: Kind,
    /// What the machine configuration changes.
    pub overrides: Overrides,
    /// Whether the machine configuration lets it run.
    pub allowed: bool,
    /// Its main process, or the runtime of the container.
    pub pid: Option<Pid>,
    /// When is looked whether it is ready.
    pub probe_at: Option<Duration>,
    output: Option<PipeReader>,
    lines: Lines,
    limiter: Limiter,
    last_line: String,
    notify: Option<Notify>,
    status: Option<String>,
    strangers_told: bool,
    oom_kills: u64,
    oom_at: Option<Duration>,
}

impl Process {
    /// One that was never started.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            allowed: !kind.is_for_debugging(),
            kind,
            overrides: Overrides::default(),
            pid: None,
            probe_at: None,
            output: None,
            lines: Lines::default(),
            limiter: Limiter::default(),
            last_line: String::new(),
            notify: None,
            status: None,
            strangers_told: false,
            oom_kills: 0,
            oom_at: None,
        }
    }

    /// `service NAME` or `container NAME`, for people.
    pub fn title(&self) -> String {
        match self.kind {
            Kind::Service(_) => format!("service {}", self.name),
            Kind::Container(_) => format!("container {}", self.name),
        }
    }

    /// Its control group.
    fn group(&self) -> PathBuf {
        match self.kind {
            Kind::Service(_) => cgroup::service(&self.name),
            Kind::Container(_) => cgroup::container(&self.name),
        }
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        let group = self.group();
        match self.kind {
            Kind::Service(_) => cgroup::usage(&group, &group),
            Kind::Container(_) => cgroup::usage(&group, &group.join("payload")),
        }
    }

    /// Starts its main process.
    pub fn start(&mut self, now: Duration) -> Result<(), Error> {
        self.status = None;
        let supervision = self.kind.supervision();
        self.notify = if supervision.ready == Readiness::Notify || supervision.watchdog.is_some() {
            let path = command::notify_folder().join(&self.name);
            Some(Notify::bind(&path).map_err(Error::io("make", path))?)
        } else {
            None
        };
        self.probe_at = matches!(supervision.ready, Readiness::Tcp(_) | Readiness::File(_)).then_some(now);
        let socket = self.notify.as_ref().map(Notify::path);
        let launch = command::launch(&self.name, &self.kind, &self.overrides, socket)?;
        let Launch { mut command, procs, confinement } = launch;
        self.oom_kills = self.usage().oom_kills.unwrap_or_default();
        let (reader, writer) = io::pipe().map_err(Error::io("make", "a pipe"))?;
        rustix::io::ioctl_fionbio(&reader, true).map_err(|e| Error::io("set up", "a pipe")(e.into()))?;
        let duplicate = writer.try_clone().map_err(Error::io("make", "a pipe"))?;
        command.stdin(std::process::Stdio::null()).stdout(duplicate).stderr(writer);
        sys::start_confined(&mut command, procs, confinement);
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
        cgroup::kill(&self.group());
    }

    /// Where its output comes in.
    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Where it tells about itself.
    pub fn notify(&self) -> Option<BorrowedFd<'_>> {
        self.notify.as_ref().map(AsFd::as_fd)
    }

    /// Reads what it tells about itself.
    pub fn read_notify(&mut self) -> Vec<Message> {
        let Some(notify) = &self.notify else { return Vec::new() };
        let group = self.group();
        let (messages, strangers) = notify.read(|pid| cgroup::holds(&group, pid));
        if strangers > 0 && !self.strangers_told {
            // Once is enough: whoever does it could do it for ever.
            self.strangers_told = true;
            console::warning(format_args!(
                "{}: a message came from a process that is not in its control group or has ended; such messages are \
                 ignored",
                self.title()
            ));
        }
        if let Some(status) = messages.iter().rev().find_map(|message| message.status.clone()) {
            self.status = Some(status);
        }
        messages
    }

    /// Whether it is ready, as far as that can be seen from outside.
    pub fn probe(&self) -> bool {
        match (&self.kind.supervision().ready, &self.kind) {
            (Readiness::Tcp(port), _) => probe::tcp(*port),
            (Readiness::File(path), Kind::Service(_)) => probe::file(Path::new("/"), path),
            (Readiness::File(path), Kind::Container(_)) => {
                let procs = self.group().join("payload/cgroup.procs");
                let procs = fs::read_to_string(procs).unwrap_or_default();
                procs.lines().next().is_some_and(|pid| {
                    let root = Path::new("/proc").join(pid).join("root");
                    // Before the runtime has changed its root it sees the machine's files.
                    probe::is_inside(&root) && probe::file(&root, path)
                })
            }
            (Readiness::Started | Readiness::Notify, _) => false,
        }
    }

    /// Reads what it has written and puts it into the log. False if there is no more for now.
    pub fn read_output(&mut self, now: Duration, journal: &mut Journal) -> bool {
        let Some(output) = &mut self.output else { return false };
        let mut buffer = [0; READ_SIZE];
        let (lines, more) = match output.read(&mut buffer) {
            Ok(0) => {
                self.output = None;
                (self.lines.finish().into_iter().collect(), false)
            }
            Ok(length) => (self.lines.push(buffer.get(..length).unwrap_or_default()), true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return false;
            }
            Err(_) => {
                self.output = None;
                return false;
            }
        };
        for line in lines {
            self.tell_suppressed(now, journal);
            let (priority, text) = priority(&line);
            if self.limiter.pass(now) {
                journal.line(&self.name, priority, text, now);
            }
            self.last_line = line;
        }
        more
    }

    /// Tells in its log how many of its lines are not there.
    pub fn tell_suppressed(&mut self, now: Duration, journal: &mut Journal) {
        if let Some(count) = self.limiter.report(now) {
            journal.line(
                &self.name,
                WARNING,
                &format!("{count} lines were too many and are not logged"),
                now,
            );
        }
    }

    /// When [`Self::tell_suppressed`] has something to say.
    pub fn deadline(&self) -> Option<Duration> {
        self.limiter.deadline()
    }

    /// How many lines are not in the log.
    pub const fn suppressed(&self) -> u64 {
        self.limiter.total()
    }

    /// What it says of itself.
    pub fn status(&self) -> Option<String> {
        self.status.clone()
    }

    /// Its main process has ended. Whatever went wrong is told with its last words.
    pub fn tell_end(&mut self, exit: &Exit, was_stopping: bool, now: Duration, journal: &mut Journal) {
        for _ in 0..LAST_READS {
            if !self.read_output(now, journal) {
                break;
            }
        }
        self.pid = None;
        self.probe_at = None;
        self.notify = None;
        self.status = None;
        let title = self.title();
        let kills = self.usage().oom_kills.unwrap_or_default();
        if kills > self.oom_kills {
            self.oom_at = Some(now);
            console::error(format_args!("{title} had not enough memory: the kernel killed processes of it"));
        }
        let mut words = std::mem::take(&mut self.last_line);
        if !words.is_empty() {
            words = format!("; its last words: {words}");
        }
        if exit.is_success() || was_stopping {
            console::info(format_args!("{title} ended: {exit}"));
        } else {
            console::error(format_args!("{title} failed: {exit}{words}"));
        }
    }

    /// What is wrong beside its state, for people.
    pub fn problem(&self, now: Duration) -> Option<&'static str> {
        let lately = self.oom_at.is_some_and(|at| now.saturating_sub(at) < OOM_REMEMBERED);
        lately.then_some("it had not enough memory within the last hour")
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

/// How a process ended, from what the kernel says; none if it only stopped or went on.
pub fn exit_of(status: WaitStatus) -> Option<Exit> {
    status.exit_status().map(Exit::Status).or_else(|| status.terminating_signal().map(Exit::Signal))
}

/// Up to `limit` processes that have ended, orphans included, and whether there may be more.
pub fn reap(limit: usize) -> (Vec<(Pid, Exit)>, bool) {
    let mut ended = Vec::new();
    for _ in 0..limit {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => ended.extend(exit_of(status).map(|exit| (pid, exit))),
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return (ended, false),
        }
    }
    (ended, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

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
