//! Whole builds of the example: all of it, nothing changed, one file changed.

use super::Settings;
use super::lab::{Lab, PACKINGS, ROOTS, remove};
use super::measure::{settle, shell};
use super::stages;
use super::table::Table;

const FULL: &str = "build: all stages";
const UNCHANGED: &str = "build: nothing changed";
const CHANGED: &str = "build: one file changed";
const COPY: &str = "cp -r of a release";

/// Measures and gives the table.
pub fn run(settings: &Settings) -> Result<Table, String> {
    let lab = Lab::new()?;
    let mut table = Table::default();
    let [example, _] = ROOTS;
    lab.fill(&lab.recipe(example, None, &[], "")?, example.name)?;
    // In turn, so that a change of the machine's speed meets all of them.
    for round in 0..settings.runs {
        eprintln!("xtask: whole builds, round {} of {}", round + 1, settings.runs);
        let recipe = lab.recipe(example, None, &[], "")?;
        lab.forget_stages()?;
        settle()?;
        table.run(FULL, lab.build(&recipe, example.name, "out", &[])?.0);
        settle()?;
        table.run(UNCHANGED, lab.build(&recipe, example.name, "out", &[])?.0);
        let file = format!("[[file]]\npath = \"/etc/motd\"\ncontent = \"Round {round}.\\n\"\n");
        let recipe = lab.recipe(example, None, &[], &file)?;
        settle()?;
        table.run(CHANGED, lab.build(&recipe, example.name, "changed", &[])?.0);
        let copy = lab.path("copy");
        remove(&copy)?;
        settle()?;
        table.run(COPY, shell("cp -r --sparse=always \"$1\" \"$2\"", &[&lab.path("out"), &copy])?);
    }
    let (_, cpu) = table.seconds(FULL);
    table.goal(FULL, "at most 2 CPU seconds", cpu <= 2.0);
    let peak = table.peak(FULL);
    table.goal(FULL, "less than 300 MB", peak < 300e6);
    let beyond = table.seconds(CHANGED).0 - table.seconds(COPY).0;
    table.goal(CHANGED, &format!("{beyond:.2} s beyond the copy, to be less than 0.5 s"), beyond < 0.5);

    for root in ROOTS {
        lab.fill(&lab.recipe(root, None, &[], "")?, root.name)?;
        // The tree comes from an image that every fsck.erofs can read.
        lab.build(&lab.recipe(root, Some(PACKINGS[0]), &[], "")?, root.name, "out", &[])?;
        let tree = lab.extract(&lab.path("out/root.erofs"), root.name)?;
        for round in 0..settings.runs {
            eprintln!("xtask: {} root, round {} of {}", root.name, round + 1, settings.runs);
            stages::round(&lab, root, &tree, &mut table)?;
        }
    }
    stages::verity(&lab, settings.runs, &mut table)?;
    Ok(table)
}
