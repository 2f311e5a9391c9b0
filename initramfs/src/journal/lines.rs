//! Cuts what a unit writes into lines.

/// Longest line in bytes; what is longer goes on in the next.
pub const MAX_LINE: usize = 4096;
/// Priority of a line that does not say its own: information (RFC 5424, section 6.2.1).
pub const INFO: u8 = 6;

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes more bytes and gives the lines that are complete now.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                lines.push(self.take());
                continue;
            }
            self.begun.push(*byte);
            if self.begun.len() == MAX_LINE {
                lines.push(self.take());
            }
        }
        lines
    }

    /// The last line, if it has no end.
    pub fn finish(&mut self) -> Option<String> {
        (!self.begun.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        let line = std::mem::take(&mut self.begun);
        clean(line.strip_suffix(b"\r").unwrap_or(&line))
    }
}

/// Bytes as text. Control characters are replaced: the log is read on terminals, and the bytes may come from anybody.
pub fn clean(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|c| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A line without the priority before it, and the priority: `<3>text` is an error (sd-daemon(3)).
pub fn priority(line: &str) -> (u8, &str) {
    let told = line.strip_prefix('<').and_then(|rest| {
        let (digit, text) = rest.split_once('>')?;
        let priority = digit.parse().ok().filter(|priority| *priority <= 7 && digit.len() == 1)?;
        Some((priority, text))
    });
    told.unwrap_or((INFO, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_lines() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\ntw"), ["one"]);
        assert_eq!(lines.push(b"o\r\n\n"), ["two", ""]);
        assert_eq!(lines.finish(), None);
        assert_eq!(lines.push(&[b'x'; MAX_LINE + 1]), ["x".repeat(MAX_LINE)]);
        assert_eq!(lines.finish().as_deref(), Some("x"));
        assert_eq!(lines.push(b"\x1b[2Ja\xffb\tc\n"), ["\u{fffd}[2Ja\u{fffd}b\tc"]);
    }

    #[test]
    fn lines_may_tell_their_priority() {
        assert_eq!(priority("<3>bad"), (3, "bad"));
        assert_eq!(priority("<7>"), (7, ""));
        for plain in ["<8>x", "<33>x", "<>x", "<3", "x<3>", "<+3>x"] {
            assert_eq!(priority(plain), (INFO, plain));
        }
    }
}
