//! The answer of a TPM.
#![no_main]

use ashlar_tpm::{Replay, Tpm};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    // What a TPM might answer to a reading of a PCR; the command is what the layer sends.
    let command = [0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e, 0, 0, 0, 1, 0, 0x0b, 3, 1, 0, 0];
    let mut tpm = Tpm::new(Replay::new([(command.to_vec(), data.to_vec())]));
    let _ = tpm.pcr_read_one(0);
});
