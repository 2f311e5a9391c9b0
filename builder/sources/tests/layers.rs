//! Layers and their whiteouts: rules, hostile ones, random ones.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_sources::{Devices, Keep, tar_tree};
use ashlar_tree::{Kind, Tree};
use common::{archive, entry, file, folder, hard_link, symlink};

fn apply(layers: &[Vec<Vec<u8>>]) -> Result<Tree, String> {
    let layers: Vec<Vec<u8>> = layers.iter().map(|layer| archive(layer)).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let tree = tar_tree(&layers, true, &Keep { devices: Devices::Skip, ..Keep::default() })?;
    check(&tree);
    Ok(tree)
}

/// What holds for every tree: names are names, hard links lead to files.
fn check(tree: &Tree) {
    tree.walk(|path, node| {
        let name = path.rsplit(|&b| b == b'/').next().unwrap();
        assert!(path == b"/" || !matches!(name, b"" | b"." | b".."), "{path:?}");
        assert!(!name.starts_with(b".wh."), "{path:?}");
        assert!(node.metadata.xattrs.keys().all(|name| !name.contains(&0)));
        if let Kind::HardLink(target) = &node.kind {
            // The path is real: no link leads elsewhere on the way.
            assert_eq!(&tree.resolve(target).unwrap(), target);
            let file = tree.get(target).unwrap();
            assert!(matches!(file.kind, Kind::File(_)), "{target:?}");
            assert_eq!(file.metadata, node.metadata);
        }
    });
}

fn paths(tree: &Tree) -> Vec<String> {
    let mut paths = Vec::new();
    tree.walk(|path, _| paths.push(String::from_utf8_lossy(path).into_owned()));
    paths
}

#[test]
fn whiteouts_hide_what_is_below() {
    let lower = vec![file("a", ""), file("d/x", ""), file("d/y", ""), file("e/f/g", "")];
    let upper = vec![file("d/.wh.x", ""), file(".wh.e", ""), file(".wh.none", ""), file("nowhere/.wh.x", "")];
    assert_eq!(paths(&apply(&[lower, upper]).unwrap()), ["/", "/a", "/d", "/d/y"]);
}

#[test]
fn whiteouts_do_not_hide_their_own_layer() {
    let lower = vec![file("d/x", "low"), file("d/y", "")];
    for upper in [
        vec![file("d/x", "upper"), file("d/.wh.x", "")],
        vec![file("d/.wh.x", ""), file("d/x", "upper")],
        vec![file("d/x", "upper"), file("d/.wh..wh..opq", "")],
    ] {
        let tree = apply(&[lower.clone(), upper]).unwrap();
        assert!(matches!(&tree.get(b"/d/x").unwrap().kind, Kind::File(content) if content.len() == 5));
    }
}

#[test]
fn opaque_directories_and_an_opaque_root() {
    let lower = vec![file("d/x", ""), file("d/sub/y", ""), file("a", "")];
    let upper = vec![file("d/new", ""), file("d/.wh..wh..opq", "")];
    assert_eq!(paths(&apply(&[lower.clone(), upper]).unwrap()), ["/", "/a", "/d", "/d/new"]);
    assert_eq!(paths(&apply(&[lower, vec![file(".wh..wh..opq", ""), file("b", "")]]).unwrap()), ["/", "/b"]);
}

#[test]
fn whiteouts_of_no_name_are_refused() {
    for bad in [".wh.", ".wh..", ".wh...", "d/.wh..."] {
        let error = apply(&[vec![file("d/x", "")], vec![file(bad, "")]]).unwrap_err();
        assert_eq!(error, format!("`{bad}`: it is a whiteout of no file's name"));
    }
    assert!(apply(&[vec![file("../.wh.x", "")]]).unwrap_err().contains("leads out of the root"));
    // Bookkeeping of AUFS, and names that only look so.
    let tree = apply(&[vec![
        file(".wh..wh.plnk/1.2", ""),
        file(".wh..wh.aufs", ""),
        file("wh.x", ""),
        file("a.wh.b", ""),
    ]]);
    assert_eq!(paths(&tree.unwrap()), ["/", "/a.wh.b", "/wh.x"]);
}

#[test]
fn a_whiteout_through_a_link_stays_inside() {
    let lower = vec![file("etc/x", ""), symlink("l", "/etc"), symlink("up", "../../etc")];
    let tree = apply(&[lower.clone(), vec![file("l/.wh.x", "")]]).unwrap();
    assert_eq!(paths(&tree), ["/", "/etc", "/l", "/up"]);
    let tree = apply(&[lower, vec![file("up/.wh..wh..opq", "")]]).unwrap();
    assert_eq!(paths(&tree), ["/", "/etc", "/l", "/up"]);
}

#[test]
fn anything_replaces_anything_of_a_lower_layer() {
    let lower = vec![file("f", ""), file("d/x", ""), symlink("l", "d")];
    let tree =
        apply(&[lower.clone(), vec![folder("f"), file("d", ""), folder("l"), file("l/y", "")]]).unwrap();
    // The link is replaced by a directory, as runtimes unpack it; what comes below it does not follow the old link.
    assert_eq!(paths(&tree), ["/", "/d", "/f", "/l", "/l/y"]);
    // A directory that comes again keeps what is in it.
    let tree = apply(&[lower.clone(), vec![folder("d")]]).unwrap();
    assert!(tree.get(b"/d/x").is_some());
    // Without an entry of its own, the link is followed.
    let tree = apply(&[lower, vec![file("l/y", "")]]).unwrap();
    assert_eq!(paths(&tree), ["/", "/d", "/d/x", "/d/y", "/f", "/l"]);
}

