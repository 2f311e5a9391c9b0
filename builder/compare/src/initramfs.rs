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

/// Archives one after the other, each as it is or as a zstd frame; in the result all are as they are, at multiples of
/// four bytes.
fn unpack(section: &[u8]) -> Result<Vec<u8>, String> {
    let mut archive = Vec::new();
    let mut rest = section;
    while rest.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder =
            zstd::stream::read::Decoder::with_buffer(rest).map_err(|error| error.to_string())?.single_frame();
        // The kernel takes windows of at most 8 MiB; 128 MiB is zstd's own limit.
        decoder.window_log_max(27).map_err(|error| error.to_string())?;
        let left = (MAX_ARCHIVE + 1).saturating_sub(archive.len() as u64);
        decoder.by_ref().take(left).read_to_end(&mut archive).map_err(|error| error.to_string())?;
        if archive.len() as u64 > MAX_ARCHIVE {
            return Err("it is larger than 512 MiB when unpacked".into());
        }
        archive.resize(archive.len().next_multiple_of(4), 0);
        rest = decoder.finish();
        let zeros = rest.iter().take_while(|byte| **byte == 0).count();
        rest = rest.get(zeros..).unwrap_or_default();
    }
    if archive.is_empty() && !rest.starts_with(b"070701") {
        return Err("it is neither a cpio archive nor one packed with zstd".into());
    }
    if !rest.is_empty() && !rest.starts_with(b"070701") {
        return Err("behind the first archive is something that is none".into());
    }
    archive.extend_from_slice(rest);
    Ok(archive)
}
