//! PID 1 before and after the switch of root.
//!
//! One static program, started twice. In the initramfs ([`initrd`]) it loads modules, measures, finds the
//! root that the signed command line names, opens it with dm-verity and executes the copy of itself that lies
//! there. In the root ([`root`]) it sets the machine up, starts containers and services and watches them until
//! the machine is switched off.
//!
//! What decides something is pure and tested without a machine: [`gpt`], [`verity`], [`slot`], [`dm`],
//! [`efi`], [`dhcp`], [`netlink`], [`network::plan`], [`time`], [`supervision::unit`],
//! [`oci`]. The rest moves bytes to and from the kernel.

pub mod block;
pub mod boot;
pub mod boots;
pub mod cgroup;
pub mod configuration;
pub mod console;
pub mod control;
pub mod dhcp;
pub mod dm;
pub mod durable;
pub mod efi;
pub mod entropy;
pub mod error;
pub mod etc;
pub mod failure;
pub mod gpt;
pub mod guid;
pub mod hardening;
pub mod initrd;
pub mod input;
pub mod journal;
pub mod measure;
pub mod modules;
pub mod mounts;
pub mod netlink;
pub mod network;
pub mod oci;
pub mod page;
pub mod pstore;
pub mod report;
pub mod root;
pub mod shutdown;
pub mod slot;
pub mod state;
pub mod supervision;
pub mod switch;
mod sys;
pub mod sysctl;
pub mod time;
pub mod trial;
pub mod uevent;
pub mod verity;
pub mod watchdog;

use error::Error;

/// Magic numbers of file systems, `statfs.f_type` (Linux, `include/uapi/linux/magic.h`).
const RAMFS: u64 = 0x8584_58f6;
const TMPFS: u64 = 0x0102_1994;
const EROFS: u64 = 0xe0f5_e1e2;

/// Which of its two jobs the program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The root is the kernel's initramfs.
    Initrd,
    /// The root is the image's erofs.
    Root,
}

impl Stage {
    /// The stage that goes with a root file system of type `magic`. Only the file system tells: arguments and
    /// environment come from the command line, files could be put there.
    pub const fn of(magic: u64) -> Option<Self> {
        match magic {
            RAMFS | TMPFS => Some(Self::Initrd),
            EROFS => Some(Self::Root),
            _ => None,
        }
    }
}

/// Runs as PID 1 and never comes back. As any other process it says what it is and fails.
pub fn run() {
    if !rustix::process::getpid().is_init() {
        eprintln!(
            "ashlar-init is the first process of an Ashlar machine; there is nothing else to do with it"
        );
        std::process::exit(2);
    }
    failure::catch_panics();
    let result = rustix::fs::statfs("/")
        .map_err(|error| Error::io("look at", "/")(error.into()))
        .and_then(|status| {
            let magic = status.f_type.cast_unsigned();
            Stage::of(magic).ok_or(Error::UnknownRoot(magic))
        })
        .and_then(|stage| match stage {
            Stage::Initrd => initrd::run(),
            Stage::Root => root::run(),
        });
    let Err(error) = result;
    failure::stop(&error);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_file_system_tells_the_stage() {
        assert_eq!(Stage::of(RAMFS), Some(Stage::Initrd));
        assert_eq!(Stage::of(TMPFS), Some(Stage::Initrd));
        assert_eq!(Stage::of(EROFS), Some(Stage::Root));
        assert_eq!(Stage::of(0xef53), None);
    }
}
