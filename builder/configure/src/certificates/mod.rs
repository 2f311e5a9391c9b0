//! `/etc/ssl/certs`: links to the trusted certificates, the bundle of all, and links by subject hash, as
//! update-ca-certificates(8) and openssl-rehash(1) make them.

mod der;

use crate::report::Log;
use crate::{ConfigureError, Step, view};
use ashlar_tree::Tree;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeMap, BTreeSet};

pub use der::subject_hash;

const SHIPPED: &str = "/usr/share/ca-certificates";
const LOCAL: &str = "/usr/local/share/ca-certificates";
const TARGET: &str = "/etc/ssl/certs";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const LIST: &str = "/etc/ca-certificates.conf";
/// Most certificates that are looked at; Debian ships about 150.
const CERTIFICATES_MAX: usize = 10_000;

/// Makes the directory. Does nothing where the tree has no certificates.
pub(crate) fn configure(tree: &mut Tree, time: i64, log: &mut Log) -> Result<(), ConfigureError> {
    let shipped = files(tree, SHIPPED)?;
    let local = files(tree, LOCAL)?;
    if shipped.is_empty() && local.is_empty() {
        return Ok(());
    }
    let chosen: Vec<String> = match view::text(tree, LIST)? {
        Some(text) => text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(['#', '!']))
            .map(|line| format!("{SHIPPED}/{line}"))
            .filter(|path| view::is_file(tree, path))
            .collect(),
        None => {
            let lines: Vec<&str> =
                shipped.iter().filter_map(|path| path.strip_prefix(&format!("{SHIPPED}/"))).collect();
            let text = format!(
                "# Certificates below {SHIPPED}; a line with ! is not trusted.\n{}\n",
                lines.join("\n")
            );
            view::write(tree, LIST, 0o644, time, text.into_bytes())?;
            shipped
        }
    };
    let mut bundle = Vec::new();
    let mut count = 0;
    for path in chosen.iter().chain(&local) {
        let Some(bytes) = view::read(tree, path, view::TEXT_MAX)? else { continue };
        bundle.extend_from_slice(&bytes);
        if !bytes.ends_with(b"\n") && !bytes.is_empty() {
            bundle.push(b'\n');
        }
        view::link(tree, &format!("{TARGET}/{}", link_name(path)), path, time)?;
        count += 1;
    }
    let by_hash = rehash(tree, time)?;
    view::write(tree, BUNDLE, 0o644, time, bundle)?;
    log.done(
        Step::Certificates,
        BUNDLE,
        &[],
        format!("{count} certificates, {by_hash} links by subject hash"),
    );
    for hook in view::names(tree, "/etc/ca-certificates/update.d") {
        log.left_out(format!("/etc/ca-certificates/update.d/{hook}"), "no hook is run");
    }
    Ok(())
}

/// All `*.crt` files below a folder, in byte order of their paths. Links to folders are followed; a bound on the
/// depth ends loops.
fn files(tree: &Tree, folder: &str) -> Result<Vec<String>, ConfigureError> {
    let mut found = BTreeSet::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for name in view::names(tree, &folder) {
            let path = format!("{folder}/{name}");
            if view::is_directory(tree, &path) && depth < 8 {
                open.push((path, depth + 1));
            } else if name.ends_with(".crt") && view::is_file(tree, &path) {
                found.insert(path);
            }
            if found.len() + open.len() > CERTIFICATES_MAX {
                let why = format!("more than {CERTIFICATES_MAX} certificates");
                return Err(ConfigureError::Format { path: folder, line: None, why });
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The name of the link to a certificate: blanks, commas and parentheses are replaced.
fn link_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let name = name.strip_suffix(".crt").unwrap_or(name);
    let name: String = name
        .chars()
        .map(|c| match c {
            ' ' | ',' => '_',
            '(' | ')' => '=',
            c => c,
        })
        .collect();
    format!("{name}.pem")
}

/// Makes `HASH.N` links to the files in the directory that hold exactly one certificate; a certificate that is
/// there under two names is linked once. Old links of that kind go.
fn rehash(tree: &mut Tree, time: i64) -> Result<usize, ConfigureError> {
    let mut by_hash: BTreeMap<u32, Vec<(String, Vec<u8>)>> = BTreeMap::new();
    for name in view::names(tree, TARGET) {
        let path = format!("{TARGET}/{name}");
        if is_hash_link(&name) && view::target(tree, &path).is_some() {
            tree.remove(path.as_bytes());
            continue;
        }
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
        if !matches!(extension.as_str(), "pem" | "crt" | "cer") || path == BUNDLE {
            continue;
        }
        let Some(bytes) = view::read(tree, &path, view::TEXT_MAX)? else { continue };
        let mut found = pem_certificates(&bytes);
        let (Some(der), true) = (found.pop(), found.is_empty()) else { continue };
        let Some(hash) = subject_hash(&der) else { continue };
        let same = by_hash.entry(hash).or_default();
        if same.iter().all(|(_, other)| *other != der) {
            same.push((name, der));
        }
    }
    let mut count = 0;
    for (hash, files) in by_hash {
        for (index, (name, _)) in files.into_iter().enumerate() {
            view::link(tree, &format!("{TARGET}/{hash:08x}.{index}"), &name, time)?;
            count += 1;
        }
    }
    Ok(count)
}

fn is_hash_link(name: &str) -> bool {
    name.split_once('.').is_some_and(|(hash, index)| {
        hash.len() == 8
            && hash.bytes().all(|b| b.is_ascii_hexdigit())
            && !index.is_empty()
            && index.bytes().all(|b| b.is_ascii_digit())
    })
}

/// The certificates of a PEM file (RFC 7468) in DER; what is no certificate is passed over.
pub fn pem_certificates(bytes: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let mut found = Vec::new();
    let mut body: Option<String> = None;
    for line in text.lines() {
        match line.trim_end() {
            "-----BEGIN CERTIFICATE-----"
            | "-----BEGIN X509 CERTIFICATE-----"
            | "-----BEGIN TRUSTED CERTIFICATE-----" => {
                body = Some(String::new());
            }
            line if line.starts_with("-----END ") => {
                if let Some(der) = body.take().and_then(|body| STANDARD.decode(body).ok()) {
                    found.push(der);
                }
            }
            line => {
                if let Some(body) = &mut body {
                    body.push_str(line.trim());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links() {
        assert_eq!(link_name("/usr/share/ca-certificates/mozilla/A_(B),_C D.crt"), "A_=B=__C_D.pem");
        assert!(is_hash_link("0a1b2c3d.0") && !is_hash_link("0a1b2c3d.pem") && !is_hash_link("xa1b2c3d.0"));
    }
}
