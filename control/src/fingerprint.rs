//! Fingerprints: the SHA-256 of a certificate's DER, written `sha256:` and 64 hexadecimal digits.

use ashlar_image::digest::Digest;
use std::fmt;
use std::str::FromStr;

const PREFIX: &str = "sha256:";

/// The fingerprint of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(Digest);

impl Fingerprint {
    /// That of a certificate in DER.
    pub fn of(certificate_der: &[u8]) -> Self {
        Self(Digest::of(certificate_der))
    }

    /// In groups of four digits, for people who compare.
    pub fn grouped(&self) -> String {
        let digits: Vec<char> = self.0.to_string().chars().collect();
        let groups: Vec<String> = digits.chunks(4).map(|group| group.iter().collect()).collect();
        let lines: Vec<String> = groups.chunks(8).map(|line| line.join(" ")).collect();
        lines.join("\n")
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

/// Text is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is `sha256:` and 64 hexadecimal digits, as the machine's console shows it")]
pub struct NoFingerprint;

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    /// Takes what `openssl x509 -fingerprint -sha256` prints too: capitals, colons, spaces.
    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        let digits = lower.rsplit_once(['=']).map_or(lower.as_str(), |(_, digits)| digits);
        let digits = digits.strip_prefix(PREFIX).unwrap_or(digits);
        let digits: String = digits.chars().filter(|c| *c != ':' && !c.is_whitespace()).collect();
        digits.parse().map(Self).map_err(|_| NoFingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_it_is_written() {
        let fingerprint = Fingerprint::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint.to_string(), text);
        for same in [
            text.to_owned(),
            text.to_uppercase(),
            format!(
                "sha256 Fingerprint={}",
                "ba:7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015AD"
            ),
            fingerprint.grouped(),
        ] {
            assert_eq!(same.parse(), Ok(fingerprint), "{same}");
        }
        for bad in ["", "sha256:", "sha256:ba78", "md5:900150983cd24fb0d6963f7d28e17f72", "ä"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(NoFingerprint));
        }
    }
}
