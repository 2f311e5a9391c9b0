//! The disk image against sgdisk.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_formats::disk::{self, DiskError, DiskLayout};
use ashlar_image::layout::{MIB, PARTITIONS, Sizes};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

const SIZES: Sizes = Sizes { esp: 64 * MIB, root: 128 * MIB, verity: 4 * MIB, state: 16 * MIB };

fn layout() -> DiskLayout {
    let guids = std::array::from_fn(|i| [0x10 + i as u8; 16]);
    DiskLayout::new(&SIZES, [0xab; 16], guids).unwrap()
}

fn write(folder: &Path, name: &str) -> File {
    let (content, out) = (folder.join("content"), folder.join(name));
    std::fs::write(&content, vec![0x5a; 3 * 4096]).unwrap();
    let content = File::open(content).unwrap();
    let out = File::options().read(true).write(true).create_new(true).open(out).unwrap();
    disk::write(&out, &layout(), &[(1, &content, 4096), (2, &content, 3 * 4096)]).unwrap();
    out
}

#[test]
fn sgdisk_finds_no_problem_and_the_same_table() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "disk");
    let sgdisk = |arguments: &[&str]| {
        let output = Command::new("sgdisk").args(arguments).arg(dir.path().join("disk")).output().ok()?;
        assert!(output.status.success(), "{output:?}");
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let Some(verdict) = sgdisk(&["-v"]) else {
        eprintln!("skipped: sgdisk is needed (package gdisk)");
        return;
    };
    assert!(verdict.contains("No problems found"), "{verdict}");
    assert!(sgdisk(&["-p"]).unwrap().contains("ABABABAB-ABAB-ABAB-ABAB-ABABABABABAB"));
    for (i, partition) in PARTITIONS.iter().enumerate() {
        let shown = sgdisk(&["-i", &partition.number.to_string()]).unwrap();
        assert!(shown.contains(partition.type_guid), "{shown}");
        assert!(shown.contains(&format!("name: '{}'", partition.label)), "{shown}");
        let guid = format!("{:02X}", 0x10 + i).repeat(4);
        assert!(shown.contains(&format!("unique GUID: {guid}-")), "{shown}");
    }
}

#[test]
fn contents_lie_in_their_partitions_in_a_sparse_file_of_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = write(dir.path(), "disk");
    let metadata = disk.metadata().unwrap();
    assert_eq!(metadata.len(), layout().total_size());
    assert!(metadata.blocks() * 512 < 2 * MIB, "{} blocks", metadata.blocks());
    let mut bytes = vec![0; 3 * 4096 + 1];
    disk.read_exact_at(&mut bytes, layout().partition(2).unwrap().0).unwrap();
    assert!(bytes[..3 * 4096].iter().all(|&b| b == 0x5a) && bytes[3 * 4096] == 0);
    write(dir.path(), "again");
    assert!(
        std::fs::read(dir.path().join("disk")).unwrap() == std::fs::read(dir.path().join("again")).unwrap()
    );
    let found = disk::read(&mut File::open(dir.path().join("disk")).unwrap()).unwrap();
    assert_eq!(found.len(), 7);
    assert_eq!((found[6].label.as_str(), found[6].length), ("state", SIZES.state));
    assert_eq!(Some((found[1].offset, found[1].length)), layout().partition(2));
}

#[test]
fn too_much_is_refused_and_damaged_tables_are_survived() {
    let dir = tempfile::tempdir().unwrap();
    let disk = write(dir.path(), "disk");
    let too_much = disk::write(&disk, &layout(), &[(3, &disk, 5 * MIB)]);
    assert!(matches!(too_much, Err(DiskError::TooLarge { number: 3, .. })));
    let mut odd = SIZES;
    odd.root += 1;
    assert!(matches!(DiskLayout::new(&odd, [0; 16], [[0; 16]; 7]), Err(DiskError::Size("root-a"))));
    let good = std::fs::read(dir.path().join("disk")).unwrap();
    for at in 512..1024 + 7 * 128 {
        let mut bad = good[..2 * MIB as usize].to_vec();
        bad.extend_from_slice(&good[good.len() - MIB as usize..]);
        bad[at] ^= 0x81;
        let _ = disk::read(&mut std::io::Cursor::new(bad));
    }
}

fn crc32(bytes: &[u8]) -> [u8; 4] {
    let crc = bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    (!crc).to_le_bytes()
}

/// Makes the checksums of the first header and its table right again, as an attacker would.
fn mend(disk: &mut [u8]) {
    let table = crc32(&disk[1024..1024 + 128 * 128]);
    disk[512 + 88..512 + 92].copy_from_slice(&table);
    disk[512 + 16..512 + 20].fill(0);
    let header = crc32(&disk[512..512 + 92]);
    disk[512 + 16..512 + 20].copy_from_slice(&header);
}

#[test]
fn hostile_tables_with_right_checksums_are_survived() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "disk");
    let whole = std::fs::read(dir.path().join("disk")).unwrap();
    // The tables alone: the reader looks for the second one at the end.
    let mut good = whole[..1024 + 128 * 128].to_vec();
    good.extend_from_slice(&whole[whole.len() - 512..]);
    mend(&mut good);
    assert_eq!(disk::read(&mut std::io::Cursor::new(good.clone())).unwrap().len(), 7);
    let read = |change: &dyn Fn(&mut [u8])| {
        let mut changed = good.clone();
        // The first entry: type (16 bytes), GUID (16 bytes), first and last block (UEFI 2.10, table 5.7).
        change(&mut changed[1024..1024 + 128]);
        mend(&mut changed);
        disk::read(&mut std::io::Cursor::new(changed))
    };
    assert_eq!(read(&|entry| entry[..16].fill(0)).unwrap().len(), 6, "an entry without a type is not used");
    let beyond = read(&|entry| {
        entry[32..40].copy_from_slice(&(1_u64 << 54).to_le_bytes());
        entry[40..48].copy_from_slice(&((1_u64 << 55) - 1).to_le_bytes());
    });
    assert!(beyond.is_err(), "a partition that ends at 2^64 is none");
    let mut accepted = 0;
    for at in (512..512 + 88).chain(1024..1024 + 8 * 128) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            mend(&mut bad);
            if let Ok(partitions) = disk::read(&mut std::io::Cursor::new(bad)) {
                accepted += usize::from(!partitions.is_empty());
            }
        }
    }
    assert!(accepted > 0, "no changed table came as far as its entries");
}
