//! The swap of slots. Everything that an update writes to a disk or to the firmware's variables goes through here, in an
//! order that leaves a machine that starts, whenever the power goes:
//!
//! 1. [`Swap::begin`]: the slot that does not run loses its bootability first. A `BootNext` that names it goes, and the first
//!    block of its ESP is zeroed and flushed: without it there is no file system.
//! 2. [`Writing::write`]: blocks of root, verity and ESP, in any order; the first block of the ESP is kept in memory.
//! 3. [`Writing::finish`], [`Written::verify`]: flush, then read everything back past the cache and compare it with the
//!    signed release; take the UKI out of the ESP and judge it as the firmware will, and its policy as the TPM will.
//! 4. [`Verified::enable`]: the first block is written, flushed, read back; the boot entry is made or mended.
//! 5. [`Enabled::try_next`]: `BootNext`, one try.
//!
//! [`entries::commit`] makes a slot the one that starts, after its boot was found good.

pub mod check;
pub mod discover;
pub mod disk;
pub mod entries;
mod error;
pub mod load_option;
pub mod model;
pub mod swap;
pub mod variables;

pub use disk::{Disk, Partition};
pub use error::SlotsError;
pub use swap::{Enabled, SlotDisks, Swap, Verified, Writing, Written};
pub use variables::{Efivarfs, MemoryVariables, Name, Variables};
