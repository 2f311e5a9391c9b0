//! The signed UKI.

use super::SignedSummary;
use super::parts::Parts;
use crate::error::BuildError;
use ashlar_boot::uki::Section;
use ashlar_image::digest::Digest;
use ashlar_image::release::{self, Artifact};
use ashlar_keys::{CertifiedKey, Signer, authenticode, pcr_policy};
use ashlar_measured_boot::predict;
use ashlar_measured_boot::uki::Uki;
use std::collections::BTreeMap;

/// The two keys that a UKI needs.
#[derive(Clone, Copy)]
pub struct UkiSigners<'a> {
    /// Signs the UKI for the firmware.
    pub db: &'a CertifiedKey,
    /// Signs the PCR policy.
    pub pcr: &'a dyn Signer,
    /// Whether the signed UKI is verified before it is used. Not only when two builds are compared: there a signature
    /// that does not fit is what is to be shown.
    pub verify: bool,
}

impl std::fmt::Debug for UkiSigners<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UkiSigners").field("db", self.db).finish_non_exhaustive()
    }
}

/// The UKI's sections but `.pcrsig`.
fn sections<'a>(parts: &'a Parts, public_key: &'a str) -> Vec<Section<'a>> {
    let facts = &parts.facts;
    vec![
        Section { name: ".osrel", data: facts.os_release.as_bytes() },
        Section { name: ".cmdline", data: facts.cmdline.as_bytes() },
        Section { name: ".uname", data: facts.kernel.as_bytes() },
        Section { name: ".pcrpkey", data: public_key.as_bytes() },
        Section { name: ".initrd", data: &parts.initramfs },
        Section { name: ".linux", data: &parts.kernel },
    ]
}

/// Builds the UKI twice: the first has no `.pcrsig`, and the PCR 11 value that it comes to is what the second
/// one's `.pcrsig` signs. That section is never measured, so both come to the same value.
pub fn sign(parts: &Parts, signers: UkiSigners<'_>) -> Result<Vec<u8>, BuildError> {
    let public_key = pcr_policy::public_key_pem(signers.pcr)?;
    let mut sections = sections(parts, &public_key);
    let unsigned = ashlar_boot::uki::build(&parts.stub, &sections)?;
    let at_enter_initrd = pcr11(&unsigned)?;
    let policy = pcr_policy::sign(signers.pcr, &[BTreeMap::from([(11, at_enter_initrd)])])?;
    sections.push(Section { name: ".pcrsig", data: policy.as_bytes() });
    let with_policy = ashlar_boot::uki::build(&parts.stub, &sections)?;
    let signed = authenticode::sign(&with_policy, signers.db, Some(parts.facts.build_time))?;
    // What leaves this function was read back by the reader that also measures it.
    if signers.verify {
        authenticode::verify(&signed, signers.db.certificate_der())?;
    }
    Ok(signed)
}

/// PCR 11 in the phase in which the state volume opens.
fn pcr11(uki: &[u8]) -> Result<Digest, BuildError> {
    let phases = predict::pcr11(&Uki::parse(uki)?)?;
    let found = phases.iter().find(|variant| variant.name == predict::AFTER_ENTER_INITRD);
    Ok(found.ok_or(BuildError::NoPhase)?.value)
}

/// What the signatures of a UKI are about.
pub(super) fn summary(uki: &[u8]) -> Result<SignedSummary, BuildError> {
    Ok(SignedSummary { authenticode: ashlar_measured_boot::authenticode::digest(uki)?, pcr11: pcr11(uki)? })
}

/// What `release.json` says of the signed UKI.
pub(super) fn describe(bytes: &[u8], artifact: Artifact) -> Result<release::Uki, BuildError> {
    let uki = Uki::parse(bytes)?;
    let text = |name: &str| -> String {
        String::from_utf8_lossy(uki.section(name).unwrap_or_default()).trim_end_matches('\0').to_owned()
    };
    Ok(release::Uki {
        authenticode: ashlar_measured_boot::authenticode::digest(bytes)?,
        kernel_authenticode: ashlar_measured_boot::authenticode::digest(
            uki.section(".linux").unwrap_or_default(),
        )?,
        stub_version: uki.stub_version().text.clone(),
        cmdline: text(".cmdline"),
        sections: uki.sections().map(|(name, data)| (name.to_owned(), Digest::of(data))).collect(),
        artifact,
    })
}
