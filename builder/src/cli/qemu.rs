//! `ashlar qemu`

use super::{print, print_json};
use crate::build::DISK_FILE;
use crate::error::BuildError;
use crate::machine::{self, Verdict};
use ashlar_image::report::Report;
use ashlar_qemu::{Accelerator, ConsoleCopy, Forward, Machine, Network, Plain};
use clap::Args;
use serde::Serialize;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a power-off may take before the machine is killed.
const POWER_OFF: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Qemu {
    /// A release's folder, or the disk image in it; neither is changed
    release: PathBuf,
    /// Make a port of the guest reachable at 127.0.0.1; host port 0 takes a free one
    #[arg(long, value_name = "HOST:GUEST", value_parser = forward)]
    forward: Vec<Forward>,
    /// End after the machine has reported: 0 if it measured what was predicted, 6 otherwise
    #[arg(long)]
    check: bool,
    /// With --check: get a page from a forwarded port of the guest and show it
    #[arg(long, value_name = "GUEST-PORT/PATH", requires = "check", value_parser = page)]
    get: Vec<(u16, String)>,
    /// Seconds until a machine that has not reported counts as failed
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    deadline: u64,
    /// Keep disk changes, firmware variables and the TPM in this folder, and go on from there
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Let the machine reach the network of this one
    #[arg(long)]
    open_network: bool,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Number of processors; two, or one where software executes the instructions
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: Option<u32>,
    /// auto, kvm or tcg; auto tries KVM with a tiny guest first
    #[arg(long, default_value = "auto")]
    accelerator: Accelerator,
    /// Write the serial console to a file too
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
    /// With --check: print JSON
    #[arg(long, requires = "check")]
    json: bool,
}

fn forward(text: &str) -> Result<Forward, String> {
    let (host, guest) = text.split_once(':').ok_or("write it as HOST:GUEST, such as 8080:80")?;
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("`{text}` is no port"));
    Ok(Forward { host: port(host)?, guest: port(guest)? })
}

fn page(text: &str) -> Result<(u16, String), String> {
    let (port, path) = text.split_once('/').ok_or("write it as GUEST-PORT/PATH, such as 8080/")?;
    Ok((port.parse().map_err(|_| format!("`{port}` is no port"))?, path.to_owned()))
}

/// What `--json` prints.
#[derive(Serialize)]
struct Checked<'a> {
    good: bool,
    pcrs: Vec<machine::Row>,
    unlogged: &'a [machine::Unlogged],
    pages: Vec<String>,
    report: &'a Report,
}

/// The folder of a release that is named by itself or by its disk.
fn folder(path: &Path) -> PathBuf {
    let is_disk = path.file_name().is_some_and(|name| name == DISK_FILE);
    match path.parent() {
        Some(parent) if is_disk && parent.as_os_str().is_empty() => PathBuf::from("."),
        Some(parent) if is_disk => parent.to_owned(),
        _ => path.to_owned(),
    }
}

/// Copies the console to a file and, as plain text, to the terminal.
fn console(file: Option<&Path>, terminal: bool) -> Result<ConsoleCopy, BuildError> {
    let file = match file {
        Some(path) => Some(std::fs::File::create(path).map_err(|e| BuildError::io("create", path, e))?),
        None => None,
    };
    let sinks = Mutex::new((file, Plain::default()));
    Ok(ConsoleCopy::new(move |bytes| {
        let mut sinks = sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut sinks.0 {
            // A full disk ends the copy, not the machine.
            let _ = file.write_all(bytes);
        }
        if terminal {
            print(&sinks.1.push(bytes));
        }
    }))
}

