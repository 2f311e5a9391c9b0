//! What compression promises: the same bytes on any number of cores, blocks that stay in the next release, files that do
//! not shrink as they are, and files beyond 4 GiB.
#![allow(clippy::unwrap_used)] // a test fails by it

mod support;

use ashlar_formats::erofs::read::{Owner, Part, Reader};
use ashlar_formats::erofs::{BLOCK, Compression, ErofsError, Options, Plan};
use ashlar_tree::{Content, Kind, Metadata, Node, Tree};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use support::mount::Mount;
use support::{noise, prose};

const TIME: i64 = 1_700_000_000;
const ALL: [Compression; 4] =
    [Compression::None, Compression::Lz4, Compression::Lz4hc { level: 9 }, Compression::Zstd { level: 3 }];

fn options(compression: Compression) -> Options {
    Options { volume_name: "test".into(), build_time: TIME, compression, ..Options::default() }
}

fn file(tree: &mut Tree, path: &str, bytes: Vec<u8>) {
    tree.insert(path.as_bytes(), Node::file(Metadata::root(0o644, TIME), bytes)).unwrap();
}

fn image(tree: &Tree, options: Options) -> Vec<u8> {
    let plan = Plan::new(tree, options).unwrap();
    let mut bytes = Vec::new();
    plan.write(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, plan.size());
    bytes
}

/// A small system: 300 small files, 60 larger ones, one large one.
fn system() -> Tree {
    let mut tree = Tree::new(Metadata::root(0o755, TIME));
    for number in 0..300 {
        file(&mut tree, &format!("/etc/{}/{number}", number % 12), prose(number as usize * 9, number));
    }
    for number in 0..60 {
        file(&mut tree, &format!("/usr/lib/{number}"), prose(20_000 + number as usize * 2_777, number));
    }
    file(&mut tree, "/usr/lib/large", prose(5_000_000, 99));
    file(&mut tree, "/usr/lib/random", noise(500_000, 5));
    tree
}

#[test]
fn the_same_bytes_on_one_core_and_on_many() {
    let tree = system();
    for compression in ALL {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| image(&tree, options(compression)))
        };
        let one = on(1);
        assert!(one == on(4), "{compression:?}");
        assert!(one == image(&tree, options(compression)), "{compression:?}");
    }
}

/// Numbers of the blocks of `new` that are nowhere in `old`.
fn missing(old: &[u8], new: &[u8]) -> Vec<usize> {
    let known: BTreeSet<&[u8]> = old.chunks(BLOCK as usize).collect();
    let all = new.chunks(BLOCK as usize).enumerate();
    all.filter(|(_, block)| !known.contains(block)).map(|(number, _)| number).collect()
}

/// How many of `blocks` hold the content of `path`, of small files behind their inodes, and other things.
fn kinds(image: &[u8], blocks: &[usize], path: &str) -> (usize, usize, usize) {
    let reader = Reader::open(image, image.len() as u64).unwrap();
    let entries = reader.entries().unwrap();
    let owners = reader.owners(&entries).unwrap();
    let (mut own, mut small, mut other) = (0, 0, 0);
    for &block in blocks {
        match owners.locate(block as u64 * BLOCK) {
            Some(Owner { path: Some(owner), part: Part::Data { .. } }) if owner == path.as_bytes() => {
                own += 1;
            }
            Some(Owner { path: Some(owner), .. }) if owner.starts_with(b"/etc/") && owner.len() > 7 => {
                small += 1;
            }
            _ => other += 1,
        }
    }
    (own, small, other)
}

