//! The recovery key as people write it down: 256 bits in eight groups of eight letters.
//!
//! The alphabet is modhex, whose letters lie at the same place on most keyboards, as systemd's recovery keys have it. The
//! text in lower case, with its hyphens, is what the volume's keyslot takes as passphrase, so that `cryptsetup open`
//! takes what is on the paper.

use zeroize::Zeroizing;

/// The sixteen letters, by value.
const ALPHABET: [u8; 16] = *b"cbdefghijklnrtuv";
/// Letters in a group.
const GROUP: usize = 8;
/// Length of the key in bytes.
pub const SIZE: usize = 32;

/// A recovery key. Erased when dropped, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct RecoveryKey(Zeroizing<[u8; SIZE]>);

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKey(…)")
    }
}

/// Why a text is no recovery key. What was typed is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryKeyError {
    /// A letter that is not in the alphabet.
    #[error(
        "character {0} of the recovery key cannot be in one: only the letters cbdefghijklnrtuv are used; compare \
         it with what was written down"
    )]
    Letter(
        /// Which, counted from 1.
        usize,
    ),
    /// Not 64 letters.
    #[error("a recovery key has 64 letters in eight groups; {0} were given")]
    Length(
        /// How many letters there are.
        usize,
    ),
}

impl RecoveryKey {
    /// A key from 32 random bytes. It must be as random as the volume's key: the keyslot's cost does not make up for less.
    pub fn from_random(bytes: [u8; SIZE]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its 32 bytes.
    pub fn bytes(&self) -> &[u8; SIZE] {
        &self.0
    }

    /// Its text: 71 characters in lower case, groups joined by hyphens.
    pub fn text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(SIZE * 2 + SIZE * 2 / GROUP));
        for (index, byte) in self.0.iter().enumerate() {
            if index != 0 && index % (GROUP / 2) == 0 {
                text.push('-');
            }
            for nibble in [byte >> 4, byte & 15] {
                text.push(ALPHABET.get(usize::from(nibble)).copied().unwrap_or_default().into());
            }
        }
        text
    }

    /// Reads what somebody typed: case, white space and hyphens do not matter.
    pub fn parse(text: &str) -> Result<Self, RecoveryKeyError> {
        let mut key = Zeroizing::new([0u8; SIZE]);
        let mut letters = 0;
        for (index, letter) in text.chars().enumerate() {
            if letter.is_whitespace() || letter == '-' {
                continue;
            }
            let letter = letter.to_ascii_lowercase();
            let value = ALPHABET
                .iter()
                .position(|known| char::from(*known) == letter)
                .ok_or(RecoveryKeyError::Letter(index + 1))?;
            if let Some(byte) = key.get_mut(letters / 2) {
                *byte = *byte << 4 | value as u8;
            }
            letters += 1;
        }
        if letters == SIZE * 2 { Ok(Self(key)) } else { Err(RecoveryKeyError::Length(letters)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_people_type_it() {
        let mut bytes = [0; SIZE];
        bytes[..8].copy_from_slice(&[0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        let key = RecoveryKey::from_random(bytes);
        let text = key.text();
        assert_eq!(&text[..18], "cbdefghi-jklnrtuv-");
        assert_eq!(text.len(), 71);
        for typed in [
            text.to_uppercase(),
            text.replace('-', " "),
            text.replace('-', ""),
            format!("  {}\r\n", text.replace('-', " - ")),
        ] {
            assert_eq!(RecoveryKey::parse(&typed).unwrap(), key);
        }
        assert_eq!(format!("{key:?}"), "RecoveryKey(…)");
    }

    #[test]
    fn mistakes_are_placed() {
        let text = RecoveryKey::from_random([0x5a; SIZE]).text();
        assert_eq!(RecoveryKey::parse(&text.replacen('g', "x", 1)), Err(RecoveryKeyError::Letter(1)));
        assert_eq!(RecoveryKey::parse(&text[1..]), Err(RecoveryKeyError::Length(63)));
        assert_eq!(RecoveryKey::parse(&format!("{}c", *text)), Err(RecoveryKeyError::Length(65)));
        assert_eq!(RecoveryKey::parse(""), Err(RecoveryKeyError::Length(0)));
        // The Kelvin sign is a k to Unicode.
        assert_eq!(RecoveryKey::parse("\u{212a}"), Err(RecoveryKeyError::Letter(1)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn there_and_back(bytes: [u8; SIZE], junk in "\\PC{0,200}") {
            let key = RecoveryKey::from_random(bytes);
            prop_assert_eq!(&RecoveryKey::parse(&key.text()).unwrap(), &key);
            let _ = RecoveryKey::parse(&junk);
        }
    }
}
