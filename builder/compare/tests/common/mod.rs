//! Small releases, made with the writers that the builder uses.
#![allow(dead_code, clippy::unwrap_used)] // each test uses a part; a test fails by it

use ashlar_compare::ReleaseFolder;
use ashlar_formats::disk::{self, DiskLayout};
use ashlar_formats::erofs::{self, Compression, Plan};
use ashlar_formats::{cpio, esp, verity};
use ashlar_image::digest::Digest;
use ashlar_image::layout::{MIB, Sizes};
use ashlar_image::measure::{Event, Variant};
use ashlar_image::release::{Artifact, DiskImage, FORMAT, Package, Release, SlotArtifacts, Uki};
use ashlar_tree::{Metadata, Node, Tree};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

pub const TIME: i64 = 1_700_000_000;
const SIZES: Sizes = Sizes { esp: 48 * MIB, root: 8 * MIB, verity: MIB, state: MIB };

/// What a release is made of.
#[derive(Clone)]
pub struct Parts {
    pub root: Tree,
    pub initramfs: Tree,
    pub cmdline: String,
    pub kernel: Vec<u8>,
    pub level: i32,
    pub uuid: [u8; 16],
    pub compression: Compression,
    pub signature: Vec<u8>,
    pub serial: u32,
    pub packages: Vec<Package>,
    pub version: &'static str,
}

pub fn meta(mode: u32) -> Metadata {
    Metadata::root(mode, TIME)
}

pub fn package(part: &str, name: &str, version: &str) -> Package {
    Package {
        part: part.into(),
        name: name.into(),
        version: version.into(),
        architecture: "amd64".into(),
        sha256: Digest::of(format!("{name} {version}")),
    }
}

