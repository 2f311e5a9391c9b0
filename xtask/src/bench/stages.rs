//! The stages of a build on one processor, each beside the peer's tool.

use super::lab::{Lab, PACKINGS, Packing, ROOTS, Root, Stages, remove, size};
use super::measure::{Run, measure, settle, shell};
use super::peers::{Mkfs, mksquashfs};
use super::table::{SIZE, Table};
use crate::run::workspace;
use std::collections::BTreeSet;
use std::io::Write;

/// The sum over the stages of these names.
fn sum(stages: &Stages, names: &[&str]) -> Run {
    let mut sum = Run::default();
    for (_, run) in stages.iter().filter(|(name, _)| names.contains(&name.as_str())) {
        sum.wall += run.wall;
        sum.cpu += run.cpu;
    }
    sum
}

/// One round over a root.
pub fn round(lab: &Lab, root: Root, tree: &str, table: &mut Table) -> Result<(), String> {
    let prefix = root.name;
    if root == ROOTS[0] {
        let recipe = lab.recipe(root, None, &[], "")?;
        lab.forget_stages()?;
        settle()?;
        for (stage, run) in lab.build(&recipe, prefix, "out", &["--jobs", "1"])?.1 {
            table.run(&format!("{prefix}: stage {stage}"), run);
        }
    }
    unpack(lab, root, table)?;
    let mkfs = Mkfs::new()?;
    for packing in &PACKINGS {
        formats(lab, root, tree, &mkfs, packing, table)?;
    }
    disk(lab, prefix, table)
}

/// Fetching without unpacked packages: verified, unpacked and hashed, beside `dpkg-deb` over the same packages.
fn unpack(lab: &Lab, root: Root, table: &mut Table) -> Result<(), String> {
    let prefix = root.name;
    let recipe = lab.recipe(root, None, &[], "")?;
    lab.forget_unpacked()?;
    // A kept stage needs no packages.
    lab.forget_stages()?;
    settle()?;
    let (_, stages) = lab.build(&recipe, prefix, "out", &["--jobs", "1"])?;
    let ours = format!("{prefix}: unpack, verified");
    table.run(&ours, sum(&stages, &["fetch", "fetch kernel"]));
    // Those of this root and no others: what lies in `unpacked` now, by the packages' hashes.
    let mut debs = BTreeSet::new();
    let unpacked = lab.path("cache/unpacked");
    for entry in std::fs::read_dir(&unpacked).map_err(|e| format!("cannot read `{unpacked}`: {e}"))? {
        let name = entry.map_err(|e| e.to_string())?.file_name();
        if let Some((hash, "tar")) = name.to_string_lossy().split_once('.') {
            debs.insert(lab.path(&format!("cache/debs/{hash}.deb")));
        }
    }
    let (into, tars) = (lab.path("dpkg"), lab.path("tars"));
    for folder in [&into, &tars] {
        remove(folder)?;
        std::fs::create_dir_all(folder).map_err(|e| format!("cannot create `{folder}`: {e}"))?;
    }
    let list: Vec<&str> = debs.iter().map(String::as_str).collect();
    settle()?;
    let peer = format!("{prefix}: dpkg-deb --fsys-tarfile");
    let each = "to=\"$1\"; shift; for deb; do dpkg-deb --fsys-tarfile \"$deb\" > \"$to/${deb##*/}\"; done";
    table.run(&peer, shell(each, &[&[tars.as_str()], &list[..]].concat())?);
    settle()?;
    let each = "to=\"$1\"; shift; for deb; do dpkg-deb -x \"$deb\" \"$to\"; done";
    table.run(&format!("{prefix}: dpkg-deb -x"), shell(each, &[&[into.as_str()], &list[..]].concat())?);
    table.beside(&ours, &peer);
    remove(&tars)?;
    remove(&into)
}

/// The root packed one way by us and by the peers.
fn formats(
    lab: &Lab,
    root: Root,
    tree: &str,
    mkfs: &Mkfs,
    packing: &Packing,
    table: &mut Table,
) -> Result<(), String> {
    let (prefix, name) = (root.name, packing.name());
    let ours = format!("{prefix}: root and verity, {name}");
    let recipe = lab.recipe(root, Some(*packing), &[], "")?;
    lab.forget_stages()?;
    settle()?;
    let (whole, stages) = lab.build(&recipe, prefix, "out", &["--jobs", "1"])?;
    table.run(&ours, Run { peak: whole.peak, ..sum(&stages, &["root"]) });
    table.figure(&ours, SIZE, size(&lab.path("out/root.erofs"))?);

    let image = lab.path("peer.image");
    settle()?;
    if let Some(run) = mkfs.pack(tree, packing, &image)? {
        let alone = format!("{prefix}: mkfs.erofs, {name}");
        table.run(&alone, run);
        table.figure(&alone, SIZE, size(&image)?);
        // Our stage has made the verity tree too, so theirs has to.
        let hashes = lab.path("peer.verity");
        let _ = std::fs::remove_file(&hashes);
        settle()?;
        let (verity, _) = measure("veritysetup", &["format", &image, &hashes])?;
        let peer = format!("{prefix}: mkfs.erofs and veritysetup, {name}");
        table.run(&peer, Run { wall: run.wall + verity.wall, cpu: run.cpu + verity.cpu, peak: run.peak });
        table.figure(&peer, SIZE, size(&image)?);
        table.beside(&ours, &peer);
    } else {
        table.note(format!("this machine's mkfs.erofs does not know {}", packing.algorithm));
    }
    let _ = std::fs::remove_file(&image);
    settle()?;
    if let Some(run) = mksquashfs(tree, packing, &image)? {
        let peer = format!("{prefix}: mksquashfs, {name}");
        table.run(&peer, run);
        table.figure(&peer, SIZE, size(&image)?);
        // The same compression in the other format, where there is no nearer peer.
        table.beside_if_alone(&ours, &peer);
    }
    let _ = std::fs::remove_file(&image);
    Ok(())
}

