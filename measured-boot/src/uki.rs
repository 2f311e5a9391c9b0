//! Unified kernel images (UAPI.5): systemd-stub with a kernel and what belongs to it as sections.

use crate::pe::{Pe, PeError};
use std::fmt;

/// Sections without which an image is refused. systemd-stub would take the command line from outside if
/// there were no `.cmdline`, so its absence is a hole, not a gap.
const REQUIRED: [&str; 4] = [".linux", ".osrel", ".cmdline", ".initrd"];

/// Names that some version of systemd-stub gives a meaning.
const KNOWN: [&str; 15] = [
    ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".dtbauto", ".uname", ".sbat",
    ".pcrsig", ".pcrpkey", ".profile", ".hwids", ".efifw",
];

/// Zeros that sections may have in memory beyond what the file holds, together, in bytes.
const MAX_ZEROS: u64 = 64 << 20;

/// Why a file was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UkiError {
    /// The file is no PE file.
    #[error("no unified kernel image: {0}")]
    Pe(#[from] PeError),
    /// The file is no systemd-stub.
    #[error("no unified kernel image: {0}; take the stub from the package systemd-boot-efi")]
    Stub(&'static str),
    /// A section that must be there is not, or it is empty.
    #[error("the image has no section `{0}`, or an empty one; build it with one")]
    Missing(&'static str),
    /// Two sections have one name; stubs disagree which of them counts.
    #[error("the image has two sections `{0}`; build it with one")]
    Duplicate(String),
    /// Stub 252 compares names by prefix and would take the first for the second.
    #[error("the section `{0}` would be taken for `{1}` by some stubs; give it another name")]
    Ambiguous(String, &'static str),
    /// The sections have absurdly many zeros that the file does not hold.
    #[error("the section `{0}` is far larger in memory than in the file")]
    TooLarge(String),
}

/// The version of systemd-stub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StubVersion {
    /// As the stub has it: `257.9-1~deb13u1`.
    pub text: String,
    /// The number before the first character that is no digit; the measuring rules hang on it.
    pub major: u32,
}

impl fmt::Display for StubVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "systemd-stub {}", self.text)
    }
}

/// An image that was read.
#[derive(Debug, Clone)]
pub struct Uki<'a> {
    pe: Pe<'a>,
    stub: StubVersion,
    sections: Vec<(String, Vec<u8>)>,
}

impl<'a> Uki<'a> {
    /// Reads an image, signed or not. Needs memory for one copy of the sections and 64 MiB at most beyond.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, UkiError> {
        let pe = Pe::parse(bytes)?;
        let mut zeros = MAX_ZEROS;
        let mut sections: Vec<(String, Vec<u8>)> = Vec::new();
        for section in &pe.sections {
            let name = section.name.as_str();
            if sections.iter().any(|(other, _)| other == name) {
                return Err(UkiError::Duplicate(name.to_owned()));
            }
            if !KNOWN.contains(&name)
                && let Some(known) = KNOWN.iter().find(|known| name.starts_with(**known))
            {
                return Err(UkiError::Ambiguous(name.to_owned(), known));
            }
            let beyond = u64::from(section.virtual_size).saturating_sub(section.raw.len() as u64);
            let too_large = || UkiError::TooLarge(name.to_owned());
            zeros = zeros.checked_sub(beyond).ok_or_else(too_large)?;
            sections.push((name.to_owned(), pe.content(section).ok_or_else(too_large)?));
        }
        let content = |name| sections.iter().find(|(n, _)| n == name).map_or(&[][..], |(_, c)| c);
        for name in REQUIRED {
            if content(name).is_empty() {
                return Err(UkiError::Missing(name));
            }
        }
        let stub = stub_version(content(".sdmagic"))?;
        Ok(Self { pe, stub, sections })
    }

    /// The headers.
    pub const fn pe(&self) -> &Pe<'a> {
        &self.pe
    }

    /// The stub's version, from `.sdmagic`.
    pub const fn stub_version(&self) -> &StubVersion {
        &self.stub
    }

    /// All sections in the order of their headers, the stub's own too: name and content as in memory
    /// (`VirtualSize` bytes), which is what the stub measures.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.sections.iter().map(|(name, content)| (name.as_str(), content.as_slice()))
    }

    /// The content of the section `name`.
    pub fn section(&self, name: &str) -> Option<&[u8]> {
        self.sections().find(|(other, _)| *other == name).map(|(_, content)| content)
    }
}

/// Reads `#### LoaderInfo: systemd-stub VERSION ####`.
fn stub_version(magic: &[u8]) -> Result<StubVersion, UkiError> {
    if magic.is_empty() {
        return Err(UkiError::Stub("it has no section `.sdmagic`"));
    }
    let text = std::str::from_utf8(magic).ok().map(|text| text.trim_end_matches('\0'));
    let version = text
        .and_then(|text| text.strip_prefix("#### LoaderInfo: systemd-stub "))
        .and_then(|text| text.strip_suffix(" ####"))
        .filter(|version| version.len() <= 64 && version.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or(UkiError::Stub("its section `.sdmagic` does not name systemd-stub"))?;
    let digits = version.bytes().take_while(u8::is_ascii_digit).count();
    let major = version
        .get(..digits)
        .and_then(|digits| digits.parse().ok())
        .ok_or(UkiError::Stub("its section `.sdmagic` has no version number"))?;
    Ok(StubVersion { text: version.to_owned(), major })
}
