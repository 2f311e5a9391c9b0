//! The unified kernel image: section by section, the initramfs file by file.

use super::Difference;
use super::hints::Hints;
use super::root::window;
use crate::CompareError;
use crate::cpio::FIELDS;
use crate::diff::boot::{cmdline, names_root};
use crate::folder::ReleaseFolder;
use crate::initramfs::Initramfs;
use crate::stream::first_byte;
use crate::text::{clean, shown};
use ashlar_measured_boot::pe::Pe;
use std::collections::BTreeSet;

/// Sections that hold text (UAPI.5).
const TEXT: [&str; 6] = [".osrel", ".uname", ".sbat", ".sdmagic", ".pcrsig", ".pcrpkey"];

pub(super) fn compare(
    a: &ReleaseFolder,
    b: &ReleaseFolder,
    root_differs: bool,
    hints: &mut Hints,
) -> Result<Vec<Difference>, CompareError> {
    let (bytes_a, bytes_b) = (a.uki()?, b.uki()?);
    Ok(images(&a.release().uki.artifact.file, &bytes_a, &bytes_b, root_differs, hints))
}

/// Where two images differ; none when they are the same.
pub(super) fn images(
    artifact: &str,
    a: &[u8],
    b: &[u8],
    root_differs: bool,
    hints: &mut Hints,
) -> Vec<Difference> {
    let Some(first) = first_byte(a, b) else { return Vec::new() };
    let (pe_a, pe_b) = match (Pe::parse(a), Pe::parse(b)) {
        (Ok(a), Ok(b)) => (a, b),
        (Err(error), _) | (_, Err(error)) => {
            let text = format!("differs at byte {first}; it cannot be read: {error}");
            return vec![Difference::new(artifact, "image", text).at(first as u64).byte(first as u64)];
        }
    };
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    let mut measured = false;
    for section in pe_a.sections.iter().chain(&pe_b.sections) {
        let name = section.name.as_str();
        if !seen.insert(name) {
            continue;
        }
        let (Some(of_a), Some(of_b)) = (pe_a.section(name), pe_b.section(name)) else {
            let which = if pe_a.section(name).is_some() { "first" } else { "second" };
            found.push(Difference::new(
                artifact,
                name,
                format!("section {name} is only in the {which} release"),
            ));
            measured = true;
            continue;
        };
        let content = |pe: &Pe<'_>, section| pe.content(section).unwrap_or_default();
        let (content_a, content_b) = (content(&pe_a, of_a), content(&pe_b, of_b));
        if let Some(at) = first_byte(&content_a, &content_b) {
            let byte = (of_a.raw.start + at) as u64;
            // The signed policy is over what the others come to.
            let follows = (name == ".pcrsig" && measured)
                || (name == ".cmdline" && root_differs && only_root(&content_a, &content_b));
            measured |= name != ".pcrsig";
            for difference in contents(artifact, name, &content_a, &content_b, at, byte, hints) {
                found.push(difference.following(follows));
            }
        } else {
            let padding = |pe: &Pe<'_>, raw: &std::ops::Range<usize>| {
                let raw = pe.bytes().get(raw.clone()).unwrap_or_default();
                raw.get(content_a.len().min(raw.len())..).unwrap_or_default().to_vec()
            };
            if let Some(at) = first_byte(&padding(&pe_a, &of_a.raw), &padding(&pe_b, &of_b.raw)) {
                let byte = (of_a.raw.start + content_a.len() + at) as u64;
                let text = format!("padding behind {name} differs (byte {byte})");
                found.push(Difference::new(artifact, format!("padding of {name}"), text).byte(byte));
            }
        }
    }
    let explained = !found.is_empty();
    let certificates =
        |pe: &Pe<'_>, bytes: &[u8]| bytes.get(pe.certificates.clone()).unwrap_or_default().to_vec();
    let (of_a, of_b) = (certificates(&pe_a, a), certificates(&pe_b, b));
    let mut other_length = false;
    if let Some(at) = first_byte(&of_a, &of_b) {
        other_length = of_a.len() != of_b.len();
        let why = match (explained, of_a.is_empty() || of_b.is_empty()) {
            (true, _) => "follows from what is signed",
            (false, true) => "one of the two is not signed",
            (false, false) => "what is signed is the same: another key, or another time of signing",
        };
        let text = format!("signature (certificate table) differs at byte {at} of {}: {why}", of_a.len());
        let byte = (pe_a.certificates.start + at) as u64;
        found.push(
            Difference::new(artifact, "certificate table", text)
                .at(at as u64)
                .byte(byte)
                .following(explained),
        );
    }
    found.extend(headers(artifact, &pe_a, &pe_b, explained, other_length, hints));
    if found.is_empty() {
        let text = format!("differs at byte {first}, outside of all sections");
        found.push(Difference::new(artifact, "image", text).at(first as u64).byte(first as u64));
    }
    found
}

