//! `depmod` and `modprobe` judge the indexes of modules, over small modules that gcc makes, and over the kernel
//! that `ASHLAR_KERNEL` names (a folder with `VERSION` below `usr/lib/modules`), else this machine's own.

#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_configure::{ConfigureError, depmod, parsers};
use ashlar_tree::Tree;
use common::{add_host, bytes, merged, put, run, succeed, text, tool, write_out};
use std::path::{Path, PathBuf};
use std::process::Command;

const VERSION: &str = "6.1.0-test";

/// An object like a module: a name, strings of `.modinfo`, exports and uses.
fn object(folder: &Path, name: &str, info: &[&str], exports: &[&str], uses: &[&str]) -> Option<PathBuf> {
    let gcc = tool("gcc")?;
    let mut source = String::new();
    for (index, string) in info.iter().enumerate() {
        let string = string.replace('"', "\\\"");
        source.extend([format!(
            "static const char i{index}[] __attribute__((section(\".modinfo\"), used, aligned(1))) = \"{string}\";\n"
        )]);
    }
    for symbol in exports {
        source.extend([format!("int {symbol}(void) {{ return 1; }}\nint __crc_{symbol} = 1;\n")]);
    }
    source.push_str("int init(void) { return 0");
    for symbol in uses {
        source = format!("int {symbol}(void);\n{source} + {symbol}()");
    }
    source.push_str("; }\n");
    let file = folder.join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let out = folder.join(format!("{name}.ko"));
    succeed(Command::new(gcc).args(["-c", "-O1", "-fno-pic", "-o"]).arg(&out).arg(&file));
    Some(out)
}

/// A kernel of nine modules, plain and packed.
fn kernel(folder: &Path) -> Option<Tree> {
    type Made = (
        &'static str,
        &'static str,
        &'static [&'static str],
        &'static [&'static str],
        &'static [&'static str],
    );
    let modules: [Made; 9] = [
        ("lib/base.ko", "base", &["license=GPL", "alias=symbolic-base"], &["base_a", "base_b"], &[]),
        ("lib/mid-one.ko", "mid-one", &["softdep=pre: base post: left"], &["mid_a"], &["base_a", "printk"]),
        (
            "lib/mid-two.ko",
            "mid-two",
            &["alias=pci:v00008086d*sv*sd*bc*sc*i*", "alias=pci:v0000-x[a-c]-*"],
            &["mid_b"],
            &["base_b"],
        ),
        (
            "drivers/left.ko",
            "left",
            &["alias=char-major-10-229", "alias=devname:fuse"],
            &[],
            &["mid_b", "mid_a"],
        ),
        (
            "drivers/right.ko",
            "right",
            &["alias=fs-right", "alias=fs-right", "alias=bad]bracket"],
            &[],
            &["mid_a", "mid_b", "base_a"],
        ),
        ("drivers/same.ko", "same", &["alias=fs-right", "alias=block-major-7-*"], &[], &[]),
        ("drivers/unlisted.ko", "unlisted", &["alias=acpi*:LNXTHERM:*"], &["far"], &["base_a"]),
        ("net/packed.ko", "packed", &["alias=net-pf-10", "softdep=pre: mid_one"], &[], &["far"]),
        ("net/empty.ko", "empty", &[], &[], &[]),
    ];
    let mut tree = merged();
    let root = format!("/usr/lib/modules/{VERSION}");
    let mut order = String::new();
    for (path, name, info, exports, uses) in modules {
        let file = object(folder, name, info, exports, uses)?;
        let packed = match name {
            "packed" => Some(("zst", zstd_of(&std::fs::read(&file).unwrap()))),
            _ => None,
        };
        match packed {
            Some((ending, bytes)) => {
                let file = folder.join(format!("{name}.ko.{ending}"));
                std::fs::write(&file, bytes).unwrap();
                add_host(&mut tree, &file, &format!("{root}/kernel/{path}.{ending}"));
            }
            None => add_host(&mut tree, &file, &format!("{root}/kernel/{path}")),
        }
        if name != "unlisted" {
            order.insert_str(0, &format!("kernel/{path}\n"));
        }
    }
    put(&mut tree, &format!("{root}/modules.order"), &order);
    put(&mut tree, &format!("{root}/modules.builtin"), "kernel/fs/ext4/ext4.ko\nkernel/lib/crc-t10dif.ko\n");
    put(
        &mut tree,
        &format!("{root}/modules.builtin.modinfo"),
        "ext4.license=GPL\0ext4.alias=fs-ext4\0ext4.alias=ext3\0crc_t10dif.alias=crypto-crct10dif\0crc_t10dif.alias=fs-ext4\0",
    );
    Some(tree)
}

