//! What reading all files of a mounted image costs, by compression.

use super::Settings;
use super::lab::{Lab, PACKINGS, ROOTS};
use super::measure::{Run, measure, settle, shell};
use super::peers::Mkfs;
use super::table::{MACHINE, SIZE, Table};

/// Processor seconds of the whole machine so far, without idling, waiting and what other machines took (proc(5),
/// /proc/stat). The kernel reads ahead and decompresses in threads of its own, which no process' account shows.
fn machine_cpu() -> Result<f64, String> {
    let text = std::fs::read_to_string("/proc/stat").map_err(|e| format!("/proc/stat: {e}"))?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq; the tick in that file is always 1/100 s.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&index: &usize| ticks.get(index)).sum::<f64>();
    Ok(busy / 100.0)
}

/// A mounted image; unmounted when it is dropped.
struct Mounted(String);

impl Mounted {
    fn new(image: &str, at: &str) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|e| format!("cannot create `{at}`: {e}"))?;
        measure("mount", &["-t", "erofs", "-o", "loop,ro", image, at])?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = measure("umount", &[&self.0]) {
            eprintln!("xtask: {error}");
        }
    }
}

/// Reads every file once: its seconds, and those of the whole machine.
fn read_all(at: &str) -> Result<(Run, f64), String> {
    let before = machine_cpu()?;
    let run = shell("find \"$1\" -type f -exec cat {} + > /dev/null", &[at])?;
    Ok((run, machine_cpu()? - before))
}

/// Forgets all that was read from disks.
fn drop_caches() -> Result<(), String> {
    settle()?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").map_err(|e| format!("/proc/sys/vm/drop_caches: {e}"))
}

/// Measures and gives the table.
pub fn run(settings: &Settings) -> Result<Table, String> {
    let mut table = Table::default();
    let user = measure("id", &["-u"])?.1;
    if user.trim_ascii() != b"0" {
        table.note("skipped: only root can mount images; run it as root".into());
        return Ok(table);
    }
    let lab = Lab::new()?;
    let mkfs = Mkfs::new()?;
    for root in ROOTS {
        let mut images = Vec::new();
        let mut tree = None;
        lab.fill(&lab.recipe(root, None, &[], "")?, root.name)?;
        for packing in &PACKINGS {
            lab.build(&lab.recipe(root, Some(*packing), &[], "")?, root.name, "out", &[])?;
            let name = format!("{}: ashlar, {}", root.name, packing.name());
            let image = lab.path(&format!("read.{}", images.len()));
            std::fs::copy(lab.path("out/root.erofs"), &image)
                .map_err(|e| format!("cannot write `{image}`: {e}"))?;
            // The first is uncompressed, which every fsck.erofs can read.
            if tree.is_none() {
                tree = Some(lab.extract(&image, root.name)?);
            }
            images.push((name, image));
            let (name, image) = (
                format!("{}: mkfs.erofs, {}", root.name, packing.name()),
                lab.path(&format!("read.{}", images.len())),
            );
            if mkfs.pack(tree.as_deref().unwrap_or_default(), packing, &image)?.is_some() {
                images.push((name, image));
            } else {
                table.note(format!("this machine's mkfs.erofs does not know {}", packing.algorithm));
            }
        }
        for round in 0..settings.runs {
            eprintln!("xtask: {} root, round {} of {}", root.name, round + 1, settings.runs);
            for (name, image) in &images {
                one(&lab, root.name, name, image, &mut table)?;
            }
        }
        for (_, image) in images {
            let _ = std::fs::remove_file(image);
        }
    }
    Ok(table)
}

/// One image, first from the disk, then with its bytes in memory and nothing decompressed.
fn one(lab: &Lab, root: &str, name: &str, image: &str, table: &mut Table) -> Result<(), String> {
    let at = lab.path("mounted");
    for (state, warm) in [("from disk", false), ("image in memory", true)] {
        // Mounted anew: what the file system holds from earlier goes with it.
        let mounted = match Mounted::new(image, &at) {
            Ok(mounted) => mounted,
            Err(error) => {
                table.note(format!(
                    "this kernel does not mount `{name}`: {}",
                    error.lines().nth(1).unwrap_or(&error)
                ));
                return Ok(());
            }
        };
        drop_caches()?;
        if warm {
            measure("sh", &["-c", "cat \"$1\" > /dev/null", "sh", image])?;
        }
        let (run, machine) = read_all(&mounted.0)?;
        let row = format!("{name}, {state}");
        // The peak is `find`'s and `cat`'s.
        table.run(&row, Run { peak: None, ..run });
        table.figure(&row, MACHINE, machine);
        table.figure(&row, SIZE, super::lab::size(image)?);
        table.beside(&row, &format!("{root}: ashlar, none, {state}"));
    }
    Ok(())
}
