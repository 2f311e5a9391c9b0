//! What the owner's keys are for.

use crate::KeyError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a key of the owner is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// The platform key: signs the variables PK and KEK. RSA.
    #[serde(rename = "PK")]
    Pk,
    /// The key exchange key: signs the variables db and dbx. RSA.
    #[serde(rename = "KEK")]
    Kek,
    /// Signs EFI programs. RSA.
    #[serde(rename = "db")]
    Db,
    /// Signs PCR policies. RSA.
    #[serde(rename = "pcr")]
    Pcr,
    /// Signs releases of the update channel. Ed25519.
    #[serde(rename = "channel")]
    Channel,
    /// Signs machine configurations. Ed25519.
    #[serde(rename = "configuration")]
    Configuration,
}

impl Role {
    /// All roles, in the order in which they are shown.
    pub const ALL: [Self; 6] = [Self::Pk, Self::Kek, Self::Db, Self::Pcr, Self::Channel, Self::Configuration];

    /// The roles that a build signs with.
    pub const BUILD: [Self; 2] = [Self::Db, Self::Pcr];

    /// The name in file names, in `keys.toml` and on tokens.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pk => "PK",
            Self::Kek => "KEK",
            Self::Db => "db",
            Self::Pcr => "pcr",
            Self::Channel => "channel",
            Self::Configuration => "configuration",
        }
    }

    /// Whether the key is RSA; Ed25519 otherwise.
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Pk | Self::Kek | Self::Db | Self::Pcr)
    }

    /// The file of the folder with the public half: a certificate or a public key, in PEM.
    pub const fn public_file(self) -> &'static str {
        match self {
            Self::Pk => "PK.crt",
            Self::Kek => "KEK.crt",
            Self::Db => "db.crt",
            Self::Pcr => "pcr.pub",
            Self::Channel => "channel.pub",
            Self::Configuration => "configuration.pub",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        Self::ALL
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| KeyError::NoSuchRole(text.to_owned()))
    }
}
