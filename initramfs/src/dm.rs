//! The device mapper's ioctls, as far as dm-verity and dm-crypt need them (Linux, `include/uapi/linux/dm-ioctl.h` and
//! `Documentation/admin-guide/device-mapper/{verity,dm-crypt}.rst`).

use crate::block::Device;
use crate::error::Error;
use crate::sys;
use ashlar_image::cmdline::{BLOCK_SIZE, VerityRoot};
use std::fs::{File, OpenOptions};
use std::path::PathBuf;

/// The control device.
pub const CONTROL: &str = "/dev/mapper/control";
/// Name of the mapped root.
pub const ROOT: &str = "ashlar-root";

/// Longest name of a mapped device here; the kernel takes 127 bytes.
const MAX_NAME: usize = 64;
/// `sizeof(struct dm_ioctl)`.
const HEADER: usize = 312;
/// `sizeof(struct dm_target_spec)`.
const TARGET: usize = 40;
/// Version of the interface that init speaks: that of the first dm-verity.
const VERSION: [u32; 3] = [4, 20, 0];
/// `DM_READONLY_FLAG`.
const READ_ONLY: u32 = 1;
/// Where `dm_ioctl.dev` lies.
const DEV_AT: usize = 40;

/// A command of the device mapper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// `DM_DEV_CREATE`.
    Create = 3,
    /// `DM_DEV_REMOVE`.
    Remove = 4,
    /// `DM_DEV_SUSPEND`, here always without the suspend flag, which means resume.
    Resume = 6,
    /// `DM_TABLE_LOAD`.
    LoadTable = 9,
}

impl Command {
    /// The ioctl's number: `_IOWR(0xfd, command, struct dm_ioctl)`.
    pub const fn request(self) -> u32 {
        3 << 30 | (HEADER as u32) << 16 | 0xfd << 8 | self as u32
    }

    const fn step(self) -> &'static str {
        match self {
            Self::Create => "make the device",
            Self::Remove => "remove the device",
            Self::Resume => "start the device",
            Self::LoadTable => "load the table",
        }
    }
}

/// The parameters of dm-verity for `root` with the partitions' device numbers.
pub fn parameters(root: &VerityRoot, data: &str, tree: &str) -> String {
    format!(
        "1 {data} {tree} {BLOCK_SIZE} {BLOCK_SIZE} {} 1 sha256 {} {} 1 panic_on_corruption",
        root.data_blocks,
        root.root_hash,
        hex::encode(root.salt)
    )
}

/// A device's one target.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its type: `verity`, `crypt`.
    pub kind: &'a str,
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// Parameters.
    pub parameters: &'a str,
}

/// The argument of an ioctl about the device `name`: the header and, to load a table, its target.
pub fn argument(name: &str, flags: u32, target: Option<Target<'_>>) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    let mut put = |at: usize, value: &[u8]| {
        for (to, from) in bytes.iter_mut().skip(at).zip(value) {
            *to = *from;
        }
    };
    for (index, part) in VERSION.iter().enumerate() {
        put(index * 4, &part.to_ne_bytes());
    }
    put(16, &(HEADER as u32).to_ne_bytes());
    put(20, &u32::from(target.is_some()).to_ne_bytes());
    put(28, &flags.to_ne_bytes());
    put(48, name.as_bytes().get(..MAX_NAME).unwrap_or(name.as_bytes()));
    if let Some(Target { kind, sectors, parameters }) = target {
        // The parameters end with a NUL and are padded to eight bytes.
        let length = (parameters.len() + 1).next_multiple_of(8);
        let mut name = [0; 16];
        for (to, from) in name.iter_mut().zip(kind.bytes()) {
            *to = from;
        }
        bytes.extend(0u64.to_ne_bytes());
        bytes.extend(sectors.to_ne_bytes());
        bytes.extend(0i32.to_ne_bytes());
        bytes.extend(((TARGET + length) as u32).to_ne_bytes());
        bytes.extend(name);
        bytes.extend(parameters.bytes());
        bytes.resize(HEADER + TARGET + length, 0);
    }
    let size = bytes.len() as u32;
    for (to, from) in bytes.iter_mut().skip(12).zip(size.to_ne_bytes()) {
        *to = from;
    }
    bytes
}

/// The minor number in `dm_ioctl.dev`, which holds it in the kernel's `huge_encode_dev` form.
pub fn minor(answer: &[u8]) -> Option<u32> {
    let dev = u64::from_ne_bytes(answer.get(DEV_AT..)?.first_chunk().copied()?);
    u32::try_from(dev & 0xff | dev >> 12 & !0xff).ok()
}

