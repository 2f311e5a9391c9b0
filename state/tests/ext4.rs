//! Our ext4 before e2fsprogs and the kernel.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_state::Uuid;
use ashlar_state::ext4::{self, Ext4Super, Params};
use ashlar_state::memory::MemoryDevice;
use common::{Numbers, tool, unable};
use std::path::Path;

const MIB: u64 = 1 << 20;

fn params() -> Params<'static> {
    Params {
        label: "ashlar-state",
        uuid: Uuid::from_random([0x77; 16]),
        hash_seed: [0x31; 16],
        time: 1_700_000_000,
    }
}

/// A sparse file with a file system. `noise` puts something else onto it before.
fn made(size: u64, noise: bool) -> tempfile::NamedTempFile {
    let mut device = MemoryDevice::new(size);
    if noise {
        let mut bytes = vec![0; 12 << 20];
        Numbers(size).fill(&mut bytes).unwrap();
        device.put(&bytes, 0);
        device.put(&bytes[..65536], 128 * MIB);
    }
    ext4::make(&mut device, &params()).unwrap();
    common::file(&device)
}

/// `e2fsck -fn`: clean, and nothing to mend or to remark.
fn check(path: &Path, what: &str) -> bool {
    let Some(checked) = tool("e2fsprogs", "e2fsck", &["-f", "-n", path.to_str().unwrap()], b"") else {
        return false;
    };
    assert_eq!(checked.code, Some(0), "{what}: {}", checked.text);
    for word in ["<y>", "WARNING", "corrupt", "FIXED", "invalid"] {
        assert!(!checked.text.contains(word), "{what}: {}", checked.text);
    }
    true
}

#[test]
fn clean_to_e2fsck_at_many_sizes() {
    let sizes = [
        64 * MIB,
        64 * MIB + 4096,
        100 * MIB + 12_345,
        127 * MIB,
        128 * MIB,
        // A last group that is too small to be one, and one that is just large enough.
        128 * MIB + 100 * 4096,
        256 * MIB + 49 * 4096,
        256 * MIB + 50 * 4096,
        300 * MIB,
        384 * MIB,
        512 * MIB + 60 * 4096,
        // Around the journal in a group of its own.
        640 * MIB,
        1023 * MIB,
        1024 * MIB,
        2048 * MIB,
        // A second flexible group that begins with the last group.
        2048 * MIB + 200 * 4096,
        2048 * MIB + 2000 * 4096,
        8192 * MIB - 4096,
        16384 * MIB,
        // More group descriptors than one block has.
        100 * 1024 * MIB + 7 * MIB,
        1 << 40,
    ];
    for size in sizes {
        let noise = size % (3 * MIB) == 0;
        if !check(made(size, noise).path(), &format!("{size} bytes")) {
            return;
        }
    }
}

#[test]
fn huge_ones_take_little() {
    // What is written, not how long it takes: about 24 copies of the descriptors, and a block for each 2 GiB.
    for (size, most) in [(4 << 40, 64 * MIB), (16 << 40, 256 * MIB)] {
        let mut device = MemoryDevice::new(size);
        ext4::make(&mut device, &params()).unwrap();
        let written: u64 = device
            .events()
            .iter()
            .map(|event| match event {
                ashlar_state::memory::Event::Write { data, .. } => data.len() as u64,
                ashlar_state::memory::Event::Flush => 0,
            })
            .sum();
        assert!(written < most, "{size}: {written}");
        if size > 4 << 40 {
            // e2fsck would take longer than the other tests together.
            continue;
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        if device.save(file.as_file()).is_err() {
            return unable("the folder of temporary files does not hold a sparse file of 4 TiB");
        }
        let path = file.path().to_str().unwrap().to_owned();
        let Some(dump) = tool("e2fsprogs", "dumpe2fs", &["-h", &path], b"") else { return };
        assert!(dump.success && dump.text.contains("Block count:              1073741824"), "{}", dump.text);
    }
}

#[test]
fn as_dumpe2fs_reads_it() {
    let file = made(4096 * MIB, true);
    let Some(dump) = tool("e2fsprogs", "dumpe2fs", &[file.path().to_str().unwrap()], b"") else { return };
    assert!(dump.success, "{}", dump.text);
    for line in [
        "Filesystem volume name:   ashlar-state",
        &format!("Filesystem UUID:          {}", params().uuid),
        "has_journal ext_attr dir_index filetype extent 64bit flex_bg sparse_super large_file huge_file dir_nlink extra_isize metadata_csum",
        "Filesystem state:         clean",
        "Errors behavior:          Remount read-only",
        "Block size:               4096",
        "Group descriptor size:    64",
        "Inode size:\t          256",
        "Flex block group size:    16",
        "Default directory hash:   half_md4",
        "Checksum type:            crc32c",
        "Total journal size:       64M",
        "Journal start:            0",
        "[INODE_UNINIT, BLOCK_UNINIT]",
    ] {
        assert!(dump.text.contains(line), "{line} is not in\n{}", dump.text);
    }
}

/// e2fsprogs' own file system of the same size has the same free blocks as ours, up to what we decide otherwise.
#[test]
fn beside_mke2fs() {
    let ours = made(1024 * MIB, false);
    let theirs = common::file(&MemoryDevice::new(1024 * MIB));
    let path = theirs.path().to_str().unwrap();
    let options = ["-q", "-F", "-t", "ext4", "-O", "^resize_inode", "-J", "size=32", path];
    let Some(made) = tool("e2fsprogs", "mke2fs", &options, b"") else { return };
    assert!(made.success, "{}", made.text);
    let field = |path: &Path, name: &str| {
        let dump = tool("e2fsprogs", "dumpe2fs", &["-h", path.to_str().unwrap()], b"").unwrap().text;
        dump.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name} in {dump}"))
            .to_owned()
    };
    for name in [
        "Inode count:",
        "Block count:",
        "Overhead clusters:",
        "Free blocks:",
        "Free inodes:",
        "Blocks per group:",
    ] {
        assert_eq!(field(ours.path(), name), field(theirs.path(), name));
    }
    let theirs = Ext4Super::read(&std::fs::File::open(theirs.path()).unwrap()).unwrap();
    assert!(theirs.clean && theirs.blocks == 1 << 18);
    let ours = Ext4Super::read(&std::fs::File::open(ours.path()).unwrap()).unwrap();
    assert!(ours.clean && ours.label == "ashlar-state" && ours.uuid == params().uuid);
}