#[test]
fn a_changed_file_changes_its_own_blocks_and_the_metadata() {
    let old = system();
    for compression in ALL {
        let before = image(&old, options(compression));
        // A large file early in the image grows and is another from its middle on.
        let mut new = old.clone();
        file(&mut new, "/usr/lib/10", [prose(30_000, 10), prose(100_000, 777)].concat());
        let after = image(&new, options(compression));
        let changed = missing(&before, &after);
        let (own, small, other) = kinds(&after, &changed, "/usr/lib/10");
        println!(
            "{compression:?}: of {} blocks {own} of the file, {small} small, {other} others",
            after.len() / 4096
        );
        assert!(own > 0 && own <= 130_000 / 4096 + 1, "{compression:?}: {own}");
        assert_eq!(small, 0, "{compression:?}: small files moved");
        // Inodes, indexes and directories: the places of all files behind it.
        assert!(other <= 6, "{compression:?}: {other} other blocks");

        // A small file grows: its neighbours move until a block begins with the same inode as before.
        let mut new = old.clone();
        file(&mut new, "/etc/3/99", prose(99 * 9 + 70, 98));
        let after = image(&new, options(compression));
        let changed = missing(&before, &after);
        let (own, small, other) = kinds(&after, &changed, "/etc/3/99");
        println!("{compression:?}: small file: {own} and {small} small, {other} others");
        assert!(own + small <= 12 && other <= 6, "{compression:?}: {own} {small} {other}");

        // A byte in the middle of the large file: no more than the MiB around it.
        let mut new = old.clone();
        let mut bytes = prose(5_000_000, 99);
        bytes[2_500_000] ^= 1;
        file(&mut new, "/usr/lib/large", bytes);
        let after = image(&new, options(compression));
        let changed = missing(&before, &after);
        println!("{compression:?}: a byte: {} blocks", changed.len());
        assert!(changed.len() <= 260, "{compression:?}: {} blocks", changed.len());
    }
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is() {
    let tree = system();
    for compression in &ALL[1..] {
        let bytes = image(&tree, options(*compression));
        let reader = Reader::open(&bytes[..], bytes.len() as u64).unwrap();
        let entries = reader.entries().unwrap();
        let owners = reader.owners(&entries).unwrap();
        let of = |wanted: &str| {
            (0..bytes.len() as u64)
                .step_by(BLOCK as usize)
                .filter_map(|at| owners.locate(at))
                .filter(|owner| owner.path.as_deref() == Some(wanted.as_bytes()))
                .filter_map(|owner| match owner.part {
                    Part::Data { compressed, .. } => Some(compressed),
                    _ => None,
                })
                .collect::<Vec<bool>>()
        };
        let random = of("/usr/lib/random");
        assert_eq!(random.len(), 500_000_usize.div_ceil(4096));
        assert!(random.iter().all(|compressed| !compressed), "{compression:?}");
        let large = of("/usr/lib/large");
        assert!(large.len() < 5_000_000 / 4096 * 3 / 4, "{compression:?}: {} blocks", large.len());
        assert!(large.iter().all(|compressed| *compressed), "{compression:?}");
    }
}

#[test]
fn a_sparse_file_beyond_4_gib_takes_little_and_reads_back() {
    const SIZE: u64 = (4 << 30) + 123_456;
    let dir = tempfile::tempdir().unwrap();
    let path = Arc::new(dir.path().join("sparse"));
    let source = File::create(path.as_path()).unwrap();
    source.set_len(SIZE).unwrap();
    let islands = [(0, 5000), (1 << 20, 4096), ((1 << 32) - 3000, 9000), (SIZE - 777, 777)];
    for (at, length) in islands {
        source.write_all_at(&prose(length, at as u32 | 1), at).unwrap();
    }
    let metadata = Metadata::root(0o644, TIME);
    let mut tree = Tree::new(metadata.clone());
    let kind = Kind::File(Content::Range { path, offset: 0, len: SIZE });
    tree.insert(b"/sparse", Node { metadata, kind }).unwrap();
    let image = dir.path().join("image");
    let plan = Plan::new(&tree, options(Compression::Lz4)).unwrap();
    plan.write(&File::create(&image).unwrap()).unwrap();
    // LZ4 makes 1/255 of zeros; the index takes two bytes for each 4 KiB.
    assert!(plan.size() < 40 << 20, "{}", plan.size());

    let check = |read: &dyn Fn(u64, &mut [u8])| {
        for (at, length) in islands {
            let start = at.saturating_sub(2000);
            let mut found = vec![1; length + 4000];
            let end = (start + found.len() as u64).min(SIZE);
            found.truncate((end - start) as usize);
            let mut expected = vec![0; found.len()];
            File::open(dir.path().join("sparse")).unwrap().read_exact_at(&mut expected, start).unwrap();
            read(start, &mut found);
            assert!(found == expected, "at {at}");
        }
    };
    let file = File::open(&image).unwrap();
    let reader = Reader::open(&file, plan.size()).unwrap();
    let entries = reader.entries().unwrap();
    assert_eq!(entries[1].size, SIZE);
    check(&|at, buffer| assert_eq!(reader.read(&entries[1], at, buffer).unwrap(), buffer.len()));
    if let Some(mount) = Mount::new(&image, dir.path()) {
        let mounted = File::open(mount.path().join("sparse")).unwrap();
        assert_eq!(mounted.metadata().unwrap().len(), SIZE);
        check(&|at, buffer| mounted.read_exact_at(buffer, at).unwrap());
    }
}

#[test]
fn options_that_no_kernel_would_read_are_refused() {
    let tree = Tree::new(Metadata::root(0o755, TIME));
    for (compression, cluster_size) in [
        (Compression::Lz4, 2048),
        (Compression::Lz4, 12_288),
        (Compression::Lz4, 2 << 20),
        (Compression::Lz4hc { level: 13 }, 4096),
        (Compression::Zstd { level: 0 }, 4096),
    ] {
        let options = Options { cluster_size, ..options(compression) };
        assert!(
            matches!(Plan::new(&tree, options), Err(ErofsError::Options(_))),
            "{compression:?} {cluster_size}"
        );
    }
    let nowhere =
        Options { spool_folder: Some(Path::new("/nonexistent").into()), ..options(Compression::Lz4) };
    assert!(matches!(Plan::new(&tree, nowhere), Err(ErofsError::Spool(_))));
}
