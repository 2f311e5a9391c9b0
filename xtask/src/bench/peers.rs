//! The peers' tools: how each is asked for the same as ours.

use super::lab::Packing;
use super::measure::{Run, measure};
use std::process::Command;

/// What `mkfs.erofs` of this machine can.
pub struct Mkfs {
    help: String,
}

impl Mkfs {
    /// Asks it.
    pub fn new() -> Result<Self, String> {
        let output =
            Command::new("mkfs.erofs").arg("--help").output().map_err(|e| format!("mkfs.erofs: {e}"))?;
        let help = [output.stdout, output.stderr].concat();
        Ok(Self { help: String::from_utf8_lossy(&help).into_owned() })
    }

    /// Packs a folder on one processor; none where it does not know the compression.
    pub fn pack(&self, folder: &str, packing: &Packing, image: &str) -> Result<Option<Run>, String> {
        let known =
            self.help.split_once("compressors").is_some_and(|(_, list)| list.contains(packing.algorithm));
        if packing.algorithm != "none" && !known {
            return Ok(None);
        }
        let compress = match packing.level {
            Some(level) => format!("-z{},{level}", packing.algorithm),
            None => format!("-z{}", packing.algorithm),
        };
        let cluster = format!("-C{}", packing.cluster);
        let mut arguments = vec!["--quiet", "-T0"];
        if packing.algorithm != "none" {
            arguments.extend([compress.as_str(), &cluster]);
        }
        if self.help.contains("--workers") {
            arguments.push("--workers=1");
        }
        arguments.extend([image, folder]);
        // It writes into what is there.
        let _ = std::fs::remove_file(image);
        Ok(Some(measure("mkfs.erofs", &arguments)?.0))
    }
}

/// Packs a folder with mksquashfs on one processor, blocks as large as our clusters; none where it has no such
/// compression.
pub fn mksquashfs(folder: &str, packing: &Packing, image: &str) -> Result<Option<Run>, String> {
    let level = packing.level.unwrap_or_default().to_string();
    let compression: &[&str] = match packing.algorithm {
        "lz4" => &["-comp", "lz4"],
        // It has one level.
        "lz4hc" => &["-comp", "lz4", "-Xhc"],
        "zstd" => &["-comp", "zstd", "-Xcompression-level", &level],
        _ => return Ok(None),
    };
    let block = packing.cluster.to_string();
    let always = [folder, image, "-noappend", "-quiet", "-no-progress", "-processors", "1", "-b", &block];
    Ok(Some(measure("mksquashfs", &[&always, compression].concat())?.0))
}
