//! The volume's file system, in the second stage.

use super::{StateBoot, fill_random, header};
use crate::console;
use crate::error::Error;
use ashlar_state::{Uuid, ext4, luks};
use rustix::mount::MountFlags;
use rustix::time::ClockId;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// Where it is mounted.
pub const MOUNT: &str = "/var";
/// Label of the file system.
const LABEL: &str = "ashlar-state";

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("open", path))
}

/// Mounts the volume, after making a file system where there is none yet. Nothing on it is executed.
pub fn mount(state: &StateBoot) -> Result<(), Error> {
    let failed = |why: String| Error::FileSystem { device: state.device.clone(), why };
    if state.new_file_system {
        let mut random = [[0; 16]; 2];
        for bytes in &mut random {
            fill_random(bytes).map_err(Error::io("read", "random numbers"))?;
        }
        let [uuid, hash_seed] = random;
        let time = u64::try_from(rustix::time::clock_gettime(ClockId::Realtime).tv_sec).unwrap_or_default();
        let params = ext4::Params { label: LABEL, uuid: Uuid::from_random(uuid), hash_seed, time };
        ext4::make(&mut open(&state.device)?, &params).map_err(|error| failed(error.to_string()))?;
        // From here on it is never made again.
        header::file_system_is_ready(&mut open(&state.partition)?)?;
        console::info("an empty file system was made on the state volume");
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // An error of the file system must not go on being written over.
    rustix::mount::mount(&state.device, MOUNT, "ext4", flags, Some(c"errors=remount-ro"))
        .map_err(|error| failed(format!("it cannot be mounted: {error}")))
}

/// Forgets the configuration that an installer had left where the volume is: it is stored in the volume, or refused.
pub fn forget_seed(state: &StateBoot) {
    if state.seed.is_none() {
        return;
    }
    let forgotten =
        open(&state.partition).and_then(|mut file| luks::forget_seed(&mut file).map_err(Error::StateHeader));
    if let Err(error) = forgotten {
        console::warning(error);
    }
}
