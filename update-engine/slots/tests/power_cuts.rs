//! The power goes at any moment of a swap: the machine starts the old release or the new one, whole, and the swap can be
//! finished.
#![allow(clippy::unwrap_used)]

use ashlar_image::digest::Digest;
use ashlar_image::layout::{Role, Sizes, Slot};
use ashlar_image::release::{Artifact, DiskImage, FORMAT, Release, SlotArtifacts, Uki};
use ashlar_measured_boot::efi::Guid;
use ashlar_slots::load_option::Place;
use ashlar_slots::model::{Machine, Random, Recorder, Step, power_cuts};
use ashlar_slots::swap::{Judges, artifacts};
use ashlar_slots::variables::{Name, Variables};
use ashlar_slots::{Enabled, MemoryVariables, SlotDisks, SlotsError, Swap, entries};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};

/// Sizes in blocks of 4096 bytes.
const ESP: usize = 64;
const ROOT: usize = 48;
const VERITY: usize = 4;

/// A release with its content.
#[derive(Debug, Clone)]
struct Content {
    release: Release,
    parts: BTreeMap<Role, Vec<u8>>,
}

fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| random.next_number().to_le_bytes()[3]).collect()
}

/// A FAT with a UKI, whose content is not one: the model's firmware goes by its hash.
fn esp(uki: &[u8]) -> Vec<u8> {
    let mut image = Cursor::new(vec![0; ESP * 4096]);
    fatfs::format_volume(&mut image, fatfs::FormatVolumeOptions::new()).unwrap();
    let volume = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    let boot = volume.root_dir().create_dir("EFI").unwrap().create_dir("BOOT").unwrap();
    boot.create_file("BOOTX64.EFI").unwrap().write_all(uki).unwrap();
    drop(boot);
    volume.unmount().unwrap();
    image.into_inner()
}

fn release(version: u64) -> Content {
    let uki = bytes(9 * 4096, version * 10 + 1);
    // Most of the root is the same in all releases.
    let mut root = bytes(ROOT * 4096, 7);
    root[..8 * 4096].copy_from_slice(&bytes(8 * 4096, version * 10 + 2));
    let parts = BTreeMap::from([
        (Role::Esp, esp(&uki)),
        (Role::Root, root),
        (Role::Verity, bytes(VERITY * 4096, version * 10 + 3)),
    ]);
    let artifact = |role: Role| Artifact {
        file: format!("{role:?}"),
        size: parts[&role].len() as u64,
        sha256: Digest::of(&parts[&role]),
    };
    let release = Release {
        format: FORMAT,
        image_id: "test".into(),
        image_version: version.to_string(),
        architecture: None,
        security_version: 1,
        build_time: 0,
        kernel: String::new(),
        partition_sizes: Sizes::default(),
        slot: SlotArtifacts {
            esp: artifact(Role::Esp),
            root: artifact(Role::Root),
            verity: artifact(Role::Verity),
        },
        disk: DiskImage { file: String::new(), size: 0 },
        root_hash: Digest::ZERO,
        uki: Uki {
            artifact: Artifact { file: "uki.efi".into(), size: uki.len() as u64, sha256: Digest::of(&uki) },
            authenticode: Digest::ZERO,
            kernel_authenticode: Digest::ZERO,
            stub_version: String::new(),
            cmdline: String::new(),
            sections: BTreeMap::new(),
        },
        pcrs: BTreeMap::new(),
        state_policy: None,
        init: Digest::ZERO,
        control: None,
        update: None,
        hardening: Vec::new(),
        packages: Vec::new(),
    };
    Content { release, parts }
}

fn place(slot: Slot) -> Place {
    let number = if slot == Slot::A { 1 } else { 4 };
    Place { number, start: 2048, size: 512, guid: Guid::from_bytes([slot.letter() as u8; 16]) }
}