/// Whether two command lines differ in nothing but what names the root.
fn only_root(a: &[u8], b: &[u8]) -> bool {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let change = cmdline(&text(a), &text(b));
    change.removed.iter().chain(&change.added).all(|word| names_root(word)) && !change.reordered
}

fn contents(
    artifact: &str,
    name: &str,
    a: &[u8],
    b: &[u8],
    at: usize,
    byte: u64,
    hints: &mut Hints,
) -> Vec<Difference> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    let place = |text: String| Difference::new(artifact, name, text).at(at as u64).byte(byte);
    let of = if a.len() == b.len() { a.len().to_string() } else { format!("{} and {}", a.len(), b.len()) };
    let bytes_differ = format!("{name} differs at byte {at} of {of} ({artifact} byte {byte})");
    let (old, new) = window(a, b, at);
    if name != ".initrd" {
        hints.window(&format!("{artifact} {name}"), old, new);
    }
    match name {
        ".cmdline" => {
            let change = cmdline(&text(a), &text(b));
            let list = |words: &[String]| {
                if words.is_empty() { "nothing".into() } else { format!("`{}`", clean(&words.join(" "))) }
            };
            let order = if change.reordered { "; the other words have another order" } else { "" };
            let words = format!(
                ".cmdline: {} in the first is {} in the second{order}",
                list(&change.removed),
                list(&change.added)
            );
            vec![place(words)]
        }
        ".initrd" => initramfs(artifact, a, b, hints).unwrap_or_else(|| vec![place(bytes_differ)]),
        _ if TEXT.contains(&name) => {
            // The line of the difference, from a little before it where the line is long.
            let line = |bytes: &[u8]| {
                let before = bytes.get(..at).unwrap_or(bytes);
                let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let rest = bytes.get(start.max(at.saturating_sub(40))..).unwrap_or_default();
                let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                clean(&text(&rest[..end.min(80)]))
            };
            vec![place(format!("{bytes_differ}: `{}` and `{}`", line(a), line(b)))]
        }
        _ => vec![place(bytes_differ)],
    }
}

