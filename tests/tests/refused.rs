//! The same image with something changed: refused by the right part, or harmless and told.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_formats::erofs::read::{Part, Reader};
use ashlar_image::layout::Role;
use ashlar_image::manifest::INIT_PATH;
use ashlar_image::report::Report;
use ashlar_image::verity;
use ashlar_keys::{KeyFolder, NewKeys, authenticode};
use ashlar_measured_boot::compare::compare;
use ashlar_measured_boot::pe::Pe;
use ashlar_qemu::{Machine, MachineConfig};
use ashlar_tests::disk::{EXTRA, UKI};
use ashlar_tests::machine::{UP, get, machine, ready, variables};
use ashlar_tests::{Built, Disk, built};
use std::fs::File;
use std::time::Duration;

/// What no console shows before the firmware has let the UKI run.
const KERNEL_RUNS: [&str; 2] = ["EFI stub", "Linux version"];

fn wanted() -> Option<&'static Built> {
    if ready() { built() } else { None }
}

/// One processor: several of these machines run at once.
fn small(built: &Built, disk: &Disk) -> MachineConfig {
    machine(built, disk.path())
}

/// Boots and expects that the firmware starts nothing, because the signature does not hold.
fn refused_by_firmware(built: &Built, disk: &Disk) {
    let machine = Machine::start(&small(built, disk)).unwrap();
    machine.wait_console_any(&["Access Denied", "Security Violation"], UP).unwrap();
    // Time for what must not happen.
    assert!(machine.wait_report(Duration::from_secs(5)).is_err());
    let console = machine.console();
    assert!(console.contains("BdsDxe: failed to load Boot0001"), "{console}");
    for word in KERNEL_RUNS {
        assert!(!console.contains(word), "{console}");
    }
}

/// Boots and expects that dm-verity finds the changed block and the kernel stops.
fn refused_by_verity(built: &Built, disk: &Disk, block: &str) {
    let machine = Machine::start(&small(built, disk)).unwrap();
    machine.wait_console("Kernel panic", UP).unwrap();
    let console = machine.console();
    assert!(console.contains("device-mapper: verity") && console.contains(block), "{console}");
    assert!(console.contains("is corrupted") && !console.contains("\nHello"), "{console}");
    assert!(machine.wait_report(Duration::from_secs(1)).is_err());
}

#[test]
fn a_byte_changed_in_the_uki_is_refused_by_the_firmware() {
    let Some(built) = wanted() else { return };
    let disk = Disk::copy_of(built);
    let mut uki = built.uki();
    let initrd = Pe::parse(&uki).unwrap().section(".initrd").unwrap().raw.clone();
    uki[initrd.start + initrd.len() / 2] ^= 1;
    disk.put(&disk.scratch("uki", &uki), UKI);
    refused_by_firmware(built, &disk);
}

#[test]
fn a_command_line_signed_with_another_key_is_refused_by_the_firmware() {
    let Some(built) = wanted() else { return };
    let disk = Disk::copy_of(built);
    let mut uki = built.uki();
    let cmdline = Pe::parse(&uki).unwrap().section(".cmdline").unwrap().raw.clone();
    let old = b"lockdown=integrity";
    let place =
        uki[cmdline.clone()].windows(old.len()).position(|bytes| bytes == old).unwrap() + cmdline.start;
    uki[place..place + old.len()].copy_from_slice(b"init=/bin/evil    ");
    let new = NewKeys { owner_name: "Somebody else".into(), not_before: 1_700_000_000, years: 1 };
    let other = KeyFolder::create(&disk.folder().join("keys"), &new).unwrap();
    let uki = authenticode::sign(&uki, other.db(), None).unwrap();
    // The signature is a good one; only the key is not the owner's.
    authenticode::verify(&uki, other.db().certificate_der()).unwrap();
    disk.put(&disk.scratch("uki", &uki), UKI);
    refused_by_firmware(built, &disk);
}

/// The first block of the init program's content in the root, in bytes from its start.
fn init_in_root(built: &Built) -> u64 {
    let artifact = &built.release.slot.root;
    let root = Reader::open(File::open(built.file(&artifact.file)).unwrap(), artifact.size).unwrap();
    let owners = root.owners(&root.entries().unwrap()).unwrap();
    let is_init = |at: &u64| {
        let owner = owners.locate(*at);
        owner.is_some_and(|owner| {
            owner.path.as_deref() == Some(INIT_PATH.as_bytes())
                && matches!(owner.part, Part::Data { offset: 0, .. })
        })
    };
    (0..artifact.size / 4096).map(|block| block * 4096).find(is_init).unwrap()
}

#[test]
fn a_byte_changed_in_the_root_is_refused_by_verity() {
    let Some(built) = wanted() else { return };
    let disk = Disk::copy_of(built);
    let init = init_in_root(built);
    disk.flip(Role::Root, init + 15);
    refused_by_verity(built, &disk, &format!("data block {} ", init / 4096));
}

#[test]
fn a_byte_changed_in_the_verity_tree_is_refused_by_verity() {
    let Some(built) = wanted() else { return };
    let disk = Disk::copy_of(built);
    // The hashes of init's blocks: the tree's levels lie from the top down behind the superblock.
    let levels = verity::levels(built.release.slot.root.size / 4096);
    let (leaves, above) = levels.split_first().unwrap();
    let leaf = init_in_root(built) / 4096 / verity::DIGESTS_PER_BLOCK;
    assert!(leaf < *leaves);
    let block = 1 + above.iter().sum::<u64>() + leaf;
    disk.flip(Role::Verity, block * 4096 + 5);
    refused_by_verity(built, &disk, &format!("metadata block {block} "));
}

