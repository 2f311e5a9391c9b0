//! Random trees, and their comparison with a folder of the host.
#![allow(dead_code, clippy::unwrap_used)] // each test uses a part of it; a test fails by unwrap

use super::{noise, prose};
use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

/// Time of most nodes.
pub const TIME: i64 = 1_700_000_000;

/// `cases`, or what `ASHLAR_PROPTEST_CASES` says; the seed is fixed, or what `ASHLAR_PROPTEST_SEED` says.
pub fn config(cases: u32) -> Config {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("ASHLAR_PROPTEST_SEED").unwrap_or(20_260_101);
    let cases = number("ASHLAR_PROPTEST_CASES").and_then(|n| u32::try_from(n).ok()).unwrap_or(cases);
    eprintln!("{cases} cases from seed {seed} (ASHLAR_PROPTEST_CASES, ASHLAR_PROPTEST_SEED)");
    Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    }
}

/// What a format can hold.
#[derive(Debug, Clone, Copy)]
pub struct Holds {
    pub xattrs: bool,
    pub sockets: bool,
}

/// A part of a file's content.
#[derive(Debug, Clone)]
pub enum Piece {
    Prose(usize, u32),
    Noise(usize, u32),
    Zeros(usize),
}

#[derive(Debug, Clone)]
pub enum What {
    /// Pieces, and whether they lie in a file of the host.
    File(Vec<Piece>, bool),
    Directory,
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
    Socket,
}

/// A node to be put into a tree.
#[derive(Debug, Clone)]
pub struct Spec {
    folders: Vec<&'static [u8]>,
    name: Vec<u8>,
    what: What,
    metadata: Metadata,
}

/// Nodes, and further names for some of the files among them.
pub type Specs = (Vec<Spec>, Vec<Index>);

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'z', 1 => any::<u8>().prop_map(|b| if b == 0 || b == b'/' { b'_' } else { b })];
    prop_oneof![8 => vec(byte.clone(), 1..20), 1 => vec(byte.clone(), 255), 1 => vec(byte, 200..=255)]
        .prop_filter("a name", |name| name != b"." && name != b"..")
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        3 => 0..200_usize,
        3 => (0..24_usize, 0..140_usize).prop_map(|(blocks, more)| (blocks * 4096 + more).saturating_sub(70)),
        2 => 0..300_000_usize,
        1 => (0..3_usize, 0..9_usize).prop_map(|(windows, more)| (windows << 20 | more).saturating_sub(4)),
    ]
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        3 => (length(), any::<u32>()).prop_map(|(length, seed)| Piece::Prose(length, seed)),
        2 => (length(), any::<u32>()).prop_map(|(length, seed)| Piece::Noise(length, seed)),
        1 => length().prop_map(Piece::Zeros),
    ]
}

fn what(holds: Holds) -> impl Strategy<Value = What> {
    prop_oneof![
        12 => (vec(piece(), 0..4), any::<bool>()).prop_map(|(pieces, host)| What::File(pieces, host)),
        2 => Just(What::Directory),
        2 => vec(b'a'..=b'z', 1..60).prop_map(What::Symlink),
        1 => vec(b'a'..=b'z', 3900..4090).prop_map(What::Symlink),
        1 => (0..4096_u32, 0..0x10_0000_u32).prop_map(|(major, minor)| What::Char(major, minor)),
        1 => (0..4096_u32, 0..0x10_0000_u32).prop_map(|(major, minor)| What::Block(major, minor)),
        1 => Just(What::Fifo),
        1 => Just(if holds.sockets { What::Socket } else { What::Fifo }),
    ]
}

