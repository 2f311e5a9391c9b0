//! Our LUKS2 volumes before cryptsetup, and cryptsetup's before us.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_state::luks::{self, Found, Header};
use ashlar_state::memory::MemoryDevice;
use ashlar_state::{
    Error, Filesystem, RecoveryKey, RecoveryToken, StateToken, Token, Tpm2Token, WriteAt as _, seed,
};
use common::{
    Numbers, SIZE, cryptsetup, file, format, from_file, patch, recovery_key, uuid, volume, volume_key,
};

fn tokens() -> Vec<Token> {
    let sealed = |generation| Tpm2Token {
        generation,
        counter: 41,
        srk_name: vec![1; 34],
        public: vec![2; 80],
        private: vec![3; 240],
        pcr_key: "ab".repeat(32),
    };
    vec![
        sealed(7).into(),
        sealed(8).into(),
        RecoveryToken { ciphertext: vec![4; 512], key: "cd".repeat(32) }.into(),
        StateToken { filesystem: Filesystem::Pending }.into(),
    ]
}

fn read(device: &MemoryDevice) -> Header {
    match luks::read(device).unwrap() {
        Found::Volume(header) => *header,
        other => panic!("{other:?}"),
    }
}

#[test]
fn cryptsetup_takes_what_we_make() {
    for sector_size in [512, 4096] {
        let mut device = MemoryDevice::new(SIZE);
        format(&mut device, sector_size, tokens());
        let file = file(&device);
        let path = file.path().to_str().unwrap();
        let Some(is_luks) = cryptsetup(&["isLuks", "--type", "luks2", path], b"") else { return };
        assert!(is_luks.success, "{}", is_luks.text);
        let dump = cryptsetup(&["luksDump", path], b"").unwrap();
        assert!(dump.success, "{}", dump.text);
        for line in [
            &format!("UUID:          \t{}", uuid()),
            "Label:         \tashlar-state",
            "offset: 16777216 [bytes]",
            "length: (whole device)",
            "cipher: aes-xts-plain64",
            &format!("sector: {sector_size} [bytes]"),
            "PBKDF:      argon2id",
            "0: ashlar-tpm2",
            "2: ashlar-recovery",
            "3: ashlar-state",
            "Iterations: 1000",
        ] {
            assert!(dump.text.contains(line), "{line} is not in\n{}", dump.text);
        }
        let test = ["open", "--test-passphrase", "--key-file", "-", path];
        let key = recovery_key().text();
        let opened = cryptsetup(&test, key.as_bytes()).unwrap();
        assert!(opened.success, "{}", opened.text);
        let other = RecoveryKey::from_random([9; 32]).text();
        assert_eq!(cryptsetup(&test, other.as_bytes()).unwrap().code, Some(2), "another key");
        let folder = tempfile::tempdir().unwrap();
        let key_file = folder.path().join("key");
        let dump = ["luksDump", "-q", "--dump-volume-key", "--key-file", "-", "--volume-key-file"];
        let dumped =
            cryptsetup(&[&dump[..], &[key_file.to_str().unwrap(), path]].concat(), key.as_bytes()).unwrap();
        assert!(dumped.success, "{}", dumped.text);
        assert_eq!(std::fs::read(key_file).unwrap(), volume_key().as_slice());
    }
}

#[test]
fn we_take_what_cryptsetup_makes_our_way() {
    let file = file(&MemoryDevice::new(SIZE));
    let path = file.path().to_str().unwrap();
    let arguments = "luksFormat -q --type luks2 -c aes-xts-plain64 -s 512 --hash sha256 --pbkdf argon2id \
                     --pbkdf-memory 32768 --pbkdf-force-iterations 4 --pbkdf-parallel 2 --luks2-metadata-size 16k \
                     --offset 32768 --sector-size 4096 --label other --key-file -";
    let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
    arguments.push(path);
    let Some(made) = cryptsetup(&arguments, b"a passphrase") else { return };
    assert!(made.success, "{}", made.text);
    let device = from_file(file.path());
    let header = read(&device);
    assert_eq!(header.label(), "other");
    let key = header.open_with_passphrase(&device, b"a passphrase").unwrap();
    assert!(header.verify_volume_key(&key));
    assert!(matches!(
        header.open_with_passphrase(&device, b"a passphrasf"),
        Err(Error::WrongKey { keyslots: 1 })
    ));
    assert_eq!(header.filesystem(), Filesystem::Ready, "nobody said that it may be made anew");
}

