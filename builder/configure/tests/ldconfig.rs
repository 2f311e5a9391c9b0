//! The real `ldconfig` judges the cache and the links: byte for byte, over libraries of this machine and over
//! a tree with sub-directories for hardware capabilities. `ASHLAR_ROOT` names another root to take libraries from.

#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_configure::{Options, Step, configure};
use ashlar_tree::{Metadata, Node, Tree};
use common::{add_host, bytes, merged, put, run, succeed, target, tool, write_out};
use std::path::{Path, PathBuf};
use std::process::Command;

const TRIPLET: &str = "x86_64-linux-gnu";

/// The machine's C library and up to `limit` other libraries with their links.
fn host_libraries(limit: usize) -> Option<Tree> {
    let root = std::env::var_os("ASHLAR_ROOT").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let folder = root.join("usr/lib").join(TRIPLET);
    if !folder.join("libc.so.6").exists() {
        eprintln!("skipped: this machine is not Debian's amd64");
        return None;
    }
    let mut tree = merged();
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.contains(".so"))
        .collect();
    names.sort();
    let step = names.len().div_ceil(limit).max(1);
    let needed =
        |name: &str| name.starts_with("libc.so") || name.starts_with("ld-linux") || name.starts_with("libz");
    for (index, name) in names.iter().enumerate() {
        let path = folder.join(name);
        let small = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() < 8 << 20);
        if needed(name) || (index % step == 0 && small) {
            add_host(&mut tree, &path, &format!("/usr/lib/{TRIPLET}/{name}"));
            // The file that a link leads to, so that both are there.
            if let Ok(real) = std::fs::canonicalize(&path)
                && real.parent() == Some(&folder)
            {
                let name = real.file_name().unwrap().to_str().unwrap();
                add_host(&mut tree, &real, &format!("/usr/lib/{TRIPLET}/{name}"));
            }
        }
    }
    put(&mut tree, "/etc/ld.so.conf", "include /etc/ld.so.conf.d/*.conf\n");
    put(&mut tree, "/etc/ld.so.conf.d/libc.conf", "# default\n/usr/local/lib\n");
    put(
        &mut tree,
        "/etc/ld.so.conf.d/x86_64-linux-gnu.conf",
        "/usr/local/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu # twice\n  /usr/lib/x86_64-linux-gnu/\n",
    );
    Some(tree)
}

