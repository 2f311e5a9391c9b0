//! CRC-32C as ext4 uses it: without the inversions before and after (Linux, `lib/crc32`; the polynomial of RFC 3720).

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { value >> 1 ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
}

/// Goes on with `crc` over `data`. A new sum begins with all ones.
pub fn crc32c(crc: u32, data: &[u8]) -> u32 {
    data.iter().fold(crc, |crc, byte| {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        // The index is below 256.
        crc >> 8 ^ TABLE.get(index as usize).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_rfc_3720_has_it() {
        // Section B.4, with the inversions that it has.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(!0, &[0xff; 32]), 0x62a8_ab43);
        assert_eq!(!crc32c(crc32c(!0, b"1234"), b"56789"), 0xe306_9283);
    }
}