#[test]
fn keyslots_that_an_owner_adds() {
    let mut device = MemoryDevice::new(SIZE);
    format(&mut device, 4096, tokens());
    let file = file(&device);
    let path = file.path().to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let new = folder.path().join("new");
    std::fs::write(&new, "another passphrase").unwrap();
    let add = "luksAddKey -q --pbkdf argon2id --pbkdf-memory 65536 --pbkdf-force-iterations 4 --pbkdf-parallel 1 --key-file -";
    let mut add: Vec<&str> = add.split_whitespace().collect();
    add.extend([path, new.to_str().unwrap()]);
    let Some(added) = cryptsetup(&add, recovery_key().text().as_bytes()) else { return };
    assert!(added.success, "{}", added.text);
    let device = from_file(file.path());
    let header = read(&device);
    assert_eq!(header.keyslots(), [0, 1]);
    assert_eq!(header.tokens(), tokens(), "cryptsetup keeps tokens that it does not know");
    assert_eq!(header.open_with_passphrase(&device, b"another passphrase").unwrap(), volume_key());
    assert_eq!(
        header.open_with_recovery_key(&device, &recovery_key().text().to_uppercase()).unwrap(),
        volume_key()
    );
    // The recovery key is not tried on what would take a gigabyte.
    let mut dear = device.settled();
    patch(&mut dear, |json| json.replace("65536", "1048576"));
    let other = RecoveryKey::from_random([1; 32]).text();
    let error = read(&dear).open_with_recovery_key(&dear, &other).unwrap_err();
    assert!(matches!(error, Error::WrongKey { keyslots: 1 }), "{error}");
}

#[test]
fn updates_by_us_are_read_by_cryptsetup() {
    let mut device = volume();
    let header = read(&device);
    let mut numbers = Numbers(2);
    let updated = header.with_tokens(tokens()).unwrap();
    let updated = updated.write_update(&mut device, &mut |buffer| numbers.fill(buffer)).unwrap();
    assert_eq!(read(&device), updated);
    assert_eq!(
        (updated.sequence(), updated.tpm2().count(), updated.filesystem()),
        (2, 2, Filesystem::Pending)
    );
    // The header that was read before is of no use any more.
    let stale = header.write_update(&mut device, &mut |buffer| numbers.fill(buffer));
    assert!(matches!(stale, Err(Error::Changed)));
    assert_eq!(read(&device), updated);

    // A damaged copy is not used, and the next update mends it.
    for damaged in [0, 16384] {
        device.put(&[0xff; 600], damaged + 4096);
        let header = read(&device);
        assert!(header.needs_repair());
        assert_eq!(header.tokens(), tokens());
        let header = header.write_update(&mut device, &mut |buffer| numbers.fill(buffer)).unwrap();
        assert_eq!(read(&device), header);
        assert!(!header.needs_repair());
    }
    let file = file(&device);
    let Some(dump) = cryptsetup(&["luksDump", file.path().to_str().unwrap()], b"") else { return };
    assert!(dump.success && dump.text.contains("Epoch:         \t4"), "{}", dump.text);
    assert!(dump.text.contains("1: ashlar-tpm2"), "{}", dump.text);
}

#[test]
fn too_many_tokens() {
    let header = read(&volume());
    let many = vec![tokens()[3].clone(); 33];
    assert!(matches!(header.with_tokens(many), Err(Error::TooManyTokens(33))));
    let large = RecoveryToken { ciphertext: vec![0; 9000], key: String::new() };
    assert!(matches!(header.with_tokens(vec![large.into()]), Err(Error::TokensTooLarge { most: 12287, .. })));
}

