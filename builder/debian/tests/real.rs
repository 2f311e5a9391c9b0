//! The real archive, when the build host has one in its apt sources and it answers.
//!
//! `ASHLAR_TEST_MIRROR` names another mirror, a local one for instance.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{Cache, DEFAULT_KEYRINGS, Error, Index, Network, NoProgress, Suite, host_mirror};
use std::path::Path;

#[test]
fn the_real_suite_is_verified_and_resolved() {
    let mirror = match std::env::var("ASHLAR_TEST_MIRROR").or_else(|_| host_mirror()) {
        Ok(mirror) => mirror,
        Err(error) => return println!("skipped: {error}"),
    };
    if !DEFAULT_KEYRINGS.iter().any(|path| Path::new(path).exists()) {
        return println!("skipped: debian-archive-keyring is not installed");
    }
    let suite = Suite {
        mirror,
        suite: "trixie".into(),
        components: vec!["main".into()],
        architecture: "amd64".into(),
        keyring: DEFAULT_KEYRINGS.iter().map(Into::into).collect(),
    };
    let (_folder, cache): (_, Cache) = common::cache();
    let index = match Index::load(&suite, &cache, Network::Online, &NoProgress) {
        Err(error @ Error::Mirror { .. }) => return println!("skipped: {error}"),
        other => other.unwrap(),
    };
    assert!(index.names().count() > 50_000);
    // Released in August 2025.
    assert!(index.date > 1_754_000_000);
    let wanted = ["crun", "ca-certificates", "tzdata", "systemd-boot-efi"].map(String::from);
    let excluded = ["debconf", "openssl", "dpkg"].map(String::from);
    let locked = index.resolve(&wanted, &excluded).unwrap();
    let names: Vec<&str> = locked.iter().map(|package| package.name.as_str()).collect();
    for name in ["ca-certificates", "crun", "libc6", "libseccomp2", "systemd-boot-efi", "tzdata"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert!(!names.contains(&"debconf") && names.is_sorted());
    assert_eq!(index.resolve(&wanted, &excluded).unwrap(), locked);
    // Without the network the same.
    let again = Index::load(&suite, &cache, Network::Offline, &NoProgress).unwrap();
    assert_eq!(again.in_release_sha256, index.in_release_sha256);
    assert_eq!(again.resolve(&wanted, &excluded).unwrap(), locked);
    let error = index.resolve(&["cron-daemn".into()], &[]).unwrap_err();
    assert!(matches!(&error, Error::Unknown { nearest, .. } if !nearest.is_empty()), "{error}");
}
