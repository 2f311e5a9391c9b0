//! Paragraphs of fields, as in `debian/control` and machine-readable copyright files (deb822(5)).

/// One paragraph: names in lower case and values, continuation lines with their line feeds.
pub(crate) type Paragraph = Vec<(String, String)>;

/// The value of a field; its name in lower case.
pub(crate) fn field<'a>(paragraph: &'a [(String, String)], name: &str) -> Option<&'a str> {
    paragraph.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// The paragraphs of a text. Lines that are neither field nor continuation are passed over, as is a continuation
/// before any field: what people write by hand is read as far as it goes.
pub(crate) fn paragraphs(text: &str) -> Vec<Paragraph> {
    let mut all = Vec::new();
    let mut current: Paragraph = Vec::new();
    for line in text.lines() {
        if line.trim().is_empty() {
            if !current.is_empty() {
                all.push(std::mem::take(&mut current));
            }
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = current.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':')
            && !name.is_empty()
            && !name.contains(char::is_whitespace)
        {
            current.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    if !current.is_empty() {
        all.push(current);
    }
    all
}

/// The first line of a value and the text below it: one leading blank removed from each line, a lone dot being an
/// empty line (copyright-format 1.0, section 4, "formatted text with synopsis").
pub(crate) fn synopsis(value: &str) -> (&str, String) {
    let (first, rest) = value.split_once('\n').unwrap_or((value, ""));
    let mut text = String::with_capacity(rest.len());
    for line in rest.lines() {
        let line = line.strip_prefix([' ', '\t']).unwrap_or(line).trim_end();
        text.push_str(if line == "." { "" } else { line });
        text.push('\n');
    }
    (first.trim(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_and_synopses() {
        let text = "Format: x\n\n \n# no\nLicense: GPL-2+\n one\n .\n  two\nFiles: *\nno field\n\nA:\n";
        let all = paragraphs(text);
        assert_eq!(all.len(), 3);
        assert_eq!(synopsis(field(&all[1], "license").unwrap()), ("GPL-2+", "one\n\n two\n".to_owned()));
        assert_eq!(field(&all[1], "files"), Some("*"));
        assert_eq!(field(&all[2], "a"), Some(""));
    }
}