/// kmod may be built without a packing; what it cannot read it leaves out. So the test packs only what it can.
fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

fn number(index: &[u8], at: usize) -> usize {
    u32::from_be_bytes(index[at..at + 4].try_into().unwrap()) as usize
}

/// Whether the root node of an index is its last one.
fn postorder(index: &[u8]) -> bool {
    index.is_empty() || number(index, 8) & 0x0fff_ffff != 12 || index.len() < 32
}

/// All keys of an index with their priorities and values.
fn read_index(index: &[u8]) -> Vec<(String, Vec<(usize, String)>)> {
    fn string(index: &[u8], at: &mut usize) -> String {
        let len = index[*at..].iter().position(|&byte| byte == 0).unwrap();
        let text = String::from_utf8(index[*at..*at + len].to_vec()).unwrap();
        *at += len + 1;
        text
    }
    let mut found = Vec::new();
    let mut open = if index.is_empty() { Vec::new() } else { vec![(number(index, 8), String::new())] };
    while let Some((reference, mut key)) = open.pop() {
        let mut at = reference & 0x0fff_ffff;
        if reference & 0x8000_0000 != 0 {
            key.push_str(&string(index, &mut at));
        }
        if reference & 0x2000_0000 != 0 {
            let (first, last) = (index[at], index[at + 1]);
            at += 2;
            for byte in first..=last {
                let child = number(index, at);
                at += 4;
                if child != 0 {
                    open.push((child, format!("{key}{}", byte as char)));
                }
            }
        }
        if reference & 0x4000_0000 != 0 {
            let count = number(index, at);
            at += 4;
            let mut values = Vec::new();
            for _ in 0..count {
                let priority = number(index, at);
                at += 4;
                values.push((priority, string(index, &mut at)));
            }
            found.push((key, values));
        }
    }
    found.sort();
    found
}

/// Compares all that `depmod` writes with what we write.
fn judge(tree: &mut Tree, version: &str) {
    let Some(judge) = tool("depmod") else { return };
    let folder = tempfile::tempdir().unwrap();
    write_out(tree, folder.path());
    succeed(Command::new(judge).arg("-b").arg(folder.path()).arg(version));
    depmod(tree, version, 0).unwrap();
    let root = format!("usr/lib/modules/{version}");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    for name in ["dep", "alias", "softdep", "devname", "symbols"] {
        let path = format!("{root}/modules.{name}");
        let theirs = std::fs::read_to_string(folder.path().join(&path)).unwrap();
        let ours = text(tree, &format!("/{path}"));
        assert_eq!(sorted(&ours), sorted(&theirs), "modules.{name}");
    }
    for name in ["dep", "alias", "symbols", "builtin", "builtin.alias"] {
        let path = format!("{root}/modules.{name}.bin");
        let theirs = std::fs::read(folder.path().join(&path)).unwrap();
        let ours = bytes(tree, &format!("/{path}"));
        // Since kmod 34 a node stands before its children, in a file of the same version that the same reader reads.
        if postorder(&theirs) {
            assert!(ours == theirs, "modules.{name}.bin differs");
        } else {
            assert_eq!(ours.len(), theirs.len(), "modules.{name}.bin");
        }
        assert_eq!(read_index(&ours), read_index(&theirs), "modules.{name}.bin");
    }
}