/// A machine that runs `content` from `slot`; the other slot is empty. Its firmware knows no entry of ours yet.
fn machine(content: &Content, slot: Slot) -> Machine {
    let mut disks = BTreeMap::new();
    for slot in [Slot::A, Slot::B] {
        for (role, blocks) in [(Role::Esp, ESP), (Role::Root, ROOT + 4), (Role::Verity, VERITY + 2)] {
            disks.insert((slot, role), vec![0; blocks * 4096]);
        }
    }
    for (role, part) in &content.parts {
        disks.get_mut(&(slot, *role)).unwrap()[..part.len()].copy_from_slice(part);
    }
    let mut machine = Machine { disks, variables: MemoryVariables::default() };
    if slot == Slot::B {
        entries::commit(&mut machine.variables, slot, &place(slot)).unwrap();
    }
    machine
}

fn disks(recorder: &Recorder, slot: Slot) -> SlotDisks {
    let disk = |role| Box::new(recorder.disk((slot, role)));
    SlotDisks {
        slot,
        place: place(slot),
        esp: disk(Role::Esp),
        root: disk(Role::Root),
        verity: disk(Role::Verity),
    }
}

/// What an update does, as the engine does it: only blocks that differ are written.
fn stage(recorder: &Recorder, running: Slot, new: &Content) -> Result<(), SlotsError> {
    let mut variables = recorder.variables();
    // The slot that runs must be the one that starts, before another one can.
    entries::commit(&mut variables, running, &place(running))?;
    let target = running.other();
    let mut writing = Swap::new(disks(recorder, target)).begin(&mut variables)?;
    for (role, artifact) in artifacts(&new.release) {
        let part = &new.parts[&role];
        assert_eq!(part.len() as u64, artifact.size);
        for (number, block) in (0u64..).zip(part.chunks(4096)) {
            let mut there = vec![0; 4096];
            writing.disks().of(role).read(number * 4096, &mut there).unwrap();
            if there != block || (role == Role::Esp && number == 0) {
                writing.write(role, number, block).unwrap();
            }
        }
    }
    let verified = writing.finish()?.verify(&new.release, &Judges::default(), &mut |_| {})?;
    verified.enable(&mut variables)?.try_next(&mut variables)
}

fn commit(recorder: &Recorder, slot: Slot) {
    entries::commit(&mut recorder.variables(), slot, &place(slot)).unwrap();
}

/// Which release lies whole in a slot.
fn whole<'a>(machine: &Machine, slot: Slot, releases: &'a [Content]) -> Option<&'a Content> {
    releases.iter().find(|content| {
        content.parts.iter().all(|(role, part)| machine.disks[&(slot, *role)].starts_with(part))
    })
}

/// Starts the machine as the firmware does, twice: a trial that is not committed ends on what starts then. Both times the
/// slot must hold a whole release.
fn starts(state: &Machine, releases: &[Content], what: &str) -> [(Slot, String); 2] {
    let signed: Vec<Digest> = releases.iter().map(|content| content.release.uki.artifact.sha256).collect();
    let mut machine = state.clone();
    for slot in [Slot::A, Slot::B] {
        assert!(
            !machine.loads(slot, &signed) || whole(&machine, slot, releases).is_some(),
            "{what}: {slot:?} loads and is not whole"
        );
    }
    [1, 2].map(|time| {
        let slot = machine.start(&signed).unwrap_or_else(|| panic!("{what}: nothing starts at start {time}"));
        let found = whole(&machine, slot, releases);
        let found =
            found.unwrap_or_else(|| panic!("{what}: start {time} of slot {slot:?}, which is not whole"));
        (slot, found.release.image_version.clone())
    })
}

