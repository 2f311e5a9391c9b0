//! What is kept on a disk, or comes from a TPM or an image, and is made of the TPM's structures: public areas, sealed keys
//! and the key for PCR policies. What is read is written again as it was.
#![no_main]

use ashlar_tpm::public::Public;
use ashlar_tpm::{NvPublic, PcrKey, Sealed};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 5 {
        0 => drop(Public::parse(data).map(|public| assert_eq!(public.to_bytes().unwrap(), data))),
        1 => drop(NvPublic::parse(data).map(|public| assert_eq!(public.to_bytes().unwrap(), data))),
        2 => drop(Sealed::from_bytes(data).map(|sealed| assert_eq!(sealed.to_bytes(), data))),
        3 => drop(PcrKey::from_der(data)),
        _ => drop(PcrKey::from_pem(data)),
    }
});
