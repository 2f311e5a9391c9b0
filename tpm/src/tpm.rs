//! The commands as methods.

use crate::Error;
use crate::command::{Answer, Code, Command, Response, decode};
use crate::response::INITIALIZE;
use crate::transport::Transport;
use crate::wire::{Reader, WireError, Writer};

/// A SHA-256 digest, as bytes.
pub type Sha256Digest = [u8; 32];

/// PCRs of a PC client TPM.
pub const PCR_COUNT: u32 = 24;

/// `TPM_ALG_SHA256` (part 2, section 6.3).
const ALG_SHA256: u16 = 0x000b;
/// `TPM_CAP_PCRS` and `TPM_CAP_TPM_PROPERTIES` (part 2, section 6.12).
const CAP_PCRS: u32 = 5;
const CAP_TPM_PROPERTIES: u32 = 6;
/// Banks that one answer may list; `HASH_COUNT` of real TPMs is at most 5.
const MAX_BANKS: u32 = 16;
/// Properties that fit into one answer of 4096 bytes.
const MAX_PROPERTIES: u32 = 512;
/// Digests in a `TPML_DIGEST` (part 2, section 10.9.4).
const MAX_DIGESTS: u32 = 8;
/// How often a command is sent again when the TPM is busy.
const RETRIES: u32 = 100;

/// Whether volatile state is made new or restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartupType {
    /// `TPM_SU_CLEAR`.
    Clear,
    /// `TPM_SU_STATE`.
    State,
}

impl StartupType {
    const fn value(self) -> u16 {
        match self {
            Self::Clear => 0,
            Self::State => 1,
        }
    }
}

/// A bank of PCRs: those of one hash algorithm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bank {
    /// `TPM_ALG_ID`.
    pub algorithm: u16,
    /// The PCRs that are active in it.
    pub pcrs: Vec<u32>,
}

impl Bank {
    /// The algorithm's name.
    pub fn name(&self) -> String {
        match self.algorithm {
            0x0004 => "sha1".into(),
            ALG_SHA256 => "sha256".into(),
            0x000c => "sha384".into(),
            0x000d => "sha512".into(),
            0x0012 => "sm3_256".into(),
            0x0027 => "sha3_256".into(),
            other => format!("0x{other:04x}"),
        }
    }
}

/// An extension that was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extended {
    /// The PCR before.
    pub before: Sha256Digest,
    /// The PCR after.
    pub after: Sha256Digest,
}

/// A TPM.
#[derive(Debug)]
pub struct Tpm<T> {
    transport: T,
}

impl<T: Transport> Tpm<T> {
    /// A TPM behind `transport`.
    pub const fn new(transport: T) -> Self {
        Self { transport }
    }

    /// The transport, when the TPM is not needed any more.
    pub fn into_transport(self) -> T {
        self.transport
    }