/// Goes through all states of `steps` and finishes the update from a part of them.
fn sweep(
    before: &Machine,
    steps: &[Step],
    running: Slot,
    releases: &[Content],
    goal: &Content,
    name: &str,
) -> usize {
    let old = whole(before, running, releases).unwrap().release.image_version.clone();
    let mut finished = 0;
    let states = power_cuts(before, steps, 24, 0xA51A, |step, state| {
        let what = format!("{name}, step {step} of {}", steps.len());
        let [(first, version), (second, again)] = starts(state, releases, &what);
        assert!(second == running || first == second, "{what}: a trial that failed ends on the old slot");
        assert_eq!(again, if second == running { old.clone() } else { version }, "{what}");
        // Every thirteenth state is finished: that takes longer than to look at it.
        finished += 1;
        if finished % 13 == 0 {
            let recorder = Recorder::new(state.clone());
            if second == running {
                stage(&recorder, running, goal).unwrap();
                let [(slot, version), (back, _)] = starts(&recorder.machine(), releases, &what);
                assert_eq!((slot, back), (running.other(), running), "{what}");
                assert_eq!(version, goal.release.image_version);
            }
        }
    });
    println!("{name}: {states} states");
    states
}

#[test]
fn a_cut_at_any_moment_leaves_a_machine_that_starts() {
    let releases: Vec<Content> = (1..=3).map(release).collect();
    let [one, two, three] = [&releases[0], &releases[1], &releases[2]];
    let mut states = 0;
    for running in [Slot::A, Slot::B] {
        let target = running.other();
        // The first update of a machine.
        let before = machine(one, running);
        let recorder = Recorder::new(before.clone());
        stage(&recorder, running, two).unwrap();
        states += sweep(
            &before,
            &recorder.steps(),
            running,
            &releases,
            two,
            &format!("first update to {target:?}"),
        );
        let staged = recorder.machine();

        // Commit.
        let recorder = Recorder::new(staged.clone());
        commit(&recorder, target);
        for (number, _) in recorder.steps().iter().enumerate() {
            let mut state = staged.clone();
            recorder.steps()[..number].iter().for_each(|step| state.apply(step));
            starts(&state, &releases, "commit");
            states += 1;
        }
        let committed = recorder.machine();
        assert_eq!(starts(&committed, &releases, "committed"), [(target, "2".into()), (target, "2".into())]);

        // The next update goes back over the slot with the first release.
        let recorder = Recorder::new(committed.clone());
        stage(&recorder, target, three).unwrap();
        states += sweep(
            &committed,
            &recorder.steps(),
            target,
            &releases,
            three,
            &format!("second update to {running:?}"),
        );

        // Another release in place of one that is staged and has its try.
        let recorder = Recorder::new(staged.clone());
        stage(&recorder, running, three).unwrap();
        states += sweep(&staged, &recorder.steps(), running, &releases, three, "another one in its place");

        // Cancelled, and used again without writing.
        let recorder = Recorder::new(staged.clone());
        let mut variables = recorder.variables();
        entries::cancel(&mut variables).unwrap();
        assert_eq!(starts(&recorder.machine(), &releases, "cancelled")[0].0, running);
        let again =
            Enabled::again(disks(&recorder, target), &two.release, &Judges::default(), &mut |_| {}).unwrap();
        again.try_next(&mut variables).unwrap();
        assert_eq!(starts(&recorder.machine(), &releases, "again")[0].0, target);
        assert!(!recorder.steps().iter().any(|step| matches!(step, Step::Write { .. })));
        states += sweep(&staged, &recorder.steps(), running, &releases, two, "cancelled and used again");

        // Back by hand after the commit.
        let recorder = Recorder::new(committed.clone());
        let mut variables = recorder.variables();
        Enabled::again(disks(&recorder, running), &one.release, &Judges::default(), &mut |_| {})
            .unwrap()
            .try_next(&mut variables)
            .unwrap();
        commit(&recorder, running);
        assert_eq!(
            starts(&recorder.machine(), &releases, "back"),
            [(running, "1".into()), (running, "1".into())]
        );
        for number in 0..recorder.steps().len() {
            let mut state = committed.clone();
            recorder.steps()[..number].iter().for_each(|step| state.apply(step));
            starts(&state, &releases, "rollback");
            states += 1;
        }
    }
    println!("{states} states, each starts whole");
    assert!(states > 5000, "{states}");
}

