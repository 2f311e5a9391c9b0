//! QEMU's command line.

use crate::accelerator::Engine;
use crate::config::{DiskFormat, MachineConfig, Network};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Paths that the command line names.
#[derive(Debug)]
pub struct Paths<'a> {
    /// QEMU.
    pub program: &'a Path,
    /// Code and variables of the firmware, if it is UEFI.
    pub flash: Option<(&'a Path, &'a Path)>,
    /// Overlays or copies of the disks.
    pub disks: &'a [PathBuf],
    /// The TPM's control socket.
    pub tpm: Option<&'a Path>,
    /// Sockets that this program listens on.
    pub control: &'a Path,
    /// See `control`.
    pub console: &'a Path,
    /// See `control`.
    pub report: Option<&'a Path>,
}

/// An option value `PREFIX` + path; QEMU wants each comma of a path twice.
fn with_path(prefix: &str, path: &Path) -> OsString {
    let mut option = OsString::from(prefix);
    let mut pieces = path.as_os_str().as_encoded_bytes().split(|byte| *byte == b',').peekable();
    while let Some(piece) = pieces.next() {
        option.push(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(piece));
        if pieces.peek().is_some() {
            option.push(",,");
        }
    }
    option
}

/// The command for a machine. It starts paused, so that nobody misses its first words.
///
/// Nothing in it may change what the firmware measures from one run to the next: no default devices, no
/// option ROM (PCR 2), one boot option only (PCR 1 and 4), no firmware menu.
pub fn build(config: &MachineConfig, engine: Engine, paths: &Paths<'_>) -> Command {
    let mut command = Command::new(paths.program);
    command
        .args(["-name", "ashlar", "-S"])
        .args(["-machine", "q35,smm=on"])
        .args(engine.options())
        .args(["-m", &config.memory_mib.to_string()])
        .args(["-smp", &config.cpus.unwrap_or(engine.cpus()).to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-boot", "strict=on"])
        .args(["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"])
        .args(["-device", "virtio-rng-pci"]);
    if config.watchdog {
        // `noreboot` is the strap that QEMU sets by default; the guest cannot take it away.
        command.args(["-action", "watchdog=reset", "-global", "ICH9-LPC.noreboot=off"]);
    }
    if config.no_reboot {
        command.arg("-no-reboot");
    }
    if let Some((code, variables)) = paths.flash {
        command
            .args(["-global", "driver=cfi.pflash01,property=secure,value=on"])
            .arg("-drive")
            .arg(with_path("if=pflash,unit=0,format=raw,readonly=on,file=", code))
            .arg("-drive")
            .arg(with_path("if=pflash,unit=1,format=raw,file=", variables));
    }
    let format = match config.disk_format {
        DiskFormat::Overlay => "qcow2",
        DiskFormat::Copy => "raw",
    };
    for (number, disk) in paths.disks.iter().enumerate() {
        let boot = if number == 0 { ",bootindex=0" } else { "" };
        command
            .arg("-drive")
            .arg(with_path(&format!("if=none,id=disk{number},format={format},discard=unmap,file="), disk))
            .args(["-device", &format!("virtio-blk-pci,drive=disk{number}{boot}")]);
    }
    if let Some(socket) = paths.tpm {
        command.arg("-chardev").arg(with_path("socket,id=tpm,path=", socket)).args([
            "-tpmdev",
            "emulator,id=tpm,chardev=tpm",
            "-device",
            "tpm-tis,tpmdev=tpm",
        ]);
    }
    command
        .arg("-chardev")
        .arg(with_path("socket,id=control,server=off,path=", paths.control))
        .args(["-mon", "chardev=control,mode=control"])
        .arg("-chardev")
        .arg(with_path("socket,id=console,server=off,path=", paths.console))
        .args(["-serial", "chardev:console"]);
    if let Some(socket) = paths.report {
        let port = ashlar_image::report::REPORT_PORT;
        command
            .arg("-chardev")
            .arg(with_path("socket,id=report,server=off,path=", socket))
            .args(["-device", "virtio-serial-pci"])
            .args(["-device", &format!("virtserialport,chardev=report,name={port}")]);
    }
    if config.network != Network::Off {
        let mut user = String::from("user,id=network");
        if config.network == Network::Isolated {
            user.push_str(",restrict=on");
        }
        for forward in &config.forwards {
            let _ = write!(user, ",hostfwd=tcp:127.0.0.1:{}-:{}", forward.host, forward.guest);
        }
        command.args(["-netdev", &user, "-device", "virtio-net-pci,netdev=network,romfile="]);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(with_path("file=", Path::new("/a,b/,c")), "file=/a,,b/,,c");
        assert_eq!(with_path("file=", Path::new("/plain")), "file=/plain");
    }
}
