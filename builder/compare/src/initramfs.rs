//! The initramfs of a UKI, unpacked.

use crate::cpio::{Member, members};
use std::collections::BTreeMap;
use std::io::Read;

/// Largest archive in bytes, unpacked.
const MAX_ARCHIVE: u64 = 512 << 20;

/// An archive and its members.
pub(crate) struct Initramfs {
    pub archive: Vec<u8>,
    pub members: Vec<Member>,
}

impl Initramfs {
    /// Unpacks the section `.initrd`: a zstd frame, or an archive as it is.
    pub fn read(section: &[u8]) -> Result<Self, String> {
        let archive = unpack(section)?;
        let members = members(&archive).map_err(|error| error.to_string())?;
        Ok(Self { archive, members })
    }

    pub fn by_name(&self) -> BTreeMap<&[u8], &Member> {
        self.members.iter().map(|member| (member.name.as_slice(), member)).collect()
    }

    pub fn data(&self, member: &Member) -> &[u8] {
        self.archive.get(member.data.clone()).unwrap_or_default()
    }
}

fn unpack(section: &[u8]) -> Result<Vec<u8>, String> {
    if section.starts_with(b"070701") {
        return Ok(section.to_vec());
    }
    if !section.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        return Err("it is neither a cpio archive nor one packed with zstd".into());
    }
    let mut decoder = zstd::stream::read::Decoder::with_buffer(section).map_err(|error| error.to_string())?;
    // The kernel takes windows of at most 8 MiB; 128 MiB is zstd's own limit.
    decoder.window_log_max(27).map_err(|error| error.to_string())?;
    let mut archive = Vec::new();
    decoder.take(MAX_ARCHIVE + 1).read_to_end(&mut archive).map_err(|error| error.to_string())?;
    if archive.len() as u64 > MAX_ARCHIVE {
        return Err("it is larger than 512 MiB when unpacked".into());
    }
    Ok(archive)
}
