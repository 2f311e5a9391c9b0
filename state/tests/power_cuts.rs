//! Power cuts at every place of every operation that writes.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_state::ext4::{self, Ext4Super};
use ashlar_state::luks::{self, Found, Header};
use ashlar_state::memory::MemoryDevice;
use ashlar_state::{Ext4Error, Filesystem, StateToken, Uuid, seed};
use common::{Numbers, SIZE, format, recovery_key, volume, volume_key};
use std::collections::BTreeMap;

/// Random choices for each stretch between flushes.
const SAMPLES: usize = 40;

/// What is left after power cuts: how often each name that `name` gives.
fn cuts(
    device: &MemoryDevice,
    before: &MemoryDevice,
    name: &mut dyn FnMut(&MemoryDevice) -> &'static str,
) -> BTreeMap<&'static str, usize> {
    let mut numbers = Numbers(11);
    let mut names = BTreeMap::new();
    let shown = device.after_power_cuts(before, SAMPLES, &mut || numbers.next(), &mut |state| {
        *names.entry(name(state)).or_default() += 1;
    });
    assert_eq!(names.values().sum::<usize>(), shown);
    names
}

fn header(device: &MemoryDevice) -> Option<Header> {
    match luks::read(device) {
        Ok(Found::Volume(header)) => Some(*header),
        _ => None,
    }
}

/// Whoever finds the volume can open it, and after a repair it stands one more damage.
fn is_usable(state: &MemoryDevice) {
    let header = header(state).unwrap();
    assert!(header.verify_volume_key(&volume_key()));
    if header.needs_repair() {
        let mut numbers = Numbers(5);
        let mut repaired = state.settled();
        header.write_update(&mut repaired, &mut |buffer| numbers.fill(buffer)).unwrap();
        for copy in [0, 16384] {
            let mut damaged = repaired.settled();
            damaged.put(&[0xee; 16384], copy);
            assert!(self::header(&damaged).is_some());
        }
    }
}

