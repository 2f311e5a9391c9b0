//! The mapping of the volume: dm-crypt with the key from the kernel's keyring, so that no table shows it (Linux,
//! `Documentation/admin-guide/device-mapper/dm-crypt.rst`).

use crate::dm::{self, Target};
use crate::error::Error;
use crate::sys;
use ashlar_image::state::VOLUME_NAME;
use ashlar_state::CryptTable;
use std::path::PathBuf;

/// Description of the key in the keyring; a `logon` key has a prefix with a colon.
const KEY: &std::ffi::CStr = c"ashlar:state";

/// Makes the device from the header's copy in memory; the disk is not asked again. `numbers` are those of the partition.
pub fn open(table: &CryptTable, numbers: &str, key: &[u8]) -> Result<PathBuf, Error> {
    let serial = sys::add_logon_key(KEY, key)
        .map_err(|source| Error::DeviceMapper { step: "give the volume's key to the kernel", source })?;
    let parameters = parameters(table, numbers);
    let target = Target { kind: "crypt", sectors: table.sectors, parameters: &parameters };
    let created = dm::create(VOLUME_NAME, false, target);
    // dm-crypt has its own copy now; what cannot be revoked goes with this process.
    let _ = sys::revoke_key(serial);
    created
}

/// Discards are not passed on: they would tell which blocks are empty.
fn parameters(table: &CryptTable, numbers: &str) -> String {
    let key = format!(":{}:logon:{}", table.key_size, KEY.to_string_lossy());
    table.parameters(&key, numbers, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_key_and_does_not_show_it() {
        let table = CryptTable {
            sectors: 1000,
            cipher: "aes-xts-plain64",
            key_size: 64,
            iv_offset: 0,
            offset: 32768,
            sector_size: 4096,
        };
        assert_eq!(
            parameters(&table, "254:7"),
            "aes-xts-plain64 :64:logon:ashlar:state 0 254:7 32768 1 sector_size:4096"
        );
    }
}
