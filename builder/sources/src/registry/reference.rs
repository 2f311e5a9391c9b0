//! References of images: `registry.example/name:tag@sha256:…` (the distribution project's grammar).

use crate::Error;
use ashlar_image::digest::Digest;
use std::fmt;
use std::str::FromStr;

/// Where an image lies in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host and, if given, port.
    pub registry: String,
    /// Name of the repository, `library/debian`.
    pub repository: String,
    /// The tag, which may lead elsewhere tomorrow.
    pub tag: Option<String>,
    /// The digest of the manifest or index: when it is given, the tag does not matter.
    pub digest: Option<Digest>,
}

impl FromStr for Reference {
    type Err = Error;

    /// No registry is added where none is named: `debian` could be anybody's.
    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why| Error::Reference { text: text.chars().take(300).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.strip_prefix("sha256:").and_then(|hex| hex.parse::<Digest>().ok());
                (rest, Some(digest.ok_or_else(|| bad("the digest is not `sha256:` and 64 digits"))?))
            }
            None => (text, None),
        };
        let (registry, rest) = rest.split_once('/').ok_or_else(|| bad("it names no registry"))?;
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        if !(registry.contains(['.', ':']) || registry == "localhost") {
            return Err(bad("it names no registry (for Docker Hub write `docker.io/library/NAME`)"));
        }
        if !is_registry(registry) {
            return Err(bad("the registry is not a host with or without a port"));
        }
        if repository.len() > 255 || !repository.split('/').all(is_component) {
            return Err(bad("the name may have lower-case letters, digits and single separators only"));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("the tag may have 128 letters, digits and `._-`"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(bad("neither a tag nor a digest is given"));
        }
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        self.digest.map_or(Ok(()), |digest| write!(f, "@sha256:{digest}"))
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let host_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let label = |label: &str| {
                !label.is_empty()
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
            };
            host.len() <= 253 && host.split('.').all(label)
        }
    };
    port_good && host_good
}

/// Letters and digits, with `.`, `_`, `__` or dashes between them.
fn is_component(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = text.split(alphanumeric);
    let ends_good = text.starts_with(alphanumeric) && text.ends_with(alphanumeric);
    ends_good
        && separators
            .filter(|separator| !separator.is_empty())
            .all(|separator| matches!(separator, "." | "_" | "__") || separator.bytes().all(|c| c == b'-'))
}

fn is_tag(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"._-".contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            "registry.example/a:1".to_owned(),
            format!("localhost:5000/a/b__c/d-e.f:v1.0{digest}"),
            format!("[::1]:5000/a{digest}"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        for bad in [
            "debian:13",
            "library/debian:13",
            "r.example/a",
            "r.example/A:1",
            "r.example/a//b:1",
            "r.example/../a:1",
            "r.example/a:-1",
            "r.example/a@sha256:12",
            "r.example:99999/a:1",
            "user@r.example/a:1",
            "r.example/a b:1",
            "-r.example/a:1",
            "[::g]/a:1",
            "",
            "/",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
