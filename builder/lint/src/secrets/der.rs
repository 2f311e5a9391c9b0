//! Whole files that are a private key in binary form. Only the outermost structure is read.

/// Longest file that is looked at, in bytes; an RSA key of 16384 bits has some 9 KiB.
pub(crate) const LIMIT: u64 = 64 << 10;

/// One element of DER (X.690): its tag and content, and what follows.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let len = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 3 {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        rest = after;
        digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit))
    };
    let (content, after) = rest.split_at_checked(len)?;
    Some((tag, content, after))
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const OID: u8 = 0x06;
/// pkcs-5 PBES2 (RFC 8018) and the older pkcs-12 PBE OIDs share these first bytes of pkcs (RFC 7292).
const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
/// pkcs-7 data (RFC 2315).
const PKCS7_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];

/// What kind of private key these bytes are in DER: PKCS#8 (RFC 5958), PKCS#1 (RFC 8017), SEC 1 (RFC 5915) or a
/// PKCS#12 store (RFC 7292). They must be nothing else beside.
pub(crate) fn private_key(bytes: &[u8]) -> Option<&'static str> {
    let (SEQUENCE, inside, []) = element(bytes)? else { return None };
    let (tag, first, rest) = element(inside)?;
    let (second_tag, second, _) = element(rest)?;
    match (tag, first) {
        (INTEGER, [0 | 1]) if second_tag == SEQUENCE => {
            let (OID, ..) = element(second)? else { return None };
            let (_, _, rest) = element(rest)?;
            let (OCTET_STRING, ..) = element(rest)? else { return None };
            Some("a private key (PKCS#8 in DER form)")
        }
        (INTEGER, [0]) if second_tag == INTEGER && second.len() >= 64 => {
            // Modulus, exponents, primes, exponents and coefficient follow the version.
            let mut rest = rest;
            for _ in 0..8 {
                let (INTEGER, _, after) = element(rest)? else { return None };
                rest = after;
            }
            rest.is_empty().then_some("a private key (RSA, PKCS#1 in DER form)")
        }
        (INTEGER, [1]) if second_tag == OCTET_STRING && (20..=66).contains(&second.len()) => {
            Some("a private key (elliptic curve, SEC 1 in DER form)")
        }
        (INTEGER, [3]) if second_tag == SEQUENCE => match element(second)? {
            (OID, PKCS7_DATA, _) => Some("a PKCS#12 store, which mostly holds a private key"),
            _ => None,
        },
        (SEQUENCE, algorithm) if second_tag == OCTET_STRING => match element(algorithm)? {
            (OID, PBES2, _) => Some("a private key (encrypted PKCS#8 in DER form)"),
            _ => None,
        },
        _ => None,
    }
}

/// Whether the file begins with a secret-key packet (RFC 9580, section 4.2 and 5.5.3). Two bytes of header say little,
/// so the file's name must look the part as well.
pub(crate) fn openpgp(name: &str, bytes: &[u8]) -> Option<&'static str> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if !name.contains("secring") && !["gpg", "pgp", "key", "sec", "kbx"].contains(&extension) {
        return None;
    }
    let (len, body) = match bytes {
        [0x94, len, rest @ ..] | [0xc5, len @ 0..=191, rest @ ..] => (usize::from(*len), rest),
        [0x95, high, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        [0xc5, high @ 192..=223, low, rest @ ..] => {
            ((usize::from(*high) - 192) * 256 + usize::from(*low) + 192, rest)
        }
        _ => return None,
    };
    let [4 | 6, _, _, _, _, algorithm, ..] = body.get(..len)? else { return None };
    [1, 2, 3, 16, 17, 18, 19, 22, 25, 26, 27, 28]
        .contains(algorithm)
        .then_some("a private key (OpenPGP secret key)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn openssl(arguments: &[&str]) -> Option<Vec<u8>> {
        let output = Command::new("timeout").arg("20").arg("openssl").args(arguments).output().ok()?;
        output.status.success().then_some(output.stdout)
    }

    /// Keys as OpenSSL writes them.
    #[test]
    fn keys_of_openssl() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (pem, p8) = (path("key.pem"), path("key.p8"));
        let made =
            openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &pem]);
        if made.is_none() {
            eprintln!("skipped: openssl is not installed");
            return;
        }
        let convert = |arguments: &[&str]| openssl(arguments).unwrap();
        let key = convert(&["pkcs8", "-topk8", "-nocrypt", "-in", &pem, "-outform", "DER"]);
        assert_eq!(private_key(&key), Some("a private key (PKCS#8 in DER form)"));
        let key = convert(&["ec", "-in", &pem, "-outform", "DER"]);
        assert_eq!(private_key(&key), Some("a private key (elliptic curve, SEC 1 in DER form)"));
        let key = convert(&["pkcs8", "-topk8", "-passout", "pass:x", "-in", &pem, "-outform", "DER"]);
        assert_eq!(private_key(&key), Some("a private key (encrypted PKCS#8 in DER form)"));
        assert_eq!(private_key(&convert(&["pkey", "-in", &pem, "-pubout", "-outform", "DER"])), None);

        convert(&["genrsa", "-traditional", "-out", &p8, "1024"]);
        let key = convert(&["rsa", "-traditional", "-in", &p8, "-outform", "DER"]);
        assert_eq!(private_key(&key), Some("a private key (RSA, PKCS#1 in DER form)"));
        assert_eq!(private_key(&convert(&["rsa", "-in", &p8, "-pubout", "-outform", "DER"])), None);
        let certificate = convert(&[
            "req", "-x509", "-new", "-key", &p8, "-subj", "/CN=x", "-days", "1", "-outform", "DER",
        ]);
        assert_eq!(private_key(&certificate), None);
        let pkcs12 = path("c.pem");
        convert(&["req", "-x509", "-new", "-key", &p8, "-subj", "/CN=x", "-days", "1", "-out", &pkcs12]);
        let store = convert(&["pkcs12", "-export", "-inkey", &p8, "-in", &pkcs12, "-passout", "pass:x"]);
        assert_eq!(private_key(&store), Some("a PKCS#12 store, which mostly holds a private key"));

        // Cut and changed, nothing panics.
        for i in 0..key.len() {
            private_key(&key[..i]);
            let mut changed = key.clone();
            changed[i] ^= 0xff;
            private_key(&changed);
        }
    }

    #[test]
    fn secret_key_packets() {
        let mut packet = vec![0x95, 0x01, 0x00, 4, 0, 0, 0, 0, 22];
        packet.resize(3 + 0x100, 7);
        assert_eq!(openpgp("secring.gpg", &packet), Some("a private key (OpenPGP secret key)"));
        assert_eq!(openpgp("data.bin", &packet), None);
        // Tag 6 is a public key.
        packet[0] = 0x99;
        assert_eq!(openpgp("pubring.gpg", &packet), None);
        for i in 0..10 {
            openpgp("x.gpg", &packet[..i]);
        }
    }
}
