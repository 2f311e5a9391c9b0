//! The build of the example, and its stages beside the peers' tools.

use super::measure::{Run, measure, median};
use crate::build;
use crate::run::target;
use clap::Args;
use std::collections::BTreeMap;
use std::path::Path;

/// How often.
#[derive(Args)]
pub struct Build {
    /// Counted runs of each program
    #[arg(long, default_value_t = 5)]
    runs: usize,
}

/// Wall and processor seconds of each run of one thing.
#[derive(Default)]
struct Runs(Vec<Run>);

impl Runs {
    fn wall(&self) -> f64 {
        median(self.0.iter().map(|run| run.wall).collect())
    }

    fn cpu(&self) -> f64 {
        median(self.0.iter().map(|run| run.cpu).collect())
    }
}

/// The stages that one build reports.
fn stages(json: &[u8]) -> Result<Vec<(String, Run)>, String> {
    let report: serde_json::Value =
        serde_json::from_slice(json).map_err(|e| format!("ashlar build --json: {e}"))?;
    let stages = report["timings"]["stages"].as_array().ok_or("ashlar build --json reports no stages")?;
    let number = |stage: &serde_json::Value, key: &str| stage[key].as_f64().ok_or("a stage without its time");
    stages
        .iter()
        .map(|stage| {
            let name = stage["name"].as_str().ok_or("a stage without its name")?.to_owned();
            Ok((name, Run { wall: number(stage, "wall_seconds")?, cpu: number(stage, "cpu_seconds")? }))
        })
        .collect()
}

impl Build {
    /// Measures and prints a table.
    pub fn run(self) -> Result<(), String> {
        if self.runs == 0 {
            return Err("--runs must be at least 1".into());
        }
        let ashlar = build::build()?.join("ashlar").display().to_string();
        let folder = target().join("bench");
        std::fs::create_dir_all(&folder).map_err(|e| format!("cannot create `{}`: {e}", folder.display()))?;
        let path = |name: &str| folder.join(name).display().to_string();
        if !Path::new(&path("keys")).exists() {
            measure(&ashlar, &["keys", "new", &path("keys")])?;
        }
        let recipe = crate::run::workspace().join("examples/container-host.toml").display().to_string();
        let (keys, out, lock) = (path("keys"), path("out"), path("image.lock"));
        let build = ["build", &recipe, "--keys", &keys, "-o", &out, "--lock", &lock, "--json"];
        // Once uncounted: it fills the cache and writes the lock file.
        measure(&ashlar, &build)?;

        let (root, tree) = (format!("{out}/root.erofs"), path("tree"));
        let _ = std::fs::remove_dir_all(&tree);
        let extract = format!("--extract={tree}");
        measure("fsck.erofs", &[&extract, &root])?;

        let (mut whole, mut verity, mut mkfs) = (Runs::default(), Runs::default(), Runs::default());
        let mut by_stage: BTreeMap<String, Runs> = BTreeMap::new();
        let mut order = Vec::new();
        // In turn, so that a change of the machine's speed meets all of them.
        for _ in 0..self.runs {
            let (run, json) = measure(&ashlar, &[&build[..], &["--locked", "--offline"]].concat())?;
            whole.0.push(run);
            order.clear();
            for (name, run) in stages(&json)? {
                by_stage.entry(name.clone()).or_default().0.push(run);
                order.push(name);
            }
            let _ = std::fs::remove_file(path("theirs.verity"));
            verity.0.push(measure("veritysetup", &["format", &root, &path("theirs.verity")])?.0);
            let _ = std::fs::remove_file(path("theirs.erofs"));
            mkfs.0.push(measure("mkfs.erofs", &["--quiet", &path("theirs.erofs"), &tree])?.0);
        }
        println!("{:<24} {:>9} {:>9}   ({} runs, medians)", "", "wall s", "cpu s", self.runs);
        let row = |name: &str, runs: &Runs| println!("{name:<24} {:>9.3} {:>9.3}", runs.wall(), runs.cpu());
        for name in &order {
            if let Some(runs) = by_stage.get(name) {
                row(&format!("  {name}"), runs);
            }
        }
        row("ashlar build (warm)", &whole);
        row("veritysetup format", &verity);
        row("mkfs.erofs", &mkfs);
        for (stage, peer, runs) in [("verity", "veritysetup", &verity), ("erofs", "mkfs.erofs", &mkfs)] {
            if let Some(ours) = by_stage.get(stage) {
                println!(
                    "{stage} stage / {peer}: wall {:.2}, cpu {:.2}",
                    ours.wall() / runs.wall(),
                    ours.cpu() / runs.cpu()
                );
            }
        }
        Ok(())
    }
}
