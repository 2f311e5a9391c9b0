//! EFI programs: sections, hashes, signatures and, for a UKI, what it would measure.

use super::{MAX_PROGRAM, damaged, read_whole};
use crate::error::BuildError;
use ashlar_image::digest::Digest;
use ashlar_image::measure::Variant;
use ashlar_measured_boot::pe::Pe;
use ashlar_measured_boot::uki::Uki;
use ashlar_measured_boot::{authenticode, predict};
use serde::Serialize;
use std::path::Path;

/// One section of a program.
#[derive(Debug, Serialize)]
pub struct Section {
    /// Name.
    pub name: String,
    /// Length in memory in bytes.
    pub size: u64,
    /// SHA-256 of its content.
    pub sha256: Digest,
    /// The text, where a UKI has text in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A program.
#[derive(Debug, Serialize)]
pub struct Program {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Authenticode SHA-256.
    pub authenticode: Digest,
    /// Whether there is a certificate table; who made it is not checked here.
    pub signed: bool,
    /// Version of systemd-stub; only a UKI has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stub_version: Option<String>,
    /// Sections in the order of their headers.
    pub sections: Vec<Section>,
    /// PCR 11 after each phase; only for a UKI.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pcr11: Vec<Variant>,
}

/// Sections of a UKI that hold text (UAPI.5).
const TEXT: [&str; 7] = [".osrel", ".cmdline", ".uname", ".sbat", ".sdmagic", ".pcrsig", ".pcrpkey"];

pub(super) fn inspect(path: &Path) -> Result<Program, BuildError> {
    const KIND: &str = "an EFI program";
    let bytes = read_whole(path, MAX_PROGRAM, KIND)?;
    let pe = Pe::parse(&bytes).map_err(|e| damaged(path, KIND, e))?;
    let mut sections = Vec::new();
    for section in &pe.sections {
        let content = pe.content(section).ok_or_else(|| {
            damaged(path, KIND, format!("its section `{}` is larger than it can be", section.name))
        })?;
        let text = TEXT
            .contains(&section.name.as_str())
            .then(|| String::from_utf8_lossy(&content).trim_end_matches('\0').trim_end().to_owned());
        sections.push(Section {
            name: section.name.clone(),
            size: content.len() as u64,
            sha256: Digest::of(&content),
            text,
        });
    }
    // Without a kernel in it, it is some other program.
    let uki = if pe.section(".linux").is_some() {
        Some(Uki::parse(&bytes).map_err(|e| damaged(path, "a UKI", e))?)
    } else {
        None
    };
    let pcr11 = match &uki {
        Some(uki) => predict::pcr11(uki).map_err(|e| damaged(path, "a UKI", e))?,
        None => Vec::new(),
    };
    Ok(Program {
        size: bytes.len() as u64,
        sha256: Digest::of(&bytes),
        authenticode: authenticode::digest(&bytes).map_err(|e| damaged(path, KIND, e))?,
        signed: !pe.certificates.is_empty(),
        stub_version: uki.map(|uki| uki.stub_version().text.clone()),
        sections,
        pcr11,
    })
}
