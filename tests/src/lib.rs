//! What the whole-system tests share: the programs as a user has them, one release per test process, disks
//! with something changed, machines with the owner's keys.
//!
//! These tests use the programs, not the libraries, to build: what they show holds for what users run. The
//! programs lie in the folder that `ASHLAR_PROGRAMS` names or else where `cargo xtask build` puts them.
//!
//! A test that cannot run says why and passes; with `ASHLAR_TESTS_NO_SKIP` set it fails instead.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)] // what is used by tests only fails a test by it

pub mod case;
pub mod channel;
pub mod desk;
pub mod disk;
pub mod etcd;
pub mod folders;
pub mod lab;
pub mod machine;
pub mod nginx;
pub mod node;
pub mod partition;
pub mod programs;
pub mod release;
pub mod sparse;
pub mod tools;

pub use case::Case;
pub use disk::Disk;
pub use lab::Lab;
pub use partition::Partition;
pub use programs::Run;
pub use release::{Built, built};

/// Notes that a test cannot run here.
pub fn skip(why: &str) {
    let strict = std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_some();
    assert!(!strict, "ASHLAR_TESTS_NO_SKIP is set, and this test cannot run: {why}");
    eprintln!("skipped: {why}");
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
