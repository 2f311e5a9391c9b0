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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{OPTIONAL, put, uki};

    const CMDLINE: (&str, &[u8]) = (".cmdline", b"quiet");

    #[test]
    fn an_image_is_read() {
        let bytes = uki("257.9-1~deb13u1", &[CMDLINE]);
        let image = Uki::parse(&bytes).unwrap();
        assert_eq!(image.stub_version(), &StubVersion { text: "257.9-1~deb13u1".into(), major: 257 });
        assert_eq!(image.section(".cmdline"), Some(&b"quiet"[..]));
        assert_eq!(image.section(".ucode"), None);
        assert_eq!(image.sections().count(), 7);
    }

    #[test]
    fn what_stubs_would_understand_differently_is_refused() {
        let refused = |more: &[(&str, &[u8])]| Uki::parse(&uki("257", more)).unwrap_err();
        assert_eq!(refused(&[]), UkiError::Missing(".cmdline"));
        assert_eq!(refused(&[(".cmdline", b"")]), UkiError::Missing(".cmdline"));
        assert_eq!(refused(&[CMDLINE, CMDLINE]), UkiError::Duplicate(".cmdline".into()));
        assert_eq!(refused(&[CMDLINE, (".linux2", b"x")]), UkiError::Ambiguous(".linux2".into(), ".linux"));
    }

    #[test]
    fn a_stub_must_say_which_it_is() {
        for version in ["", "v257", "257 4", &"2".repeat(70), "99999999999"] {
            let bytes = uki(version, &[CMDLINE]);
            assert!(matches!(Uki::parse(&bytes), Err(UkiError::Stub(_))), "{version}");
        }
    }

    #[test]
    fn zeros_are_bounded_over_all_sections() {
        let mut bytes = uki("257", &[CMDLINE, (".splash", b"x"), (".dtb", b"x")]);
        for (section, address) in [(7, 0x1000_0000u32), (8, 0x2000_0000)] {
            let header = OPTIONAL + 240 + section * 40;
            put(&mut bytes, header + 8, &(40u32 << 20).to_le_bytes());
            put(&mut bytes, header + 12, &address.to_le_bytes());
        }
        assert_eq!(Uki::parse(&bytes).unwrap_err(), UkiError::TooLarge(".dtb".into()));
    }

    #[test]
    fn every_truncation_and_every_changed_header_byte_is_survived() {
        let bytes = uki("257", &[CMDLINE]);
        for length in 0..bytes.len() {
            let _ = Uki::parse(&bytes[..length]);
        }
        for at in 0..0x400 {
            for value in [0, 1, 0x7f, 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                let _ = Uki::parse(&changed);
            }
        }
    }
}
