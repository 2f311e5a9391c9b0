//! What the sealed state volume looks like on disk: a LUKS2 volume with an empty ext4 in it.
//!
//! Everything is plain bytes behind two small traits ([`device`]): a partition, a file, or a device in memory that
//! remembers every write, so that a power cut after any of them can be tried ([`memory`]). Randomness and time are
//! arguments. There is no C code and no system call beyond reading, writing and flushing, because PID 1 carries
//! this crate.
//!
//! - [`luks`]: the header, read once and held against an allow list; making a volume; changing its tokens.
//! - [`ext4`]: making an empty file system, and a look at a superblock.
//! - [`seed`]: the machine configuration that an installer leaves where the volume will be.
//! - [`recovery`]: the recovery key as people write it down.
//! - [`words`]: what is derived from the volume's key.
#![forbid(unsafe_code)]

mod bytes;
pub mod device;
mod error;
pub mod ext4;
pub mod luks;
pub mod memory;
pub mod recovery;
pub mod seed;
pub mod uuid;
pub mod words;

pub use device::{Random, ReadAt, WriteAt};
pub use error::{Error, Ext4Error, Refusal};
pub use luks::token::{Filesystem, RecoveryToken, StateToken, Token, Tpm2Token};
pub use luks::{CryptTable, Found, Header, Params};
pub use recovery::RecoveryKey;
pub use uuid::Uuid;

/// A volume's key: two AES-256 keys, as aes-xts wants them, in bytes.
pub const KEY_SIZE: usize = 64;

/// A volume's key; erased when dropped.
pub type VolumeKey = zeroize::Zeroizing<[u8; KEY_SIZE]>;