    /// Sends `command` and gives the answer, when it is a success, to `take`.
    pub(crate) fn exchange<R>(
        &mut self,
        command: &Command,
        take: impl FnOnce(&Answer<'_>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let name = command.code.name();
        let malformed = |what| Error::Malformed { command: name, what };
        let frame = command.encode().map_err(malformed)?;
        let mut tries = 0;
        loop {
            let answer = self
                .transport
                .transact(&frame)
                .map_err(|source| Error::Transport { command: name, source })?;
            match decode(command, &answer).map_err(malformed)? {
                Response::Failure(code) if code.is_retry() && tries < RETRIES => {
                    tries += 1;
                    // The TPM asked for it; the kernel's driver waits 20 ms at first too.
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Response::Failure(code) if code.name() == Some("TPM_RC_LOCKOUT") => {
                    return Err(Error::Lockout { command: name });
                }
                Response::Failure(code) => return Err(Error::Refused { command: name, code }),
                Response::Success(answer) => return take(&answer),
            }
        }
    }

    /// Sends `command` and gives the parameters of a successful answer to `read`, which must take them all.
    pub(crate) fn run<R>(
        &mut self,
        command: &Command,
        read: impl FnOnce(&mut Reader<'_>) -> Result<R, WireError>,
    ) -> Result<R, Error> {
        self.exchange(command, |answer| read_all(command.code, answer.parameters, read))
    }

    /// The same for a command whose answer has a handle.
    pub(crate) fn run_for_handle<R>(
        &mut self,
        command: &Command,
        read: impl FnOnce(&mut Reader<'_>) -> Result<R, WireError>,
    ) -> Result<(u32, R), Error> {
        self.exchange(command, |answer| {
            let missing =
                Error::Malformed { command: command.code.name(), what: WireError::Ends("the handle") };
            let handle = answer.handle.ok_or(missing)?;
            Ok((handle, read_all(command.code, answer.parameters, read)?))
        })
    }

    /// `TPM2_Startup` (part 3, section 9.3). Firmware does this on real machines; a TPM that was started
    /// before is no error.
    pub fn startup(&mut self, kind: StartupType) -> Result<(), Error> {
        let command = Command::new(Code::Startup, Writer::new().u16(kind.value()));
        match self.run(&command, |_| Ok(())) {
            Err(Error::Refused { code, .. }) if code == INITIALIZE => Ok(()),
            result => result,
        }
    }

    /// `TPM2_Shutdown` (part 3, section 9.4): an orderly end, so that the next start is not taken for an
    /// attack on the dictionary lockout.
    pub fn shutdown(&mut self, kind: StartupType) -> Result<(), Error> {
        self.run(&Command::new(Code::Shutdown, Writer::new().u16(kind.value())), |_| Ok(()))
    }

    /// `TPM2_SelfTest` (part 3, section 10.2): of everything, or of what was not tested yet.
    pub fn self_test(&mut self, full: bool) -> Result<(), Error> {
        self.run(&Command::new(Code::SelfTest, Writer::new().u8(full.into())), |_| Ok(()))
    }

    pub(crate) fn capability<R>(
        &mut self,
        capability: u32,
        property: u32,
        count: u32,
        read: impl FnOnce(&mut Reader<'_>) -> Result<R, WireError>,
    ) -> Result<R, Error> {
        let parameters = Writer::new().u32(capability).u32(property).u32(count);
        self.run(&Command::new(Code::GetCapability, parameters), |reader| {
            reader.u8("whether there is more")?;
            if reader.u32("the capability")? != capability {
                return Err(WireError::Unexpected("the capability"));
            }
            read(reader)
        })
    }

    /// The banks of PCRs that have an active PCR (part 3, section 30.2, `TPM_CAP_PCRS`).
    pub fn pcr_banks(&mut self) -> Result<Vec<Bank>, Error> {
        let banks = self.capability(CAP_PCRS, 0, 1, read_selection)?;
        Ok(banks.into_iter().filter(|bank| !bank.pcrs.is_empty()).collect())
    }

    /// Fails unless all PCRs are active in the SHA-256 bank.
    pub fn require_sha256(&mut self) -> Result<(), Error> {
        let banks = self.pcr_banks()?;
        if banks.iter().any(|b| b.algorithm == ALG_SHA256 && (0..PCR_COUNT).all(|n| b.pcrs.contains(&n))) {
            return Ok(());
        }
        let active = banks.iter().map(Bank::name).collect::<Vec<_>>().join(", ");
        Err(Error::NoSha256Bank { active: if active.is_empty() { "none".into() } else { active } })
    }

    /// Up to `count` properties from `first` on, as pairs of number and value (part 2, section 6.13).
    pub fn properties(&mut self, first: u32, count: u32) -> Result<Vec<(u32, u32)>, Error> {
        self.capability(CAP_TPM_PROPERTIES, first, count, |reader| {
            let count = reader.count(MAX_PROPERTIES, "the number of properties")?;
            (0..count).map(|_| Ok((reader.u32("a property")?, reader.u32("a property's value")?))).collect()
        })
    }

    /// `TPM2_PCR_Extend` (part 3, section 22.2) of the SHA-256 bank, with the empty authorisation that PCRs
    /// have.
    pub fn pcr_extend(&mut self, pcr: u32, digest: &Sha256Digest) -> Result<(), Error> {
        check_pcr(pcr)?;
        let parameters = Writer::new().u32(1).u16(ALG_SHA256).bytes(digest);
        let command = Command::new(Code::PcrExtend, parameters).on(pcr).password(&[]);
        self.run(&command, |_| Ok(()))
    }

    /// Extends and reads back: `wanted` gives the new value for the old one.
    pub fn pcr_extend_checked(
        &mut self,
        pcr: u32,
        digest: &Sha256Digest,
        wanted: impl FnOnce(Sha256Digest) -> Sha256Digest,
    ) -> Result<Extended, Error> {
        let before = self.pcr_read_one(pcr)?;
        self.pcr_extend(pcr, digest)?;
        let after = self.pcr_read_one(pcr)?;
        let wanted = wanted(before);
        if after == wanted {
            Ok(Extended { before, after })
        } else {
            Err(Error::ReadBack { pcr, wanted: hex::encode(wanted), found: hex::encode(after) })
        }
    }

    /// The SHA-256 values of `pcrs`, in the order given (part 3, section 22.4). The TPM gives eight at most in
    /// one answer, so this may take several commands; PCRs that change meanwhile are not noticed.
    pub fn pcr_read(&mut self, pcrs: &[u32]) -> Result<Vec<Sha256Digest>, Error> {
        pcrs.iter().map(|pcr| self.pcr_read_one(*pcr)).collect()
    }

    /// The SHA-256 value of one PCR.
    pub fn pcr_read_one(&mut self, pcr: u32) -> Result<Sha256Digest, Error> {
        check_pcr(pcr)?;
        let (_, values) = self.pcr_read_some(&[pcr])?;
        match values.as_slice() {
            [(_, digest)] => Ok(*digest),
            _ => Err(Error::NoSha256Bank { active: "not sha256".into() }),
        }
    }

    /// The SHA-256 values that one `TPM2_PCR_Read` gives, and the count of extensions that it was read at.
    fn pcr_read_some(&mut self, pcrs: &[u32]) -> Result<(u32, Vec<(u32, Sha256Digest)>), Error> {
        let parameters = write_selection(Writer::new(), pcrs.iter().copied());
        self.run(&Command::new(Code::PcrRead, parameters), |reader| {
            let updates = reader.u32("the update counter")?;
            let selection = read_selection(reader)?;
            let count = reader.count(MAX_DIGESTS, "the number of digests")?;
            let digests = (0..count).map(|_| reader.sized(64, "a digest")).collect::<Result<Vec<_>, _>>()?;
            // A TPM without the bank answers with success and with nothing.
            let read: Vec<u32> =
                selection.into_iter().filter(|b| b.algorithm == ALG_SHA256).flat_map(|b| b.pcrs).collect();
            if read.len() != digests.len() || read.iter().any(|pcr| !pcrs.contains(pcr)) {
                return Err(WireError::Unexpected("the selection of PCRs"));
            }
            let values = read.into_iter().zip(digests).map(|(pcr, digest)| {
                Ok((pcr, digest.try_into().map_err(|_| WireError::Unexpected("a digest's size"))?))
            });
            Ok((updates, values.collect::<Result<_, _>>()?))
        })
    }

    /// The SHA-256 values of `pcrs`, all of the same moment, in ascending order. One command for up to eight PCRs.
    pub fn pcr_read_together(&mut self, pcrs: &[u32]) -> Result<Vec<(u32, Sha256Digest)>, Error> {
        pcrs.iter().try_for_each(|pcr| check_pcr(*pcr))?;
        let mut read: Vec<(u32, Sha256Digest)> = Vec::new();
        let mut moment = None;
        // Each round reads at least one PCR or starts again; extensions are rare.
        for _ in 0..4 * PCR_COUNT {
            let missing: Vec<u32> =
                pcrs.iter().copied().filter(|pcr| read.iter().all(|(other, _)| other != pcr)).collect();
            if missing.is_empty() {
                read.sort_unstable();
                return Ok(read);
            }
            let (updates, values) = self.pcr_read_some(&missing)?;
            if values.is_empty() {
                return Err(Error::NoSha256Bank { active: "not sha256".into() });
            }
            if moment.replace(updates).is_some_and(|before| before != updates) {
                read.clear();
                moment = None;
                continue;
            }
            read.extend(values);
        }
        Err(Error::PcrsDoNotRest)
    }

    /// `TPM2_GetRandom` (part 3, section 16.1), repeated until `length` bytes are there.
    pub fn random(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let wanted = u16::try_from((length - bytes.len()).min(32)).unwrap_or(32);
            let part = self.run(&Command::new(Code::GetRandom, Writer::new().u16(wanted)), |reader| {
                let part = reader.sized(wanted, "the random bytes")?;
                if part.is_empty() { Err(WireError::Ends("the random bytes")) } else { Ok(part.to_vec()) }
            })?;
            bytes.extend(part);
        }
        Ok(bytes)
    }
}

/// Gives parameters to `read`, which must take them all.
pub(crate) fn read_all<R>(
    code: Code,
    parameters: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Result<R, WireError>,
) -> Result<R, Error> {
    let malformed = |what| Error::Malformed { command: code.name(), what };
    let mut reader = Reader::new(parameters);
    let result = read(&mut reader).map_err(malformed)?;
    reader.end().map_err(malformed)?;
    Ok(result)
}

/// `TPML_PCR_SELECTION` of the SHA-256 bank, with three bytes of PCRs.
pub(crate) fn write_selection(to: Writer, pcrs: impl IntoIterator<Item = u32>) -> Writer {
    let bits = pcrs.into_iter().filter(|pcr| *pcr < PCR_COUNT).fold(0u32, |bits, pcr| bits | 1 << pcr);
    let [first, second, third, _] = bits.to_le_bytes();
    to.u32(1).u16(ALG_SHA256).u8(3).bytes(&[first, second, third])
}

pub(crate) fn check_pcr(pcr: u32) -> Result<(), Error> {
    if pcr < PCR_COUNT { Ok(()) } else { Err(Error::NoSuchPcr(pcr)) }
}

/// `TPML_PCR_SELECTION` (part 2, section 10.9.7).
fn read_selection(reader: &mut Reader<'_>) -> Result<Vec<Bank>, WireError> {
    let count = reader.count(MAX_BANKS, "the number of PCR banks")?;
    let mut banks = Vec::new();
    for _ in 0..count {
        let algorithm = reader.u16("a bank's algorithm")?;
        let length = reader.u8("the size of a PCR selection")?;
        // Four bytes are 32 PCRs, the most that the PC client platform profile knows.
        if length > 4 {
            return Err(WireError::TooLarge {
                field: "the size of a PCR selection",
                value: length.into(),
                limit: 4,
            });
        }
        let bits = reader.take(length.into(), "a PCR selection")?;
        let pcrs = (0..u32::from(length) * 8).filter(|n| bits[*n as usize / 8] >> (n % 8) & 1 == 1).collect();
        banks.push(Bank { algorithm, pcrs });
    }
    Ok(banks)
}
