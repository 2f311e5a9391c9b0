//! A release in a virtual machine: its firmware with the owner's keys, and whether it measured what was predicted.

use crate::build::{DISK_FILE, SECURE_BOOT_DIR};
use crate::error::BuildError;
use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use ashlar_image::report::Report;
use ashlar_keys::ovmf;
use ashlar_measured_boot::compare::{Comparison, Outcome, compare};
use ashlar_measured_boot::efi::SecureBootVariables;
use ashlar_measured_boot::eventlog::EventLog;
use ashlar_qemu::{Firmware, MachineConfig};
use base64::Engine as _;
use serde::Serialize;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// The PCR of Linux IMA: it depends on the order in which modules load, and no log of the firmware has it.
const IMA_PCR: u32 = 10;
/// Largest answer of a container that is shown, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// A machine that starts the release in `folder`: its disk, and a firmware that trusts its owner's keys only.
pub fn config(folder: &Path, release: &Release) -> Result<MachineConfig, BuildError> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| BuildError::input("read", path, e));
    let list = |name: &str| read(&folder.join(SECURE_BOOT_DIR).join(format!("{name}.esl")));
    let variables =
        SecureBootVariables { pk: list("PK")?, kek: list("KEK")?, db: list("db")?, dbx: Vec::new() };
    let firmware = Firmware::find()?;
    let store = ovmf::enroll(&read(&firmware.variables)?, &variables, release.build_time, &[])?;
    let mut config = MachineConfig::new(folder.join(DISK_FILE));
    config.boot = ashlar_qemu::Boot::Firmware(firmware);
    config.variables = Some(store);
    Ok(config)
}

/// A PCR whose value does not follow from what was logged.
#[derive(Debug, Serialize)]
pub struct Unlogged {
    /// The PCR.
    pub pcr: u32,
    /// Its value after the firmware's log and then init's.
    pub logged: Digest,
    /// Its value in the TPM.
    pub measured: Digest,
}

/// What a machine's report comes to.
#[derive(Debug)]
pub struct Verdict {
    /// Each predicted PCR.
    pub comparisons: Vec<Comparison>,
    /// PCRs whose value does not follow from the logs.
    pub unlogged: Vec<Unlogged>,
    /// Whether the firmware enforces Secure Boot.
    pub secure_boot: bool,
    /// Whether the kernel is locked down.
    pub lockdown: bool,
}

/// One row of the table.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The PCR.
    pub pcr: u32,
    /// The predicted value: of the variant that occurred, or of the one that came nearest.
    pub predicted: Option<Digest>,
    /// The value in the TPM.
    pub measured: Option<Digest>,
    /// Whether they are the same.
    pub same: bool,
    /// The variant that occurred, or what differs.
    pub note: String,
}

/// Judges the report of a machine that ran `release`.
pub fn judge(release: &Release, report: &Report) -> Result<Verdict, BuildError> {
    let bad = |why: String| BuildError::Report { why };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&report.firmware_log)
        .map_err(|e| bad(format!("the event log is no base64: {e}")))?;
    let log = EventLog::parse(&bytes).map_err(|e| bad(e.to_string()))?;
    let mut logged = log.replay_sha256().map_err(|e| bad(e.to_string()))?;
    for event in &report.init_log {
        let value = logged.entry(event.pcr).or_default();
        *value = value.extend(event.event.digest);
    }
    let unlogged = report
        .pcrs
        .iter()
        // PCRs from 16 on are for debugging and dynamic launch and begin with other values.
        .filter(|(pcr, _)| **pcr < 16 && **pcr != IMA_PCR)
        .map(|(&pcr, &measured)| Unlogged {
            pcr,
            logged: logged.get(&pcr).copied().unwrap_or_default(),
            measured,
        })
        .filter(|row| row.logged != row.measured)
        .collect();
    Ok(Verdict {
        comparisons: compare(&release.pcrs, &report.pcrs, Some(&log)),
        unlogged,
        secure_boot: report.secure_boot,
        lockdown: report.lockdown.contains("[integrity]") || report.lockdown.contains("[confidentiality]"),
    })
}

impl Verdict {
    /// Whether all is as it must be.
    pub fn is_good(&self) -> bool {
        self.secure_boot
            && self.lockdown
            && self.unlogged.is_empty()
            && !self.comparisons.is_empty()
            && self.comparisons.iter().all(Comparison::is_same)
    }

    /// The table's rows.
    pub fn rows(&self) -> Vec<Row> {
        self.comparisons.iter().map(row).collect()
    }

    /// The table for people.
    pub fn table(&self) -> String {
        use std::fmt::Write;
        let mut out = format!("{:>3}  {:<64}  {:<64}  same\n", "PCR", "predicted", "measured");
        let show = |digest: Option<Digest>| digest.map_or_else(|| "–".into(), |digest| digest.to_string());
        for row in self.rows() {
            let same = if row.same { "yes" } else { "NO" };
            let (predicted, measured) = (show(row.predicted), show(row.measured));
            let _ = writeln!(out, "{:>3}  {predicted:<64}  {measured:<64}  {same}   {}", row.pcr, row.note);
        }
        for row in &self.unlogged {
            let _ = writeln!(
                out,
                "PCR {} is {} and the logs come to {}: something extended it unlogged",
                row.pcr, row.measured, row.logged
            );
        }
        let _ = writeln!(
            out,
            "Secure Boot {}, kernel lockdown {}, event log replay {}",
            if self.secure_boot { "enforced" } else { "OFF" },
            if self.lockdown { "on" } else { "OFF" },
            if self.unlogged.is_empty() { "matches all PCRs" } else { "DIFFERS" },
        );
        out
    }
}

fn row(comparison: &Comparison) -> Row {
    let variant = match &comparison.outcome {
        Outcome::Same { variant } => Some(*variant),
        Outcome::Different { nearest, .. } => *nearest,
        Outcome::NoValue => None,
    };
    let variant = variant.and_then(|index| comparison.predicted.get(index));
    let note = match &comparison.outcome {
        Outcome::Same { .. } => variant.map(|variant| variant.name.clone()).unwrap_or_default(),
        Outcome::Different { difference, .. } => difference.to_string(),
        Outcome::NoValue => "no value".into(),
    };
    Row {
        pcr: comparison.pcr,
        predicted: variant.map(|variant| variant.value),
        measured: comparison.measured,
        same: comparison.is_same(),
        note,
    }
}

/// The body of the answer to an HTTP GET of `path` on a port of this host, tried until `limit` is over.
pub fn http_get(port: u16, path: &str, limit: Duration) -> Result<String, BuildError> {
    let end = Instant::now() + limit;
    loop {
        match try_get(port, path) {
            Ok(body) => return Ok(body),
            Err(error) if Instant::now() >= end => {
                return Err(BuildError::NoAnswer { port, why: error.to_string() });
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

fn try_get(port: u16, path: &str) -> std::io::Result<String> {
    let wait = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), wait)?;
    stream.set_read_timeout(Some(wait))?;
    stream.set_write_timeout(Some(wait))?;
    write!(stream, "GET /{} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", path.trim_start_matches('/'))?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no HTTP answer"))?;
    let status = head.lines().next().unwrap_or_default();
    if status.split_ascii_whitespace().nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(std::io::Error::other(format!("the answer is `{status}`")))
    }
}
