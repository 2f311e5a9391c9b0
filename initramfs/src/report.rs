//! What the machine tells about itself when it is ready: a report for programs, a block for people.

use crate::console;
use ashlar_image::report::{REPORT_PORT, Report};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The firmware's event log.
const FIRMWARE_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// What the kernel keeps from root.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// Where the kernel shows virtio ports.
const PORTS: &str = "/sys/class/virtio-ports";
/// How long the hypervisor may take to read the report.
const PORT_DEADLINE: Duration = Duration::from_secs(5);

/// The firmware's event log in base64; empty where there is none.
pub fn firmware_log() -> String {
    STANDARD.encode(fs::read(FIRMWARE_LOG).unwrap_or_default())
}

/// `/sys/kernel/security/lockdown` as read, without the end of the line.
pub fn lockdown() -> String {
    fs::read_to_string(LOCKDOWN).unwrap_or_default().trim().to_owned()
}

/// The mode in force: `none [integrity] confidentiality` gives `integrity`.
fn lockdown_mode(text: &str) -> &str {
    text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(mode, _)| mode)
}

/// The device of the virtio port [`REPORT_PORT`], if the hypervisor gives one.
fn port() -> Option<PathBuf> {
    fs::read_dir(PORTS).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim() == REPORT_PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

/// Writes the report as one line to the port, if there is one.
pub fn send(report: &Report) {
    let Some(path) = port() else { return };
    let write = || -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().write(true).custom_flags(flags).open(&path)?;
        console::write_within(&mut file, &line, PORT_DEADLINE)
    };
    match write() {
        Ok(()) => console::info("report sent"),
        Err(error) => console::warning(format_args!("cannot send the report: {error}")),
    }
}

/// The block for the consoles.
pub fn block(report: &Report) -> String {
    let services = report
        .services
        .iter()
        .map(|service| {
            let state = match (&service.last_exit, service.running) {
                (_, true) => "running",
                (Some(exit), false) => exit.as_str(),
                (None, false) => "not started",
            };
            format!("{} ({state})", service.name)
        })
        .collect::<Vec<_>>();
    let list = |items: &[String]| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let secure_boot = if report.secure_boot { "on" } else { "off" };
    format!(
        "\nAshlar {} {}, ready after {:.1} s\n  kernel       {}\n  root         {} {}\n  Secure Boot  {secure_boot}, \
         lockdown {}\n  addresses    {}\n  services     {}\n\n",
        report.image_id,
        report.image_version,
        report.uptime_seconds,
        report.kernel,
        report.root_partition,
        report.root_hash,
        lockdown_mode(&report.lockdown),
        list(&report.addresses),
        list(&services),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::digest::Digest;
    use ashlar_image::report::ServiceState;
    use std::collections::BTreeMap;

    #[test]
    fn the_block_has_what_one_looks_for() {
        let state = |name: &str, running, last_exit: Option<&str>| ServiceState {
            name: name.into(),
            running,
            starts: 1,
            last_exit: last_exit.map(str::to_owned),
            ..Default::default()
        };
        let report = Report {
            image_id: "container-host".into(),
            image_version: "1".into(),
            root_hash: Digest::ZERO,
            root_partition: "root-a".into(),
            kernel: "6.12".into(),
            secure_boot: true,
            lockdown: "none [integrity] confidentiality".into(),
            pcrs: BTreeMap::new(),
            firmware_log: String::new(),
            init_log: Vec::new(),
            services: vec![state("hello", true, None), state("once", false, Some("exit status 0"))],
            addresses: vec!["eth0 10.0.2.15/24".into()],
            uptime_seconds: 7.25,
            status: None,
        };
        let text = block(&report);
        for part in [
            "Ashlar container-host 1, ready after 7.2 s",
            "Secure Boot  on, lockdown integrity",
            "eth0 10.0.2.15/24",
            "hello (running), once (exit status 0)",
            "root-a 0000",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn lockdown_modes() {
        assert_eq!(lockdown_mode("[none] integrity confidentiality"), "none");
        assert_eq!(lockdown_mode(""), "unknown");
    }
}
