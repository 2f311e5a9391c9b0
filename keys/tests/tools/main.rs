//! What this crate makes, judged by tools that others wrote: OpenSSL, sbsigntool, osslsigncode, efitools,
//! virt-firmware, tpm2-tools with swtpm, and the firmware OVMF itself. A test whose tool is absent says so.
#![allow(clippy::unwrap_used, missing_docs)] // a test fails by it

mod auth;
mod authenticode;
mod firmware;
mod folder;
mod keyfile;
mod offline;
mod ovmf;
mod pcr_policy;
mod program;
mod run;
mod token;
mod tpm_signer;

use ashlar_keys::{KeyFolder, NewKeys};
use std::sync::OnceLock;
use tempfile::TempDir;

/// 2026-01-02 03:04:05 UTC.
const TIME: i64 = 1_767_323_045;

fn new_keys() -> NewKeys {
    NewKeys { owner_name: "Ashlar test".into(), not_before: TIME, years: 10 }
}

/// One set of keys for all tests: making them takes the longest.
fn keys() -> &'static KeyFolder {
    static KEYS: OnceLock<(TempDir, KeyFolder)> = OnceLock::new();
    let (_, keys) = KEYS.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyFolder::create(&dir.path().join("keys"), &new_keys()).unwrap();
        (dir, keys)
    });
    keys
}

/// The path of a file in the key folder.
fn key_file(name: &str) -> std::path::PathBuf {
    keys().path().join(name)
}
