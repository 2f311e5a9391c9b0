//! Private keys as text: PEM (RFC 7468), OpenSSH, OpenPGP armour, age, PuTTY.

use super::{Check, Subject};

/// What begins a key, and what looks closer.
pub(super) const NEEDLES: &[(&str, Check)] = &[
    ("-----BEGIN ", pem),
    ("AGE-SECRET-KEY-1", age),
    ("AGE-SECRET-KEY-PQ-1", age),
    ("PuTTY-User-Key-File-", putty),
    ("(11:private-key", gnupg),
    ("(21:protected-private-key", gnupg),
    ("Key: (private-key (", gnupg_text),
    ("Key: (protected-private-key (", gnupg_text),
];

/// Characters of base64 that must follow, without a break. The smallest key, Ed25519 in PKCS#8, has 64.
const MIN_BODY: usize = 40;

fn pem(window: &[u8], _: usize, end: usize) -> Option<(Subject, String)> {
    let rest = window.get(end..)?;
    let dashes = memchr::memmem::find(rest.get(..rest.len().min(64))?, b"-----")?;
    let label = std::str::from_utf8(rest.get(..dashes)?).ok()?;
    if !label.ends_with("PRIVATE KEY") && label != "PGP PRIVATE KEY BLOCK" {
        return None;
    }
    let mut body = line_break(rest.get(dashes + 5..)?)?;
    let mut encrypted = label.starts_with("ENCRYPTED");
    // RFC 1421 and OpenPGP armour put headers before the body.
    for _ in 0..8 {
        let run = body.iter().take_while(|b| b.is_ascii_alphanumeric() || b"+/=".contains(b)).count();
        if run >= MIN_BODY {
            let how = if encrypted { ", encrypted with a passphrase" } else { "" };
            return Some((Subject::Key, format!("a private key ({label} in PEM form{how})")));
        }
        let line = body.get(..memchr::memchr2(b'\n', b'\\', body)?)?;
        encrypted |= memchr::memmem::find(line, b"ENCRYPTED").is_some();
        body = line_break(body.get(line.len()..)?)?;
    }
    None
}

/// What follows a line break, which JSON and YAML write as `\n`, and the indentation behind it.
fn line_break(text: &[u8]) -> Option<&[u8]> {
    let text = text.strip_prefix(b"\\r").unwrap_or(text);
    let text = text.strip_prefix(b"\r").unwrap_or(text);
    let text = text.strip_prefix(b"\n").or_else(|| text.strip_prefix(b"\\n"))?;
    let indent = text.iter().take_while(|b| b" \t".contains(b)).count();
    text.get(indent..)
}

fn age(window: &[u8], _: usize, end: usize) -> Option<(Subject, String)> {
    const BECH32: &[u8] = b"QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L";
    let run = window.get(end..)?.iter().take_while(|b| BECH32.contains(b)).count();
    (run >= 58).then(|| (Subject::Key, "a private key (age)".into()))
}

fn putty(window: &[u8], _: usize, end: usize) -> Option<(Subject, String)> {
    let rest = window.get(end..)?;
    let version = matches!(rest, [b'1'..=b'9', b':', ..]);
    (version && memchr::memmem::find(rest, b"\nPrivate-Lines: ").is_some())
        .then(|| (Subject::Key, "a private key (PuTTY)".into()))
}

/// GnuPG's private-keys-v1.d: an S-expression at the very begin of the file.
fn gnupg(window: &[u8], start: usize, end: usize) -> Option<(Subject, String)> {
    (start == 0 && window.get(end) == Some(&b'(')).then(|| (Subject::Key, "a private key (GnuPG)".into()))
}

/// The extended form of the same: lines of names and values, the first of which is `Created` or `Key`.
fn gnupg_text(window: &[u8], start: usize, _: usize) -> Option<(Subject, String)> {
    let line = start > 0 && window.get(start - 1) == Some(&b'\n');
    let begins = start == 0 || (line && window.starts_with(b"Created: "));
    begins.then(|| (Subject::Key, "a private key (GnuPG)".into()))
}

#[cfg(test)]
mod tests {
    use crate::scan_bytes;

    const BODY: &str = "MC4CAQAwBQYDK2VwBCIEIAbcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

    fn pem(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn keys_are_found() {
        let json = pem("PRIVATE KEY", BODY).replace('\n', "\\n");
        let headers = format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n{BODY}");
        for (text, expected) in [
            (pem("PRIVATE KEY", BODY), "a private key (PRIVATE KEY in PEM form)"),
            (pem("OPENSSH PRIVATE KEY", BODY), "a private key (OPENSSH PRIVATE KEY in PEM form)"),
            (pem("EC PRIVATE KEY", BODY).replace('\n', "\r\n"), "a private key (EC PRIVATE KEY in PEM form)"),
            (pem("PRIVATE KEY", BODY).replace('\n', "\n    "), "a private key (PRIVATE KEY in PEM form)"),
            (format!("{{\"private_key\": \"{json}\"}}"), "a private key (PRIVATE KEY in PEM form)"),
            (
                pem("ENCRYPTED PRIVATE KEY", BODY),
                "a private key (ENCRYPTED PRIVATE KEY in PEM form, encrypted with a passphrase)",
            ),
            (
                pem("RSA PRIVATE KEY", &headers),
                "a private key (RSA PRIVATE KEY in PEM form, encrypted with a passphrase)",
            ),
            (
                pem("PGP PRIVATE KEY BLOCK", &format!("Version: x\n\n{BODY}")),
                "a private key (PGP PRIVATE KEY BLOCK in PEM form)",
            ),
            (
                format!("# x\nAGE-SECRET-KEY-1{}\n", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L".repeat(2)),
                "a private key (age)",
            ),
            (
                "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPrivate-Lines: 1\nAAAA\n".into(),
                "a private key (PuTTY)",
            ),
            ("(11:private-key(3:rsa(1:n".into(), "a private key (GnuPG)"),
            ("Created: 20261125T002438\nKey: (private-key (ecc".into(), "a private key (GnuPG)"),
            ("Key: (protected-private-key (ecc".into(), "a private key (GnuPG)"),
        ] {
            assert_eq!(scan_bytes(text.as_bytes()), [expected], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_key_is_not_found() {
        for text in [
            pem("CERTIFICATE", BODY),
            pem("PUBLIC KEY", BODY),
            pem("PGP PUBLIC KEY BLOCK", BODY),
            pem("PRIVATE KEY", "..."),
            pem("PRIVATE KEY", "your key goes here"),
            // As in the programs that read keys.
            "-----BEGIN RSA PRIVATE KEY-----\0-----END RSA PRIVATE KEY-----\0".into(),
            "-----BEGIN %s PRIVATE KEY-----\n%s".into(),
            "AGE-SECRET-KEY-1 is how they begin".into(),
            "PuTTY-User-Key-File-%d: %s\n".into(),
            "see (11:private-key(3:rsa".into(),
            "Created: 20261125T002438\nKey: (shadowed-private-key (ecc".into(),
            "they look so:\nKey: (private-key (ecc".into(),
        ] {
            assert!(scan_bytes(text.as_bytes()).is_empty(), "{text}");
        }
    }
}