fn name_of(state: &MemoryDevice) -> &'static str {
    match luks::read(state) {
        Ok(Found::Blank) => "blank",
        Ok(Found::Seed(_)) => "seed",
        Ok(Found::Unfinished) => "unfinished",
        Ok(Found::Volume(_)) => {
            is_usable(state);
            "volume"
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn making_a_volume_on_a_blank_partition() {
    let before = MemoryDevice::new(SIZE);
    let mut device = before.settled();
    format(&mut device, 4096, Vec::new());
    let mut unfinished = Vec::new();
    let mut whole = Vec::new();
    let names = cuts(&device, &before, &mut |state| {
        let name = name_of(state);
        if name == "unfinished" {
            unfinished.push(state.clone());
        } else if name == "volume" {
            whole.push(state.clone());
        }
        name
    });
    assert_eq!(names.keys().copied().collect::<Vec<_>>(), ["blank", "unfinished", "volume"], "{names:?}");
    // Some of each, because argon2 takes its time: what was cut short can be made again, what is there opens.
    for state in unfinished.iter().step_by(unfinished.len() / 6 + 1) {
        let mut again = state.settled();
        let header = format(&mut again, 4096, Vec::new());
        assert_eq!(header.open_with_recovery_key(&again, &recovery_key().text()).unwrap(), volume_key());
    }
    for state in whole.iter().step_by(whole.len() / 6 + 1) {
        let header = header(state).unwrap();
        assert_eq!(header.open_with_recovery_key(state, &recovery_key().text()).unwrap(), volume_key());
    }
}

#[test]
fn making_a_volume_where_a_seed_lies() {
    for length in [100, 20_000, seed::MAX_CONTENT] {
        let content: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        let before = MemoryDevice::with(SIZE, &seed::seed(&content).unwrap());
        let mut device = before.settled();
        format(&mut device, 4096, Vec::new());
        let names = cuts(&device, &before, &mut |state| {
            let name = name_of(state);
            // The configuration is never lost.
            if let Ok(Found::Seed(found)) = luks::read(state) {
                assert_eq!(found, content);
            } else {
                assert_eq!(luks::kept_seed(state).unwrap().unwrap(), content);
            }
            name
        });
        assert_eq!(names.keys().copied().collect::<Vec<_>>(), ["seed", "unfinished", "volume"], "{names:?}");
    }
}

#[test]
fn making_a_volume_again() {
    let mut before = MemoryDevice::new(SIZE);
    before.put(&[0xaa; 16384], 0);
    luks::erase(&mut before).unwrap();
    let before = before.settled();
    let mut device = before.settled();
    format(&mut device, 512, Vec::new());
    let names = cuts(&device, &before, &mut name_of);
    assert_eq!(names.keys().copied().collect::<Vec<_>>(), ["unfinished", "volume"], "{names:?}");
}

#[test]
fn updating_tokens() {
    // From a whole header, and from those with one damaged copy.
    for damage in [None, Some(0), Some(16384)] {
        let mut before = volume();
        if let Some(at) = damage {
            before.put(&[0xdd; 700], at);
        }
        let old = header(&before).unwrap();
        let mut numbers = Numbers(6);
        let ready = StateToken { filesystem: Filesystem::Ready };
        let mut device = before.settled();
        let new = old.with_tokens(vec![ready.into()]).unwrap();
        let new = new.write_update(&mut device, &mut |buffer| numbers.fill(buffer)).unwrap();
        let names = cuts(&device, &before, &mut |state| {
            is_usable(state);
            let found = header(state).unwrap();
            if found.tokens() == new.tokens() {
                "new"
            } else {
                assert_eq!(found.tokens(), old.tokens());
                "old"
            }
        });
        assert_eq!(names.keys().copied().collect::<Vec<_>>(), ["new", "old"], "{names:?}");
    }
}

/// A damaged header of a volume that was whole is never taken for something that may be made anew.
#[test]
fn damage_is_no_invitation() {
    let device = volume();
    let mut numbers = Numbers(8);
    for round in 0..2000 {
        let mut damaged = device.settled();
        // Any number of sectors of the header, with zeros or anything.
        for sector in 0..64 {
            if numbers.next().is_multiple_of(4) {
                let mut bytes = [0; 512];
                if round % 2 == 0 {
                    numbers.fill(&mut bytes).unwrap();
                }
                damaged.put(&bytes, sector * 512);
            }
        }
        let found = luks::read(&damaged);
        assert!(!matches!(found, Ok(Found::Blank | Found::Unfinished | Found::Seed(_))), "{found:?}");
    }
    // Even with all of the header gone the keyslot is there.
    let mut damaged = device.settled();
    damaged.put(&vec![0; 32768], 0);
    assert!(matches!(luks::read(&damaged), Ok(Found::Foreign(_))));
}

#[test]
fn erasing_a_volume() {
    let before = volume();
    let mut device = before.settled();
    luks::erase(&mut device).unwrap();
    let names = cuts(&device, &before, &mut |state| match luks::read(state) {
        Ok(Found::Volume(_)) => "volume",
        Ok(Found::Unfinished) => "unfinished",
        other => panic!("{other:?}"),
    });
    assert_eq!(names.keys().copied().collect::<Vec<_>>(), ["unfinished", "volume"], "{names:?}");
}

#[test]
fn making_a_file_system() {
    let size = 1 << 30;
    let old = ext4::Params { label: "old", uuid: Uuid([1; 16]), hash_seed: [2; 16], time: 3 };
    let new = ext4::Params { label: "new", uuid: Uuid([4; 16]), ..old };
    let mut with_old = MemoryDevice::new(size);
    ext4::make(&mut with_old, &old).unwrap();
    // What decryption of nothing looks like.
    let mut noise = MemoryDevice::new(size);
    let mut bytes = vec![0; 4 << 20];
    Numbers(9).fill(&mut bytes).unwrap();
    noise.put(&bytes, 0);
    for before in [MemoryDevice::new(size), with_old.settled(), noise] {
        let mut device = before.settled();
        ext4::make(&mut device, &new).unwrap();
        let had_old = Ext4Super::read(&before).is_ok();
        let names = cuts(&device, &before, &mut |state| match Ext4Super::read(state) {
            Ok(found) if found.label == "new" => {
                // The superblock is the last thing, so all else is there.
                for (offset, length) in [(4096, 4 << 20), (128 << 20, 65536), (256 << 20, 4096)] {
                    assert!(state.get(offset, length) == device.get(offset, length), "{offset}");
                }
                "new"
            }
            Ok(_) => "old",
            Err(Ext4Error::None) => "none",
            // The first block is written in parts: the superblock lies in two sectors.
            Err(Ext4Error::Damaged(_)) => "damaged",
            Err(other) => panic!("{other}"),
        });
        assert!(names["new"] > 0 && names["none"] > 0, "{names:?}");
        assert_eq!(names.contains_key("old"), had_old, "{names:?}");
    }
}