impl Qemu {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let folder = folder(&self.release);
        let release = crate::inspect::release(&folder)?;
        let mut config = machine::config(&folder, &release)?;
        config.folder.clone_from(&self.state);
        config.forwards.clone_from(&self.forward);
        config.memory_mib = self.memory;
        config.cpus = self.cpus;
        config.accelerator = self.accelerator;
        config.network = if self.open_network { Network::Open } else { Network::Isolated };
        config.no_reboot = self.check;
        config.lifetime = None;
        config.console = Some(console(self.console.as_deref(), !self.check)?);
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))
                .map_err(|e| BuildError::io("catch signals for", &self.release, e))?;
        }
        let machine = Machine::start(&config)?;
        for forward in machine.forwards() {
            eprintln!("127.0.0.1:{} is port {} of the machine", forward.host, forward.guest);
        }
        let deadline = Duration::from_secs(self.deadline);
        if self.check {
            return self.check(&machine, &release, deadline, &stop);
        }
        eprintln!("end with ctrl-c: the machine is then switched off in order");
        let judged = std::thread::scope(|scope| {
            scope.spawn(|| {
                // A machine that was ended meanwhile has no report, which is not worth a message.
                if let Ok(report) = machine.wait_report(deadline)
                    && let Ok(verdict) = machine::judge(&release, &report)
                {
                    print(&verdict.table());
                }
            });
            while machine.ended().is_none() {
                if stop.load(Ordering::Relaxed) {
                    return machine.power_down(POWER_OFF).map(drop);
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        });
        judged?;
        Ok(ExitCode::SUCCESS)
    }

    fn check(
        &self,
        machine: &Machine,
        release: &ashlar_image::release::Release,
        deadline: Duration,
        stop: &AtomicBool,
    ) -> Result<ExitCode, BuildError> {
        let report = wait_report(machine, deadline, stop)?;
        let verdict: Verdict = machine::judge(release, &report)?;
        let mut pages = Vec::new();
        for (guest, path) in &self.get {
            let host = machine
                .forwards()
                .iter()
                .find(|forward| forward.guest == *guest)
                .ok_or(BuildError::NotForwarded(*guest))?
                .host;
            pages.push(machine::http_get(host, path, Duration::from_secs(60))?);
        }
        let exit = machine.power_down(POWER_OFF)?;
        let good = verdict.is_good() && exit.orderly();
        if self.json {
            let checked =
                Checked { good, pcrs: verdict.rows(), unlogged: &verdict.unlogged, pages, report: &report };
            print_json(&checked)?;
        } else {
            print(&describe(&report));
            print(&verdict.table());
            for ((port, path), page) in self.get.iter().zip(&pages) {
                print(&format!("port {port}, /{path}: {}\n", page.trim_end()));
            }
            print(&format!("power-off: {exit}\n"));
        }
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(crate::error::exit::MACHINE) })
    }
}

/// Waits for the report, and switches the machine off when the user wants to end.
fn wait_report(machine: &Machine, limit: Duration, stop: &AtomicBool) -> Result<Report, BuildError> {
    const SLICE: Duration = Duration::from_millis(200);
    let end = Instant::now() + limit;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match machine.wait_report(left.min(SLICE)) {
            Ok(report) => return Ok(report),
            Err(_) if stop.load(Ordering::Relaxed) => {
                machine.power_down(POWER_OFF)?;
                return Err(BuildError::Interrupted);
            }
            // The error of a slice speaks of that slice: the last one speaks of the whole time.
            Err(_) if left > SLICE && machine.ended().is_none() => {}
            Err(_) => return Ok(machine.wait_report(SLICE.max(left))?),
        }
    }
}

/// What the machine says of itself, for people.
fn describe(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut out = format!(
        "{} {} on Linux {}, ready after {:.1} s\nroot {} from {}\naddresses {}\n",
        report.image_id,
        report.image_version,
        report.kernel,
        report.uptime_seconds,
        report.root_hash,
        report.root_partition,
        report.addresses.join(", "),
    );
    for service in &report.services {
        let state = if service.running { "running" } else { "not running" };
        let _ = writeln!(out, "service {}: {state}, started {} times", service.name, service.starts);
    }
    out
}
