//! What an image knows of its owner: public keys that init needs. It lies in the UKI's initramfs and is so covered by
//! the owner's signature; the root is the same whoever signs.

use serde::{Deserialize, Serialize};

/// The file in the initramfs, and in `/run` after the switch of root.
pub const OWNER_FILE: &str = "owner.json";
/// Its folder in the initramfs.
pub const OWNER_DIR: &str = "/usr/lib/ashlar";
/// Largest file in bytes.
pub const MAX_SIZE: usize = 64 << 10;

/// Public keys of the owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The Ed25519 key that signs machine configurations, 32 bytes in hexadecimal (RFC 8032).
    pub configuration_key: String,
    /// The RSA key that recovery keys are encrypted to with RSAES-OAEP, SHA-256, in PEM (`SubjectPublicKeyInfo`);
    /// without one a recovery key is shown on the console once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery_key: Option<String>,
}
