//! The hash of a certificate's subject by which OpenSSL finds it: SHA-1 over the canonical encoding of the name
//! (OpenSSL, `X509_NAME_hash_ex` and `x509_name_canon`), its first four bytes as a little-endian number.

use sha1::{Digest, Sha1};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;

/// One DER value.
#[derive(Debug, Clone, Copy)]
struct Value<'a> {
    tag: u8,
    content: &'a [u8],
    /// Tag, length and content as they stand.
    whole: &'a [u8],
}

/// Takes the first value off `bytes` (X.690, 8.1; one-byte tags and definite lengths only).
fn take<'a>(bytes: &mut &'a [u8]) -> Option<Value<'a>> {
    let all = *bytes;
    let (&tag, &first) = (all.first()?, all.get(1)?);
    let (header, len) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        let count = usize::from(first & 0x7f);
        if !(1..=4).contains(&count) {
            return None;
        }
        let len = all.get(2..2 + count)?.iter().fold(0_usize, |len, &byte| len << 8 | usize::from(byte));
        (2 + count, len)
    };
    let end = header.checked_add(len)?;
    let (whole, rest) = (all.get(..end)?, all.get(end..)?);
    *bytes = rest;
    Some(Value { tag, content: whole.get(header..)?, whole })
}

fn expect<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    take(bytes).filter(|value| value.tag == tag).map(|value| value.content)
}

fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len();
    if len < 0x80 {
        out.push(len as u8);
    } else {
        let bytes = (len as u32).to_be_bytes();
        let skip = bytes.iter().take_while(|&&byte| byte == 0).count();
        out.push(0x80 | (4 - skip) as u8);
        out.extend_from_slice(&bytes[skip..]);
    }
    out.extend_from_slice(content);
    out
}

/// The hash of the subject of a certificate in DER. None if the bytes are no certificate. Never panics.
pub fn subject_hash(mut der: &[u8]) -> Option<u32> {
    let mut certificate = expect(&mut der, SEQUENCE)?;
    let mut body = expect(&mut certificate, SEQUENCE)?;
    // [0] version is optional (RFC 5280, 4.1).
    let first = take(&mut body)?;
    if first.tag == 0xa0 {
        take(&mut body)?;
    }
    // Signature algorithm, issuer, validity.
    for _ in 0..3 {
        expect(&mut body, SEQUENCE)?;
    }
    let digest = Sha1::digest(canonical(expect(&mut body, SEQUENCE)?)?);
    Some(u32::from_le_bytes(digest.get(..4)?.try_into().ok()?))
}

/// The sets of a name with their values made alike, without the sequence around them.
fn canonical(mut name: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    while !name.is_empty() {
        let mut set = expect(&mut name, SET)?;
        let mut attributes = Vec::new();
        while !set.is_empty() {
            let mut attribute = expect(&mut set, SEQUENCE)?;
            let kind = take(&mut attribute).filter(|value| value.tag == OBJECT_IDENTIFIER)?;
            let value = take(&mut attribute)?;
            let mut content = kind.whole.to_vec();
            match text(value)? {
                Some(text) => content.extend(encode(UTF8_STRING, &alike(&text))),
                None => content.extend_from_slice(value.whole),
            }
            attributes.push(encode(SEQUENCE, &content));
        }
        // A set is sorted by its members' encodings.
        attributes.sort();
        out.extend(encode(SET, &attributes.concat()));
    }
    Some(out)
}

/// A string as UTF-8, `Some(None)` for a value that is no string that OpenSSL makes alike.
#[allow(clippy::option_option)]
fn text(value: Value<'_>) -> Option<Option<Vec<u8>>> {
    let wide = |size: usize| -> Option<Vec<u8>> {
        if !value.content.len().is_multiple_of(size) {
            return None;
        }
        let chars = value
            .content
            .chunks_exact(size)
            .map(|chunk| char::from_u32(chunk.iter().fold(0_u32, |code, &byte| code << 8 | u32::from(byte))));
        chars.collect::<Option<String>>().map(String::into_bytes)
    };
    Some(match value.tag {
        UTF8_STRING => Some(std::str::from_utf8(value.content).ok()?.as_bytes().to_vec()),
        // Printable, Teletex, IA5 and Visible strings: each byte is a character.
        0x13 | 0x14 | 0x16 | 0x1a => Some(wide(1)?),
        // Universal and BMP strings.
        0x1c => Some(wide(4)?),
        0x1e => Some(wide(2)?),
        _ => None,
    })
}

/// Without blanks at both ends, with one for several, ASCII letters small.
fn alike(text: &[u8]) -> Vec<u8> {
    let is_space = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
    let mut out = Vec::with_capacity(text.len());
    for word in text.split(|&byte| is_space(byte)).filter(|word| !word.is_empty()) {
        if !out.is_empty() {
            out.push(b' ');
        }
        out.extend(word.iter().map(u8::to_ascii_lowercase));
    }
    out
}
