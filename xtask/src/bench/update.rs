//! How much an update would download, by compression and cluster size: the blocks that the older release does not have.

use super::lab::{Lab, PACKINGS, Packing, ROOTS, Root, size};
use super::measure::measure;
use super::table::Table;
use serde_json::Value;

/// What is added for the second case. Debian's stable suites hold one version of a package, so there is no upgrade that
/// two builds of one day could show; a package more changes the same things: files, directories, the linker's cache.
const PACKAGE: &str = "jq";

fn packings() -> Vec<Packing> {
    let clusters = [4 << 10, 16 << 10, 256 << 10]
        .into_iter()
        .flat_map(|cluster| [PACKINGS[1], PACKINGS[3]].map(|packing| Packing { cluster, ..packing }));
    PACKINGS.into_iter().chain(clusters).collect()
}

/// The new or changed files of a release as one archive, packed by zstd: what any update must bring. Its size in bytes.
fn changed(lab: &Lab, diff: &Value, tree: &str) -> Result<f64, String> {
    let files = diff["files"].as_array().ok_or("ashlar diff --json tells no files")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let new = files.iter().filter(|file| {
        text(&file["after"]["kind"]) == "file"
            && (file["before"].is_null()
                || file["changed"].as_array().is_some_and(|what| what.iter().any(|what| what == "content")))
    });
    let list: Vec<String> = new.map(|file| text(&file["path"])).collect();
    if list.is_empty() {
        return Err("ashlar diff tells of no changed file".into());
    }
    let (names, archive) = (lab.path("changed.list"), lab.path("changed.tar"));
    std::fs::write(&names, list.join("\0")).map_err(|e| format!("cannot write `{names}`: {e}"))?;
    measure("tar", &["-C", tree, "--null", "--no-recursion", "-cf", &archive, "-T", &names])?;
    let packed = format!("{archive}.zst");
    measure("zstd", &["-q", "-f", "-9", &archive, "-o", &packed])?;
    size(&packed)
}

/// What makes the second release differ from the first.
struct Case {
    name: &'static str,
    packages: &'static [&'static str],
    more: &'static str,
}

const CASES: [Case; 2] = [
    Case {
        name: "one file changed",
        packages: &[],
        more: "[[file]]\npath = \"/etc/motd\"\ncontent = \"The second one.\\n\"\n",
    },
    Case { name: "one package more", packages: &[PACKAGE], more: FIRST },
];

/// The file that the first release has.
const FIRST: &str = "[[file]]\npath = \"/etc/motd\"\ncontent = \"The first one.\\n\"\n";

/// Builds two releases and notes what lies between.
fn one(lab: &Lab, root: Root, case: &Case, packing: Packing, table: &mut Table) -> Result<(), String> {
    let lock = format!("{}-{}", root.name, case.packages.join("-"));
    let recipe = |packages: &[&str], more: &str| lab.recipe(root, Some(packing), packages, more);
    lab.build(&recipe(&[], FIRST)?, root.name, "first", &[])?;
    let second = recipe(case.packages, case.more)?;
    lab.build(&second, if case.packages.is_empty() { root.name } else { &lock }, "second", &[])?;
    let diff = lab.diff("first", "second")?;
    let row = format!("{}: {}, {} in {} KiB", root.name, case.name, packing.name(), packing.cluster >> 10);
    let number = |value: &Value| value.as_f64().ok_or("ashlar diff --json tells no download");
    let parts = diff["download"]["parts"].as_array().ok_or("ashlar diff --json tells no download")?;
    let image = parts.iter().find(|part| part["file"] == "root.erofs").ok_or("no root in the download")?;
    table.figure(&row, "image_bytes", size(&lab.path("second/root.erofs"))?);
    table.figure(&row, "new_root_bytes", number(&image["new_blocks"])? * 4096.0);
    table.figure(&row, "new_bytes", number(&diff["download"]["bytes"])?);
    table.figure(&row, "packed_bytes", number(&diff["download"]["packed"])?);
    // The first packing is none, which every fsck.erofs can read; the files are the same with the others.
    if packing.algorithm == "none" {
        lab.extract(&lab.path("second/root.erofs"), "second-tree")?;
    }
    // The packing that images have unless told otherwise.
    if packing.algorithm == "lz4" && packing.cluster == 64 << 10 {
        beside_casync(lab, &row, table)?;
    }
    let tree = lab.path("second-tree");
    table.figure(&row, "files_bytes", changed(lab, &diff, &tree)?);
    Ok(())
}

/// What our engine fetches for the second release, beside casync with the first one as its seed, and the whole image.
fn beside_casync(lab: &Lab, row: &str, table: &mut Table) -> Result<(), String> {
    let (old, new) = (lab.path("first/root.erofs"), lab.path("second/root.erofs"));
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let example =
        ["run", "-q", "--release", "--package", "ashlar-blocks", "--example", "update-size", &old, &new];
    let (_, text) = measure(&cargo, &example)?;
    let text = String::from_utf8_lossy(&text);
    let told = text.lines().find_map(|line| line.strip_prefix("ours in all")?.trim().parse::<f64>().ok());
    table.figure(row, "engine_bytes", told.ok_or("the example tells no size")?);
    // What a web server would send: the index of the new image, and the chunks that the old one does not have.
    let store = lab.path("casync-store");
    measure("rm", &["-rf", &store])?;
    let chunks = |name: &str, image: &str| -> Result<f64, String> {
        let index = lab.path(&format!("{name}.caibx"));
        measure("casync", &["make", &format!("--store={store}"), &index, image])?;
        let (_, sizes) = measure("find", &[&store, "-type", "f", "-printf", "%s\\n"])?;
        let sizes =
            String::from_utf8_lossy(&sizes).lines().filter_map(|line| line.parse::<f64>().ok()).sum::<f64>();
        Ok(sizes)
    };
    let before = chunks("first", &old)?;
    let after = chunks("second", &new)?;
    table.figure(row, "casync_bytes", after - before + size(&lab.path("second.caibx"))?);
    let packed = lab.path("whole.zst");
    measure("zstd", &["-q", "-f", "-3", &new, "-o", &packed])?;
    table.figure(row, "zstd_bytes", size(&packed)?);
    Ok(())
}

/// Measures and gives the table.
pub fn run() -> Result<Table, String> {
    let lab = Lab::new()?;
    let mut table = Table::default();
    for root in ROOTS {
        for case in &CASES {
            lab.fill(&lab.recipe(root, None, &[], FIRST)?, root.name)?;
            if !case.packages.is_empty() {
                let lock = format!("{}-{}", root.name, case.packages.join("-"));
                lab.fill(&lab.recipe(root, None, case.packages, FIRST)?, &lock)?;
            }
            eprintln!("xtask: {} root, {}", root.name, case.name);
            for packing in packings() {
                one(&lab, root, case, packing, &mut table)?;
            }
        }
    }
    table.note(
        "`new`: blocks of 4 KiB that the older release does not have, in all parts; `packed`: these by zstd"
            .into(),
    );
    table.note(
        "`engine`: what the update engine fetches of the root, all in all; `casync`: index and new chunks, with the older root as seed; \
         `zstd`: the whole new root by zstd -3. RAUC is not measured"
            .into(),
    );
    table.note("`files`: the new and changed files of the root as one archive, by zstd -9".into());
    Ok(table)
}