fn run(control: &File, command: Command, mut argument: Vec<u8>) -> Result<Vec<u8>, Error> {
    sys::ioctl_buffer(control, command.request(), &mut argument)
        .map_err(|source| Error::DeviceMapper { step: command.step(), source })?;
    Ok(argument)
}

/// Makes the device `name` with one target and starts it. Nothing half-made stays.
pub fn create(name: &str, read_only: bool, target: Target<'_>) -> Result<PathBuf, Error> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CONTROL)
        .map_err(|source| Error::DeviceMapper { step: "open its control device", source })?;
    let flags = if read_only { READ_ONLY } else { 0 };
    let created = run(&control, Command::Create, argument(name, 0, None))?;
    let start = || {
        run(&control, Command::LoadTable, argument(name, flags, Some(target)))?;
        run(&control, Command::Resume, argument(name, flags, None))?;
        minor(&created).ok_or(Error::DeviceMapper {
            step: "find the device",
            source: std::io::ErrorKind::InvalidData.into(),
        })
    };
    match start() {
        Ok(minor) => Ok(PathBuf::from(format!("/dev/dm-{minor}"))),
        Err(error) => {
            // The first error is the one to tell.
            let _ = run(&control, Command::Remove, argument(name, 0, None));
            Err(error)
        }
    }
}

/// Removes the device `name`; it must not be in use.
pub fn remove(name: &str) -> Result<(), Error> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open(CONTROL)
        .map_err(|source| Error::DeviceMapper { step: "open its control device", source })?;
    run(&control, Command::Remove, argument(name, 0, None)).map(|_| ())
}

/// Opens the root and gives its device. A block that does not have its hash makes the kernel panic, whoever
/// reads it: the machine starts again rather than going on with a part of its root missing.
pub fn open(root: &VerityRoot, data: &Device, tree: &Device) -> Result<PathBuf, Error> {
    let parameters = parameters(root, &data.numbers, &tree.numbers);
    let sectors = root.data_blocks.saturating_mul(BLOCK_SIZE / 512);
    create(ROOT, true, Target { kind: "verity", sectors, parameters: &parameters })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::digest::Digest;

    #[test]
    fn numbers_of_the_ioctls() {
        // As strace prints them for dmsetup.
        assert_eq!(Command::Create.request(), 0xc138_fd03);
        assert_eq!(Command::LoadTable.request(), 0xc138_fd09);
        assert_eq!(Command::Resume.request(), 0xc138_fd06);
    }

    #[test]
    fn the_table_in_bytes() {
        let root = VerityRoot { root_hash: Digest([0xab; 32]), data_blocks: 77, salt: [9; 32] };
        let text = parameters(&root, "254:2", "254:3");
        assert_eq!(
            text,
            format!(
                "1 254:2 254:3 4096 4096 77 1 sha256 {} {} 1 panic_on_corruption",
                "ab".repeat(32),
                "09".repeat(32)
            )
        );
        let bytes =
            argument(ROOT, READ_ONLY, Some(Target { kind: "verity", sectors: 616, parameters: &text }));
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(8)), (4, 20, 0));
        assert_eq!(word(12) as usize, bytes.len(), "data_size");
        assert_eq!(word(16), 312, "data_start");
        assert_eq!(word(20), 1, "target_count");
        assert_eq!(word(28), 1, "flags");
        assert_eq!(&bytes[48..60], b"ashlar-root\0");
        assert_eq!(&bytes[312..320], &[0; 8], "sector_start");
        assert_eq!(&bytes[320..328], &616u64.to_ne_bytes(), "length");
        assert_eq!(word(332) as usize, bytes.len() - 312, "next");
        assert_eq!(&bytes[336..352], b"verity\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&bytes[352..352 + text.len()], text.as_bytes());
        assert_eq!(bytes[352 + text.len()], 0);
        assert_eq!(bytes.len() % 8, 0);
    }

    #[test]
    fn minors_above_255() {
        let mut answer = argument(ROOT, 0, None);
        assert_eq!(answer.len(), 312);
        // Major 254, minor 0x1234.
        answer[40..48].copy_from_slice(&(0x34u64 | 254 << 8 | 0x12 << 20).to_ne_bytes());
        assert_eq!(minor(&answer), Some(0x1234));
        assert_eq!(minor(&answer[..47]), None);
    }
}
