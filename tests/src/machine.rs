//! Machines that have the owner's keys in their firmware.

use crate::release::Built;
use crate::skip;
use ashlar_keys::ovmf;
use ashlar_qemu::{Firmware, Forward, MachineConfig};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a machine may take to come up under emulation on a busy host.
pub const UP: Duration = Duration::from_secs(300);
/// Guest port of the example's container.
pub const CONTAINER_PORT: u16 = 8080;

/// A variable store with the keys of `built` enrolled and Secure Boot on.
pub fn variables(built: &Built) -> Vec<u8> {
    let template = std::fs::read(Firmware::find().unwrap().variables).unwrap();
    ovmf::enroll(&template, &built.key_folder().secure_boot(), built.release.build_time, &[]).unwrap()
}

/// A machine for `disk` with Secure Boot by the keys of `built`; a reset ends it.
pub fn machine(built: &Built, disk: &Path) -> MachineConfig {
    MachineConfig {
        variables: Some(variables(built)),
        forwards: vec![Forward { host: 0, guest: CONTAINER_PORT }],
        no_reboot: true,
        lifetime: Some(Duration::from_secs(600)),
        ..MachineConfig::new(disk)
    }
}

/// Whether virtual machines can be had; says what is missing if not.
pub fn ready() -> bool {
    for (program, package) in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-img", "qemu-utils"),
        ("swtpm", "swtpm"),
        ("mcopy", "mtools"),
    ] {
        if !crate::tools::has(program) {
            skip(&format!("{program} is needed (package {package})"));
            return false;
        }
    }
    if let Err(error) = Firmware::find() {
        skip(&error.to_string());
        return false;
    }
    true
}

/// What an HTTP server on this host answers to `GET /`, tried until `limit`.
pub fn get(port: u16, limit: Duration) -> Result<String, String> {
    let until = Instant::now() + limit;
    loop {
        match try_get(port) {
            Ok(answer) if !answer.is_empty() => return Ok(answer),
            // QEMU takes the connection also when the guest does not.
            result if Instant::now() > until => return Err(format!("no answer but {result:?}")),
            _ => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn try_get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(1 << 20).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
