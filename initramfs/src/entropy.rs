//! The seed of the kernel's random numbers: what one boot leaves to the next, and what the TPM gives.

use crate::{durable, sys};
use rustix::rand::GetRandomFlags;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

/// The file, in the folder that the functions are given.
pub const FILE: &str = "random-seed";
/// Size of a seed in bytes; what the kernel's own documentation asks for (random(4)).
pub const SIZE: usize = 512;
/// Random bytes that are asked of the TPM.
pub const TPM_BYTES: usize = 64;
/// The device.
const DEVICE: &str = "/dev/urandom";

/// What seeding came to, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seeded {
    /// Bytes of the seed that the boot before left; none is credited, because a copy of the disk has it too.
    pub seed: usize,
    /// Bits that the TPM's bytes were credited with.
    pub credited_bits: u32,
}

/// The seed after `old`: nobody who knows only one of its sources knows it.
fn next(old: &[u8], tpm: &[u8], kernel: &[u8]) -> Vec<u8> {
    let mut seed = Vec::with_capacity(SIZE);
    let mut block = 0u32;
    while seed.len() < SIZE {
        let mut hash = Sha256::new();
        hash.update(b"ashlar random seed v1");
        hash.update(block.to_le_bytes());
        for source in [old, tpm, kernel] {
            hash.update((source.len() as u64).to_le_bytes());
            hash.update(source);
        }
        seed.extend_from_slice(&hash.finalize());
        block += 1;
    }
    seed.truncate(SIZE);
    seed
}

/// The kernel's random bytes, without waiting: they are only one of the sources.
fn kernel_bytes() -> [u8; 64] {
    let mut bytes = [0; 64];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::rand::getrandom(rest, GetRandomFlags::INSECURE) {
            Ok(count) if count > 0 => filled += count,
            _ => break,
        }
    }
    bytes
}

/// The seed in `folder`, at most [`SIZE`] bytes; empty where there is none.
fn read(folder: &Path) -> Vec<u8> {
    let mut seed = Vec::new();
    let read = File::open(folder.join(FILE)).and_then(|file| file.take(SIZE as u64).read_to_end(&mut seed));
    if read.is_ok() { seed } else { Vec::new() }
}

/// Gives the kernel the seed in `folder` and the bytes of the `tpm`, and leaves a new seed. The new one is on the disk
/// before the old one is used: no seed is used twice, whenever the power is cut.
pub fn seed(folder: &Path, tpm: &[u8]) -> io::Result<Seeded> {
    let mut device = OpenOptions::new().write(true).open(DEVICE)?;
    let old = read(folder);
    durable::replace(&folder.join(FILE), &next(&old, tpm, &kernel_bytes()), 0o600)?;
    give(&mut device, &old, tpm)
}

/// Gives the kernel the bytes of the `tpm` alone, where there is no state volume.
pub fn seed_without_state(tpm: &[u8]) -> io::Result<Seeded> {
    let mut device = OpenOptions::new().write(true).open(DEVICE)?;
    give(&mut device, &[], tpm)
}

fn give(device: &mut File, old: &[u8], tpm: &[u8]) -> io::Result<Seeded> {
    // Writing mixes in and credits nothing.
    device.write_all(old)?;
    let credited_bits = credit(tpm);
    if credited_bits > 0 {
        let mut block = [0; TPM_BYTES];
        for (to, from) in block.iter_mut().zip(tpm) {
            *to = *from;
        }
        sys::add_entropy(device, &block, credited_bits)?;
    }
    Ok(Seeded { seed: old.len(), credited_bits })
}

/// Bits for bytes of a TPM: a certified generator with a whole bit in each. Bytes that are all the same are none.
fn credit(tpm: &[u8]) -> u32 {
    let varied = tpm.first().is_some_and(|first| tpm.iter().any(|byte| byte != first));
    if varied { u32::try_from(tpm.len().min(TPM_BYTES) * 8).unwrap_or(0) } else { 0 }
}

/// Leaves a new seed at the end of the machine.
pub fn save(folder: &Path) -> io::Result<()> {
    durable::replace(&folder.join(FILE), &next(&read(folder), &[], &kernel_bytes()), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_source_changes_all_of_the_seed() {
        let base = next(b"old", b"tpm", b"kernel");
        assert_eq!(base.len(), SIZE);
        assert_eq!(base, next(b"old", b"tpm", b"kernel"));
        // The same bytes divided otherwise are another seed.
        for other in
            [next(b"new", b"tpm", b"kernel"), next(b"old", b"", b"kernel"), next(b"oldt", b"pm", b"kernel")]
        {
            assert_eq!(other.len(), SIZE);
            assert!(base.chunks(32).zip(other.chunks(32)).all(|(one, other)| one != other));
        }
        assert!(base.chunks(32).all(|block| base.chunks(32).filter(|other| *other == block).count() == 1));
    }

    #[test]
    fn only_bytes_of_a_generator_are_credited() {
        assert_eq!(credit(&[]), 0);
        assert_eq!(credit(&[0; 64]), 0);
        assert_eq!(credit(&[0xff; 64]), 0);
        assert_eq!(credit(&[1, 2, 3]), 24);
        assert_eq!(credit(&(0..=255).collect::<Vec<u8>>()), 512);
    }

    #[test]
    fn no_seed_is_used_twice() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let seeded = seed(folder.path(), &[]).unwrap();
        assert_eq!(seeded, Seeded { seed: 0, credited_bits: 0 });
        let mut seeds = vec![fs::read(&file).unwrap()];
        for _ in 0..3 {
            assert_eq!(seed(folder.path(), &[]).unwrap().seed, SIZE);
            seeds.push(fs::read(&file).unwrap());
            save(folder.path()).unwrap();
            seeds.push(fs::read(&file).unwrap());
        }
        for (index, one) in seeds.iter().enumerate() {
            assert_eq!(one.len(), SIZE);
            assert!(!seeds[index + 1..].contains(one));
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        // One that somebody made too long is cut, one that is a folder is none.
        fs::write(&file, vec![1; 4096]).unwrap();
        assert_eq!(seed(folder.path(), &[]).unwrap().seed, SIZE);
        assert!(seed(&folder.path().join("none"), &[]).is_err());
    }

    #[test]
    fn the_kernel_takes_credited_bytes_from_root_only() {
        let device = OpenOptions::new().write(true).open(DEVICE).unwrap();
        let given = sys::add_entropy(&device, &kernel_bytes(), 8);
        if rustix::process::geteuid().is_root() && given.is_ok() {
            return;
        }
        assert_eq!(given.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
