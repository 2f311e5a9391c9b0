//! What changed between two releases, as a person would ask it; the list of files against fsck.erofs and diff.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_compare::{Diff, ReleaseFolder, diff};
use ashlar_tree::Node;
use common::{Parts, find, meta, package, program, write};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn pair(dir: &Path, change: impl FnOnce(&mut Parts)) -> (ReleaseFolder, ReleaseFolder) {
    let mut parts = Parts::default();
    let a = write(&dir.join("a"), &parts);
    change(&mut parts);
    (a, write(&dir.join("b"), &parts))
}

/// A release with something of everything changed.
fn update(parts: &mut Parts) {
    parts.version = "2";
    parts.cmdline = "console=ttyS0 panic=10 quiet".into();
    parts.packages = vec![package("root", "crun", "1.22-1"), package("container web", "nginx", "1.28")];
    let mut crun = program();
    crun[5000] ^= 1;
    let root = &mut parts.root;
    root.insert(b"/usr/bin/crun", Node::file(meta(0o755), crun)).unwrap();
    root.insert(b"/usr/bin/small", Node::file(meta(0o4755), *b"a tail of the inode")).unwrap();
    root.insert(b"/usr/bin/new", Node::file(meta(0o755), *b"new")).unwrap();
    root.insert(b"/bin", Node::symlink(meta(0o777), "usr/sbin")).unwrap();
    root.remove(b"/usr/lib/list").unwrap();
    root.get_mut(b"/usr/lib/os-release").unwrap().metadata.xattrs.insert(b"user.a".to_vec(), b"b".to_vec());
    let manifest = br#"{"image_id":"test","containers":{"web":{"command":["/web","--port=81"]}}}"#;
    root.insert(b"/usr/lib/ashlar/image.json", Node::file(meta(0o644), *manifest)).unwrap();
    root.insert(b"/usr/lib/ashlar/modules/order", Node::file(meta(0o644), *b"virtio.ko\nnew.ko\n")).unwrap();
    parts.initramfs.insert(b"/usr/lib/ashlar/modules/erofs.ko", Node::file(meta(0o644), *b"Module")).unwrap();
}

#[test]
fn everything_that_changed_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), update);
    let found = diff(&a, &b).unwrap();
    let text = found.text(false);
    for line in [
        "test 1 -> test 2",
        "image version: 1 -> 2",
        "~ crun 1.21-1 -> 1.22-1 (root)",
        "- libc6 2.41-1 (root)",
        "+ nginx 1.28 (container web)",
        "- panic=30",
        "+ quiet",
        "- dm.ko (root)",
        "+ new.ko (root)",
        "~ .cmdline (",
        "~ usr/lib/ashlar/modules/erofs.ko (6 -> 6 bytes)",
        "~ usr/bin/crun (80000 -> 80000 bytes)",
        "~ usr/bin/small (mode 0755 -> 4755)",
        "+ usr/bin/new (3 bytes)",
        "- usr/lib/list (14 bytes)",
        "~ bin (link to usr/bin -> link to usr/sbin)",
        "~ usr/lib/os-release (xattrs [] -> [user.a])",
        "~ containers/web/command/1: --port=80 -> --port=81",
        "~ PCR 11: because of `.cmdline contents`, `.initrd contents` (after ready)",
        "~ PCR policy:",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["packages"].as_array().unwrap().len(), 3);
    assert_eq!(json["cmdline"]["added"][0], "panic=10");
}

#[test]
fn nothing_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |_| {});
    let found = diff(&a, &b).unwrap();
    assert!(found.is_empty() && found.files.is_empty() && found.initramfs.is_empty());
    assert_eq!(found.download.new_blocks, 0);
    assert!(found.text(false).contains("nothing changed"));
}

#[test]
fn an_update_downloads_blocks_that_are_new() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |parts| {
        let mut crun = program();
        crun[5000] ^= 1;
        parts.root.insert(b"/usr/bin/crun", Node::file(meta(0o755), crun)).unwrap();
    });
    let found = diff(&a, &b).unwrap();
    let part = |name: &str| found.download.parts.iter().find(|part| part.file == name).unwrap().clone();
    // One block of the file; the leaves of its tree; the parts of the ESP with command line and policy.
    assert_eq!(part("root.erofs").new_blocks, 1);
    assert_eq!(part("root.verity").new_blocks, 1);
    // Counted again by other means: blocks of `b` that no file of `a` has.
    let blocks = |folder: &ReleaseFolder| -> BTreeSet<Vec<u8>> {
        ["esp.img", "root.erofs", "root.verity"]
            .iter()
            .flat_map(|name| {
                std::fs::read(folder.path().join(name))
                    .unwrap()
                    .chunks(4096)
                    .map(<[u8]>::to_vec)
                    .collect::<Vec<_>>()
            })
            .filter(|block| block.iter().any(|byte| *byte != 0))
            .collect()
    };
    let new = blocks(&b).difference(&blocks(&a)).count() as u64;
    assert_eq!((found.download.new_blocks, found.download.bytes), (new, new * 4096));
    assert!(found.download.packed > 0 && found.download.packed < found.download.bytes);
}