#[test]
fn indexes_of_made_modules_are_those_of_depmod() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut tree) = kernel(folder.path()) else { return };
    judge(&mut tree, VERSION);
    let root = format!("/usr/lib/modules/{VERSION}");
    let dependencies = text(&tree, &format!("{root}/modules.dep"));
    assert!(
        dependencies.contains("kernel/net/packed.ko.zst: kernel/drivers/unlisted.ko kernel/lib/base.ko\n"),
        "{dependencies}"
    );
    assert!(text(&tree, &format!("{root}/modules.devname")).ends_with("left fuse c10:229\n"));

    // The tool that reads them finds the same with our files.
    let Some(modprobe) = tool("modprobe") else { return };
    let out = tempfile::tempdir().unwrap();
    write_out(&tree, out.path());
    let show = |name: &str| {
        run(Command::new(&modprobe)
            .arg("-d")
            .arg(out.path())
            .arg("-S")
            .arg(VERSION)
            .arg("--show-depends")
            .arg(name))
    };
    let said = String::from_utf8(show("pci:v00008086d00001234sv0sd0bc0sc0i0").stdout).unwrap();
    let files: Vec<&str> =
        said.lines().filter_map(|line| line.split('/').next_back()).map(str::trim).collect();
    assert_eq!(files, ["base.ko", "mid-two.ko"]);
    assert!(String::from_utf8(show("ext4").stdout).unwrap().contains("builtin ext4"));
}

#[test]
fn indexes_of_a_kernel_are_those_of_depmod() {
    let root = std::env::var_os("ASHLAR_KERNEL").map_or_else(|| PathBuf::from("/"), PathBuf::from);
    let folder = root.join("usr/lib/modules");
    let version = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .find(|version| folder.join(version).join("modules.builtin.modinfo").exists());
    let Some(version) = version else {
        return eprintln!("skipped: no modules of a kernel in {}", folder.display());
    };
    let mut tree = merged();
    let to = format!("/usr/lib/modules/{version}");
    let whole = std::env::var_os("ASHLAR_KERNEL").is_some();
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        add_host(&mut tree, &folder.join(&version).join(name), &format!("{to}/{name}"));
    }
    // A part of the kernel is enough where nobody asks for all of it.
    for part in
        if whole { &["kernel", "updates"][..] } else { &["kernel/lib", "kernel/crypto", "kernel/fs"][..] }
    {
        add_host(&mut tree, &folder.join(&version).join(part), &format!("{to}/{part}"));
    }
    judge(&mut tree, &version);
}

#[test]
fn circles_and_damaged_modules_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (Some(a), Some(b)) = (
        object(folder.path(), "a", &[], &["from_a"], &["from_b"]),
        object(folder.path(), "b", &[], &["from_b"], &["from_a"]),
    ) else {
        return;
    };
    let mut tree = merged();
    let root = format!("/usr/lib/modules/{VERSION}/kernel");
    add_host(&mut tree, &a, &format!("{root}/a.ko"));
    add_host(&mut tree, &b, &format!("{root}/b.ko"));
    assert!(matches!(depmod(&mut tree, VERSION, 0), Err(ConfigureError::ModuleCircle(_))));
    put(&mut tree, &format!("{root}/b.ko"), "no module");
    let error = depmod(&mut tree, VERSION, 0).unwrap_err().to_string();
    assert!(error.contains("kernel/b.ko") && error.contains("ELF"), "{error}");
    assert!(matches!(depmod(&mut tree, "1.2", 0), Err(ConfigureError::NoSuchKernel(_))));

    let good = std::fs::read(&a).unwrap();
    let whole = parsers::read_module(&good).unwrap();
    assert_eq!(
        (whole.exports.as_slice(), whole.imports.as_slice()),
        (&["from_a".to_owned()][..], &["from_b".to_owned()][..])
    );
    for at in 0..good.len() {
        let _ = parsers::read_module(&good[..at]);
        for value in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = value;
            let _ = parsers::read_module(&bad);
        }
    }
}
