//! Terminal output as plain text.

/// Takes control sequences (ECMA-48) out of a byte stream that comes in pieces, so that a text can be
/// searched for and printed. What is left is UTF-8; bytes that are none become U+FFFD.
#[derive(Debug, Default)]
pub struct Plain {
    state: State,
    pending: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// In `ESC [`, up to a byte from `@` to `~`.
    Control,
    /// In `ESC ]` (a window title) and the like, up to BEL or ESC.
    Command,
}

impl Plain {
    /// The plain text of the next piece. A sequence or a character that is cut off is finished by the next.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (_, 0x1b) => State::Escape,
                (State::Text, b'\n' | b'\t' | 0x20..=0x7e | 0x80..) => {
                    self.pending.push(byte);
                    State::Text
                }
                (State::Escape, b'[') | (State::Control, 0x20..=0x3f) => State::Control,
                (State::Escape, b']' | b'P' | b'X' | b'^' | b'_') => State::Command,
                (State::Command, byte) if byte != 0x07 => State::Command,
                // Other control characters of text, and the last byte of a sequence.
                _ => State::Text,
            };
        }
        self.take()
    }

    /// What of `pending` is whole characters.
    fn take(&mut self) -> String {
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, bad) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    // Without a length the end is only cut off.
                    let Some(length) = error.error_len() else {
                        rest = bad;
                        break;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = bad.get(length..).unwrap_or_default();
                }
            }
        }
        self.pending = rest.to_vec();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_and_characters_may_be_cut_anywhere() {
        let input = "\x1b[2J\x1b[01;01H\x1b[=3hBds\x1b]0;title\x07Dxe: Größe\r\n\x1bcend\x1b[0m".as_bytes();
        for size in 1..input.len() {
            let mut plain = Plain::default();
            let text: String = input.chunks(size).map(|piece| plain.push(piece)).collect();
            assert_eq!(text, "BdsDxe: Größe\nend", "in pieces of {size}");
        }
    }

    #[test]
    fn any_bytes_are_taken() {
        let mut plain = Plain::default();
        let all: Vec<u8> = (0..=255).cycle().take(4096).collect();
        assert!(plain.push(&all).contains(char::REPLACEMENT_CHARACTER));
        assert!(plain.push(b"\x1b[\xff\xffok").ends_with("ok"));
    }
}
