//! Which values the PCRs of a machine take that starts a unified kernel image with the owner's keys in its
//! firmware, no boot loader between.
//!
//! What is measured where: TCG PC Client Platform Firmware Profile 1.06, section 3.3.4 (PCR 4 and 7); the
//! kernel's EFI stub, `efi_measure_tagged_event` (PCR 9); systemd-stub by version, `predict/stub.rs` (PCR 11, 12, 13).

mod stub;

use crate::authenticode;
use crate::efi::{EfiError, Guid, SecureBootVariables, parse_signature_lists};
use crate::pe::PeError;
use crate::uki::{Uki, UkiError};
use ashlar_image::digest::Digest;
use ashlar_image::measure::{Event, PHASES, Prediction, Variant};
use std::collections::BTreeMap;
use stub::Rules;

/// Failed boot options that a prediction allows for before the one that starts the image.
pub const MAX_FAILED_BOOT_OPTIONS: usize = 3;

/// Name of the variant of PCR 11 in which the state volume may be opened.
pub const AFTER_ENTER_INITRD: &str = "after enter-initrd";

const CALLING: &str = "Calling EFI Application from Boot Option";
const RETURNING: &str = "Returning from EFI Application from Boot Option";

/// Why nothing was predicted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PredictError {
    /// The image cannot be read.
    #[error(transparent)]
    Uki(#[from] UkiError),
    /// The image or the kernel in it is no PE file.
    #[error("the hash that the firmware measures cannot be computed: {0}")]
    Pe(#[from] PeError),
    /// The stub's rules are not known.
    #[error("it is not known what systemd-stub {major} measures; take one of the versions {known}")]
    Stub {
        /// The stub's major version.
        major: u32,
        /// The versions that are known.
        known: String,
    },
    /// A section makes measurements depend on the machine.
    #[error("with a section `{0}` it depends on the machine what is measured; build the image without it")]
    MachineDependent(&'static str),
    /// The stub would change the command line before the kernel measures it.
    #[error("the command line must be printable ASCII without blanks at its ends; the stub would change it")]
    Cmdline,
    /// The content of `db` cannot be read.
    #[error("the content of db cannot be read: {0}")]
    Db(#[from] EfiError),
    /// The authority is not in `db`, so the firmware would refuse the image.
    #[error("the certificate that signs the image is not in db; enrol it or sign with a key that is")]
    Authority,
}

/// The owner's keys as they are in the firmware.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The Secure Boot variables.
    pub variables: &'a SecureBootVariables,
    /// `EFI_SIGNATURE_DATA` (owner and certificate) of the entry of `db` that the image is verified with.
    pub authority: &'a [u8],
}

/// Everything about an image that a prediction depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Major version of the stub.
    pub stub_major: u32,
    /// Authenticode hash of the signed file.
    pub authenticode: Digest,
    /// Authenticode hash of the kernel in it.
    pub kernel_authenticode: Digest,
    /// Digest of each section's content, by name.
    pub sections: BTreeMap<String, Digest>,
    /// The command line.
    pub cmdline: String,
    /// Digest of the initrd as the stub hands it to the kernel.
    pub initrd: Digest,
}

impl Facts {
    /// The facts about an image.
    pub fn of(uki: &Uki<'_>) -> Result<Self, PredictError> {
        let rules = Rules::of(uki.stub_version().major)?;
        let section = |name| uki.section(name).unwrap_or_default();
        Ok(Self {
            stub_major: uki.stub_version().major,
            authenticode: authenticode::digest(uki.pe().bytes())?,
            kernel_authenticode: authenticode::digest(section(".linux"))?,
            sections: digests(uki),
            cmdline: String::from_utf8(section(".cmdline").to_vec()).map_err(|_| PredictError::Cmdline)?,
            initrd: Digest::of(rules.initrd(uki)),
        })
    }

    /// The ways in which PCRs 4, 7, 9, 11, 12 and 13 may come to their values.
    pub fn predict(&self, site: &Site<'_>) -> Result<Prediction, PredictError> {
        let nothing = || vec![Variant::new("nothing measured", Vec::new())];
        Ok(BTreeMap::from([
            (4, self.pcr4()),
            (7, pcr7(site)?),
            (9, self.pcr9()?),
            (11, pcr11_phases(self.stub_major, &self.sections)?),
            (12, nothing()),
            (13, nothing()),
        ]))
    }

    /// Firmware that keeps its hooks while the stub loads the kernel measures that too; and each boot option
    /// that fails before ours leaves two events.
    fn pcr4(&self) -> Vec<Variant> {
        let mut variants = Vec::new();
        for kernel in [false, true] {
            for failed in 0..=MAX_FAILED_BOOT_OPTIONS {
                let mut events = vec![Event::of(CALLING, CALLING), separator()];
                for _ in 0..failed {
                    events.extend([Event::of(RETURNING, RETURNING), Event::of(CALLING, CALLING)]);
                }
                events.push(Event { what: "unified kernel image".into(), digest: self.authenticode });
                if kernel {
                    events
                        .push(Event { what: "kernel in the image".into(), digest: self.kernel_authenticode });
                }
                let options = match failed {
                    0 => "first boot option".to_owned(),
                    1 => "after 1 failed boot option".to_owned(),
                    n => format!("after {n} failed boot options"),
                };
                let kernel = if kernel { ", kernel measured too" } else { "" };
                variants.push(Variant::new(format!("{options}{kernel}"), events));
            }
        }
        variants
    }

    fn pcr9(&self) -> Result<Vec<Variant>, PredictError> {
        let printable = self.cmdline.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if !printable || self.cmdline.trim() != self.cmdline {
            return Err(PredictError::Cmdline);
        }
        let options: Vec<u8> = utf16(&self.cmdline).chain([0, 0]).collect();
        Ok(vec![Variant::new(
            "measured by the kernel's EFI stub",
            vec![
                Event::of("load options (command line)", options),
                Event { what: "initrd as handed over".into(), digest: self.initrd },
            ],
        )])
    }
}

/// Predicts what a machine measures that starts the image `uki`, which must be signed already: signing may
/// pad the file, and the padding is hashed.
pub fn predict(uki: &[u8], site: &Site<'_>) -> Result<Prediction, PredictError> {
    Facts::of(&Uki::parse(uki)?)?.predict(site)
}

/// PCR 11 of an image after each phase; see [`pcr11_phases`].
pub fn pcr11(uki: &Uki<'_>) -> Result<Vec<Variant>, PredictError> {
    pcr11_phases(uki.stub_version().major, &digests(uki))
}

/// PCR 11 before init extended a phase word and after each of [`PHASES`], from the digests of the sections'
/// contents. `.pcrsig` is not measured, so this works before there is one.
pub fn pcr11_phases(
    stub_major: u32,
    sections: &BTreeMap<String, Digest>,
) -> Result<Vec<Variant>, PredictError> {
    let mut events = Vec::new();
    for (name, digest) in Rules::of(stub_major)?.measured(sections)? {
        events.push(Event::of(format!("name of {name}"), format!("{name}\0")));
        events.push(Event { what: format!("content of {name}"), digest: *digest });
    }
    let mut variants = vec![Variant::new("before init", events.clone())];
    for phase in PHASES {
        events.push(Event::of(format!("phase {phase}"), phase));
        variants.push(Variant::new(format!("after {phase}"), events.clone()));
    }
    Ok(variants)
}

/// PCR 7 of a machine with the owner's keys that starts an image of theirs.
pub fn pcr7(site: &Site<'_>) -> Result<Vec<Variant>, PredictError> {
    let variables = site.variables;
    let lists = parse_signature_lists(&variables.db)?;
    if !lists.iter().flat_map(|list| &list.signatures).any(|entry| entry.to_bytes() == site.authority) {
        return Err(PredictError::Authority);
    }
    // Measured in this order, whether they exist or not.
    let mut events: Vec<Event> = [
        (Guid::GLOBAL, "SecureBoot", &[1][..]),
        (Guid::GLOBAL, "PK", &variables.pk),
        (Guid::GLOBAL, "KEK", &variables.kek),
        (Guid::IMAGE_SECURITY, "db", &variables.db),
        (Guid::IMAGE_SECURITY, "dbx", &variables.dbx),
    ]
    .map(|(guid, name, data)| Event::of(format!("variable {name}"), variable(guid, name, data)))
    .into();
    events.push(separator());
    events.push(Event::of(
        "entry of db that verifies the image",
        variable(Guid::IMAGE_SECURITY, "db", site.authority),
    ));
    Ok(vec![Variant::new("Secure Boot with the owner's keys", events)])
}

/// `UEFI_VARIABLE_DATA` (PC Client Platform Firmware Profile, section 10.2.6).
fn variable(guid: Guid, name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = guid.to_bytes().to_vec();
    bytes.extend((name.encode_utf16().count() as u64).to_le_bytes());
    bytes.extend((data.len() as u64).to_le_bytes());
    bytes.extend(utf16(name));
    bytes.extend(data);
    bytes
}

fn separator() -> Event {
    Event::of("separator", [0; 4])
}

fn utf16(text: &str) -> impl Iterator<Item = u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes)
}

fn digests(uki: &Uki<'_>) -> BTreeMap<String, Digest> {
    uki.sections().map(|(name, content)| (name.to_owned(), Digest::of(content))).collect()
}

#[cfg(test)]
mod tests;