#[test]
fn many_files_are_counted_by_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |parts| {
        for i in 0..100 {
            let path = format!("/usr/share/zoneinfo/{i}");
            parts.root.insert(path.as_bytes(), Node::file(meta(0o644), *b"zone")).unwrap();
        }
        parts.root.get_mut(b"/usr/lib/list").unwrap().metadata.mtime -= 1;
    });
    let found = diff(&a, &b).unwrap();
    let text = found.text(false);
    assert!(text.contains("usr/share/zoneinfo/: 100 added, 0 removed, 0 changed"), "{text}");
    assert!(text.contains("1 more differ in nothing but their time"), "{text}");
    assert!(found.text(true).contains("+ usr/share/zoneinfo/99 (4 bytes)"));
}

#[test]
fn damaged_releases_are_refused_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), |_| {});
    let at = usize::try_from(find(&b, "uki.efi", &[0x28, 0xb5, 0x2f, 0xfd])).unwrap();
    let mut uki = std::fs::read(b.path().join("uki.efi")).unwrap();
    uki[at] = 0;
    std::fs::write(b.path().join("uki.efi"), uki).unwrap();
    assert!(
        diff(&a, &b).unwrap_err().to_string().contains("neither a cpio archive"),
        "{}",
        diff(&a, &b).unwrap_err()
    );
    std::fs::remove_file(b.path().join("root.erofs")).unwrap();
    assert!(diff(&b, &a).is_err());
    let json = String::from_utf8(b.json().to_vec()).unwrap();
    for (from, to) in [("\"format\": 1", "\"format\": 9"), ("root.erofs", "../../x"), ("{", "[")] {
        assert!(ashlar_compare::parse_release(json.replacen(from, to, 1).as_bytes()).is_err(), "{from}");
    }
    for end in 0..json.len() {
        assert!(ashlar_compare::parse_release(&json.as_bytes()[..end]).is_err());
    }
}

/// Runs a judge for at most a minute; none, and a message, when it is not installed.
fn judge(command: &mut Command, package: &str) -> Option<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Ok(mut child) = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    else {
        let strict = std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_some();
        assert!(!strict, "ASHLAR_TESTS_NO_SKIP is set, and {name} is missing (package {package})");
        eprintln!("skipped: {name} is needed (package {package})");
        return None;
    };
    let end = Instant::now() + Duration::from_secs(60);
    // What they say is less than a pipe holds.
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Some(child.wait_with_output().unwrap())
}

/// The path that a line of `diff -rq` names.
fn named(line: &str, trees: &[PathBuf]) -> String {
    let path = if let Some(rest) = line.strip_prefix("Only in ") {
        rest.replacen(": ", "/", 1)
    } else {
        // `Files A and B differ`, `Symbolic links A and B differ`
        line.split_whitespace().find(|word| word.starts_with('/')).unwrap().to_owned()
    };
    let path = Path::new(&path);
    let inside = trees.iter().find_map(|tree| path.strip_prefix(tree).ok()).unwrap();
    inside.to_string_lossy().into_owned()
}

fn content_changes(found: &Diff) -> BTreeSet<String> {
    found
        .files
        .iter()
        .filter(|file| {
            file.changed.is_empty() || file.changed.iter().any(|aspect| ["content", "kind"].contains(aspect))
        })
        .map(|file| file.path.clone())
        .collect()
}

#[test]
fn fsck_erofs_and_diff_find_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path(), update);
    let mut trees = Vec::new();
    for folder in [&a, &b] {
        let tree = folder.path().join("tree");
        let extract = format!("--extract={}", tree.display());
        let image = folder.path().join("root.erofs");
        let mut command = Command::new("fsck.erofs");
        command.args([&extract, "--no-preserve"]).arg(image);
        let Some(output) = judge(&mut command, "erofs-utils") else { return };
        assert!(output.status.success(), "{output:?}");
        trees.push(tree);
    }
    let mut command = Command::new("diff");
    command.args(["-rq", "--no-dereference"]).args(&trees).env("LC_ALL", "C");
    let Some(output) = judge(&mut command, "diffutils") else { return };
    let said = String::from_utf8(output.stdout).unwrap();
    let by_diff: BTreeSet<String> = said.lines().map(|line| named(line, &trees)).collect();
    let found = diff(&a, &b).unwrap();
    assert_eq!(content_changes(&found), by_diff, "{said}");
    assert!(by_diff.len() >= 6, "{by_diff:?}");
}
