//! The firmware's event log (TCG PC Client Platform Firmware Profile 1.06, section 10): reading it and
//! computing from it what the PCRs must hold.
//!
//! The type of an event and most of its data are *not* covered by what was extended. So a log is believed
//! only as a list of digests that replays to the TPM's values; the rest is for people, and
//! [`LogEvent::explain`] tells what of it the digest proves.

mod device_path;
mod explain;
mod types;

pub use explain::Explanation;
pub use types::EventType;

use ashlar_image::digest::Digest;
use std::collections::BTreeMap;

/// `TPM_ALG_SHA1` (TPM 2.0 Library Specification, part 2, section 6.3).
pub const ALG_SHA1: u16 = 0x0004;
/// `TPM_ALG_SHA256`.
pub const ALG_SHA256: u16 = 0x000b;

/// Algorithms that a header may declare; real firmware declares five at most.
const MAX_ALGORITHMS: u32 = 16;
/// PCRs of a PC client TPM.
const PCR_COUNT: u32 = 24;
/// The signature of a header that announces the crypto-agile format.
const SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";
/// The signature of the event that holds the locality of `TPM2_Startup`.
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";
/// The locality from which a hardware core root of trust measures.
const HCRTM_LOCALITY: u8 = 4;

/// Why a log was refused, or cannot answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// The log ends inside an event.
    #[error("event {index} of the log (byte {offset}) is cut off in its {part}; read the log again, whole")]
    Short {
        /// Number of the event, counted from 0.
        index: usize,
        /// Where the event starts, in bytes.
        offset: usize,
        /// What ends too early.
        part: &'static str,
    },
    /// The first record is none that a log starts with.
    #[error("this is no event log of a firmware: {0}")]
    Header(&'static str),
    /// The header declares something that no specification has.
    #[error("the log's header is wrong: {0}")]
    SpecId(&'static str),
    /// An event has other digests than the header declares.
    #[error("event {index} of the log has {found}; the header declares one digest each of {declared}")]
    Digests {
        /// Number of the event.
        index: usize,
        /// What the event has.
        found: String,
        /// The algorithms of the header.
        declared: String,
    },
    /// An event for a PCR that does not exist.
    #[error("event {index} of the log is for PCR {pcr}; PCRs are numbered 0 to 23")]
    NoSuchPcr {
        /// Number of the event.
        index: usize,
        /// The PCR.
        pcr: u32,
    },
    /// The locality of the TPM's start is none, or two events disagree about it.
    #[error(
        "event {index} of the log names {locality} as the locality of TPM2_Startup; 0, 3 or 4, once, is right"
    )]
    Locality {
        /// Number of the event.
        index: usize,
        /// What it says.
        locality: u8,
    },
    /// The log has no SHA-256 digests.
    #[error(
        "the log has no SHA-256 digests (it has {0}); switch the SHA-256 PCR bank on in the firmware's set-up"
    )]
    NoSha256(String),
}

/// A hash algorithm that a log uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithm {
    /// `TPM_ALG_ID`.
    pub id: u16,
    /// Bytes of a digest.
    pub size: u16,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// Its number in the log. The header is 0 in a crypto-agile log and is not among the events.
    pub index: usize,
    /// The PCR that it was extended into. Any number for [`EventType::NO_ACTION`], which is not extended.
    pub pcr: u32,
    /// What kind of event the log says it is; not covered by the digest.
    pub event_type: EventType,
    /// The digest of each algorithm, in the order of the log.
    pub digests: Vec<(u16, Vec<u8>)>,
    /// The event's data; covered by the digest only where the type has it so.
    pub data: Vec<u8>,
}

impl LogEvent {
    /// What was extended into the SHA-256 bank.
    pub fn sha256(&self) -> Option<Digest> {
        let (_, digest) = self.digests.iter().find(|(algorithm, _)| *algorithm == ALG_SHA256)?;
        digest.as_slice().try_into().ok().map(Digest)
    }

    /// Whether it was extended at all.
    pub fn is_extended(&self) -> bool {
        self.event_type != EventType::NO_ACTION
    }

    /// What the event says of itself, and whether its digest proves it.
    pub fn explain(&self) -> Explanation {
        explain::explain(self)
    }
}

/// A log that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog {
    algorithms: Vec<Algorithm>,
    events: Vec<LogEvent>,
    locality: u8,
}

