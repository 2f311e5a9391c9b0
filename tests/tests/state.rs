//! The sealed state volume on machines that start for real: what opens it, what does not and says why, and the ways out.
//!
//! One machine is started first and leaves its volume; each test changes a twin of it.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::report::Report;
use ashlar_qemu::Machine;
use ashlar_state::{Found, Params, RecoveryKey, VolumeKey, luks};
use ashlar_tests::machine::{UP, ready};
use ashlar_tests::release::new_keys;
use ashlar_tests::{Built, Case, Lab, Run, built, tools};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A machine that has made its volume, and what its first boot said.
struct Home {
    built: &'static Built,
    lab: Lab,
    first: Report,
}

impl Home {
    fn twin(&self) -> Lab {
        self.lab.twin()
    }
}

/// The machine; none, with the reason said, when it cannot be had here.
fn home() -> Option<&'static Home> {
    static HOME: OnceLock<Home> = OnceLock::new();
    if !ready() {
        return None;
    }
    let built = built()?;
    Some(HOME.get_or_init(|| {
        let lab = Lab::new(built);
        let first = lab.boot();
        Home { built, lab, first }
    }))
}

fn status(report: &Report) -> &ashlar_image::control::Status {
    report.status.as_deref().unwrap()
}

/// A release of the same recipe with something changed, in a folder of its own.
fn release(built: &Built, security_version: u64, keys: &Path) -> (Case, PathBuf) {
    let mut case = Case::of(built);
    keys.clone_into(&mut case.keys);
    case.edit("version = \"1\"", "version = \"2\"");
    case.edit("security-version = 1", &format!("security-version = {security_version}"));
    let _ = case.build(&[]).ok();
    let out = case.out();
    (case, out)
}

/// The recovery key of a machine, out of its header with the owner's key: what the console would show without one.
fn recovery_key(built: &Built, lab: &Lab) -> String {
    let mut ashlar = ashlar_tests::programs::ashlar();
    let run = Run::of(ashlar.args(["keys", "recovery-key"]).arg(&built.keys).arg(lab.disk())).ok();
    run.stdout.trim().to_owned()
}

/// The state volume of a machine as a file.
fn volume(lab: &Lab) -> PathBuf {
    let path = lab.scratch("state.raw");
    lab.partition("state").copy_to(&path);
    path
}

#[test]
fn the_first_start_seals_and_the_next_ones_open() {
    let Some(home) = home() else { return };
    assert_eq!(status(&home.first).state, "new");
    let id = status(&home.first).machine_id.clone().unwrap();
    let lab = home.twin();
    let second = lab.boot();
    assert_eq!(status(&second).state, "tpm");
    assert_eq!(status(&second).machine_id.as_ref(), Some(&id));
    // The same words are in PCR 15, in the same order: the volume is the same one.
    let of = |report: &Report| -> Vec<String> {
        let events = report.init_log.iter().filter(|event| event.pcr == 15);
        events.map(|event| format!("{} {}", event.event.what, event.event.digest)).collect()
    };
    assert_eq!(of(&home.first), of(&second));
    assert_eq!(of(&second).len(), 2);
    assert_ne!(second.pcrs[&15], ashlar_image::digest::Digest::ZERO);
}