/// Superblock and top of the tree are compared with the signed command line before the kernel sees them.
#[test]
fn a_byte_changed_at_the_top_of_the_verity_tree_is_refused_by_init() {
    let Some(built) = wanted() else { return };
    for (offset, words) in [(4096 + 5, "the top of the tree does not have the signed hash"), (90, "salt")] {
        let disk = Disk::copy_of(built);
        disk.flip(Role::Verity, offset);
        let machine = Machine::start(&small(built, &disk)).unwrap();
        machine.wait_console("The machine starts again in", UP).unwrap();
        let console = machine.console();
        let hash = built.release.root_hash.to_string();
        let line =
            console.lines().find(|line| line.contains("no root with the signed hash")).unwrap_or(&console);
        assert!(line.contains(&hash) && line.contains(words), "{line}");
        assert!(machine.wait_report(Duration::from_secs(1)).is_err());
    }
}

/// Boots and expects that the state volume stays closed: the line that says why.
fn refused_by_state(built: &Built, disk: &Disk, variables: Option<Vec<u8>>) -> (String, String) {
    let config = small(built, disk);
    let machine = Machine::start(&MachineConfig { variables, ..config }).unwrap();
    machine.wait_console("The machine starts again in", UP).unwrap();
    let console = machine.console();
    let line = console.lines().find(|line| line.contains("state volume stays closed")).unwrap_or(&console);
    assert!(machine.wait_report(Duration::from_secs(1)).is_err());
    (line.to_owned(), console)
}

/// Without the owner's keys in the firmware the kernel starts, and no volume is made on such a machine.
#[test]
fn a_machine_without_secure_boot_gets_no_state() {
    let Some(built) = wanted() else { return };
    let disk = Disk::copy_of(built);
    let (line, _) = refused_by_state(built, &disk, None);
    assert!(line.contains("Secure Boot is off"), "{line}");
}

/// Files on the EFI system partition are not signed. They reach the initramfs, init ignores them, and PCR 12 and 13 tell
/// that they were there: the state volume stays closed.
#[test]
fn foreign_files_beside_the_uki_are_ignored_and_measured() {
    let Some(built) = wanted() else { return };
    for (name, content, pcr) in
        [("foreign.cred", b"evil".to_vec(), 12), ("foreign.sysext.raw", vec![0x5a; 8192], 13)]
    {
        let disk = Disk::copy_of(built);
        disk.make_folder(EXTRA);
        disk.put(&disk.scratch(name, &content), &format!("{EXTRA}/{name}"));
        let (line, _) = refused_by_state(built, &disk, Some(variables(built)));
        assert!(line.contains(&format!("PCR {pcr} is ")) && line.contains("must be zero"), "{line}");
    }
}

/// An add-on without a signature is not taken at all; one of the owner is, and is measured: the owner signs no state for it.
#[test]
fn add_ons_count_by_their_signature() {
    let Some(built) = wanted() else { return };
    let disk = Disk::copy_of(built);
    disk.make_folder(EXTRA);
    disk.put(&disk.scratch("addon", &addon(&built.uki())), &format!("{EXTRA}/foreign.addon.efi"));
    let machine = Machine::start(&small(built, &disk)).unwrap();
    let report = machine.wait_report(UP).unwrap();
    // The kernel prints its command line; the add-on's is not in it.
    let console = machine.console();
    assert!(console.contains("ashlar.verity=") && !console.contains("ashlar.foreign"), "{console}");
    assert!(get(machine.forwards()[0].host, UP).unwrap().contains("Hello from a measured machine."));
    assert_eq!(different(built, &report), [] as [u32; 0]);
    drop(machine);

    let addon = authenticode::sign(&addon(&built.uki()), built.key_folder().db(), None).unwrap();
    disk.put(&disk.scratch("addon", &addon), &format!("{EXTRA}/owners.addon.efi"));
    let (line, console) = refused_by_state(built, &disk, Some(variables(built)));
    assert!(console.contains("ashlar.foreign=1"), "{console}");
    assert!(line.contains("PCR 12 is "), "{line}");
}

/// The predicted PCRs that came to another value.
fn different(built: &Built, report: &Report) -> Vec<u32> {
    let comparisons = compare(&built.release.pcrs, &report.pcrs, None);
    comparisons.iter().filter(|comparison| !comparison.is_same()).map(|comparison| comparison.pcr).collect()
}

/// An add-on (UAPI.3) with a command line and no signature: the UKI, with the names of all other sections
/// changed so that systemd-stub takes it for an add-on.
fn addon(uki: &[u8]) -> Vec<u8> {
    let pe = Pe::parse(uki).unwrap();
    let mut addon = uki[..pe.certificates.start].to_vec();
    let entry = pe.certificate_entry_offset.unwrap();
    addon[entry..entry + 8].fill(0);
    for section in &pe.sections {
        if section.name == ".cmdline" {
            let text = b"ashlar.foreign=1";
            let content = &mut addon[section.raw.clone()][..section.virtual_size as usize];
            content.fill(b' ');
            content[..text.len()].copy_from_slice(text);
        } else if section.name.starts_with('.') && !section.raw.is_empty() {
            let mut name = section.name.clone().into_bytes();
            name.resize(8, 0);
            let headers = &addon[..pe.headers_size];
            let place = headers.windows(8).position(|bytes| bytes == name).unwrap();
            addon[place] = b'_';
        }
    }
    addon
}
