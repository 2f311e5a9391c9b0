//! What the first stage tells the second, in a file of `/run`, which only PID 1 has written to so far.

use crate::error::Error;
use crate::state::StateBoot;
use ashlar_image::digest::Digest;
use ashlar_image::owner::Owner;
use ashlar_image::report::InitEvent;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file.
pub const PATH: &str = "/run/ashlar/boot.json";

/// How the root was opened and what was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Root of the verity tree.
    pub root_hash: Digest,
    /// Label of the root's partition.
    pub root_partition: String,
    /// What was extended before the switch of root.
    pub measured: Vec<InitEvent>,
    /// The image's owner.
    pub owner: Owner,
    /// The state volume.
    pub state: StateBoot,
}

impl Boot {
    /// Writes it to [`PATH`].
    pub fn write(&self) -> Result<(), Error> {
        let text = serde_json::to_vec(self).map_err(|source| Error::Json { path: PATH.into(), source })?;
        std::fs::write(PATH, text).map_err(Error::io("write", PATH))
    }

    /// Reads it.
    pub fn read() -> Result<Self, Error> {
        read_json(Path::new(PATH))
    }
}

/// Reads a file of JSON.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.into(), source })
}
