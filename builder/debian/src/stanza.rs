//! Control data (deb822(5)): stanzas of fields, divided by blank lines.

/// Longest field name that is looked at, in bytes.
const MAX_NAME: usize = 128;

/// One stanza, as text. Fields are looked up when they are asked for: of 70 000 stanzas of a suite a
/// build needs some sixty.
#[derive(Debug, Clone, Copy)]
pub struct Stanza<'a>(pub &'a str);

impl<'a> Stanza<'a> {
    /// The fields in order: name, and the value with its continuation lines as written, without the blanks
    /// around it. Comment lines and lines that are no field are passed over.
    pub fn fields(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let text = self.0;
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < text.len() {
                let start = at;
                at += line_length(&text[at..]);
                while text[at..].starts_with([' ', '\t', '#']) {
                    at += line_length(&text[at..]);
                }
                if text[start..].starts_with('#') {
                    continue;
                }
                if let Some((name, value)) = text[start..at].split_once(':')
                    && !name.is_empty()
                    && name.len() <= MAX_NAME
                    && !name.contains(char::is_whitespace)
                {
                    return Some((name, value.trim()));
                }
            }
            None
        })
    }

    /// The value of the field with this name; names are equal whatever their case.
    pub fn field(self, name: &str) -> Option<&'a str> {
        self.fields().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Length of the first line with its line feed.
fn line_length(text: &str) -> usize {
    text.find('\n').map_or(text.len(), |end| end + 1)
}

/// The stanzas of a text, in order. A line of nothing but blanks divides.
pub fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut start = None;
        while at < text.len() {
            let line = at;
            at += line_length(&text[at..]);
            let blank = text[line..at].trim().is_empty();
            match start {
                None if !blank => start = Some(line),
                Some(start) if blank => return Some(Stanza(&text[start..line])),
                _ => {}
            }
        }
        start.map(|start| Stanza(&text[start..]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\n# of the whole\nPackage: a\nDepends: b,\n c (>= 1)\n# between\n ,d\nEmpty:\n\n \nPackage: \
                        b\nnot a field\nVersion:  1:2-3 \n";

    #[test]
    fn fields_and_continuations() {
        let all: Vec<_> = stanzas(TEXT).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].field("package"), Some("a"));
        assert_eq!(all[0].field("Depends"), Some("b,\n c (>= 1)\n# between\n ,d"));
        assert_eq!(all[0].field("Empty"), Some(""));
        assert_eq!(all[0].field("Version"), None);
        assert_eq!(all[1].field("Version"), Some("1:2-3"));
        assert_eq!(all[1].fields().count(), 2);
    }

    #[test]
    fn truncated_text_is_read_as_far_as_it_goes() {
        for end in 0..=TEXT.len() {
            for stanza in stanzas(&TEXT[..end]) {
                assert!(stanza.fields().all(|(name, _)| !name.is_empty()));
            }
        }
    }
}
