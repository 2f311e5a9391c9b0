//! The Authenticode hash of a PE file as UEFI firmware computes it (Microsoft, "Windows Authenticode
//! Portable Executable Signature Format", section "Calculating the PE Image Hash").

use crate::pe::{Pe, PeError};
use ashlar_image::digest::Digest;
use sha2::{Digest as _, Sha256};

/// The SHA-256 Authenticode hash of a file. It does not depend on the signature, but it does on the
/// padding that a signing tool puts before the certificate table: compute it on the signed file.
pub fn digest(bytes: &[u8]) -> Result<Digest, PeError> {
    let pe = Pe::parse(bytes)?;
    let part = |range: std::ops::Range<usize>| bytes.get(range).ok_or(PeError::Short("headers"));
    let mut hash = Sha256::new();
    hash.update(part(0..pe.checksum_offset)?);
    let after_checksum = pe.checksum_offset + 4;
    match pe.certificate_entry_offset {
        Some(entry) => {
            hash.update(part(after_checksum..entry)?);
            hash.update(part(entry + 8..pe.headers_size)?);
        }
        None => hash.update(part(after_checksum..pe.headers_size)?),
    }
    let mut sections: Vec<_> = pe.sections.iter().filter(|s| !s.raw.is_empty()).collect();
    sections.sort_by_key(|section| section.raw.start);
    let mut hashed = pe.headers_size;
    for section in sections {
        hash.update(part(section.raw.clone())?);
        hashed += section.raw.len();
    }
    // The firmware counts what it has hashed and takes the rest of the file from there, whether or not
    // the sections lie without gaps.
    if hashed < pe.certificates.start {
        hash.update(part(hashed..pe.certificates.start)?);
    }
    Ok(Digest(hash.finalize().into()))
}
