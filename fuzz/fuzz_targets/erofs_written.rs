//! Images of our own writer, damaged in a few places: a byte to choose the image, then place (three bytes) and new value of
//! each change.
#![no_main]

use ashlar_formats::erofs::read::walk;
use ashlar_formats::erofs::{Compression, Options, Plan};
use ashlar_tree::{Kind, Metadata, Node, Tree};
use std::sync::LazyLock;

/// One image for each way to store content.
static IMAGES: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| {
    [Compression::None, Compression::Lz4, Compression::Lz4hc { level: 9 }, Compression::Zstd { level: 3 }]
        .map(|compression| {
            let options = Options { compression, cluster_size: 8192, ..Options::default() };
            let tree = tree();
            let plan = Plan::new(&tree, options).expect("the tree fits");
            let mut image = Vec::new();
            plan.write(&mut image).expect("memory can be written");
            // Without the checksum, which a damaged superblock would not have.
            image[1024 + 8] &= !1;
            assert!(walk(&image).is_ok(), "the undamaged image is read");
            image
        })
});

/// Files of one and of several clusters, one that does not get smaller, a small one, links, a device, attributes.
fn tree() -> Tree {
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    let file = Metadata::root(0o644, 7);
    let text: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(9000)
    .collect();
    let mut attributes = file.clone();
    attributes.xattrs.insert(b"security.capability".to_vec(), vec![1; 20]);
    attributes.xattrs.insert(b"user.note".to_vec(), b"a value".to_vec());
    for (path, node) in [
        ("/usr/text", Node::file(file.clone(), text.into_bytes())),
        ("/usr/noise", Node::file(file.clone(), noise)),
        ("/usr/zeros", Node::file(file.clone(), vec![0; 30_000])),
        ("/usr/small", Node::file(attributes, *b"small")),
        ("/usr/link", Node::symlink(Metadata::root(0o777, 0), "small")),
        ("/usr/other", Node { metadata: file.clone(), kind: Kind::HardLink(b"/usr/text".to_vec()) }),
        ("/dev/null", Node { metadata: file, kind: Kind::CharDevice { major: 1, minor: 3 } }),
    ] {
        tree.insert(path.as_bytes(), node).expect("the path is new");
    }
    tree
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, changes)) = data.split_first() else { return };
    let mut image = IMAGES[usize::from(*choice) % IMAGES.len()].clone();
    for change in changes.chunks_exact(4) {
        let at = u32::from_le_bytes([change[0], change[1], change[2], 0]) as usize % image.len();
        image[at] = change[3];
    }
    let _ = walk(&image);
});
