//! The EFI system partition and the disk image.

use super::parts::{Facts, ROOT_FILE, VERITY_FILE};
use crate::error::BuildError;
use crate::identity::Identity;
use crate::output::{self, Output};
use ashlar_formats::disk::{self, DiskLayout};
use ashlar_formats::esp::{self, EspOptions};
use ashlar_image::layout::{PARTITIONS, Sizes};
use ashlar_image::release::Artifact;
use std::fs::File;

/// Name of the EFI system partition's used prefix in a release's folder.
pub const ESP_FILE: &str = "esp.img";
/// Name of the disk image.
pub const DISK_FILE: &str = "disk.raw";

fn create(output: &Output, name: &str) -> Result<File, BuildError> {
    let path = output.path(name);
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|e| BuildError::io("create", &path, e))
}

/// Writes the file system with the UKI.
pub(super) fn esp(
    output: &Output,
    uki: &[u8],
    identity: &Identity,
    sizes: &Sizes,
    time: i64,
) -> Result<Artifact, BuildError> {
    let needed = esp::required(uki.len() as u64);
    if needed > sizes.esp {
        return Err(BuildError::TooLarge { part: "esp", needed, available: sizes.esp });
    }
    let options =
        EspOptions { size: sizes.esp, serial: identity.serial("esp"), label: "ASHLAR".into(), time };
    let path = output.path(ESP_FILE);
    let file = create(output, ESP_FILE)?;
    let length = esp::write(uki, &options, &file)?;
    file.set_len(length).map_err(|e| BuildError::io("write", &path, e))?;
    let (sha256, size) = output::digest(&path)?;
    Ok(Artifact { file: ESP_FILE.to_owned(), size, sha256 })
}

fn layout(identity: &Identity, facts: &Facts) -> Result<DiskLayout, BuildError> {
    let guids = PARTITIONS.map(|partition| identity.uuid(partition.label));
    Ok(DiskLayout::new(&facts.partition_sizes, identity.uuid("disk"), guids)?)
}

/// Size of the disk in bytes.
pub(super) fn size(identity: &Identity, facts: &Facts) -> Result<u64, BuildError> {
    Ok(layout(identity, facts)?.total_size())
}

/// Writes the disk with table and slot A.
pub(super) fn disk(
    output: &Output,
    esp: &Artifact,
    identity: &Identity,
    facts: &Facts,
) -> Result<(), BuildError> {
    let open = |name: &str| {
        let path = output.path(name);
        File::open(&path).map_err(|e| BuildError::io("open", &path, e))
    };
    let (esp_file, root, verity) = (open(ESP_FILE)?, open(ROOT_FILE)?, open(VERITY_FILE)?);
    let parts = [(1, &esp_file, esp.size), (2, &root, facts.root.size), (3, &verity, facts.verity.size)];
    Ok(disk::write(&create(output, DISK_FILE)?, &layout(identity, facts)?, &parts)?)
}
