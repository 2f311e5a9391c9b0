//! The signed UKI.

use super::parts::Parts;
use super::{SecureBoot, SignedSummary};
use crate::error::BuildError;
use ashlar_boot::uki::Section;
use ashlar_image::digest::Digest;
use ashlar_image::owner::{OWNER_DIR, OWNER_FILE, Owner};
use ashlar_image::release::{self, Artifact, StatePolicy};
use ashlar_image::state;
use ashlar_keys::{CertifiedKey, Signer, authenticode, pcr_policy};
use ashlar_measured_boot::predict::{self, Site};
use ashlar_measured_boot::uki::Uki;
use ashlar_tree::{Metadata, Node, Tree};
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

/// The initramfs with what init must know of the owner behind it, in an archive of its own: the kernel unpacks one after
/// the other (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`).
fn initrd(parts: &Parts, owner: &Owner) -> Result<Vec<u8>, BuildError> {
    let time = parts.facts.build_time;
    let folder = || Node::directory(Metadata::root(0o755, time));
    let mut tree = Tree::new(Metadata::root(0o755, time));
    // The archive before this one has the folders too; they stay as they are.
    tree.insert(OWNER_DIR.as_bytes(), folder())?;
    let mut json = serde_json::to_vec_pretty(owner)?;
    json.push(b'\n');
    let path = format!("{OWNER_DIR}/{OWNER_FILE}");
    tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, time), json))?;
    let mut initrd = parts.initramfs.clone();
    // An archive begins at a multiple of four bytes.
    initrd.resize(initrd.len().next_multiple_of(4), 0);
    ashlar_formats::cpio::write(&tree, &mut initrd).map_err(|error| BuildError::Initramfs(error.into()))?;
    Ok(initrd)
}

/// The policies that a release signs: PCR 11 alone, as systemd's tools know it, and for each allowed PCR 7 and each
/// generation that which opens a state volume.
fn policies(at_enter_initrd: Digest, policy: &StatePolicy) -> Vec<pcr_policy::Policy> {
    let mut policies = vec![BTreeMap::from([(11, at_enter_initrd)]).into()];
    for pcr7 in &policy.pcr7 {
        for generation in &policy.generations {
            let value = |pcr| match pcr {
                7 => *pcr7,
                11 => at_enter_initrd,
                _ => Digest::ZERO,
            };
            policies.push(pcr_policy::Policy {
                pcrs: state::POLICY_PCRS.map(|pcr| (pcr, value(pcr))).into(),
                policy_ref: Some(state::policy_ref(*generation)),
            });
        }
    }
    policies
}

/// Which machines may open their state volume with a release.
pub(super) fn state_policy(parts: &Parts, secure_boot: &SecureBoot) -> Result<StatePolicy, BuildError> {
    let site = Site { variables: &secure_boot.variables, authority: &secure_boot.db_authority };
    let mut pcr7: Vec<Digest> = predict::pcr7(&site)?.into_iter().map(|variant| variant.value).collect();
    for value in &parts.facts.more_pcr7 {
        if !pcr7.contains(value) {
            pcr7.push(*value);
        }
    }
    Ok(StatePolicy { pcr7, generations: state::generations(parts.facts.security_version).collect() })
}

/// The UKI's sections but `.pcrsig`.
fn sections<'a>(parts: &'a Parts, public_key: &'a str, initrd: &'a [u8]) -> Vec<Section<'a>> {
    let facts = &parts.facts;
    vec![
        Section { name: ".osrel", data: facts.os_release.as_bytes() },
        Section { name: ".cmdline", data: facts.cmdline.as_bytes() },
        Section { name: ".uname", data: facts.kernel.as_bytes() },
        Section { name: ".pcrpkey", data: public_key.as_bytes() },
        Section { name: ".initrd", data: initrd },
        Section { name: ".linux", data: &parts.kernel },
    ]
}

/// Builds the UKI twice: the first has no `.pcrsig`, and the PCR 11 value that it comes to is what the second
/// one's `.pcrsig` signs. That section is never measured, so both come to the same value.
pub fn sign(parts: &Parts, signers: UkiSigners<'_>, secure_boot: &SecureBoot) -> Result<Vec<u8>, BuildError> {
    let public_key = pcr_policy::public_key_pem(signers.pcr)?;
    let initrd = initrd(parts, &secure_boot.owner)?;
    let mut sections = sections(parts, &public_key, &initrd);
    let unsigned = ashlar_boot::uki::build(&parts.stub, &sections)?;
    let at_enter_initrd = pcr11(&unsigned)?;
    let policies = policies(at_enter_initrd, &state_policy(parts, secure_boot)?);
    let policy = pcr_policy::sign(signers.pcr, &policies)?;
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