#[test]
fn hard_links_across_layers_keep_their_content() {
    let lower = vec![file("a", "first"), hard_link("b", "a"), hard_link("c", "a")];
    let len = |tree: &Tree, path: &str| match &tree.get(path.as_bytes()).unwrap().kind {
        Kind::File(content) => content.len(),
        other => panic!("{path}: {other:?}"),
    };
    let tree = apply(std::slice::from_ref(&lower)).unwrap();
    assert_eq!(tree.get(b"/b").unwrap().kind, Kind::HardLink(b"/a".to_vec()));
    // The first name is hidden: the others stay one file.
    let tree = apply(&[lower.clone(), vec![file(".wh.a", "")]]).unwrap();
    assert_eq!(len(&tree, "/b"), 5);
    assert_eq!(tree.get(b"/c").unwrap().kind, Kind::HardLink(b"/b".to_vec()));
    // It is replaced: the others keep the old content, and a new link goes to the new one.
    let tree = apply(&[lower.clone(), vec![file("a", "2"), hard_link("d", "a")]]).unwrap();
    assert_eq!((len(&tree, "/a"), len(&tree, "/b")), (1, 5));
    assert_eq!(tree.get(b"/d").unwrap().kind, Kind::HardLink(b"/a".to_vec()));
    // A link to a file of a lower layer.
    let tree = apply(&[lower.clone(), vec![hard_link("z", "b")]]).unwrap();
    assert_eq!(tree.get(b"/z").unwrap().kind, Kind::HardLink(b"/a".to_vec()));
    // A link to what this layer hides is a link to nothing.
    let error = apply(&[lower, vec![file(".wh.a", ""), hard_link("z", "a")]]).unwrap_err();
    assert!(error.contains("not there before it"), "{error}");
}

#[test]
fn devices_are_left_out_or_refused() {
    let layer = archive(&[entry(b'3', "dev/null", "", b""), entry(b'4', "dev/sda", "", b""), file("a", "")]);
    let with = |devices| tar_tree(&[&layer], true, &Keep { devices, ..Keep::default() });
    assert_eq!(paths(&with(Devices::Skip).unwrap()), ["/", "/a"]);
    assert!(with(Devices::Refuse).unwrap_err().contains("`dev/null`: it is a device"));
    let tree = with(Devices::Take).unwrap();
    assert_eq!(tree.get(b"/dev/sda").unwrap().kind, Kind::BlockDevice { major: 8, minor: 1 });
}

#[test]
fn damaged_layers_never_panic() {
    let good = common::usual_layers().swap_remove(0);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] = bad[at].wrapping_add(1);
        let _ = tar_tree(&[&bad], true, &Keep::default());
        if at % 16 == 0 {
            let _ = tar_tree(&[&good[..at]], true, &Keep::default());
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: std::env::var("ASHLAR_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300),
        failure_persistence: None,
        ..Default::default()
    })]

    /// Few names, so that entries meet: nothing panics, what comes out holds together and is the same each time.
    #[test]
    fn random_layers(
        layers in proptest::collection::vec(
            proptest::collection::vec((0_u8..7, "(\\.wh\\.)?[ab](/(\\.wh\\.)?[abc]){0,3}(/\\.wh\\.\\.wh\\.\\.opq)?", "(\\.\\./|/)?[abc](/[abc]){0,2}"), 0..8),
            1..4,
        ),
    ) {
        let layers: Vec<Vec<Vec<u8>>> = layers
            .iter()
            .map(|layer| {
                layer
                    .iter()
                    .map(|(kind, name, target)| match kind {
                        0 => folder(name),
                        1 => symlink(name, target),
                        2 => hard_link(name, target.trim_start_matches(['.', '/'])),
                        3 => entry(b'6', name, "", b""),
                        _ => file(name, target),
                    })
                    .collect()
            })
            .collect();
        proptest::prop_assert_eq!(apply(&layers), apply(&layers));
    }

    /// Layers of plain files against what a map says.
    #[test]
    fn files_and_whiteouts_as_a_map_has_them(
        layers in proptest::collection::vec(
            proptest::collection::vec((proptest::bool::ANY, "[ab]/[abcd]", 1_usize..9), 0..6),
            1..5,
        ),
    ) {
        let mut map = std::collections::BTreeMap::new();
        let mut archives = Vec::new();
        for layer in &layers {
            for (hide, name, _) in layer {
                if *hide {
                    map.remove(name);
                }
            }
            let mut entries = Vec::new();
            for (hide, name, length) in layer {
                if *hide {
                    entries.push(file(&name.replace('/', "/.wh."), ""));
                } else {
                    map.insert(name.clone(), *length as u64);
                    entries.push(file(name, &"x".repeat(*length)));
                }
            }
            archives.push(entries);
        }
        let tree = apply(&archives).unwrap();
        let mut found = std::collections::BTreeMap::new();
        tree.walk(|path, node| {
            if let Kind::File(content) = &node.kind {
                found.insert(String::from_utf8_lossy(&path[1..]).into_owned(), content.len());
            }
        });
        proptest::prop_assert_eq!(found, map);
    }
}