/// Compares what we make of `tree` with what `ldconfig` makes of it.
fn judge(tree: &mut Tree) {
    let Some(ldconfig) = tool("ldconfig") else { return };
    let folder = tempfile::tempdir().unwrap();
    write_out(tree, folder.path());
    std::fs::create_dir_all(folder.path().join("var/cache/ldconfig")).unwrap();
    let output = run(Command::new(&ldconfig).arg("-i").arg("-r").arg(folder.path()));
    if !output.status.success() {
        eprintln!("skipped: ldconfig -r cannot run here: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let report = configure(tree, &[], &Options::default()).unwrap();
    assert!(report.done.iter().any(|done| done.step == Step::LibraryCache));

    let wanted = std::fs::read(folder.path().join("etc/ld.so.cache")).unwrap();
    let ours = bytes(tree, "/etc/ld.so.cache");
    let print = |cache: &[u8]| {
        let file = folder.path().join("etc/ld.so.cache");
        std::fs::write(&file, cache).unwrap();
        succeed(Command::new(&ldconfig).arg("-p").arg("-C").arg(&file))
            .lines()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(print(&ours), print(&wanted));
    assert!(ours == wanted, "the caches say the same but differ in their bytes");

    // The same links, no more and no fewer.
    let mut walked = 0;
    tree.walk(|path, node| {
        if let ashlar_tree::Kind::Symlink(link) = &node.kind {
            let path = std::str::from_utf8(path).unwrap();
            let found = std::fs::read_link(folder.path().join(path.trim_start_matches('/')));
            let found = found.unwrap_or_else(|error| panic!("ldconfig has no link {path}: {error}"));
            assert_eq!(found.to_str().unwrap().as_bytes(), link, "{path}");
            walked += 1;
        }
    });
    assert!(walked > 3);
    let folder = folder.path().join("usr/lib").join(TRIPLET);
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = format!("/usr/lib/{TRIPLET}/{}", entry.file_name().to_str().unwrap());
        assert!(tree.get(path.as_bytes()).is_some(), "we have no {path}");
    }
}

#[test]
fn the_cache_of_this_machines_libraries_is_byte_for_byte_ldconfigs() {
    let limit = std::env::var("ASHLAR_LIBRARIES").ok().and_then(|text| text.parse().ok()).unwrap_or(80);
    let Some(mut tree) = host_libraries(limit) else { return };
    judge(&mut tree);
}

/// Builds small libraries: missing links, one SONAME twice, no SONAME, linker scripts, other names, hwcaps.
#[test]
fn odd_libraries_are_treated_as_ldconfig_treats_them() {
    let (Some(gcc), Some(mut tree)) = (tool("gcc"), host_libraries(1)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a.c");
    std::fs::write(&source, "int answer(void) { return 42; }\n").unwrap();
    let build = |name: &str, soname: Option<&str>, options: &[&str]| {
        let path = folder.path().join(name);
        let mut command = Command::new(&gcc);
        command.args(["-shared", "-fPIC", "-nostdlib", "-o"]).arg(&path).arg(&source).args(options);
        if let Some(soname) = soname {
            command.arg(format!("-Wl,-soname,{soname}"));
        }
        let output = run(&mut command);
        output.status.success().then_some(path)
    };
    let lib = format!("/usr/lib/{TRIPLET}");
    for (name, soname) in [
        ("libone.so.1.2", Some("libone.so.1")),
        ("libone.so.1.10", Some("libone.so.1")),
        ("libnone.so.3", None),
        ("libother.so.9", Some("libdifferent.so.2")),
    ] {
        let path = build(name, soname, &[]).expect("gcc makes a library");
        add_host(&mut tree, &path, &format!("{lib}/{name}"));
    }
    let symlink = |tree: &mut Tree, name: &str, to: &str| {
        tree.insert(format!("{lib}/{name}").as_bytes(), Node::symlink(Metadata::root(0o777, 0), to)).unwrap();
    };
    symlink(&mut tree, "libone.so", "libone.so.1.2");
    symlink(&mut tree, "libalias.so.7", "libnone.so.3");
    symlink(&mut tree, "libstale.so.7", "libstale.so.7.1");
    symlink(&mut tree, "libstale.so", "nowhere");
    put(
        &mut tree,
        &format!("{lib}/libscript.so"),
        &format!("/* GNU ld script */ GROUP ( libc.so.6 ) {:200}\n", ""),
    );
    put(&mut tree, &format!("{lib}/libshort.so"), "x");
    for (level, march) in [("x86-64-v2", "x86-64-v2"), ("x86-64-v3", "x86-64-v3")] {
        let options = [format!("-march={march}"), "-Wl,-z,x86-64-v3".into()];
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        if let Some(path) = build("libone.so.1.3", Some("libone.so.1"), &options) {
            // The tree refers to the file, so each level needs its own.
            let kept = folder.path().join(format!("{level}.so"));
            std::fs::rename(path, &kept).unwrap();
            add_host(&mut tree, &kept, &format!("{lib}/glibc-hwcaps/{level}/libone.so.1.3"));
        }
    }
    let empty = Node::directory(Metadata::root(0o755, 0));
    tree.insert(format!("{lib}/glibc-hwcaps/x86-64-v4").as_bytes(), empty).unwrap();
    judge(&mut tree);
    assert_eq!(target(&tree, &format!("{lib}/libone.so.1")).unwrap(), "libone.so.1.10");
    assert_eq!(target(&tree, &format!("{lib}/libdifferent.so.2")).unwrap(), "libother.so.9");
}

#[test]
fn a_tree_without_libraries_has_no_cache() {
    let mut tree = merged();
    let report = configure(&mut tree, &[], &Options::default()).unwrap();
    assert!(tree.get(b"/etc/ld.so.cache").is_none() && report.done.is_empty(), "{report:?}");
}

/// Cut off and changed libraries are passed over or read, and never end the program.
#[test]
fn damaged_libraries_do_no_harm() {
    let path = Path::new("/usr/lib").join(TRIPLET).join("libz.so.1");
    let Ok(good) = std::fs::read(path) else { return eprintln!("skipped: no libz.so.1") };
    assert_eq!(ashlar_configure::parsers::read_library(&good, "x").unwrap().soname, "libz.so.1");
    let good = &good[..good.len().min(8192)];
    for len in (0..good.len()).step_by(7) {
        ashlar_configure::parsers::read_library(&good[..len], "x");
    }
    for at in 0..1200.min(good.len()) {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.to_vec();
            bad[at] = value;
            ashlar_configure::parsers::read_library(&bad, "x");
        }
    }
}
