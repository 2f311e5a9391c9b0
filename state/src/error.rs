//! What can go wrong, said to an operator.

use crate::recovery::RecoveryKeyError;
use crate::seed::SeedError;
use std::io;

/// Why something about the state volume failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device does not work.
    #[error("cannot {what} the state volume: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There is a LUKS2 volume, and it is none that this machine uses.
    #[error("the LUKS2 volume on the state partition is refused: {0}")]
    Refused(#[from] Refusal),
    /// Neither copy of the LUKS2 header can be read.
    #[error(
        "both copies of the LUKS2 header are damaged (the first: {primary}; the second: {secondary}). Nothing was written. \
         Put a backup of the header back, or erase the volume to start anew"
    )]
    Damaged {
        /// What is wrong with the first.
        primary: &'static str,
        /// What is wrong with the second.
        secondary: &'static str,
    },
    /// The installer's seed cannot be read.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// A volume shall be made where something else lies.
    #[error("the state partition holds {0}; nothing was written. Erase it if it is not needed")]
    NotEmpty(&'static str),
    /// The device is too small or its size is odd.
    #[error(
        "the state partition has {size} bytes; it needs at least {least} and a multiple of the sector size {sector_size}"
    )]
    Size {
        /// Its size in bytes.
        size: u64,
        /// The least, in bytes.
        least: u64,
        /// Of a sector, in bytes.
        sector_size: u32,
    },
    /// A parameter for a new volume cannot be.
    #[error("a state volume cannot be made so: {0}")]
    Parameter(&'static str),
    /// The tokens do not fit.
    #[error(
        "the state volume's tokens take {size} bytes where {most} fit; remove some (`cryptsetup token remove`)"
    )]
    TokensTooLarge {
        /// Size of the metadata in bytes.
        size: usize,
        /// What fits.
        most: usize,
    },
    /// Too many tokens.
    #[error("a LUKS2 header holds 32 tokens, not {0}")]
    TooManyTokens(usize),
    /// Somebody wrote the header since it was read.
    #[error(
        "the header of the state volume was changed by somebody else since it was read; nothing was written. Read it again"
    )]
    Changed,
    /// A new volume does not read back as written.
    #[error(
        "what was written to the state partition does not read back; the disk may be failing: look at its health (SMART)"
    )]
    ReadBack,
    /// The text is no recovery key.
    #[error(transparent)]
    RecoveryKey(#[from] RecoveryKeyError),
    /// No keyslot opens.
    #[error(
        "the key opens none of the {keyslots} keyslots that it was tried on; it is well-formed, so it belongs to another \
         machine or to an earlier volume of this one"
    )]
    WrongKey {
        /// How many were tried.
        keyslots: usize,
    },
    /// Not enough memory for a keyslot's key derivation.
    #[error(
        "keyslot {keyslot} needs {kib} KiB of memory to be opened, and there is not so much; open the volume on a larger machine"
    )]
    Memory {
        /// Which.
        keyslot: u8,
        /// How much.
        kib: u32,
    },
    /// The file system inside.
    #[error(transparent)]
    Ext4(#[from] Ext4Error),
}

