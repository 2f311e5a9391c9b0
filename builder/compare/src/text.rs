//! Values for people.

/// A path or other bytes without what would upset a terminal; the leading slash of a path is left out.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"/").unwrap_or(bytes)).into_owned();
    let text = if text.is_empty() { "/".to_owned() } else { text };
    clean(&text)
}

/// Text with its control characters escaped.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// `24.6 MiB (25792512 bytes)`; plain bytes below one KiB.
pub(crate) fn bytes(size: u64) -> String {
    let (unit, name) = match size {
        0..1024 => return format!("{size} bytes"),
        1024..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1_u64 << 30, "GiB"),
    };
    format!("{}.{} {name}", size / unit, size % unit * 10 / unit)
}

/// A growth or shrinkage: `+12 bytes`.
pub(crate) fn growth(before: u64, after: u64) -> String {
    match after.cmp(&before) {
        std::cmp::Ordering::Equal => "same size".into(),
        std::cmp::Ordering::Greater => format!("+{}", bytes(after - before)),
        std::cmp::Ordering::Less => format!("-{}", bytes(before - after)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert_eq!(bytes(1023), "1023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(25_792_512), "24.5 MiB");
        assert_eq!(growth(10, 4), "-6 bytes");
        assert_eq!(shown(b"/usr/\x1b[1m"), "usr/\\u{1b}[1m");
        assert_eq!(shown(b"/"), "/");
    }
}