impl EventLog {
    /// Reads a log: the kernel's `binary_bios_measurements`, or the memory of the ACPI table, whose padding
    /// with 0x00 or 0xff is passed over. Needs memory in proportion to `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, LogError> {
        let mut reader = Reader { bytes, at: 0, index: 0, start: 0 };
        let first = reader.sha1_event()?;
        let (algorithms, mut events) = match spec_id(&first)? {
            Some(algorithms) => (algorithms, Vec::new()),
            // The header of a SHA-1 log, where there is one, is an event like others.
            None => (vec![Algorithm { id: ALG_SHA1, size: 20 }], vec![first]),
        };
        let crypto_agile = events.is_empty();
        while !reader.only_padding_is_left() {
            reader.index += 1;
            reader.start = reader.at;
            let event = if crypto_agile { reader.agile_event(&algorithms)? } else { reader.sha1_event()? };
            events.push(event);
        }
        for event in &events {
            if event.is_extended() && event.pcr >= PCR_COUNT {
                return Err(LogError::NoSuchPcr { index: event.index, pcr: event.pcr });
            }
        }
        let locality = startup_locality(&events)?;
        Ok(Self { algorithms, events, locality })
    }

    /// The algorithms that the header declares; SHA-1 alone for a log of the old format.
    pub fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// All events in order, without a crypto-agile log's header.
    pub fn all(&self) -> &[LogEvent] {
        &self.events
    }

    /// The events that were extended into `pcr`, in order.
    pub fn events(&self, pcr: u32) -> impl Iterator<Item = &LogEvent> {
        self.events.iter().filter(move |event| event.is_extended() && event.pcr == pcr)
    }

    /// The locality of `TPM2_Startup`: the last byte of what PCR 0 starts with.
    pub const fn startup_locality(&self) -> u8 {
        self.locality
    }

    /// The SHA-256 value that each PCR with an event must hold after the last of its events.
    pub fn replay_sha256(&self) -> Result<BTreeMap<u32, Digest>, LogError> {
        let mut pcrs = BTreeMap::new();
        for event in self.events.iter().filter(|event| event.is_extended()) {
            let digest = event.sha256().ok_or_else(|| LogError::NoSha256(names(&self.algorithms)))?;
            let value = pcrs.entry(event.pcr).or_insert_with(|| self.start_value(event.pcr));
            *value = value.extend(digest);
        }
        Ok(pcrs)
    }

    fn start_value(&self, pcr: u32) -> Digest {
        let mut start = Digest::ZERO;
        if pcr == 0 {
            start.0[31] = self.locality;
        }
        start
    }
}

/// PC Client Platform Firmware Profile, section 10.4.5.3 and, for `EV_EFI_HCRTM_EVENT`, 3.3.2.2: what a
/// hardware root of trust measured makes PCR 0 start at 4, whether or not another event says so.
fn startup_locality(events: &[LogEvent]) -> Result<u8, LogError> {
    let mut found = None;
    for event in events {
        if event.event_type == EventType::NO_ACTION
            && event.pcr == 0
            && let Some([locality, ..]) = event.data.strip_prefix(STARTUP_LOCALITY)
        {
            if !matches!(locality, 0 | 3 | 4) || found.is_some_and(|other| other != *locality) {
                return Err(LogError::Locality { index: event.index, locality: *locality });
            }
            found = Some(*locality);
        }
    }
    let hcrtm = events.iter().any(|event| event.event_type == EventType::HCRTM_EVENT && event.pcr == 0);
    Ok(found.unwrap_or(if hcrtm { HCRTM_LOCALITY } else { 0 }))
}

