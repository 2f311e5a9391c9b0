//! The services that every machine has, whatever its image.

use crate::durable;
use crate::error::Error;
use ashlar_image::machine::MachineConfig;
use ashlar_image::manifest::{CONTROL_PATH, Service};

pub use ashlar_image::manifest::CONTROL_SERVICE as CONTROL;
pub use ashlar_image::update::{UPDATE_PATH, UPDATE_SERVICE as UPDATE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;

/// Certificates of the users' authorities, in PEM.
const TRUST_ROOTS: &str = "/run/ashlar/trust-roots.pem";
/// Memory of the control service in bytes: a bound for what comes from afar.
const CONTROL_MEMORY: u64 = 64 << 20;
/// Processes and threads of the control service.
const CONTROL_PIDS: u32 = 64;
/// Memory of the update engine in bytes: digests of a root of 4 GiB, twice, and a UKI.
const UPDATE_MEMORY: u64 = 256 << 20;
/// Processes and threads of the update engine.
const UPDATE_PIDS: u32 = 64;

/// The control API: on its socket always, over the network where the configuration names whom to trust.
pub fn control(config: Option<&MachineConfig>) -> Result<Service, Error> {
    let mut command = vec![CONTROL_PATH.to_owned(), "serve".to_owned()];
    if let Some(control) = config.map(|config| &config.control)
        && !control.trust_roots.is_empty()
    {
        let pem: String = control.trust_roots.iter().map(|certificate| pem(&certificate.0)).collect();
        durable::replace(Path::new(TRUST_ROOTS), pem.as_bytes(), 0o600)
            .map_err(Error::io("write", TRUST_ROOTS))?;
        command.extend(["--trust-roots".to_owned(), TRUST_ROOTS.to_owned()]);
        let everywhere = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = if control.listen.is_empty() { &everywhere[..] } else { &control.listen };
        for address in addresses {
            command.extend(["--listen".to_owned(), SocketAddr::new(*address, control.port).to_string()]);
        }
    }
    // It speaks with the outside: no capability, and the system calls of a container.
    let service: Service = serde_json::from_value(serde_json::json!({
        "command": command,
        "memory_max": CONTROL_MEMORY,
        "pids_max": CONTROL_PIDS,
    }))
    .map_err(|source| Error::Json { path: CONTROL_PATH.into(), source })?;
    Ok(service)
}

/// The update engine, where the image has it. It reads the machine configuration itself, from PID 1. What it writes to are
/// files of root: the partitions of the other slot, the firmware's variables and its own folder, so that it needs no
/// capability either.
pub fn update(program: &Path) -> Result<Option<Service>, Error> {
    if !program.exists() {
        return Ok(None);
    }
    let service = serde_json::from_value(serde_json::json!({
        "command": [program, "serve"],
        "firmware_variables": true,
        "memory_max": UPDATE_MEMORY,
        "pids_max": UPDATE_PIDS,
    }));
    service.map(Some).map_err(|source| Error::Json { path: program.into(), source })
}

/// A certificate in PEM (RFC 7468, section 5).
fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in base64.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_trust_roots_nothing_listens_on_the_network() {
        for config in [None, Some(&MachineConfig::empty(1))] {
            assert_eq!(control(config).unwrap().command, [CONTROL_PATH, "serve"]);
        }
    }

    #[test]
    fn the_engine_runs_where_the_image_has_it() {
        assert_eq!(update(Path::new("/nonexistent/engine")).unwrap(), None);
        let service = update(Path::new("/bin/sh")).unwrap().unwrap();
        assert_eq!(service.command, ["/bin/sh", "serve"]);
        assert!(service.firmware_variables && service.capabilities.is_empty() && !service.new_privileges);
        assert_eq!((service.memory_max, service.pids_max), (Some(UPDATE_MEMORY), Some(UPDATE_PIDS)));
    }

    #[test]
    fn certificates_in_lines_of_64() {
        let text = pem(&[0; 60]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert_eq!((lines[1].len(), lines[2].len()), (64, 16));
        assert_eq!(STANDARD.decode(lines[1..3].concat()).unwrap(), [0; 60]);
    }
}