fn metadata(holds: Holds) -> impl Strategy<Value = Metadata> {
    let owner = || prop_oneof![3 => Just(0_u32), 2 => 1..65_536_u32, 1 => 65_536..4_000_000_000_u32];
    let time = prop_oneof![3 => Just(TIME), 1 => -1_000_000_000..10_000_000_000_i64];
    let key = (select(vec![&b"user."[..], b"trusted.", b"security."]), vec(b'a'..=b'z', 1..200));
    let key = key.prop_map(|(prefix, rest)| [prefix, &rest].concat());
    let value = prop_oneof![
        6 => vec(any::<u8>(), 0..40),
        // The same for many files.
        3 => Just(vec![b's'; 100]),
        1 => (0..60_000_usize).prop_map(|length| noise(length, 9)),
    ];
    let count =
        if holds.xattrs { prop_oneof![8 => 0..3_usize, 1 => 3..60_usize].boxed() } else { Just(0).boxed() };
    let attributes = count.prop_flat_map(move |count| btree_map(key.clone(), value.clone(), count));
    (0..0o10000_u32, owner(), owner(), time, attributes).prop_map(|(mode, uid, gid, mtime, mut xattrs)| {
        let mut left = 200_000_usize;
        // Together they must fit an inode.
        xattrs.retain(|name, value| {
            let fits = name.len() + value.len() + 8 <= left;
            left -= if fits { name.len() + value.len() + 8 } else { 0 };
            fits
        });
        Metadata { mode, uid, gid, mtime, xattrs }
    })
}

/// Trees of up to 40 nodes.
pub fn specs(holds: Holds) -> impl Strategy<Value = Specs> {
    let folders = vec(select(vec![&b"usr"[..], b"lib", b"\xff\xfe", b"share", b"x"]), 0..5);
    let spec = (folders, name(), what(holds), metadata(holds));
    let spec = spec.prop_map(|(folders, name, what, metadata)| Spec { folders, name, what, metadata });
    (vec(spec, 0..40), vec(any::<Index>(), 0..5))
}

fn bytes(pieces: &[Piece]) -> Vec<u8> {
    let bytes = |piece: &Piece| match piece {
        Piece::Prose(length, seed) => prose(*length, *seed),
        Piece::Noise(length, seed) => noise(*length, u64::from(*seed)),
        Piece::Zeros(length) => vec![0; *length],
    };
    pieces.iter().flat_map(bytes).collect()
}

/// The tree; contents of the host lie in a new file in `folder`.
pub fn build((specs, links): &Specs, folder: &Path) -> Tree {
    let source = Arc::new(folder.join("source"));
    let mut host = fs::File::create(source.as_path()).unwrap();
    let mut offset = 0;
    let mut tree = Tree::new(Metadata::root(0o755, TIME));
    for spec in specs {
        let mut metadata = spec.metadata.clone();
        let kind = match &spec.what {
            What::File(pieces, false) => Kind::File(Content::Inline(bytes(pieces).into())),
            What::File(pieces, true) => {
                let bytes = bytes(pieces);
                host.write_all(&bytes).unwrap();
                let start = offset;
                offset += bytes.len() as u64;
                Kind::File(Content::Range { path: source.clone(), offset: start, len: bytes.len() as u64 })
            }
            What::Directory => Kind::Directory(BTreeMap::new()),
            What::Symlink(target) => Kind::Symlink(target.clone()),
            What::Char(major, minor) => Kind::CharDevice { major: *major, minor: *minor },
            What::Block(major, minor) => Kind::BlockDevice { major: *major, minor: *minor },
            What::Fifo => Kind::Fifo,
            What::Socket => Kind::Socket,
        };
        match kind {
            // An ordinary user reads them back, too.
            Kind::Directory(_) => metadata.mode |= 0o700,
            Kind::File(_) => metadata.mode |= 0o400,
            // The kernel lets only files and folders have them.
            _ => metadata.xattrs.retain(|name, _| !name.starts_with(b"user.")),
        }
        if matches!(kind, Kind::Symlink(_)) {
            metadata.mode = 0o777;
        }
        let mut path = Vec::new();
        for folder in &spec.folders {
            path.push(b'/');
            path.extend_from_slice(folder);
        }
        path.push(b'/');
        path.extend_from_slice(&spec.name);
        // A name that is taken by another kind stays what it is.
        let _ = tree.insert(&path, Node { metadata, kind });
    }
    let mut files = Vec::new();
    tree.walk(|path, node| {
        if matches!(node.kind, Kind::File(_)) {
            files.push(path.to_vec());
        }
    });
    for (number, index) in links.iter().enumerate() {
        let name = format!("/hard-link-{number}");
        if !files.is_empty() && tree.get(name.as_bytes()).is_none() {
            let kind = Kind::HardLink(index.get(&files).clone());
            tree.insert(name.as_bytes(), Node { metadata: Metadata::default(), kind }).unwrap();
        }
    }
    tree
}