/// The sweep is worth something only if it finds what is wrong.
#[test]
fn a_wrong_order_is_found() {
    let releases: Vec<Content> = (1..=2).map(release).collect();
    let two = &releases[1];
    let before = machine(&releases[0], Slot::A);
    let recorder = Recorder::new(before.clone());
    stage(&recorder, Slot::A, two).unwrap();
    let good = recorder.steps();
    let finds = |steps: &[Step]| {
        let mut found = 0;
        power_cuts(&before, steps, 24, 1, |_, state| {
            let signed: Vec<Digest> =
                releases.iter().map(|content| content.release.uki.artifact.sha256).collect();
            let mut machine = state.clone();
            for slot in [Slot::A, Slot::B] {
                found +=
                    usize::from(machine.loads(slot, &signed) && whole(&machine, slot, &releases).is_none());
            }
            for _ in 0..2 {
                let whole =
                    machine.start(&signed).is_some_and(|slot| whole(&machine, slot, &releases).is_some());
                found += usize::from(!whole);
            }
        });
        found
    };
    assert_eq!(finds(&good), 0);
    // No flush before the first block of the ESP.
    let last = good.iter().rposition(|step| matches!(step, Step::Write { .. })).unwrap();
    let mut bad = good.clone();
    let mut number = 0;
    bad.retain(|step| {
        number += 1;
        number > last || !matches!(step, Step::Flush(_))
    });
    assert!(finds(&bad) > 0, "flushes that are missing");
    // The first block of the ESP before all others.
    let mut bad = good.clone();
    let first = bad.remove(last);
    let begin = bad.iter().position(|step| matches!(step, Step::Write { .. })).unwrap();
    bad.insert(begin, first);
    assert!(finds(&bad) > 0, "the first block of the ESP too early");
    // One bit of the root is wrong.
    let mut bad = good;
    let root = bad.iter_mut().find_map(|step| match step {
        Step::Write { place: (Slot::B, Role::Root), bytes, .. } => Some(bytes),
        _ => None,
    });
    root.unwrap()[17] ^= 1;
    assert!(finds(&bad) > 0, "a block that is damaged");
}

#[test]
fn what_is_read_back_decides() {
    let releases: Vec<Content> = (1..=2).map(release).collect();
    let two = &releases[1];
    let mut damaged = two.clone();
    damaged.parts.get_mut(&Role::Root).unwrap()[5000] ^= 1;
    let recorder = Recorder::new(machine(&releases[0], Slot::A));
    let error = stage(&recorder, Slot::A, &damaged).unwrap_err();
    assert!(matches!(error, SlotsError::ReadBack { role: "root", slot: 'b', .. }), "{error}");
    assert_eq!(starts(&recorder.machine(), &releases, "refused")[0].0, Slot::A);
    assert!(recorder.variables().get(&Name::global("BootNext")).unwrap().is_none());
    let signed = [two.release.uki.artifact.sha256];
    assert!(!recorder.machine().loads(Slot::B, &signed), "and the slot cannot be started");
    // Another UKI in the ESP than the release names.
    let mut other = two.clone();
    other.release.uki.artifact.sha256 = Digest::ZERO;
    let error = stage(&Recorder::new(machine(&releases[0], Slot::A)), Slot::A, &other).unwrap_err();
    assert!(matches!(error, SlotsError::NoUki(_)), "{error}");
    // It does not fit.
    let mut large = two.release.clone();
    large.slot.root.size = 5 << 30;
    let recorder = Recorder::new(machine(&releases[0], Slot::A));
    let error = disks(&recorder, Slot::B).fits(&large).unwrap_err();
    assert!(matches!(error, SlotsError::TooLarge { .. }), "{error}");
}
