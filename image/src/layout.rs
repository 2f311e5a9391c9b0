//! The partition table of an Ashlar disk. The table is written once at installation and never again.
//!
//! Types follow the Discoverable Partitions Specification (UAPI.2).

use serde::{Deserialize, Serialize};

/// Bytes in a mebibyte.
pub const MIB: u64 = 1 << 20;

/// EFI system partition (UEFI Specification, table 5-7).
pub const TYPE_ESP: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
/// Root partition of x86-64 (UAPI.2, `SD_GPT_ROOT_X86_64`).
pub const TYPE_ROOT: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";
/// Verity data of the x86-64 root (UAPI.2, `SD_GPT_ROOT_X86_64_VERITY`).
pub const TYPE_ROOT_VERITY: &str = "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5";
/// Variable data (UAPI.2, `SD_GPT_VAR`): what the state volume is.
pub const TYPE_STATE: &str = "4D21B016-B534-45C2-A9FB-5C16E091FD2D";

/// One of the two places for a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// Partitions 1 to 3.
    A,
    /// Partitions 4 to 6.
    B,
}

impl Slot {
    /// The slot that an update goes to while this one runs.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The letter in partition labels: `a` or `b`.
    pub const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// FAT32 with the slot's UKI.
    Esp,
    /// The erofs root.
    Root,
    /// The dm-verity superblock and tree of the root.
    Verity,
    /// The encrypted state volume.
    State,
}

/// One entry of the partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Number, from 1.
    pub number: u32,
    /// The slot; none for the state partition.
    pub slot: Option<Slot>,
    /// What it is for.
    pub role: Role,
    /// Label in the table.
    pub label: &'static str,
    /// Partition type GUID.
    pub type_guid: &'static str,
}

/// The seven partitions in order.
pub const PARTITIONS: [Entry; 7] = [
    Entry { number: 1, slot: Some(Slot::A), role: Role::Esp, label: "esp-a", type_guid: TYPE_ESP },
    Entry { number: 2, slot: Some(Slot::A), role: Role::Root, label: "root-a", type_guid: TYPE_ROOT },
    Entry {
        number: 3,
        slot: Some(Slot::A),
        role: Role::Verity,
        label: "verity-a",
        type_guid: TYPE_ROOT_VERITY,
    },
    Entry { number: 4, slot: Some(Slot::B), role: Role::Esp, label: "esp-b", type_guid: TYPE_ESP },
    Entry { number: 5, slot: Some(Slot::B), role: Role::Root, label: "root-b", type_guid: TYPE_ROOT },
    Entry {
        number: 6,
        slot: Some(Slot::B),
        role: Role::Verity,
        label: "verity-b",
        type_guid: TYPE_ROOT_VERITY,
    },
    Entry { number: 7, slot: None, role: Role::State, label: "state", type_guid: TYPE_STATE },
];

/// Sizes of the partitions in bytes; each a multiple of 1 MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Each EFI system partition.
    pub esp: u64,
    /// Each root partition.
    pub root: u64,
    /// Each verity partition.
    pub verity: u64,
    /// The state partition in the image; an installation takes the rest of the disk.
    pub state: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { esp: 512 * MIB, root: 4096 * MIB, verity: 64 * MIB, state: 1024 * MIB }
    }
}

impl Sizes {
    /// The size of the partitions with this role.
    pub const fn of(&self, role: Role) -> u64 {
        match role {
            Role::Esp => self.esp,
            Role::Root => self.root,
            Role::Verity => self.verity,
            Role::State => self.state,
        }
    }
}