/// A program of some blocks, with text in it.
pub fn program() -> Vec<u8> {
    (0..20_000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect()
}

impl Default for Parts {
    fn default() -> Self {
        let mut root = Tree::new(meta(0o755));
        root.insert(b"/usr/bin/crun", Node::file(meta(0o755), program())).unwrap();
        root.insert(b"/usr/bin/small", Node::file(meta(0o755), *b"a tail of the inode")).unwrap();
        root.insert(b"/usr/lib/os-release", Node::file(meta(0o644), *b"ID=test\nBUILT=12:30:01\n")).unwrap();
        root.insert(b"/usr/lib/list", Node::file(meta(0o644), *b"one\ntwo\nthree\n")).unwrap();
        root.insert(b"/bin", Node::symlink(meta(0o777), "usr/bin")).unwrap();
        root.insert(b"/usr/lib/ashlar/modules/order", Node::file(meta(0o644), *b"dm.ko\nvirtio.ko\n"))
            .unwrap();
        let manifest = br#"{"image_id":"test","containers":{"web":{"command":["/web","--port=80"]}}}"#;
        root.insert(b"/usr/lib/ashlar/image.json", Node::file(meta(0o644), *manifest)).unwrap();
        let mut initramfs = Tree::new(meta(0o755));
        initramfs.insert(b"/init", Node::file(meta(0o755), program())).unwrap();
        initramfs.insert(b"/usr/lib/ashlar/modules/order", Node::file(meta(0o644), *b"erofs.ko\n")).unwrap();
        initramfs.insert(b"/usr/lib/ashlar/modules/erofs.ko", Node::file(meta(0o644), *b"module")).unwrap();
        Self {
            root,
            initramfs,
            cmdline: "console=ttyS0 panic=30".into(),
            kernel: b"kernel of some bytes".repeat(100),
            level: 3,
            uuid: [3; 16],
            compression: Compression::None,
            signature: b"signature".to_vec(),
            serial: 7,
            packages: vec![package("root", "crun", "1.21-1"), package("root", "libc6", "2.41-1")],
            version: "1",
        }
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// A signed x86-64 EFI file with these sections.
fn image(sections: &[(&str, &[u8])], signature: &[u8]) -> Vec<u8> {
    const HEADERS: usize = 0x400;
    let mut b = vec![0; HEADERS];
    put(&mut b, 0, b"MZ");
    put(&mut b, 0x3c, &0x40u32.to_le_bytes());
    put(&mut b, 0x40, b"PE\0\0");
    put(&mut b, 0x44, &0x8664u16.to_le_bytes());
    put(&mut b, 0x46, &u16::try_from(sections.len()).unwrap().to_le_bytes());
    put(&mut b, 0x54, &240u16.to_le_bytes());
    let o = 0x58;
    put(&mut b, o, &0x20bu16.to_le_bytes());
    put(&mut b, o + 32, &0x1000u32.to_le_bytes());
    put(&mut b, o + 36, &0x200u32.to_le_bytes());
    put(&mut b, o + 60, &(HEADERS as u32).to_le_bytes());
    put(&mut b, o + 68, &10u16.to_le_bytes());
    put(&mut b, o + 108, &16u32.to_le_bytes());
    let mut address = 0x1000u32;
    for (i, (name, content)) in sections.iter().enumerate() {
        let (header, raw, size) = (o + 240 + i * 40, b.len() as u32, content.len() as u32);
        put(&mut b, header, name.as_bytes());
        put(&mut b, header + 8, &size.to_le_bytes());
        put(&mut b, header + 12, &address.to_le_bytes());
        put(&mut b, header + 16, &size.next_multiple_of(0x200).to_le_bytes());
        put(&mut b, header + 20, &raw.to_le_bytes());
        put(&mut b, header + 36, &0x4000_0040u32.to_le_bytes());
        b.extend(*content);
        b.resize(b.len().next_multiple_of(0x200), 0);
        address += size.next_multiple_of(0x1000).max(0x1000);
    }
    let (start, length) = (b.len() as u32, signature.len().next_multiple_of(8));
    b.extend(signature);
    b.resize(start as usize + length, 0);
    put(&mut b, o + 112 + 32, &start.to_le_bytes());
    put(&mut b, o + 112 + 36, &(length as u32).to_le_bytes());
    b
}

fn artifact(folder: &Path, name: &str) -> Artifact {
    let bytes = std::fs::read(folder.join(name)).unwrap();
    Artifact { file: name.into(), size: bytes.len() as u64, sha256: Digest::of(&bytes) }
}

/// Writes a release and opens it.
pub fn write(folder: &Path, parts: &Parts) -> ReleaseFolder {
    std::fs::create_dir_all(folder.join("secure-boot")).unwrap();
    let options = erofs::Options {
        uuid: parts.uuid,
        volume_name: "root".into(),
        build_time: TIME,
        compression: parts.compression,
        ..erofs::Options::default()
    };
    let plan = Plan::new(&parts.root, options).unwrap();
    let root =
        File::options().read(true).write(true).create_new(true).open(folder.join("root.erofs")).unwrap();
    plan.write(&root).unwrap();
    let mut tree = Vec::new();
    let verity_root = verity::write(&root, plan.size(), [9; 32], [4; 16], &mut tree).unwrap();
    std::fs::write(folder.join("root.verity"), &tree).unwrap();

    let mut archive = Vec::new();
    cpio::write(&parts.initramfs, &mut archive).unwrap();
    let initrd = zstd::bulk::compress(&archive, parts.level).unwrap();
    let cmdline = format!("{} {verity_root}", parts.cmdline);
    let policy = format!("{{\"sha256\":\"{}\"}}", Digest::of(&cmdline));
    let sections: Vec<(&str, &[u8])> = vec![
        (".text", &[0xc3; 16]),
        (".sdmagic", b"#### LoaderInfo: systemd-stub 257.13 ####"),
        (".linux", &parts.kernel),
        (".osrel", b"ID=test\nVERSION=1\n"),
        (".cmdline", cmdline.as_bytes()),
        (".initrd", &initrd),
        (".pcrsig", policy.as_bytes()),
    ];
    let uki = image(&sections, &parts.signature);
    std::fs::write(folder.join("uki.efi"), &uki).unwrap();
    std::fs::write(folder.join("secure-boot/db.crt"), "certificate\n").unwrap();
    let esp_options =
        esp::EspOptions { size: SIZES.esp, serial: parts.serial, label: "ESP".into(), time: TIME };
    let esp_path = folder.join("esp.img");
    esp::write(&uki, &esp_options, File::create(&esp_path).unwrap()).unwrap();
    let layout = DiskLayout::new(&SIZES, [1; 16], [[2; 16]; 7].map(|guid| guid)).unwrap();
    let out = File::options().read(true).write(true).create_new(true).open(folder.join("disk.raw")).unwrap();
    let files = ["esp.img", "root.erofs", "root.verity"].map(|name| File::open(folder.join(name)).unwrap());
    let lengths = files.each_ref().map(|file| file.metadata().unwrap().len());
    let contents: Vec<(u32, &File, u64)> =
        (1..).zip(&files).zip(lengths).map(|((n, f), l)| (n, f, l)).collect();
    disk::write(&out, &layout, &contents).unwrap();

    let of_section = |name: &str, content: &[u8]| Event::of(format!("{name} contents"), content);
    let events =
        sections.iter().filter(|(name, _)| *name != ".pcrsig").map(|(n, c)| of_section(n, c)).collect();
    let release = Release {
        format: FORMAT,
        image_id: "test".into(),
        image_version: parts.version.into(),
        architecture: None,
        security_version: 1,
        build_time: TIME,
        kernel: "6.12".into(),
        partition_sizes: SIZES,
        slot: SlotArtifacts {
            esp: artifact(folder, "esp.img"),
            root: artifact(folder, "root.erofs"),
            verity: artifact(folder, "root.verity"),
        },
        disk: DiskImage { file: "disk.raw".into(), size: out.metadata().unwrap().len() },
        root_hash: verity_root.root_hash,
        uki: Uki {
            artifact: artifact(folder, "uki.efi"),
            authenticode: Digest::of(&uki),
            kernel_authenticode: Digest::of(&parts.kernel),
            stub_version: "257.13".into(),
            cmdline: cmdline.clone(),
            sections: sections
                .iter()
                .map(|(name, content)| ((*name).to_owned(), Digest::of(content)))
                .collect(),
        },
        pcrs: BTreeMap::from([(11, vec![Variant::new("after ready", events)])]),
        init: Digest::of(program()),
        control: None,
        update: None,
        state_policy: None,
        hardening: Vec::new(),
        packages: parts.packages.clone(),
    };
    std::fs::write(folder.join("release.json"), serde_json::to_vec_pretty(&release).unwrap()).unwrap();
    ReleaseFolder::open(folder).unwrap()
}

/// Changes bytes of a file of a release.
pub fn patch(folder: &ReleaseFolder, file: &str, at: u64, bytes: &[u8]) -> ReleaseFolder {
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(folder.path().join(file)).unwrap();
    file.write_all_at(bytes, at).unwrap();
    ReleaseFolder::open(folder.path()).unwrap()
}

/// Where `needle` first is in a file of a release.
pub fn find(folder: &ReleaseFolder, file: &str, needle: &[u8]) -> u64 {
    let bytes = std::fs::read(folder.path().join(file)).unwrap();
    bytes.windows(needle.len()).position(|window| window == needle).unwrap() as u64
}
