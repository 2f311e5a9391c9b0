//! The layers of an image, or one archive, as a tree: a byte of options, a number of blocks of 512 bytes that the first
//! layer has (two bytes), the first layer, the second.
#![no_main]

use ashlar_fuzz::tar;
use ashlar_sources::{Devices, Keep, tar_tree};
use ashlar_tree::{Content, Kind};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some(([options, low, high], rest)) = data.split_first_chunk() else { return };
    let layered = options & 1 != 0;
    let devices = match options & 6 {
        2 => Devices::Skip,
        4 => Devices::Take,
        _ => Devices::Refuse,
    };
    let xattrs = if options & 8 != 0 { vec!["user.*".to_owned()] } else { Vec::new() };
    let first = usize::from(u16::from_le_bytes([*low, *high])) * 512;
    let archives = match rest.split_at_checked(first) {
        Some((first, second)) if layered && !second.is_empty() => vec![tar(first), tar(second)],
        _ => vec![tar(rest)],
    };
    let slices: Vec<&[u8]> = archives.iter().map(Vec::as_slice).collect();
    let Ok(tree) = tar_tree(&slices, layered, &Keep { devices, xattrs: xattrs.clone() }) else { return };

    tree.walk(|path, node| {
        let shown = String::from_utf8_lossy(path);
        let names = path.strip_prefix(b"/").expect("paths are absolute");
        if !names.is_empty() {
            for name in names.split(|&byte| byte == b'/') {
                assert!(!matches!(name, b"" | b"." | b".."), "a name in `{shown}` leads elsewhere");
                assert!(!name.contains(&0), "a name in `{shown}` ends before its end");
                assert!(!layered || !name.starts_with(b".wh."), "the whiteout `{shown}` is left");
            }
        }
        for name in node.metadata.xattrs.keys() {
            let wanted = name == b"security.capability" || (!xattrs.is_empty() && name.starts_with(b"user."));
            assert!(wanted, "`{shown}` has the attribute `{}`", name.escape_ascii());
        }
        match &node.kind {
            Kind::HardLink(target) => {
                let target = tree.get(target).map(|node| &node.kind);
                assert!(matches!(target, Some(Kind::File(_))), "the hard link `{shown}` leads to {target:?}");
            }
            Kind::File(Content::Range { offset, len, .. }) => {
                let end = offset.checked_add(*len);
                let inside =
                    archives.iter().any(|archive| end.is_some_and(|end| end <= archive.len() as u64));
                assert!(inside, "the content of `{shown}` lies outside of the archive");
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                assert!(devices == Devices::Take, "the device `{shown}` was taken");
            }
            _ => {}
        }
    });
});
