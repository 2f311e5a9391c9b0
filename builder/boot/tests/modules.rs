//! The module closure on modules made here, and on a kernel package of Debian where one is unpacked.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_boot::modules::{self, ModuleError};
use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

const VERSION: &str = "6.12-test";

/// An ELF file with nothing but `.modinfo`.
fn module(strings: &[&str]) -> Vec<u8> {
    let mut data: Vec<u8> = Vec::new();
    for string in strings {
        data.extend_from_slice(string.as_bytes());
        data.push(0);
    }
    let names = b"\0.modinfo\0.shstrtab\0";
    let (data_at, names_at) = (64, 64 + data.len());
    let table_at = (names_at + names.len()).next_multiple_of(8);
    let mut b = vec![0; table_at + 3 * 64];
    let put = |b: &mut Vec<u8>, at: usize, value: &[u8]| b[at..at + value.len()].copy_from_slice(value);
    put(&mut b, 0, b"\x7fELF\x02\x01\x01");
    put(&mut b, 16, &1u16.to_le_bytes());
    put(&mut b, 18, &62u16.to_le_bytes());
    put(&mut b, 20, &1u32.to_le_bytes());
    put(&mut b, 40, &(table_at as u64).to_le_bytes());
    put(&mut b, 52, &64u16.to_le_bytes());
    put(&mut b, 58, &64u16.to_le_bytes());
    put(&mut b, 60, &3u16.to_le_bytes());
    put(&mut b, 62, &2u16.to_le_bytes());
    put(&mut b, data_at, &data);
    put(&mut b, names_at, names);
    for (i, name, kind, at, len) in [(1, 1u32, 1u32, data_at, data.len()), (2, 10, 3, names_at, names.len())]
    {
        let s = table_at + i * 64;
        put(&mut b, s, &name.to_le_bytes());
        put(&mut b, s + 4, &kind.to_le_bytes());
        put(&mut b, s + 24, &(at as u64).to_le_bytes());
        put(&mut b, s + 32, &(len as u64).to_le_bytes());
    }
    b.extend_from_slice(b"~Module signature appended~\n");
    b
}

fn tree(files: &[(&str, Vec<u8>)]) -> Tree {
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    let mut add = |path: &str, bytes: Vec<u8>| {
        let path = format!("/usr/lib/modules/{VERSION}/{path}");
        tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, 0), bytes)).unwrap();
    };
    add(
        "modules.builtin",
        b"kernel/drivers/virtio/virtio_pci.ko\nkernel/crypto/sha256_generic.ko\n".to_vec(),
    );
    add("modules.builtin.modinfo", b"sha256_generic.alias=sha256\0sha256_generic.license=GPL\0".to_vec());
    for (path, bytes) in files {
        add(path, bytes.clone());
    }
    tree
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A kernel like Debian's around dm-verity and erofs.
fn kernel() -> Tree {
    let m = |name: &str, depends: &str, rest: &[&str]| {
        let (name, depends) = (format!("name={name}"), format!("depends={depends}"));
        module(&[&["license=GPL", &name, &depends], rest].concat())
    };
    tree(&[
        ("kernel/drivers/md/dm-mod.ko.xz", xz(&m("dm_mod", "", &[]))),
        (
            "kernel/drivers/md/dm-bufio.ko.zst",
            zstd::encode_all(m("dm_bufio", "dm-mod", &[]).as_slice(), 1).unwrap(),
        ),
        (
            "kernel/drivers/md/dm-verity.ko.gz",
            gzip(&m("dm_verity", "dm-mod,dm-bufio,sha256_generic", &["softdep=pre: sha256"])),
        ),
        ("kernel/fs/erofs/erofs.ko", m("erofs", "libcrc32c", &[])),
        ("kernel/lib/libcrc32c.ko", m("libcrc32c", "", &["softdep=pre: crc32c absent post: erofs"])),
        (
            "kernel/crypto/crc32c_generic.ko",
            m("crc32c_generic", "", &["alias=crc32c", "alias=crypto-crc32c"]),
        ),
        ("kernel/arch/x86/crypto/crc32c-intel.ko", m("crc32c_intel", "", &["alias=crc32c"])),
        ("kernel/drivers/crypto/other.ko", m("other", "", &["alias=crc32c"])),
    ])
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn dependencies_come_first_and_once() {
    let closure = modules::closure(
        &kernel(),
        VERSION,
        &names(&["virtio-pci", "erofs", "dm-verity", "dm_mod", "sha256_generic"]),
    )
    .unwrap();
    let order: Vec<&str> = closure.modules.iter().map(|module| module.file_name.as_str()).collect();
    assert_eq!(
        order,
        [
            "crc32c_generic.ko",
            "crc32c-intel.ko",
            "libcrc32c.ko",
            "erofs.ko",
            "dm-mod.ko",
            "dm-bufio.ko",
            "dm-verity.ko"
        ]
    );
    assert_eq!(closure.built_in, ["virtio-pci", "sha256_generic"]);
    let verity = closure.modules.last().unwrap();
    assert_eq!(verity.name, "dm_verity");
    assert!(verity.bytes.starts_with(b"\x7fELF") && verity.bytes.ends_with(b"~Module signature appended~\n"));
}

#[test]
fn an_unknown_module_names_its_neighbours() {
    let error = modules::closure(&kernel(), VERSION, &names(&["dm-verify"])).unwrap_err();
    assert!(error.to_string().contains("did you mean dm_verity"), "{error}");
    let error = modules::closure(&kernel(), VERSION, &names(&["qqqq"])).unwrap_err();
    assert_eq!(error.to_string(), "the kernel has no module `qqqq`");
}

#[test]
fn what_the_kernel_build_would_never_make_is_refused() {
    let m = |name: &str, depends: &str| module(&[&format!("name={name}"), &format!("depends={depends}")]);
    let closure = |files: &[(&str, Vec<u8>)]| modules::closure(&tree(files), VERSION, &names(&["a"]));
    let circle = closure(&[("kernel/a.ko", m("a", "b")), ("kernel/b.ko", m("b", "a"))]);
    assert!(matches!(circle, Err(ModuleError::Circle(_))));
    let missing = closure(&[("kernel/a.ko", m("a", "b"))]);
    assert!(matches!(missing, Err(ModuleError::Incomplete { needs, .. }) if needs == "b"));
    let twice = closure(&[("kernel/a.ko", m("a", "")), ("updates/a.ko.xz", xz(&m("a", "")))]);
    assert!(matches!(twice, Err(ModuleError::Twice { .. })));
    let other = closure(&[("kernel/a.ko", m("b", ""))]);
    assert!(matches!(other, Err(ModuleError::Damaged { .. })));
    // Wishes may go in a circle.
    let wish = |name: &str, other: &str| {
        module(&[&format!("name={name}"), "depends=", &format!("softdep=pre: {other}")])
    };
    let wishes = closure(&[("kernel/a.ko", wish("a", "b")), ("kernel/b.ko", wish("b", "a"))]).unwrap();
    assert_eq!(wishes.modules.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn damaged_modules_are_errors_not_panics() {
    let good = module(&["license=GPL", "name=a", "depends=b,c", "softdep=pre: d"]);
    assert_eq!(modules::info(&good).unwrap().depends, ["b", "c"]);
    for length in 0..good.len() - 28 {
        let _ = modules::info(&good[..length]);
    }
    for at in 0..good.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut changed = good.clone();
            changed[at] = value;
            let _ = modules::info(&changed);
        }
    }
    let packed = xz(&good);
    for length in [0, 1, packed.len() / 2, packed.len() - 1] {
        let tree = tree(&[("kernel/a.ko.xz", packed[..length].to_vec())]);
        let error = modules::closure(&tree, VERSION, &names(&["a"])).unwrap_err();
        assert!(matches!(error, ModuleError::Damaged { .. }), "{error}");
    }
}

/// Adds a folder of the host to the tree.
fn add(tree: &mut Tree, host: &Path, path: &str) {
    for entry in std::fs::read_dir(host).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{path}/{}", entry.file_name().into_string().unwrap());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            add(tree, &entry.path(), &path);
        } else if kind.is_file() {
            let len = entry.metadata().unwrap().len();
            let content = Content::Range { path: Arc::new(entry.path()), offset: 0, len };
            let node = Node { metadata: Metadata::root(0o644, 0), kind: Kind::File(content) };
            tree.insert(path.as_bytes(), node).unwrap();
        }
    }
}