/// A mount that ends with the value.
struct Mount(tempfile::TempDir);

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = tool("mount", "umount", &[self.0.path().to_str().unwrap()], b"");
        assert!(std::thread::panicking() || unmounted.is_some_and(|ended| ended.success));
    }
}

/// Mounts it through a loop device; none, with the reason said, where that cannot be.
fn mount(path: &Path) -> Option<Mount> {
    let folder = tempfile::tempdir().unwrap();
    let places = [path.to_str().unwrap(), folder.path().to_str().unwrap()];
    let mounted = tool("mount", "mount", &[&["-t", "ext4", "-o", "loop"][..], &places].concat(), b"")?;
    if mounted.success {
        return Some(Mount(folder));
    }
    let no_loop = ["loop device", "unknown filesystem", "permission", "superuser"];
    assert!(no_loop.iter().any(|why| mounted.text.contains(why)), "{}", mounted.text);
    unable(&format!("a file cannot be mounted here: {}", mounted.text.trim()));
    None
}

#[test]
fn the_kernel_fills_it() {
    if !rustix::process::geteuid().is_root() {
        return unable("root is needed to mount");
    }
    for size in [64 * MIB, 256 * MIB, 3 * 1024 * MIB] {
        let file = made(size, true);
        {
            let Some(mount) = mount(file.path()) else { return };
            let root = mount.0.path();
            assert!(root.join("lost+found").is_dir());
            // Folders with many names, in groups that were not initialized; a file across several groups.
            for folder in 0..40 {
                let folder = root.join(format!("folder-{folder}"));
                std::fs::create_dir(&folder).unwrap();
                for file in 0..50 {
                    std::fs::write(folder.join(format!("file-{file}")), vec![file; 3000]).unwrap();
                }
            }
            std::fs::write(root.join("large"), vec![0x5a; size as usize / 8]).unwrap();
            let found = Ext4Super::read(&std::fs::File::open(file.path()).unwrap()).unwrap();
            assert!(found.needs_recovery && !found.clean && !found.errors, "{found:?}");
        }
        assert!(check(file.path(), &format!("{size} bytes after use")));
        let Some(mount) = mount(file.path()) else { return };
        assert_eq!(std::fs::read(mount.0.path().join("folder-39/file-49")).unwrap(), vec![49; 3000]);
        assert_eq!(std::fs::metadata(mount.0.path().join("large")).unwrap().len(), size / 8);
    }
}

#[test]
fn what_cannot_be() {
    let refusal = |size, params: &Params<'_>| {
        let mut device = MemoryDevice::new(size);
        let error = ext4::make(&mut device, params).unwrap_err();
        assert!(device.events().is_empty());
        error.to_string()
    };
    assert!(refusal(64 * MIB - 1, &params()).contains("64 MiB to 16 TiB"));
    assert!(refusal((16 << 40) + 4096, &params()).contains("64 MiB to 16 TiB"));
    assert!(refusal(64 * MIB, &Params { label: "seventeen letters", ..params() }).contains("16 bytes"));
    assert!(refusal(64 * MIB, &Params { label: "a\0", ..params() }).contains("NUL"));
    assert!(matches!(Ext4Super::read(&MemoryDevice::new(100)), Err(ashlar_state::Ext4Error::None)));
}