/// cryptsetup knows the volume, and the recovery key from the owner's folder opens it on any Linux.
#[test]
fn cryptsetup_opens_it_with_the_recovery_key() {
    let Some(home) = home() else { return };
    let lab = home.twin();
    let Some(mut dump) = tools::judge("cryptsetup", "cryptsetup-bin") else { return };
    let volume = volume(&lab);
    let text = Run::of(dump.arg("luksDump").arg(&volume)).ok().stdout;
    for word in ["aes-xts-plain64", "argon2id", "ashlar-tpm2", "ashlar-recovery"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let key = volume.with_file_name("key");
    fs::write(&key, recovery_key(home.built, &lab)).unwrap();
    let open = |key: &Path| {
        let mut command = Command::new(tools::find("cryptsetup").unwrap());
        Run::of(command.args(["luksOpen", "--test-passphrase", "--key-file"]).arg(key).arg(&volume))
    };
    let _ = open(&key).ok();
    fs::write(&key, "another key").unwrap();
    assert_ne!(open(&key).code, Some(0));
}

#[test]
fn an_update_of_the_same_owner_opens_it_and_raises_the_floor() {
    let Some(home) = home() else { return };
    let lab = home.twin();
    let (_case, newer) = release(home.built, 2, &home.built.keys);
    lab.install(&newer);
    let report = lab.boot();
    assert_eq!(report.image_version, "2");
    assert_eq!(status(&report).state, "tpm");
    assert_eq!(status(&report).machine_id, status(&home.first).machine_id);
    assert_eq!(status(&report).rollback_floor, Some(2));
    // The older release is signed, its UKI starts, and the volume stays closed.
    lab.install(&home.built.out);
    let why = lab.refusal();
    assert!(why.contains("security version 1") && why.contains("rollback floor is 2"), "{why}");
    // The newer one still opens it.
    lab.install(&newer);
    assert_eq!(status(&lab.boot()).state, "tpm");
}

/// The firmware trusts the image; the volume is sealed for another PCR key.
#[test]
fn an_image_with_another_pcr_key_does_not_open_it() {
    let Some(home) = home() else { return };
    let lab = home.twin();
    let folder = tempfile::tempdir().unwrap();
    let (keys, others) = (folder.path().join("keys"), folder.path().join("others"));
    new_keys(&others, "Somebody else");
    ashlar_tests::folders::copy(&home.built.keys, &keys);
    for name in ["pcr.key", "pcr.pub"] {
        fs::copy(others.join(name), keys.join(name)).unwrap();
    }
    let (_case, other) = release(home.built, 1, &keys);
    lab.install(&other);
    assert!(lab.refusal().contains("another owner"));
}

#[test]
fn without_secure_boot_it_stays_closed() {
    let Some(home) = home() else { return };
    let lab = home.twin();
    let firmware = ashlar_qemu::Firmware::find().unwrap();
    lab.stopped().set_variables(&fs::read(firmware.variables).unwrap()).unwrap();
    assert!(lab.refusal().contains("Secure Boot is off"));
}

/// Another machine's volume, and a volume that somebody made with a key of his own and the first one's UUID, label and
/// tokens: the attack on volumes that are known by name only.
#[test]
fn volumes_of_others_stay_closed() {
    let Some(home) = home() else { return };
    let other = Lab::new(home.built);
    let _ = other.boot();
    let lab = home.twin();
    lab.partition("state").copy_of(&other.partition("state"));
    let why = lab.refusal();
    assert!(why.contains("another TPM"), "{why}");

    let lab = home.twin();
    forge(&lab);
    let why = lab.refusal();
    assert!(why.contains("another volume was put in its place"), "{why}");
}

/// Puts a volume with a key of its own in the place of a machine's, with the UUID, label and tokens of that one.
fn forge(lab: &Lab) {
    let path = volume(lab);
    let Found::Volume(original) = luks::read(&File::open(&path).unwrap()).unwrap() else {
        panic!("no volume")
    };
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    file.write_all_at(&vec![0; 32 << 20], 0).unwrap();
    let params = Params {
        volume_key: &VolumeKey::new([7; 64]),
        recovery_key: &RecoveryKey::from_random([8; 32]),
        uuid: original.uuid(),
        label: &original.label(),
        sector_size: 4096,
        tokens: original.tokens(),
    };
    let mut counter = 0;
    let mut random = |bytes: &mut [u8]| {
        counter += 1;
        bytes.fill(counter);
        Ok(())
    };
    luks::format(&mut file, &params, &mut random).unwrap();
    lab.partition("state").copy_from(&path);
}

/// Changes the metadata in both copies of a volume's header as cryptsetup would write them (LUKS2 On-Disk Format
/// Specification, section 2.2): the checksum is right.
fn change_header(lab: &Lab, change: impl Fn(&mut serde_json::Value)) {
    use sha2::{Digest, Sha256};
    const COPY: usize = 16 << 10;
    const BINARY: usize = 4096;
    const CHECKSUM: std::ops::Range<usize> = 448..512;
    let partition = lab.partition("state");
    for number in 0..2 {
        let mut copy = partition.read((number * COPY) as u64, COPY);
        let end = BINARY + copy[BINARY..].iter().position(|byte| *byte == 0).unwrap();
        let mut json: serde_json::Value = serde_json::from_slice(&copy[BINARY..end]).unwrap();
        change(&mut json);
        let text = serde_json::to_vec(&json).unwrap();
        copy[BINARY..].fill(0);
        copy[BINARY..BINARY + text.len()].copy_from_slice(&text);
        copy[CHECKSUM].fill(0);
        let sum = Sha256::digest(&copy);
        copy[CHECKSUM.start..CHECKSUM.start + 32].copy_from_slice(&sum);
        partition.write((number * COPY) as u64, &copy);
    }
}

/// Headers that a Linux machine would take and an Ashlar machine does not. One that is changed and stays as it was opens.
#[test]
fn headers_of_another_form_are_refused() {
    let Some(home) = home() else { return };
    let null_cipher = |json: &mut serde_json::Value| {
        json["segments"]["0"]["encryption"] = "cipher_null-ecb".into();
    };
    let two_segments = |json: &mut serde_json::Value| {
        let second = json["segments"]["0"].clone();
        json["segments"]["1"] = second;
    };
    let lab = home.twin();
    change_header(&lab, |_| ());
    assert_eq!(status(&lab.boot()).state, "tpm");
    change_header(&lab, null_cipher);
    let why = lab.refusal();
    assert!(why.contains("header") && why.contains("cipher_null-ecb"), "{why}");
    let lab = home.twin();
    change_header(&lab, two_segments);
    let why = lab.refusal();
    assert!(why.contains("header") && why.contains("segments"), "{why}");
}

/// Types the recovery key into the console when init asks for it.
fn give_key(machine: &Machine, key: &str) -> Report {
    machine
        .wait_console("Recovery key (or wait", UP)
        .unwrap_or_else(|error| panic!("{error}\n{}", machine.console()));
    machine.type_text("wrong-key\r").unwrap();
    machine.wait_console("cannot be in one", UP).unwrap();
    machine.type_text(&format!("{key}\r")).unwrap();
    let report = machine.wait_report(UP).unwrap_or_else(|error| panic!("{error}\n{}", machine.console()));
    let _ = machine.power_down(UP).unwrap();
    assert!(!machine.console().contains(key), "the key was echoed");
    report
}

/// A change of dbx changes PCR 7: refused, until a release is signed for that value too. Nothing is sealed anew.
#[test]
fn a_planned_change_of_dbx_is_signed_for() {
    let Some(home) = home() else { return };
    let lab = home.twin();
    // A list with one hash (UEFI 2.10, section 32.4.1): type, sizes, owner, SHA-256.
    let mut dbx = Vec::new();
    dbx.extend([
        0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28,
    ]);
    for size in [28u32 + 48, 0, 48] {
        dbx.extend(size.to_le_bytes());
    }
    dbx.extend([7; 16]);
    dbx.extend([0xab; 32]);
    let file = lab.scratch("dbx.esl");
    fs::write(&file, &dbx).unwrap();
    let mut ashlar = ashlar_tests::programs::ashlar();
    let run = Run::of(ashlar.args(["keys", "pcr7"]).arg(&home.built.keys).arg("--dbx").arg(&file)).ok();
    let pcr7 = run.stdout.trim().to_owned();

    let mut variables = home.built.key_folder().secure_boot();
    variables.dbx = dbx;
    let template = fs::read(ashlar_qemu::Firmware::find().unwrap().variables).unwrap();
    let time = home.built.release.build_time;
    let store = ashlar_keys::ovmf::enroll(&template, &variables, time, &[]).unwrap();
    lab.stopped().set_variables(&store).unwrap();
    let why = lab.refusal();
    assert!(why.contains("has not signed this machine's PCRs") && why.contains(&pcr7), "{why}");

    let case = Case::of(home.built);
    case.edit("version = \"1\"", "version = \"2\"");
    case.add(&format!("[state]\npcr7 = [\"{pcr7}\"]\n"));
    let _ = case.build(&[]).ok();
    lab.install(&case.out());
    let report = lab.boot();
    assert_eq!(status(&report).state, "tpm");
    assert_eq!(report.pcrs[&7].to_string(), pcr7);
}

#[test]
fn another_tpm_is_refused_and_the_recovery_key_seals_to_it() {
    let Some(home) = home() else { return };
    let lab = home.twin();
    let key = recovery_key(home.built, &lab);
    lab.stopped().remove_tpm().unwrap();
    let why = lab.refusal();
    assert!(why.contains("no rollback counter") && why.contains("another one"), "{why}");
    let report = lab.run(|machine| give_key(machine, &key));
    assert_eq!(status(&report).state, "recovery-key");
    assert_eq!(status(&report).machine_id, status(&home.first).machine_id);
    assert!(!status(&report).good, "it must be looked at");
    // Sealed again: nobody is asked any more.
    assert_eq!(status(&lab.boot()).state, "tpm");
}

#[test]
fn a_cleared_tpm_is_refused_and_the_recovery_key_seals_to_it() {
    let Some(home) = home() else { return };
    let lab = home.twin();
    lab.stopped().tpm().unwrap().clear().unwrap();
    let key = recovery_key(home.built, &lab);
    assert!(lab.refusal().contains("it was cleared"));
    let report = lab.run(|machine| give_key(machine, &key));
    assert_eq!(status(&report).state, "recovery-key");
    assert_eq!(status(&lab.boot()).state, "tpm");
}
