//! Builds to be measured: the example, a larger tree, and variants of both.

use super::measure::{Run, measure};
use crate::build;
use crate::run::{target, workspace};
use std::path::{Path, PathBuf};

/// The programs, and a folder with keys and a package cache of its own.
pub struct Lab {
    ashlar: String,
    folder: PathBuf,
}

/// One of the two roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: &'static str,
    /// What it has beside the example's packages.
    packages: &'static [&'static str],
}

/// The example itself, and one that is large enough (about 400 MiB) that the start of programs does not weigh.
pub const ROOTS: [Root; 2] = [
    Root { name: "example", packages: &[] },
    Root { name: "large", packages: &["gcc", "git", "perl", "python3", "vim"] },
];

/// How a root is packed.
#[derive(Debug, Clone, Copy)]
pub struct Packing {
    /// As recipes and mkfs.erofs call it.
    pub algorithm: &'static str,
    /// The level, where it has levels.
    pub level: Option<u32>,
    /// Largest compressed piece, in bytes.
    pub cluster: u32,
}

/// What is measured, with the cluster size that recipes have by default.
pub const PACKINGS: [Packing; 5] = [
    Packing::new("none", None),
    Packing::new("lz4", None),
    Packing::new("lz4hc", Some(9)),
    Packing::new("zstd", Some(3)),
    Packing::new("zstd", Some(9)),
];

impl Packing {
    /// With clusters of 64 KiB.
    pub const fn new(algorithm: &'static str, level: Option<u32>) -> Self {
        Self { algorithm, level, cluster: 64 << 10 }
    }

    /// As the table names it.
    pub fn name(&self) -> String {
        self.level.map_or(self.algorithm.to_owned(), |level| format!("{} {level}", self.algorithm))
    }
}

/// Wall and processor seconds of each stage, in the order in which they began.
pub type Stages = Vec<(String, Run)>;

fn stages(json: &[u8]) -> Result<Stages, String> {
    let report: serde_json::Value =
        serde_json::from_slice(json).map_err(|e| format!("ashlar build --json: {e}"))?;
    let stages = report["timings"]["stages"].as_array().ok_or("ashlar build --json reports no stages")?;
    let number = |stage: &serde_json::Value, key: &str| stage[key].as_f64().ok_or("a stage without its time");
    stages
        .iter()
        .map(|stage| {
            let name = stage["name"].as_str().ok_or("a stage without its name")?.to_owned();
            let (wall, cpu) = (number(stage, "wall_seconds")?, number(stage, "cpu_seconds")?);
            Ok((name, Run { wall, cpu, peak: None }))
        })
        .collect()
}

/// Removes a folder that may not be there.
pub fn remove(folder: &str) -> Result<(), String> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("cannot remove `{folder}`: {e}")),
        _ => Ok(()),
    }
}

/// The size of a file in bytes.
pub fn size(file: &str) -> Result<f64, String> {
    let length = std::fs::metadata(file).map_err(|e| format!("cannot read `{file}`: {e}"))?.len();
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    Ok(length as f64)
}

impl Lab {
    /// Builds the programs and makes keys.
    pub fn new() -> Result<Self, String> {
        let ashlar = build::programs()?.join("ashlar").display().to_string();
        let folder = target().join("bench");
        std::fs::create_dir_all(&folder).map_err(|e| format!("cannot create `{}`: {e}", folder.display()))?;
        let lab = Self { ashlar, folder };
        if !Path::new(&lab.path("keys")).exists() {
            measure(&lab.ashlar, &["keys", "new", &lab.path("keys")])?;
        }
        Ok(lab)
    }

    /// The program.
    pub fn ashlar(&self) -> &str {
        &self.ashlar
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Writes a recipe that lays something over the example, and gives its path.
    pub fn recipe(
        &self,
        root: Root,
        packing: Option<Packing>,
        more_packages: &[&str],
        more: &str,
    ) -> Result<String, String> {
        use std::fmt::Write;
        let example = workspace().join("examples/container-host.toml");
        let packages = [root.packages, more_packages].concat();
        let mut text =
            format!("extends = {:?}\n[root]\npackages = {packages:?}\n", example.display().to_string());
        if let Some(packing) = packing {
            let _ = writeln!(
                text,
                "compression = {:?}\ncluster-size = \"{}KiB\"",
                packing.algorithm,
                packing.cluster >> 10
            );
            if let Some(level) = packing.level {
                let _ = writeln!(text, "compression-level = {level}");
            }
        }
        text.push_str(more);
        let path = self.path("recipe.toml");
        std::fs::write(&path, text).map_err(|e| format!("cannot write `{path}`: {e}"))?;
        Ok(path)
    }

    fn ashlar_build(
        &self,
        recipe: &str,
        lock: &str,
        out: &str,
        more: &[&str],
    ) -> Result<(Run, Stages), String> {
        let (keys, out, cache) = (self.path("keys"), self.path(out), self.path("cache"));
        let lock = self.path(&format!("{lock}.lock"));
        let always =
            ["build", recipe, "--keys", &keys, "-o", &out, "--cache", &cache, "--lock", &lock, "--json"];
        let (run, json) = measure(&self.ashlar, &[&always, more].concat())?;
        Ok((run, stages(&json)?))
    }

    /// Fills the cache and writes the lock file; not measured, and the only thing that uses the network.
    pub fn fill(&self, recipe: &str, lock: &str) -> Result<(), String> {
        self.ashlar_build(recipe, lock, "out", &[]).map(drop)
    }

    /// A build from the cache and the lock file.
    pub fn build(&self, recipe: &str, lock: &str, out: &str, more: &[&str]) -> Result<(Run, Stages), String> {
        self.ashlar_build(recipe, lock, out, &[&["--locked", "--offline"], more].concat())
    }

    /// Forgets kept stages.
    pub fn forget_stages(&self) -> Result<(), String> {
        remove(&self.path("cache/stages"))
    }

    /// Forgets unpacked packages.
    pub fn forget_unpacked(&self) -> Result<(), String> {
        remove(&self.path("cache/unpacked"))
    }

    /// The root as a folder, for the peers' tools; gives its path.
    pub fn extract(&self, image: &str, name: &str) -> Result<String, String> {
        let folder = self.path(name);
        remove(&folder)?;
        measure("fsck.erofs", &[&format!("--extract={folder}"), image])?;
        Ok(folder)
    }

    /// What changed from one release to another, as `ashlar diff` tells it.
    pub fn diff(&self, from: &str, to: &str) -> Result<serde_json::Value, String> {
        let (from, to) = (self.path(from), self.path(to));
        let (_, json) = measure(&self.ashlar, &["diff", "--json", "--all", &from, &to])?;
        serde_json::from_slice(&json).map_err(|e| format!("ashlar diff --json: {e}"))
    }
}
