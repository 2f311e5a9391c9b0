//! What a running guest is asked over HTTP, and the first start of an image that is kept.

use crate::bench::measure::measure;
use ashlar_qemu::{Firmware, Forward, Machine, MachineConfig, QemuError};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long anything may take under emulation on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(300);
/// Guest port of the container.
pub const CONTAINER_PORT: u16 = 8080;
/// Guest port of the service that tells about the machine.
pub const PROBE_PORT: u16 = 8081;
/// Largest answer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(200);

/// What the probe runs to tell of all processes. In both images it is this script.
pub const PROCESSES: &str = "#!/usr/bin/busybox sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
/usr/bin/busybox grep -HE '^(Name|VmRSS|Pss):' /proc/[0-9]*/status /proc/[0-9]*/smaps_rollup 2>/dev/null
exit 0
";

/// A text of ours from an error of a machine.
#[allow(clippy::needless_pass_by_value)] // for `map_err`
pub fn told(error: QemuError) -> String {
    error.to_string()
}

/// The body that a guest's port answers to a GET, asked until `limit`.
pub fn get(machine: &Machine, port: u16, path: &str, limit: Duration) -> Result<String, String> {
    let forward = machine.forwards().iter().find(|forward| forward.guest == port);
    let host = forward.ok_or_else(|| format!("port {port} of the guest is not forwarded"))?.host;
    let until = Instant::now() + limit;
    loop {
        match try_get(host, path) {
            Ok(body) => return Ok(body),
            Err(error) if Instant::now() > until => {
                let console = machine.console();
                let lines: Vec<&str> = console.lines().collect();
                let tail = lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n    ");
                return Err(format!(
                    "port {port} of the guest gives no `{path}`: {error}; last console lines:\n    {tail}"
                ));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

fn try_get(port: u16, path: &str) -> std::io::Result<String> {
    let wait = Duration::from_secs(20);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no HTTP answer"))?;
    match head.split_ascii_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(std::io::Error::other(head.lines().next().unwrap_or_default().to_owned())),
    }
}

/// A process of the guest, sizes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Process {
    /// Its name (`comm`).
    pub name: String,
    /// What it has in memory, with what it shares.
    pub rss: u64,
    /// The same, with what it shares counted in parts; none where the probe may not read it.
    pub pss: Option<u64>,
}

/// The guest's processes, without the kernel's threads.
pub fn processes(text: &str) -> Vec<Process> {
    let mut found: BTreeMap<&str, Process> = BTreeMap::new();
    for line in text.lines() {
        // "/proc/1/status:VmRSS:\t    1234 kB"
        let Some((path, rest)) = line.split_once(':') else { continue };
        let Some(id) = path.split('/').nth(2) else { continue };
        let Some((key, value)) = rest.split_once(':') else { continue };
        let process = found.entry(id).or_default();
        let bytes =
            value.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).map(|kib| kib << 10);
        match key {
            "Name" => value.trim().clone_into(&mut process.name),
            "VmRSS" => process.rss = bytes.unwrap_or(0),
            "Pss" => process.pss = bytes,
            _ => {}
        }
    }
    found.into_values().filter(|process| process.rss > 0).collect()
}

/// Starts a release in a new folder by `ashlar qemu --check`, with this machine's console in a file, and switches it off
/// in order. What it told as JSON; an error if it measured anything but what was predicted.
pub fn install(ashlar: &str, release: &str, state: &str, pages: &[&str]) -> Result<Value, String> {
    if Path::new(state).exists() {
        std::fs::remove_dir_all(state).map_err(|e| format!("cannot remove `{state}`: {e}"))?;
    }
    check(ashlar, release, state, pages)
}

/// The same with a folder that goes on.
pub fn check(ashlar: &str, release: &str, state: &str, pages: &[&str]) -> Result<Value, String> {
    let forward = format!("0:{PROBE_PORT}");
    let pages: Vec<String> = pages.iter().map(|page| format!("{PROBE_PORT}/{page}")).collect();
    let mut arguments = vec!["qemu", release, "--state", state, "--check", "--json", "--forward", &forward];
    arguments.extend(pages.iter().flat_map(|page| ["--get", page]));
    let (_, json) = measure(ashlar, &arguments)?;
    serde_json::from_slice(&json).map_err(|e| format!("ashlar qemu --json: {e}"))
}

/// A machine with the settings of `ashlar qemu`: same firmware, devices, memory and processors.
pub fn machine(disk: &str, folder: &str, variables: Option<Vec<u8>>) -> Result<MachineConfig, String> {
    let forwards = [CONTAINER_PORT, PROBE_PORT].map(|guest| Forward { host: 0, guest }).to_vec();
    let boot = ashlar_qemu::Boot::Firmware(Firmware::find().map_err(told)?);
    Ok(MachineConfig {
        boot,
        folder: Some(folder.into()),
        variables,
        forwards,
        lifetime: Some(LIMIT * 2),
        ..MachineConfig::new(disk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_put_together_and_kernel_threads_left_out() {
        let text = "/proc/1/status:Name:\tashlar-init\n/proc/1/status:VmRSS:\t    2048 kB\n/proc/2/status:Name:\tkthreadd\n\
                    /proc/9/status:Name:\ta:b\n/proc/9/status:VmRSS:\t4 kB\n/proc/1/smaps_rollup:Pss:     1024 kB\nnonsense\n";
        let one = |name: &str, rss, pss| Process { name: name.into(), rss, pss };
        assert_eq!(processes(text), [one("ashlar-init", 2 << 20, Some(1 << 20)), one("a:b", 4096, None)]);
    }
}
