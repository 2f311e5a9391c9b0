//! The kernel command line's contract between the builder, which signs it inside the UKI, and init.
//!
//! All that init needs to open the root lies here, because only this is signed: the superblock on the
//! verity partition is compared with it, never believed.

use crate::digest::Digest;
use std::fmt;

/// `roothash=`: the root of the verity tree, in hexadecimal.
pub const ROOT_HASH: &str = "roothash";
/// `ashlar.verity=`: `DATA_BLOCKS:SALT`, blocks of 4096 bytes and the salt in hexadecimal.
pub const VERITY: &str = "ashlar.verity";

/// Size in bytes of data and hash blocks. Fixed: no other size is accepted.
pub const BLOCK_SIZE: u64 = 4096;

/// What dm-verity needs to know to open the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerityRoot {
    /// Root of the tree.
    pub root_hash: Digest,
    /// Number of data blocks of 4096 bytes.
    pub data_blocks: u64,
    /// Salt, 32 bytes.
    pub salt: [u8; 32],
}

/// Why a command line does not name a root.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CmdlineError {
    /// The key does not occur.
    #[error("the command line has no `{0}=`; build the image again with `ashlar build`")]
    Missing(&'static str),
    /// The key occurs more than once, so it is not clear which is meant.
    #[error("the command line has `{0}=` more than once")]
    Repeated(&'static str),
    /// The value cannot be read.
    #[error("the command line has a malformed `{key}={value}`")]
    Malformed {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

impl fmt::Display for VerityRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT_HASH}={} {VERITY}={}:{}", self.root_hash, self.data_blocks, hex::encode(self.salt))
    }
}

/// The value of `key=` in a command line; exactly one is wanted.
fn single<'a>(cmdline: &'a str, key: &'static str) -> Result<&'a str, CmdlineError> {
    let mut values = cmdline
        .split_ascii_whitespace()
        .filter_map(|word| word.split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value));
    let value = values.next().ok_or(CmdlineError::Missing(key))?;
    if values.next().is_some() {
        return Err(CmdlineError::Repeated(key));
    }
    Ok(value)
}

impl VerityRoot {
    /// Reads the root from a command line.
    pub fn parse(cmdline: &str) -> Result<Self, CmdlineError> {
        let hash = single(cmdline, ROOT_HASH)?;
        let root_hash =
            hash.parse().map_err(|_| CmdlineError::Malformed { key: ROOT_HASH, value: hash.to_owned() })?;
        let verity = single(cmdline, VERITY)?;
        let malformed = || CmdlineError::Malformed { key: VERITY, value: verity.to_owned() };
        let (blocks, salt_hex) = verity.split_once(':').ok_or_else(malformed)?;
        let data_blocks: u64 = blocks.parse().map_err(|_| malformed())?;
        if data_blocks == 0 || data_blocks.checked_mul(BLOCK_SIZE).is_none() {
            return Err(malformed());
        }
        let mut salt = [0; 32];
        hex::decode_to_slice(salt_hex, &mut salt).map_err(|_| malformed())?;
        Ok(Self { root_hash, data_blocks, salt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> VerityRoot {
        VerityRoot { root_hash: Digest([0xab; 32]), data_blocks: 77, salt: [9; 32] }
    }

    #[test]
    fn what_the_builder_writes_init_reads() {
        let line = format!("console=ttyS0 {} quiet\n", root());
        assert_eq!(VerityRoot::parse(&line), Ok(root()));
    }

    #[test]
    fn doubt_is_an_error() {
        let line = format!("{} roothash={}", root(), Digest::ZERO);
        assert_eq!(VerityRoot::parse(&line), Err(CmdlineError::Repeated(ROOT_HASH)));
        assert_eq!(VerityRoot::parse("quiet"), Err(CmdlineError::Missing(ROOT_HASH)));
        let line = root().to_string().replace("77:", "0:");
        assert!(matches!(VerityRoot::parse(&line), Err(CmdlineError::Malformed { key: VERITY, .. })));
    }
}