/// The algorithms that a crypto-agile log's header declares (`TCG_EfiSpecIdEvent`, section 10.4.5.1); none
/// when `event` is not such a header.
fn spec_id(event: &LogEvent) -> Result<Option<Vec<Algorithm>>, LogError> {
    let Some(body) = event.data.strip_prefix(SPEC_ID) else {
        return Ok(None);
    };
    if event.event_type != EventType::NO_ACTION || event.pcr != 0 {
        return Err(LogError::Header("its first record is no EV_NO_ACTION event for PCR 0"));
    }
    let mut reader = Reader { bytes: body, at: 0, index: 0, start: 0 };
    let short = |_| LogError::SpecId("it ends too early");
    reader.take(4, "platform class").map_err(short)?;
    let [minor, major, _errata, _uintn] = reader.array("version").map_err(short)?;
    if (major, minor) != (2, 0) {
        return Err(LogError::SpecId("its version is not 2.0"));
    }
    let count = reader.u32("number of algorithms").map_err(short)?;
    if count == 0 || count > MAX_ALGORITHMS {
        return Err(LogError::SpecId("it declares no algorithm or more than 16"));
    }
    let mut algorithms: Vec<Algorithm> = Vec::new();
    for _ in 0..count {
        let algorithm = Algorithm {
            id: reader.u16("algorithm").map_err(short)?,
            size: reader.u16("digest size").map_err(short)?,
        };
        if algorithms.iter().any(|other| other.id == algorithm.id) {
            return Err(LogError::SpecId("it declares an algorithm twice"));
        }
        let right = match algorithm.id {
            ALG_SHA1 => algorithm.size == 20,
            ALG_SHA256 | 0x0012 | 0x0027 => algorithm.size == 32,
            0x000c | 0x0028 => algorithm.size == 48,
            0x000d | 0x0029 => algorithm.size == 64,
            _ => (1..=64).contains(&algorithm.size),
        };
        if !right {
            return Err(LogError::SpecId("a digest has a size that its algorithm does not have"));
        }
        algorithms.push(algorithm);
    }
    let [vendor] = reader.array("size of the vendor's part").map_err(short)?;
    reader.take(vendor.into(), "vendor's part").map_err(short)?;
    if reader.at == body.len() { Ok(Some(algorithms)) } else { Err(LogError::SpecId("bytes follow its end")) }
}

fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| name(algorithm.id)).collect::<Vec<_>>().join(", ")
}

fn name(algorithm: u16) -> String {
    match algorithm {
        ALG_SHA1 => "SHA-1".into(),
        ALG_SHA256 => "SHA-256".into(),
        0x000c => "SHA-384".into(),
        0x000d => "SHA-512".into(),
        0x0012 => "SM3-256".into(),
        other => format!("algorithm 0x{other:04x}"),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Number and start of the event that is read, for errors.
    index: usize,
    start: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize, part: &'static str) -> Result<&'a [u8], LogError> {
        let short = LogError::Short { index: self.index, offset: self.start, part };
        let Some(end) = self.at.checked_add(length) else { return Err(short) };
        let taken = self.bytes.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], LogError> {
        let short = LogError::Short { index: self.index, offset: self.start, part };
        self.take(N, part)?.try_into().map_err(|_| short)
    }

    fn u16(&mut self, part: &'static str) -> Result<u16, LogError> {
        self.array(part).map(u16::from_le_bytes)
    }

    fn u32(&mut self, part: &'static str) -> Result<u32, LogError> {
        self.array(part).map(u32::from_le_bytes)
    }

    fn only_padding_is_left(&self) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        rest.iter().all(|byte| *byte == 0) || rest.iter().all(|byte| *byte == 0xff)
    }

    fn data(&mut self) -> Result<Vec<u8>, LogError> {
        let size = self.u32("size of the data")?;
        self.take(size as usize, "data").map(<[u8]>::to_vec)
    }

    /// `TCG_PCClientPCREvent`.
    fn sha1_event(&mut self) -> Result<LogEvent, LogError> {
        let pcr = self.u32("PCR")?;
        let event_type = EventType(self.u32("type")?);
        let digests = vec![(ALG_SHA1, self.take(20, "digest")?.to_vec())];
        Ok(LogEvent { index: self.index, pcr, event_type, digests, data: self.data()? })
    }

    /// `TCG_PCR_EVENT2`.
    fn agile_event(&mut self, algorithms: &[Algorithm]) -> Result<LogEvent, LogError> {
        let pcr = self.u32("PCR")?;
        let event_type = EventType(self.u32("type")?);
        let count = self.u32("number of digests")?;
        let wrong = |index, found| LogError::Digests { index, found, declared: names(algorithms) };
        if count as usize != algorithms.len() {
            return Err(wrong(self.index, format!("{count} digests")));
        }
        let mut digests: Vec<(u16, Vec<u8>)> = Vec::new();
        for _ in 0..count {
            let id = self.u16("algorithm")?;
            let Some(algorithm) = algorithms.iter().find(|algorithm| algorithm.id == id) else {
                return Err(wrong(self.index, format!("a digest of {}", name(id))));
            };
            if digests.iter().any(|(other, _)| *other == id) {
                return Err(wrong(self.index, format!("two digests of {}", name(id))));
            }
            digests.push((id, self.take(algorithm.size.into(), "digest")?.to_vec()));
        }
        Ok(LogEvent { index: self.index, pcr, event_type, digests, data: self.data()? })
    }
}