#[test]
fn each_byte_is_read_at_most_once() {
    let started = |bytes: &[u8]| MemoryDevice::with(SIZE, bytes);
    let devices = [
        volume(),
        started(b""),
        started(b"XFSB"),
        started(&seed::seed(&vec![7; seed::MAX_CONTENT]).unwrap()),
    ];
    for device in devices {
        luks::read(&device).unwrap();
        let mut reads = device.reads();
        reads.sort_unstable();
        assert!(!reads.is_empty());
        assert!(reads.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{reads:?}");
    }
}

#[test]
fn what_else_lies_there() {
    assert!(matches!(luks::read(&MemoryDevice::new(SIZE)).unwrap(), Found::Blank));
    let content = b"a signed configuration".to_vec();
    let mut device = MemoryDevice::with(SIZE, &seed::seed(&content).unwrap());
    assert!(matches!(luks::read(&device).unwrap(), Found::Seed(found) if found == content));
    device.put(b"x", 20);
    assert!(matches!(luks::read(&device), Err(Error::Seed(_))));
    for (at, bytes, name) in [
        (0, &b"XFSB"[..], "XFS"),
        (1080, b"\x53\xef", "ext file system that is not encrypted"),
        (512, b"EFI PART", "partition table"),
        (0, b"LUKS\xba\xbe\0\x01", "LUKS1"),
        (1_000_000, b"x", "unknown"),
    ] {
        let mut device = MemoryDevice::new(SIZE);
        device.put(bytes, at);
        let found = luks::read(&device).unwrap();
        assert!(matches!(found, Found::Foreign(what) if what.contains(name)), "{found:?}");
        let before = device.events().len();
        let error = luks::format(&mut device, &params(), &mut |_| Ok(())).unwrap_err();
        assert!(matches!(error, Error::NotEmpty(_)) && device.events().len() == before, "{error}");
    }
    // Behind the first MiB anything may be.
    let mut device = MemoryDevice::new(SIZE);
    device.put(b"x", 1 << 20);
    assert!(matches!(luks::read(&device).unwrap(), Found::Blank));
    assert!(
        matches!(luks::read(&MemoryDevice::new(4096)).unwrap(), Found::Foreign(_)),
        "too small for anything"
    );
}

fn params() -> luks::Params<'static> {
    use std::sync::OnceLock;
    static KEYS: OnceLock<(ashlar_state::VolumeKey, RecoveryKey)> = OnceLock::new();
    let (volume_key, recovery_key) = KEYS.get_or_init(|| (volume_key(), recovery_key()));
    luks::Params { volume_key, recovery_key, uuid: uuid(), label: "x", sector_size: 4096, tokens: Vec::new() }
}

#[test]
fn parameters_are_looked_at_before_anything_is_written() {
    let try_with = |size, params: &luks::Params<'_>| {
        let mut device = MemoryDevice::new(size);
        let error = luks::format(&mut device, params, &mut |_| Ok(())).unwrap_err();
        assert!(device.events().is_empty());
        error.to_string()
    };
    assert!(try_with(79 << 20, &params()).contains("at least 83886080"));
    assert!(try_with((80 << 20) + 512, &params()).contains("multiple"));
    assert!(try_with(SIZE, &luks::Params { sector_size: 1024, ..params() }).contains("512 or 4096"));
    assert!(try_with(SIZE, &luks::Params { label: &"x".repeat(48), ..params() }).contains("47"));
    assert!(try_with(SIZE, &luks::Params { label: "a\n", ..params() }).contains("ASCII"));
    let token = Token::from(StateToken { filesystem: Filesystem::Ready });
    assert!(try_with(SIZE, &luks::Params { tokens: vec![token; 33], ..params() }).contains("33"));
    let error =
        luks::format(&mut MemoryDevice::new(SIZE), &params(), &mut |_| Err(std::io::ErrorKind::Other.into()));
    assert!(error.unwrap_err().to_string().contains("random"));
}

#[test]
fn an_existing_volume_is_never_formatted_and_can_be_erased() {
    let mut device = volume();
    let error = luks::format(&mut device, &params(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, Error::NotEmpty("a state volume")) && device.events().is_empty());
    // With either copy damaged, and with both.
    for (first, second) in [(true, false), (false, true), (true, true)] {
        let mut damaged = device.settled();
        for at in
            [(first, 100), (second, 16384 + 100)].into_iter().filter_map(|(damage, at)| damage.then_some(at))
        {
            damaged.put(&[0xff; 8], at);
        }
        assert!(luks::format(&mut damaged, &params(), &mut |_| Ok(())).is_err());
        assert!(damaged.events().is_empty());
    }
    luks::erase(&mut device).unwrap();
    assert!(matches!(luks::read(&device).unwrap(), Found::Unfinished));
    assert!(device.get(32768, 16 << 20).iter().all(|byte| *byte == 0), "no keyslot is left");
    let header = format(&mut device, 4096, Vec::new());
    assert_eq!(read(&device), header);
}

#[test]
fn a_table_for_dm_crypt() {
    let mut device = MemoryDevice::new(SIZE + 512);
    device.put(&volume().get(0, 16 << 20), 0);
    let table = read(&device).crypt_table();
    assert_eq!(table.sectors, (SIZE - (16 << 20)) / 512, "whole sectors");
    assert_eq!(
        table.parameters(":64:logon:ashlar:state", "254:3", true),
        "aes-xts-plain64 :64:logon:ashlar:state 0 254:3 32768 2 allow_discards sector_size:4096"
    );
    let mut device = MemoryDevice::new(SIZE);
    let table = format(&mut device, 512, Vec::new()).crypt_table();
    assert_eq!(table.parameters("00", "254:3", false), "aes-xts-plain64 00 0 254:3 32768");
}