/// The disk image beside copies of what it holds.
fn disk(lab: &Lab, prefix: &str, table: &mut Table) -> Result<(), String> {
    let recipe =
        lab.recipe(*ROOTS.iter().find(|root| root.name == prefix).ok_or("no such root")?, None, &[], "")?;
    settle()?;
    let (_, stages) = lab.build(&recipe, prefix, "out", &["--jobs", "1"])?;
    let ours = format!("{prefix}: disk image");
    table.run(&ours, sum(&stages, &["disk", "disk.raw"]));
    let (from, to) = (lab.path("out"), lab.path("copy"));
    for (name, command) in [
        ("cp --sparse=always disk.raw", "cp --sparse=always --reflink=never \"$1/disk.raw\" \"$2/disk.raw\""),
        (
            "cp --reflink=auto esp, root, verity",
            "cp --reflink=auto \"$1/esp.img\" \"$1/root.erofs\" \"$1/root.verity\" \"$2\"",
        ),
    ] {
        remove(&to)?;
        std::fs::create_dir_all(&to).map_err(|e| format!("cannot create `{to}`: {e}"))?;
        settle()?;
        let peer = format!("{prefix}: {name}");
        table.run(&peer, shell(command, &[&from, &to])?);
        table.beside(&ours, &peer);
    }
    remove(&to)
}

/// Bytes that the verity trees are made of.
const VERITY_BYTES: u32 = 1 << 30;

/// The verity tree of 1 GiB in memory beside veritysetup and beside the machine's own rate of SHA-256.
pub fn verity(lab: &Lab, runs: u32, table: &mut Table) -> Result<(), String> {
    let (data, hashes) = (lab.path("verity.data"), lab.path("verity.hashes"));
    let mut file = std::fs::File::create(&data).map_err(|e| format!("cannot create `{data}`: {e}"))?;
    // Not zeros, which veritysetup could meet as holes.
    let piece: Vec<u8> = (1..=1_u32 << 18).flat_map(u32::to_le_bytes).collect();
    for _ in 0..VERITY_BYTES >> 20 {
        file.write_all(&piece).map_err(|e| format!("cannot write `{data}`: {e}"))?;
    }
    drop(file);
    let (raw, ours, peer) = (
        "1 GiB: SHA-256 of its blocks, all processors",
        "1 GiB: verity tree, all processors",
        "1 GiB: veritysetup format",
    );
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let manifest = workspace().join("Cargo.toml").display().to_string();
    let example =
        ["--quiet", "--release", "--manifest-path", &manifest, "-p", "ashlar-formats", "--example", "rate"];
    measure(&cargo, &[&["build"], &example[..]].concat())?;
    let mut ratios = Vec::new();
    for _ in 0..runs {
        let (_, text) = measure(&cargo, &[&["run"], &example[..]].concat())?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let rate = |what: &str| {
            let line = text.lines().find(|line| line.starts_with(what));
            let number = line.and_then(|line| {
                line.rsplit(':').next()?.trim().trim_end_matches(" MB/s").parse::<f64>().ok()
            });
            number.ok_or_else(|| format!("the example `rate` does not tell {what}: {text}"))
        };
        let seconds = |rate: f64| f64::from(VERITY_BYTES) / (rate * 1e6);
        // Its figures are the best of several; the processors' seconds are not told.
        for (row, what) in [(raw, "SHA-256"), (ours, "verity tree")] {
            table.figure(row, "best_seconds", seconds(rate(what)?));
        }
        ratios.push(rate("ratio")?);
        let _ = std::fs::remove_file(&hashes);
        settle()?;
        let (run, _) = measure("veritysetup", &["format", &data, &hashes])?;
        table.run(peer, run);
        table.figure(peer, "best_seconds", run.wall);
    }
    let ratio = super::measure::median(ratios);
    table.goal(ours, &format!("{ratio:.2} of the machine's SHA-256 rate, to be at least 0.9"), ratio >= 0.9);
    table.beside(ours, peer);
    let _ = std::fs::remove_file(&data);
    let _ = std::fs::remove_file(&hashes);
    Ok(())
}
