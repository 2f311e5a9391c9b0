//! Measuring: the phase words go into PCR 11, and a list tells what was extended.

use crate::console;
use crate::error::Error;
use crate::uevent::Uevents;
use ashlar_image::digest::Digest;
use ashlar_image::measure::{Event, PHASES};
use ashlar_image::report::InitEvent;
use ashlar_tpm::{Device, PCR_COUNT, StartupType, Tpm, Transport};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// The PCR of the UKI and of the phases (UAPI.7, Linux TPM PCR registry).
pub const PHASE_PCR: u32 = 11;
/// How long the TPM may take to appear.
const TPM_DEADLINE: Duration = Duration::from_secs(30);

/// A phase of the boot, in the order of [`PHASES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the root is looked for.
    EnterInitrd,
    /// Before the root is entered.
    LeaveInitrd,
    /// The machine is set up.
    Sysinit,
    /// Everything has been started.
    Ready,
}

impl Phase {
    /// The word that is measured.
    pub const fn word(self) -> &'static str {
        PHASES[self as usize]
    }
}

/// The TPM and what was extended so far.
#[derive(Debug)]
pub struct Measurer<T> {
    tpm: Tpm<T>,
    log: Vec<InitEvent>,
}

/// Waits for the TPM's device and opens it. Without active SHA-256 PCRs there is nothing to measure into.
pub fn open(uevents: &Uevents) -> Result<Measurer<Device>, Error> {
    uevents
        .wait(TPM_DEADLINE, || Path::new(Device::PATH).exists().then_some(()))
        .ok_or(Error::NoTpm { path: Device::PATH, seconds: TPM_DEADLINE.as_secs() })?;
    Measurer::new(Device::open(Device::PATH)?, Vec::new())
}

/// Opens the TPM again after the switch of root, with the list so far.
pub fn reopen(log: Vec<InitEvent>) -> Result<Measurer<Device>, Error> {
    Measurer::new(Device::open(Device::PATH)?, log)
}

impl<T: Transport> Measurer<T> {
    /// Goes on with `log`.
    pub fn new(transport: T, log: Vec<InitEvent>) -> Result<Self, Error> {
        let mut tpm = Tpm::new(transport);
        tpm.require_sha256()?;
        Ok(Self { tpm, log })
    }

    /// Extends the word of `phase` and reads the PCR back. An error must stop the boot: otherwise a machine would
    /// go on with secrets of a phase that is over.
    pub fn phase(&mut self, phase: Phase) -> Result<(), Error> {
        self.extend(PHASE_PCR, phase.word(), Digest::of(phase.word()))
    }

    /// Extends `digest`, which `what` describes, reads the PCR back and lists it. An error must stop the boot.
    pub fn extend(&mut self, pcr: u32, what: &str, digest: Digest) -> Result<(), Error> {
        self.tpm
            .pcr_extend_checked(pcr, &digest.0, |before| Digest(before).extend(digest).0)
            .map_err(|source| Error::Measure { what: what.to_owned(), source })?;
        self.log.push(InitEvent { pcr, event: Event { what: what.to_owned(), digest } });
        console::info(format_args!("measured {what}"));
        Ok(())
    }

    /// The TPM.
    pub const fn tpm(&mut self) -> &mut Tpm<T> {
        &mut self.tpm
    }

    /// What was extended, in order.
    pub fn log(&self) -> &[InitEvent] {
        &self.log
    }

    /// All PCRs.
    pub fn pcrs(&mut self) -> Result<BTreeMap<u32, Digest>, Error> {
        let numbers: Vec<u32> = (0..PCR_COUNT).collect();
        let values = self.tpm.pcr_read(&numbers)?;
        Ok(numbers.into_iter().zip(values.into_iter().map(Digest)).collect())
    }
}

/// Tells the TPM that the machine stops, so that it does not take the next start for an attack on its lockout.
/// The kernel does the same when it stops; this is for the cases where it cannot.
pub fn shut_down() {
    let result = Device::open(Device::PATH)
        .map_err(Error::from)
        .and_then(|device| Ok(Tpm::new(device).shutdown(StartupType::Clear)?));
    if let Err(error) = result {
        console::warning(format_args!("cannot shut the TPM down: {error}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_tpm::TransportError;

    /// A TPM that knows the three commands that measuring needs, for one PCR.
    struct Fake {
        pcr: Digest,
        deaf: bool,
    }

    impl Transport for Fake {
        fn transact(&mut self, command: &[u8]) -> Result<Vec<u8>, TransportError> {
            let answer = |tag: u16, body: &[u8]| {
                let mut bytes = tag.to_be_bytes().to_vec();
                bytes.extend((10 + body.len() as u32).to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(body);
                Ok(bytes)
            };
            match command[6..10] {
                // GetCapability: one bank, SHA-256, all PCRs.
                [0, 0, 1, 0x7a] => answer(0x8001, &[0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 11, 3, 0xff, 0xff, 0xff]),
                // PCR_Extend.
                [0, 0, 1, 0x82] => {
                    if !self.deaf {
                        let digest = command[command.len() - 32..].try_into().unwrap();
                        self.pcr = self.pcr.extend(Digest(digest));
                    }
                    answer(0x8002, &[0, 0, 0, 0, 0, 0, 1, 0, 0])
                }
                // PCR_Read: the selection comes back.
                [0, 0, 1, 0x7e] => {
                    let mut body = vec![0, 0, 0, 1];
                    body.extend(&command[10..]);
                    body.extend([0, 0, 0, 1, 0, 32]);
                    body.extend(self.pcr.0);
                    answer(0x8001, &body)
                }
                _ => Err(TransportError::Replay(0)),
            }
        }
    }

    #[test]
    fn phases_are_extended_in_order_and_listed() {
        let mut measurer = Measurer::new(Fake { pcr: Digest::ZERO, deaf: false }, Vec::new()).unwrap();
        let mut wanted = Digest::ZERO;
        for phase in [Phase::EnterInitrd, Phase::LeaveInitrd, Phase::Sysinit, Phase::Ready] {
            measurer.phase(phase).unwrap();
            wanted = wanted.extend(Digest::of(phase.word()));
        }
        assert_eq!(measurer.pcrs().unwrap()[&PHASE_PCR], wanted);
        let words: Vec<&str> = measurer.log().iter().map(|event| event.event.what.as_str()).collect();
        assert_eq!(words, PHASES);
    }

    #[test]
    fn a_tpm_that_does_not_extend_stops_the_boot() {
        let mut measurer = Measurer::new(Fake { pcr: Digest::ZERO, deaf: true }, Vec::new()).unwrap();
        assert!(matches!(
            measurer.phase(Phase::EnterInitrd),
            Err(Error::Measure { what, .. }) if what == "enter-initrd"
        ));
        assert!(measurer.log().is_empty());
    }
}
