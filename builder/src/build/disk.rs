//! The EFI system partition and the disk image.

use super::root::{ROOT_FILE, VERITY_FILE};
use crate::error::BuildError;
use crate::identity::Identity;
use crate::output::Output;
use ashlar_formats::disk::{self, DiskLayout};
use ashlar_formats::esp::{self, EspOptions};
use ashlar_image::layout::{PARTITIONS, Sizes};
use std::fs::File;

/// Name of the EFI system partition's used prefix in a release's folder.
pub const ESP_FILE: &str = "esp.img";
/// Name of the disk image.
pub const DISK_FILE: &str = "disk.raw";

/// Writes the file system with the UKI, then the disk with table and slot A.
pub fn write(
    output: &Output,
    uki: &[u8],
    identity: &Identity,
    sizes: &Sizes,
    time: i64,
) -> Result<(), BuildError> {
    let needed = esp::required(uki.len() as u64);
    if needed > sizes.esp {
        return Err(BuildError::TooLarge { part: "esp", needed, available: sizes.esp });
    }
    let create = |name: &str| {
        let path = output.path(name);
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| BuildError::io("create", &path, e))
    };
    let open = |name: &str| {
        let path = output.path(name);
        let file = File::open(&path).map_err(|e| BuildError::io("open", &path, e))?;
        let length = file.metadata().map_err(|e| BuildError::io("read the size of", &path, e))?.len();
        Ok::<_, BuildError>((file, length))
    };
    let options =
        EspOptions { size: sizes.esp, serial: identity.serial("esp"), label: "ASHLAR".into(), time };
    let esp_file = create(ESP_FILE)?;
    let esp_length = esp::write(uki, &options, &esp_file)?;
    esp_file.set_len(esp_length).map_err(|e| BuildError::io("write", &output.path(ESP_FILE), e))?;

    let guids = PARTITIONS.map(|partition| identity.uuid(partition.label));
    let layout = DiskLayout::new(sizes, identity.uuid("disk"), guids)?;
    let ((root, root_length), (verity, verity_length)) = (open(ROOT_FILE)?, open(VERITY_FILE)?);
    let parts = [(1, &esp_file, esp_length), (2, &root, root_length), (3, &verity, verity_length)];
    Ok(disk::write(&create(DISK_FILE)?, &layout, &parts)?)
}
