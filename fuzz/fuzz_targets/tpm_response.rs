//! The answers of a TPM, to the commands that the operations send.
#![no_main]

use ashlar_tpm::{
    Authorized, Counter, Name, PcrKey, PcrValues, Policy, Sealed, Srk, StartupType, Tpm, Transport,
    TransportError, seal, unseal,
};
use std::sync::LazyLock;

const HANDLE: u32 = 0x8100_0001;
const COUNTER: Counter = Counter::at(0x0180_a541);

/// The base point of P-256 as a storage root key.
const PUBLIC: &[u8] = b"\0\x23\0\x0b\0\x03\x04\x72\0\0\0\x06\0\x80\0\x43\0\x10\0\x03\0\x10\
    \0\x20\x6b\x17\xd1\xf2\xe1\x2c\x42\x47\xf8\xbc\xe6\xe5\x63\xa4\x40\xf2\x77\x03\x7d\x81\x2d\xeb\x33\xa0\xf4\xa1\x39\x45\
    \xd8\x98\xc2\x96\0\x20\x4f\xe3\x42\xe2\xfe\x1a\x7f\x9b\x8e\xe7\xeb\x4a\x7c\x0f\x9e\x16\x2b\xce\x33\x57\x6b\x31\x5e\xce\
    \xcb\xb6\x40\x68\x37\xbf\x51\xf5";

static SRK: LazyLock<Srk> = LazyLock::new(|| {
    let name = Name::of(PUBLIC);
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
    let body = [sized(PUBLIC), sized(name.as_bytes()), sized(name.as_bytes())].concat();
    let size = u32::try_from(body.len() + 10).unwrap().to_be_bytes();
    let answer = [&[0x80, 1][..], &size, &[0; 4], &body].concat();
    Srk::open(&mut Tpm::new(Answers(&answer)), HANDLE, &name).unwrap()
});

static KEY: LazyLock<PcrKey> = LazyLock::new(|| {
    let head = b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\0\x03\x82\x01\x0f\0\x30\x82\x01\x0a\
        \x02\x82\x01\x01\0";
    PcrKey::from_der(&[&head[..], &[0xff; 256], &[2, 3, 1, 0, 1]].concat()).unwrap()
});

/// Gives one answer after the other, each as long as it says.
struct Answers<'a>(&'a [u8]);

impl Transport for Answers<'_> {
    fn transact(&mut self, _: &[u8]) -> Result<Vec<u8>, TransportError> {
        let size = self.0.get(2..6).and_then(|size| size.try_into().ok()).map_or(0, u32::from_be_bytes);
        // The layer waits and sends a command again when the TPM is busy.
        let busy = matches!(self.0.get(6..10), Some([_, _, 9, 0x08 | 0x0a | 0x22]));
        if self.0.is_empty() || busy {
            return Err(TransportError::Replay(0));
        }
        let (answer, rest) = self.0.split_at_checked(size.max(1) as usize).unwrap_or((self.0, &[]));
        self.0 = rest;
        Ok(answer.to_vec())
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((operation, answers)) = data.split_first() else { return };
    let tpm = &mut Tpm::new(Answers(answers));
    match operation % 12 {
        0 => drop(tpm.pcr_read_one(0)),
        1 => drop(tpm.pcr_read_together(&[0, 7, 11])),
        2 => drop(tpm.require_sha256()),
        3 => drop(tpm.properties(0x100, 8)),
        4 => drop(tpm.handles(0x8000_0000)),
        5 => drop((tpm.clock(), tpm.random(4), tpm.startup(StartupType::Clear), tpm.pcr_extend(0, &[0; 32]))),
        6 => drop(Srk::ensure(tpm, HANDLE)),
        7 => drop(COUNTER.ensure(tpm)),
        8 => drop(COUNTER.read(tpm)),
        // What is in a session cannot succeed: its HMACs would have to be guessed.
        9 => assert!(COUNTER.increment(tpm, &SRK).is_err()),
        10 => assert!(seal(tpm, &SRK, &[0; 32], b"secret").is_err()),
        _ => {
            let policy = Policy { key: &KEY, policy_ref: None, counter: Some((COUNTER, 1)) };
            let public = [
                &b"\0\x4e\0\x08\0\x0b\0\0\x04\x92\0\x20"[..],
                &policy.digest(),
                &[0, 0x10, 0, 0x20],
                &[0; 32],
            ];
            let sealed = Sealed::from_bytes(&[&public.concat()[..], &[0, 1, 0]].concat()).unwrap();
            let pcrs = PcrValues::new([(11, [0; 32])]).unwrap();
            let authorized = Authorized { policy: &policy, pcrs: &pcrs, signature: &[0; 256] };
            assert!(unseal(tpm, &SRK, &sealed, &authorized).is_err());
        }
    }
});
