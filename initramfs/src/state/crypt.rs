//! The mapping of the volume: dm-crypt with the key from the kernel's keyring, so that no table shows it (Linux,
//! `Documentation/admin-guide/device-mapper/dm-crypt.rst`).

use crate::dm::{self, Target};
use crate::error::Error;
use crate::sys;
use ashlar_image::state::VOLUME_NAME;
use std::path::PathBuf;

/// Description of the key in the keyring; a `logon` key has a prefix with a colon.
const KEY: &std::ffi::CStr = c"ashlar:state";

/// Makes the device from the header's copy in memory; the disk is not asked again.
pub fn open(layout: &Layout, numbers: &str, key: &[u8]) -> Result<PathBuf, Error> {
    let serial = sys::add_logon_key(KEY, key)
        .map_err(|source| Error::DeviceMapper { step: "give the volume's key to the kernel", source })?;
    let parameters = layout.parameters(numbers, key.len());
    let created = dm::create(
        VOLUME_NAME,
        false,
        Target { kind: "crypt", sectors: layout.sectors, parameters: &parameters },
    );
    // dm-crypt has its own copy now; what cannot be revoked goes with this process.
    let _ = sys::revoke_key(serial);
    created
}

/// What the header says about the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Length of the data in sectors of 512 bytes.
    pub sectors: u64,
    /// First sector of the data on the partition.
    pub offset: u64,
    /// Size in bytes of a unit of encryption: 512 or 4096.
    pub sector_size: u32,
}

impl Layout {
    /// The parameters of dm-crypt.
    fn parameters(&self, numbers: &str, key_size: usize) -> String {
        let key = format!(":{key_size}:logon:{}", KEY.to_string_lossy());
        format!("aes-xts-plain64 {key} 0 {numbers} {} 1 sector_size:{}", self.offset, self.sector_size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_the_key_and_does_not_show_it() {
        let layout = Layout { sectors: 1000, offset: 32768, sector_size: 4096 };
        assert_eq!(
            layout.parameters("254:7", 64),
            "aes-xts-plain64 :64:logon:ashlar:state 0 254:7 32768 1 sector_size:4096"
        );
    }
}