/// The whole way on a machine that has the device mapper: what we write through our table's numbers, cryptsetup reads.
#[test]
fn cryptsetup_opens_it_on_a_loop_device() {
    if !rustix::process::geteuid().is_root() || !std::path::Path::new("/dev/mapper/control").exists() {
        return common::unable("root and the device mapper are needed to open a volume");
    }
    let Some(targets) = common::tool("dmsetup", "dmsetup", &["targets"], b"") else { return };
    if !targets.success || !targets.text.contains("crypt") {
        return common::unable("the kernel has no dm-crypt");
    }
    let mut device = MemoryDevice::new(SIZE);
    let header = format(&mut device, 4096, tokens());
    let file = file(&device);
    let name = format!("ashlar-test-{}", std::process::id());
    let path = file.path().to_str().unwrap();
    let key = recovery_key().text();
    let opened = cryptsetup(&["open", "--key-file", "-", path, &name], key.as_bytes()).unwrap();
    let table = common::tool("dmsetup", "dmsetup", &["table", &name], b"").unwrap();
    let closed = cryptsetup(&["close", &name], b"").unwrap();
    assert!(opened.success, "{}", opened.text);
    assert!(closed.success, "{}", closed.text);
    let wanted = header.crypt_table();
    let words: Vec<&str> = table.text.split_whitespace().collect();
    assert_eq!(words[..4], ["0", &wanted.sectors.to_string(), "crypt", "aes-xts-plain64"], "{}", table.text);
    assert!(table.text.contains(" 32768 ") && table.text.contains("sector_size:4096"), "{}", table.text);
}

#[test]
fn a_seed_outlives_the_making_of_the_volume() {
    let content = vec![0x33; seed::MAX_CONTENT];
    let mut device = MemoryDevice::with(SIZE, &seed::seed(&content).unwrap());
    assert_eq!(luks::kept_seed(&device).unwrap(), None);
    let header = format(&mut device, 4096, Vec::new());
    assert_eq!(luks::kept_seed(&device).unwrap(), Some(content));
    assert!(device.get(300_000, 780_000).iter().all(|byte| *byte == 0), "the first copy is gone");
    assert_eq!(header.open_with_recovery_key(&device, &recovery_key().text()).unwrap(), volume_key());
    luks::forget_seed(&mut device).unwrap();
    assert_eq!(luks::kept_seed(&device).unwrap(), None);
    assert!(device.get(luks::SEED_AT, 2 << 20).iter().all(|byte| *byte == 0));
    // A disk that tore the sector with the mark, and with it the long seed around it.
    let mut device = MemoryDevice::with(SIZE, &seed::seed(&vec![0x33; 100_000]).unwrap());
    device.put(&[0xee; 4096], 16384);
    assert!(matches!(luks::read(&device), Err(Error::Seed(_))));
    device.put(&seed::seed(&vec![0x33; 100_000]).unwrap(), luks::SEED_AT);
    assert!(matches!(luks::read(&device).unwrap(), Found::Unfinished));
    format(&mut device, 4096, Vec::new());
    assert_eq!(luks::kept_seed(&device).unwrap().unwrap().len(), 100_000);
    // An old one is not taken over by a new volume.
    let mut device = MemoryDevice::new(SIZE);
    device.put(&seed::seed(b"of somebody else").unwrap(), luks::SEED_AT);
    format(&mut device, 4096, Vec::new());
    assert_eq!(luks::kept_seed(&device).unwrap(), None);
    // A damaged one is told, and can be cleared.
    device.put(&seed::seed(b"damaged").unwrap(), luks::SEED_AT);
    device.put(b"X", luks::SEED_AT + 20);
    assert!(matches!(luks::kept_seed(&device), Err(Error::Seed(_))));
    luks::forget_seed(&mut device).unwrap();
    assert_eq!(luks::kept_seed(&device).unwrap(), None);
}

#[test]
fn on_a_real_file() {
    let file = file(&MemoryDevice::new(SIZE));
    let mut device = file.reopen().unwrap();
    let mut numbers = Numbers(3);
    let header = luks::format(&mut device, &params(), &mut |buffer| numbers.fill(buffer)).unwrap();
    let updated = header.with_tokens(tokens()).unwrap();
    let updated = updated.write_update(&mut device, &mut |buffer| numbers.fill(buffer)).unwrap();
    device.flush().unwrap();
    assert!(matches!(luks::read(&device).unwrap(), Found::Volume(found) if *found == updated));
}