/// Where two initramfs archives differ; none when one cannot be read.
fn initramfs(artifact: &str, a: &[u8], b: &[u8], hints: &mut Hints) -> Option<Vec<Difference>> {
    let (a, b) = (Initramfs::read(a).ok()?, Initramfs::read(b).ok()?);
    let first = first_byte(&a.archive, &b.archive);
    let Some(first) = first else {
        let text = ".initrd: the same archive, packed in another way (another zstd or level)";
        return Some(vec![Difference::new(artifact, ".initrd", text)]);
    };
    let (of_a, of_b) = (a.by_name(), b.by_name());
    let names: BTreeSet<&[u8]> = of_a.keys().chain(of_b.keys()).copied().collect();
    let mut found = Vec::new();
    let mut sets_differ = false;
    for name in names {
        let path = shown(name);
        let place = format!(".initrd: {path}");
        let (Some(old), Some(new)) = (of_a.get(name), of_b.get(name)) else {
            let which = if of_a.contains_key(name) { "first" } else { "second" };
            sets_differ = true;
            let text = format!(".initrd: {path} is only in the {which} release");
            found.push(Difference::new(artifact, place, text));
            continue;
        };
        if let Some(at) = first_byte(a.data(old), b.data(new)) {
            let (x, y) = window(a.data(old), b.data(new), at);
            hints.window(&place, x, y);
            hints.contents(&place, a.data(old), b.data(new));
            let (length_a, length_b) = (old.data.len(), new.data.len());
            let of = if length_a == length_b {
                length_a.to_string()
            } else {
                format!("{length_a} and {length_b}")
            };
            let text = format!(
                ".initrd: {path} differs at byte {at} of {of} (byte {} of the archive)",
                old.data.start + at
            );
            found.push(Difference::new(artifact, place.clone(), text).at(at as u64));
        }
        for (index, field) in FIELDS.iter().enumerate() {
            let (x, y) = (old.fields[index], new.fields[index]);
            // Numbers of inodes follow from names that are gone or new, sizes from contents.
            if x == y || matches!(*field, "size" | "name size") || (sets_differ && *field == "inode") {
                continue;
            }
            if *field == "mtime" {
                hints.time_field(&format!("{artifact} .initrd"));
            }
            let values = if *field == "mode" { format!("{x:o} and {y:o}") } else { format!("{x} and {y}") };
            let text = format!(".initrd: {path}: {field} is {values} (byte {} of the archive)", old.header);
            found.push(Difference::new(artifact, place.clone(), text));
        }
    }
    let order = |archive: &Initramfs| archive.members.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    if !sets_differ && order(&a) != order(&b) {
        let text = ".initrd: the same files in another order";
        found.push(Difference::new(artifact, ".initrd", text));
    }
    if found.is_empty() {
        let text = format!(".initrd: padding or trailer differs (byte {first} of the archive)");
        found.push(Difference::new(artifact, ".initrd", text).at(first as u64));
    }
    Some(found)
}

/// The headers, field by field as far as they have names.
fn headers(
    artifact: &str,
    a: &Pe<'_>,
    b: &Pe<'_>,
    explained: bool,
    certificates_moved: bool,
    hints: &mut Hints,
) -> Vec<Difference> {
    let length = a.headers_size.min(b.headers_size);
    let (old, new) =
        (a.bytes().get(..length).unwrap_or_default(), b.bytes().get(..length).unwrap_or_default());
    // The optional header begins 64 bytes before its checksum, the file header 20 before that.
    let time = a.checksum_offset.saturating_sub(64 + 20 - 4);
    let table = a.certificate_entry_offset;
    let mut fields: Vec<(&'static str, usize)> = Vec::new();
    for (at, _) in old.iter().zip(new).enumerate().filter(|(_, (x, y))| x != y) {
        let name = match at {
            _ if (a.checksum_offset..a.checksum_offset + 4).contains(&at) => "checksum",
            _ if (time..time + 4).contains(&at) => "time stamp",
            _ if table.is_some_and(|table| (table..table + 8).contains(&at)) => {
                "place of the certificate table"
            }
            _ => "sizes and places",
        };
        if fields.iter().all(|(known, _)| *known != name) {
            fields.push((name, at));
        }
    }
    fields
        .into_iter()
        .map(|(name, at)| {
            if name == "time stamp" {
                hints.time_field(&format!("{artifact}, PE header"));
            }
            let follows = match name {
                "time stamp" => false,
                "checksum" | "place of the certificate table" => explained || certificates_moved,
                _ => explained,
            };
            let text = format!("PE header: {name} differs (byte {at})");
            Difference::new(artifact, format!("PE header: {name}"), text).byte(at as u64).following(follows)
        })
        .collect()
}
