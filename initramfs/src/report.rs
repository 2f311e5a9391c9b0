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