/// On an unpacked Debian kernel package; `ASHLAR_TEST_KERNEL` names the folder that it is unpacked in.
#[test]
fn debians_kernel_has_what_the_example_needs() {
    let Some(folder) = std::env::var_os("ASHLAR_TEST_KERNEL") else {
        eprintln!("skipped: ASHLAR_TEST_KERNEL names no folder with an unpacked linux-image package");
        return;
    };
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    add(&mut tree, &Path::new(&folder).join("usr/lib/modules"), "/usr/lib/modules");
    let version = ashlar_boot::kernel::version(&tree).unwrap();
    let wanted = names(&[
        "virtio_pci",
        "virtio_blk",
        "virtio_scsi",
        "nvme",
        "ahci",
        "sd_mod",
        "efivarfs",
        "tpm_tis",
        "tpm_crb",
        "dm_mod",
        "dm_verity",
        "erofs",
        "virtio_net",
        "e1000e",
        "overlay",
        "af_packet",
        "button",
    ]);
    let start = std::time::Instant::now();
    let closure = modules::closure(&tree, &version, &wanted).unwrap();
    println!(
        "{} modules in {:?}: {:?}",
        closure.modules.len(),
        start.elapsed(),
        closure.modules.iter().map(|m| &m.name).collect::<Vec<_>>()
    );
    let place = |name: &str| closure.modules.iter().position(|module| module.name == name).unwrap();
    for (before, after) in [
        ("dm_mod", "dm_bufio"),
        ("dm_bufio", "dm_verity"),
        ("reed_solomon", "dm_verity"),
        ("libcrc32c", "erofs"),
        ("crc32c_generic", "libcrc32c"),
        ("nvme_core", "nvme"),
        ("libata", "libahci"),
        ("libahci", "ahci"),
        ("net_failover", "virtio_net"),
    ] {
        assert!(place(before) < place(after), "{before} must be loaded before {after}");
    }
    assert_eq!(closure.built_in, ["virtio_pci", "tpm_tis", "tpm_crb", "af_packet"]);
    assert_eq!(closure, modules::closure(&tree, &version, &wanted).unwrap());
}
