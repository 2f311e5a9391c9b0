//! The start of the state partition, and the metadata of a LUKS2 header by themselves.
#![no_main]

use ashlar_state::luks::{self, Found, HEADER_SIZE};
use ashlar_state::memory::MemoryDevice;

const SIZE: u64 = 1 << 30;

fn look(start: &[u8]) {
    let Ok(Found::Volume(header)) = luks::parse(start, SIZE) else { return };
    let table = header.crypt_table();
    assert!(table.sectors > 0 && (table.offset + table.sectors) * 512 <= SIZE, "{table:?}");
    // What is let through is written as it was read.
    let mut device = MemoryDevice::with(SIZE, start);
    // Numbers of a later release's tokens may get longer.
    let Ok(same) = header.with_tokens(header.tokens()) else { return };
    if let Ok(written) = same.write_update(&mut device, &mut |_| Ok(())) {
        let Ok(Found::Volume(again)) = luks::read(&device) else { panic!("what was written is refused") };
        assert!(again.crypt_table() == table && again.keyslots() == header.keyslots());
        assert!(
            again.sequence() == written.sequence() && again.tpm2().eq(header.tpm2()) && !again.needs_repair()
        );
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    look(data);
    look(&ashlar_fuzz::luks2(data));
    // As the metadata of a header that is otherwise right.
    let mut start = vec![0; 2 * HEADER_SIZE];
    start[..8].copy_from_slice(b"LUKS\xba\xbe\0\x02");
    start[8..16].copy_from_slice(&(HEADER_SIZE as u64).to_be_bytes());
    start[72..78].copy_from_slice(b"sha256");
    start[168..204].copy_from_slice(b"0123abcd-4567-89ab-cdef-0123456789ab");
    let json = &data[..data.len().min(HEADER_SIZE - 4096)];
    start[4096..4096 + json.len()].copy_from_slice(json);
    look(&ashlar_fuzz::luks2(&start));
});