/// What of a folder is compared.
#[derive(Debug, Clone, Copy)]
pub struct Compared {
    /// Bits of the mode.
    pub mode: u32,
    pub owner: bool,
    pub time: bool,
    /// Also of folders, links, pipes and devices, which not every tool sets.
    pub other_times: bool,
    pub xattrs: bool,
    pub devices: bool,
}

/// Fails if `folder` is not what `tree` says.
pub fn compare(tree: &Tree, folder: &Path, compared: Compared, what: &str) {
    let mut inodes: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut links: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    tree.walk(|_, node| {
        if let Kind::HardLink(target) = &node.kind {
            *links.entry(target.clone()).or_insert(1) += 1;
        }
    });
    tree.walk(|path, node| {
        let (real_path, real) = match &node.kind {
            Kind::HardLink(target) => (target.as_slice(), tree.get(target).unwrap()),
            _ => (path, node),
        };
        let is_device = matches!(real.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. });
        if is_device && !compared.devices {
            return;
        }
        let say = format!("{what}: `{}`", String::from_utf8_lossy(path));
        let at = folder.join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap()));
        let found = fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("{say}: {error}"));
        match &real.kind {
            Kind::File(content) => {
                let got = fs::read(&at).unwrap_or_else(|error| panic!("{say}: {error}"));
                let expected = content.read().unwrap();
                assert_eq!(got.len(), expected.len(), "{say}");
                let differs = got.iter().zip(&expected).position(|(a, b)| a != b);
                assert_eq!(differs, None, "{say}: first other byte");
                assert_eq!(*inodes.entry(real_path.to_vec()).or_insert(found.ino()), found.ino(), "{say}");
                assert_eq!(found.nlink(), links.get(real_path).copied().unwrap_or(1), "{say}");
            }
            Kind::Symlink(target) => {
                assert_eq!(fs::read_link(&at).unwrap().as_os_str().as_bytes(), target, "{say}");
            }
            Kind::Directory(entries) => {
                assert!(found.is_dir(), "{say}");
                // Devices that could not be made are missing.
                if compared.devices {
                    assert_eq!(fs::read_dir(&at).unwrap().count(), entries.len(), "{say}");
                }
            }
            Kind::Fifo => assert!(found.file_type().is_fifo(), "{say}"),
            Kind::Socket => assert!(found.file_type().is_socket(), "{say}"),
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
                assert_eq!(found.rdev(), rustix::fs::makedev(*major, *minor), "{say}");
                assert_eq!(
                    found.file_type().is_char_device(),
                    matches!(real.kind, Kind::CharDevice { .. }),
                    "{say}"
                );
            }
            Kind::HardLink(_) => unreachable!("resolved"),
        }
        if path == b"/" {
            return;
        }
        let metadata = &real.metadata;
        if !matches!(real.kind, Kind::Symlink(_)) {
            assert_eq!(found.mode() & compared.mode, metadata.mode & compared.mode, "{say}: mode");
        }
        if compared.owner {
            assert_eq!((found.uid(), found.gid()), (metadata.uid, metadata.gid), "{say}: owner");
        }
        if compared.time && (compared.other_times || found.is_file()) {
            assert_eq!(found.mtime(), metadata.mtime, "{say}: time");
        }
        if compared.xattrs {
            assert_eq!(xattrs(&at), metadata.xattrs, "{say}: extended attributes");
        }
    });
}

/// The extended attributes of a file of the host; none where the file system has none.
pub fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65_536];
    let Ok(length) = rustix::fs::llistxattr(path, &mut names[..]) else { return BTreeMap::new() };
    let get = |name: &[u8]| {
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
        value.truncate(length);
        (name.to_vec(), value)
    };
    names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(get).collect()
}
