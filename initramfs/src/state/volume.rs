//! The volume's file system, in the second stage.

use super::{StateBoot, fill_random, header};
use crate::console;
use crate::error::Error;
use ashlar_state::ext4;
use rustix::mount::MountFlags;
use rustix::time::ClockId;
use std::fs::{File, OpenOptions};
use std::path::Path;

/// Where it is mounted.
pub const MOUNT: &str = "/var";
/// Label of the file system.
const LABEL: &str = "ashlar-state";

/// Mounts the volume, after making a file system where there is none yet. Nothing on it is executed.
pub fn mount(state: &StateBoot) -> Result<(), Error> {
    let open = |path: &Path| {
        OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("open", path))
    };
    if state.new_file_system {
        let device = open(&state.device)?;
        let failed = |error: ext4::Error| Error::FileSystem { device: state.device.clone(), why: error.to_string() };
        let size = size(&device, &state.device)?;
        let mut uuid = [0; 16];
        fill_random(&mut uuid).map_err(Error::io("read", "random numbers"))?;
        let now = rustix::time::clock_gettime(ClockId::Realtime).tv_sec;
        ext4::make(&device, size, &ext4::Params { label: LABEL, uuid, time: u64::try_from(now).unwrap_or(0) })
            .map_err(failed)?;
        header::file_system_is_ready(&mut open(&state.partition)?)?;
        console::info("an empty file system was made on the state volume");
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // An error of the file system must not go on being written over.
    rustix::mount::mount(&state.device, MOUNT, "ext4", flags, Some(c"errors=remount-ro")).map_err(|error| {
        Error::FileSystem { device: state.device.clone(), why: format!("it cannot be mounted: {error}") }
    })
}

/// Size of a block device in bytes.
fn size(device: &File, path: &Path) -> Result<u64, Error> {
    rustix::fs::seek(device, rustix::fs::SeekFrom::End(0)).map_err(|e| Error::io("measure", path)(e.into()))
}
