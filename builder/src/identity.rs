//! Identifiers that must be the same in every build: GUIDs, serial numbers, the verity salt.
//!
//! All are cut from a SHA-256 over the image's id and the identifier's purpose, so that no clock and no
//! randomness enters a build, and so that they stay from release to release (an unchanged file keeps its
//! verity blocks).

use ashlar_image::digest::Digest;

/// Derives the identifiers of one image.
#[derive(Debug, Clone)]
pub struct Identity {
    image_id: String,
}

impl Identity {
    /// Identifiers for the image with this id.
    pub fn new(image_id: &str) -> Self {
        Self { image_id: image_id.to_owned() }
    }

    fn derive(&self, purpose: &str) -> [u8; 32] {
        Digest::of(format!("ashlar identity v1\0{}\0{purpose}", self.image_id)).0
    }

    /// A UUID of version 8 (RFC 9562, section 5.8) in the order of its text.
    pub fn uuid(&self, purpose: &str) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.derive(purpose)[..16]);
        uuid[6] = (uuid[6] & 0x0f) | 0x80;
        uuid[8] = (uuid[8] & 0x3f) | 0x80;
        uuid
    }

    /// The serial number of a FAT file system.
    pub fn serial(&self, purpose: &str) -> u32 {
        let bytes = self.derive(purpose);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// The verity salt.
    pub fn salt(&self) -> [u8; 32] {
        self.derive("verity salt")
    }
}

/// A UUID as text.
pub fn uuid_text(uuid: [u8; 16]) -> String {
    let hex = hex::encode(uuid);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_differ_by_image_and_purpose_and_stay() {
        let a = Identity::new("a");
        assert_eq!(a.uuid("disk"), Identity::new("a").uuid("disk"));
        assert_ne!(a.uuid("disk"), a.uuid("esp-a"));
        assert_ne!(a.uuid("disk"), Identity::new("b").uuid("disk"));
        let text = uuid_text(a.uuid("disk"));
        assert_eq!((text.len(), &text[14..15]), (36, "8"));
    }
}