impl Error {
    /// Puts what was tried before what the system said.
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// Why a LUKS2 header is refused though its checksum is right. The first difference is told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header of another size.
    #[error("its header has {0} bytes where 16384 are expected; it was made by somebody else")]
    HeaderSize(u64),
    /// Another hash over the header.
    #[error("its header is summed with {0} where sha256 is expected")]
    ChecksumAlgorithm(String),
    /// The copies belong to different volumes.
    #[error(
        "the two copies of its header have different UUIDs ({0} and {1}); one of them was copied from elsewhere"
    )]
    Copies(String, String),
    /// The UUID is odd.
    #[error("its UUID {0} is not well-formed")]
    Uuid(String),
    /// The metadata are no JSON, or have keys that are not known.
    #[error("its metadata are not as expected: {0}")]
    Metadata(String),
    /// Requirements or flags that change what the volume means.
    #[error(
        "it demands {0}, which is never used here; if a re-encryption was begun elsewhere, finish it there"
    )]
    Requirements(String),
    /// Flags of the configuration.
    #[error("it has the flags {0}; remove them with `cryptsetup refresh --persistent` elsewhere")]
    Flags(String),
    /// Not one segment.
    #[error("it has {0} data segments where one is expected; parts of it may not be encrypted")]
    Segments(usize),
    /// The segment is not encrypted.
    #[error("its data segment is of the type {0}, not crypt; its content is not protected")]
    SegmentType(String),
    /// The segment has integrity tags.
    #[error("its data segment has dm-integrity, which is not used here")]
    Integrity,
    /// A cipher that does not encrypt.
    #[error("its cipher {0} does not encrypt; somebody wants the machine to write its secrets in the clear")]
    NullCipher(String),
    /// Another cipher.
    #[error("its cipher is {0} where aes-xts-plain64 is expected")]
    Cipher(String),
    /// Data that begin elsewhere.
    #[error("its data begin at {0} bytes where 16777216 are expected")]
    DataOffset(u64),
    /// A size that the device does not have.
    #[error("its data have the size {size}, and the partition has {device} bytes")]
    DataSize {
        /// As the header has it.
        size: String,
        /// The partition's size in bytes.
        device: u64,
    },
    /// Initialization vectors that start elsewhere.
    #[error("its initialization vectors begin at {0} where 0 is expected")]
    IvTweak(u64),
    /// An unknown sector size.
    #[error("its sectors have {0} bytes where 512 or 4096 are expected")]
    SectorSize(u32),
    /// A keyslot's type.
    #[error("keyslot {0} is of the type {1} where luks2 is expected")]
    KeyslotType(u8, String),
    /// A key's size.
    #[error("keyslot {0} is for a key of {1} bytes where 64 are expected")]
    KeySize(u8, u32),
    /// How a keyslot's key is derived.
    #[error("keyslot {0} derives its key with {1} where argon2id is expected")]
    Kdf(u8, String),
    /// A cost out of the bounds.
    #[error(
        "keyslot {keyslot} costs {time} passes over {memory} KiB with {cpus} lanes; at most 64 passes over 1048576 KiB \
         with 8 lanes are accepted"
    )]
    KdfCost {
        /// Which.
        keyslot: u8,
        /// Passes.
        time: u32,
        /// KiB.
        memory: u32,
        /// Lanes.
        cpus: u32,
    },
    /// A salt of an odd length.
    #[error("the salt of {0} is not 8 to 64 bytes in base64")]
    Salt(String),
    /// How a keyslot is spread.
    #[error("keyslot {0} is not spread over 4000 stripes with sha256")]
    AntiForensic(u8),
    /// Where and how a keyslot lies.
    #[error(
        "the area of keyslot {0} is not a raw one with aes-xts-plain64 within the header, beside the others"
    )]
    Area(u8),
    /// Not one digest.
    #[error("it has {0} key digests where one is expected")]
    Digests(usize),
    /// The digest's form.
    #[error("its key digest is not of pbkdf2 and sha256 with 1000 to 4000000 iterations")]
    Digest,
    /// The digest does not tie all keyslots to the segment.
    #[error("its key digest does not tie each keyslot to the data segment")]
    DigestLinks,
    /// The areas' sizes.
    #[error("its metadata or keyslots areas do not have sizes that fit")]
    ConfigSizes,
    /// A token that is not ours.
    #[error(
        "token {0} is of the type {1}, which is not known; remove it with `cryptsetup token remove --token-id {0}`"
    )]
    TokenType(u8, String),
    /// A token of ours that cannot be read.
    #[error("token {0} cannot be read: {1}")]
    Token(u8, String),
}

/// What is wrong with a file system, or with the wish for one.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// The device does not work.
    #[error("cannot {what} the file system: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// There is none.
    #[error("there is no ext4 on the state volume")]
    None,
    /// The superblock is damaged.
    #[error(
        "the superblock of the ext4 on the state volume is damaged ({0}); open the volume with the recovery key and \
         run `e2fsck -b 32768 -B 4096`"
    )]
    Damaged(&'static str),
    /// A form that this machine does not make.
    #[error(
        "the ext4 on the state volume has features that are not made here ({kind} {bits:#x}); another system made it"
    )]
    Feature {
        /// Of which kind.
        kind: &'static str,
        /// The unknown ones.
        bits: u32,
    },
    /// Larger than its device.
    #[error(
        "the ext4 has {blocks} blocks of 4096 bytes, and the state volume only {device} bytes; was the disk copied to a smaller one?"
    )]
    TooLarge {
        /// Its blocks.
        blocks: u64,
        /// Bytes of the device.
        device: u64,
    },
    /// Not a size that is made.
    #[error("an ext4 of {0} bytes is not made here: 64 MiB to 16 TiB are")]
    Size(
        /// Wanted.
        u64,
    ),
    /// Not a label.
    #[error("the label of an ext4 has at most 16 bytes and no NUL")]
    Label,
}

impl Ext4Error {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// A text from a disk as it may be shown: short and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String = text.escape_debug().take(60).collect();
    if short.len() < text.len() && text.chars().count() > 60 {
        short.push('…');
    }
    if short.is_empty() { "(empty)".to_owned() } else { short }
}
