//! Names that must be unique and yet the same in every build.

use ashlar_image::digest::Digest;
use std::collections::BTreeSet;
use uuid::Uuid;

/// The name space of Ashlar's UUIDs, itself the UUIDv5 of `ashlar` in RFC 9562's name space for names that are no
/// URLs (OID).
fn namespace() -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, b"ashlar")
}

/// The UUIDv5 (RFC 9562, section 5.5) of one `kind` of document about the release with this digest.
pub(crate) fn document(kind: &str, release: &Digest) -> Uuid {
    Uuid::new_v5(&namespace(), format!("{kind}:{release}").as_bytes())
}

/// Characters that SPDX allows in the identifier of an element and of a licence (SPDX 2.3, sections 7.2 and 10.1);
/// others become `-`.
pub(crate) fn idstring(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '-' }).collect()
}

/// Gives out each name once: a second one of the same text gets a number.
#[derive(Default)]
pub(crate) struct Unique(BTreeSet<String>);

impl Unique {
    pub(crate) fn name(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 2;
        while !self.0.insert(name.clone()) {
            name = format!("{wanted}-{number}");
            number += 1;
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_stay_the_same() {
        let mut unique = Unique::default();
        assert_eq!(["a", "a", "a-2"].map(|name| unique.name(name)), ["a", "a-2", "a-2-2"]);
        assert_eq!(idstring("libstdc++6_14/x"), "libstdc--6-14-x");
        let digest = Digest::of(b"release");
        assert_eq!(document("spdx", &digest), document("spdx", &digest));
        assert_ne!(document("spdx", &digest), document("cyclonedx", &digest));
        assert_eq!(document("spdx", &digest).get_version_num(), 5);
    }
}
