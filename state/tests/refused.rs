//! Volumes that are not ours, made by cryptsetup or by changing ours: each is refused, by its own name.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_state::luks::{self, Found};
use ashlar_state::memory::MemoryDevice;
use ashlar_state::{Error, Refusal};
use common::{Numbers, SIZE, cryptsetup, file, from_file, patch, reseal, volume};

fn refusal(device: &MemoryDevice) -> Refusal {
    match luks::read(device) {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

/// The refusal of our volume with something in its metadata replaced. It must be there.
fn changed(from: &str, to: &str) -> Refusal {
    changed_as(|json| {
        assert!(json.contains(from), "{from} is not in {json}");
        json.replace(from, to)
    })
}

fn changed_as(change: impl Fn(&str) -> String) -> Refusal {
    thread_local!(static VOLUME: MemoryDevice = volume());
    let mut device = VOLUME.with(MemoryDevice::settled);
    patch(&mut device, change);
    refusal(&device)
}

const SEGMENT: &str = r#""0":{"type":"crypt","offset":"16777216","size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":4096}"#;

#[test]
fn the_data_segment() {
    let with = |from: &str, to: &str| changed(SEGMENT, &SEGMENT.replace(from, to));
    for null in ["cipher_null-ecb", "capi:ecb(cipher_null)-plain64"] {
        assert_eq!(with("aes-xts-plain64", null), Refusal::NullCipher(null.to_owned()));
    }
    assert_eq!(with("aes-xts-plain64", "aes-xts-plain"), Refusal::Cipher("aes-xts-plain".to_owned()));
    for size in [0, 1024, 8192, u32::MAX] {
        assert_eq!(with("4096", &size.to_string()), Refusal::SectorSize(size));
    }
    assert_eq!(with("16777216", "16781312"), Refusal::DataOffset(16_781_312));
    assert_eq!(with("16777216", "0"), Refusal::DataOffset(0));
    assert_eq!(with(r#""iv_tweak":"0""#, r#""iv_tweak":"8""#), Refusal::IvTweak(8));
    for size in ["0", "83886081", "83890176", "18446744073709551615", "0100", "-1", "fixed"] {
        let refusal = with("dynamic", size);
        assert_eq!(refusal, Refusal::DataSize { size: size.to_owned(), device: SIZE });
    }
    let integrity = r#""sector_size":4096,"integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}"#;
    assert_eq!(with(r#""sector_size":4096"#, integrity), Refusal::Integrity);
    let flags = with(r#""sector_size":4096"#, r#""sector_size":4096,"flags":["in-reencryption"]"#);
    assert!(matches!(&flags, Refusal::Flags(what) if what.contains("in-reencryption")), "{flags}");
    let unknown = with(r#""sector_size":4096"#, r#""sector_size":4096,"x":1"#);
    assert!(matches!(&unknown, Refusal::Metadata(what) if what.contains("unknown field `x`")), "{unknown}");
    let number = with(r#""16777216""#, "16777216");
    assert!(matches!(&number, Refusal::Metadata(_)), "a number where LUKS2 has a text: {number}");
    // A fixed size within the device is fine.
    let mut device = volume();
    patch(&mut device, |json| json.replace("dynamic", "67108864"));
    let Ok(Found::Volume(header)) = luks::read(&device) else { panic!() };
    assert_eq!(header.crypt_table().sectors, (64 << 20) / 512);
    // The disk was copied to a smaller one, and the data's end is not there.
    let small = MemoryDevice::with(64 << 20, &device.get(0, 16 << 20));
    assert!(matches!(refusal(&small), Refusal::DataSize { .. }));
}

#[test]
fn two_segments() {
    let plain = r#""1":{"type":"linear","offset":"33554432","size":"dynamic"}"#;
    assert_eq!(changed(SEGMENT, &format!("{SEGMENT},{plain}")), Refusal::Segments(2));
    assert_eq!(changed(SEGMENT, &SEGMENT.replacen("\"0\"", "\"1\"", 1)), Refusal::Segments(1));
    assert_eq!(changed(SEGMENT, ""), Refusal::Segments(0));
    let twice = changed(SEGMENT, &format!("{SEGMENT},{SEGMENT}"));
    assert!(matches!(&twice, Refusal::Metadata(what) if what.contains("twice")), "{twice}");
    assert_eq!(
        changed(SEGMENT, r#""0":{"type":"linear","offset":"16777216","size":"dynamic"}"#),
        Refusal::SegmentType("linear".to_owned())
    );
}

#[test]
fn requirements_and_flags() {
    let config = r#""config":{"#;
    let online = changed(config, r#""config":{"requirements":{"mandatory":["online-reencrypt"]},"#);
    assert!(matches!(&online, Refusal::Requirements(what) if what.contains("online-reencrypt")), "{online}");
    let flags = changed(config, r#""config":{"flags":["allow-discards"],"#);
    assert!(matches!(&flags, Refusal::Flags(what) if what.contains("allow-discards")), "{flags}");
    assert_eq!(changed(r#""json_size":"12288""#, r#""json_size":"16384""#), Refusal::ConfigSizes);
    for size in ["16748544", "0", "16744449", "18446744073709551615"] {
        assert_eq!(
            changed(r#""keyslots_size":"16744448""#, &format!(r#""keyslots_size":"{size}""#)),
            Refusal::ConfigSizes
        );
    }
    let unknown = changed(config, r#""config":{"x":1,"#);
    assert!(matches!(&unknown, Refusal::Metadata(what) if what.contains("unknown field")), "{unknown}");
    let unknown = changed_as(|json| json.replacen('{', r#"{"x":{},"#, 1));
    assert!(matches!(&unknown, Refusal::Metadata(what) if what.contains("unknown field")), "{unknown}");
    for broken in ["", "{", "[]", "null", "{}", "{\"a\":\u{7}}"] {
        assert!(matches!(changed_as(|_| broken.to_owned()), Refusal::Metadata(_)), "{broken}");
    }
    let deep = "[".repeat(12_000);
    assert!(matches!(changed_as(|_| deep.clone()), Refusal::Metadata(_)));
}

#[test]
fn keyslots() {
    assert_eq!(
        changed(r#""0":{"type":"luks2""#, r#""0":{"type":"reencrypt""#),
        Refusal::KeyslotType(0, "reencrypt".to_owned())
    );
    assert_eq!(changed(r#""key_size":64,"af""#, r#""key_size":32,"af""#), Refusal::KeySize(0, 32));
    assert_eq!(changed("argon2id", "argon2i"), Refusal::Kdf(0, "argon2i".to_owned()));
    let kdf = r#""time":4,"memory":32768,"cpus":1"#;
    for (time, memory, cpus) in [
        (0, 32768, 1),
        (65, 32768, 1),
        (4, 1_048_577, 1),
        (4, 7, 1),
        (4, 32768, 0),
        (4, 32768, 9),
        (4, 15, 2),
    ] {
        let refusal = changed(kdf, &format!(r#""time":{time},"memory":{memory},"cpus":{cpus}"#));
        assert_eq!(refusal, Refusal::KdfCost { keyslot: 0, time, memory, cpus });
    }
    assert!(matches!(changed(kdf, r#""time":4,"memory":-1,"cpus":1"#), Refusal::Metadata(_)));
    assert_eq!(changed("4000", "4"), Refusal::AntiForensic(0));
    assert_eq!(changed(r#""hash":"sha256"},"area""#, r#""hash":"sha1"},"area""#), Refusal::AntiForensic(0));
    let area = r#""area":{"type":"raw","offset":"32768","size":"258048","encryption":"aes-xts-plain64","key_size":64}"#;
    for (from, to) in [
        ("raw", "journal"),
        ("32768", "16384"),
        ("32768", "32769"),
        ("32768", "16547840"),
        ("32768", "18446744073709551615"),
        ("258048", "4096"),
        ("258048", "18446744073709551615"),
        ("aes-xts-plain64", "cipher_null-ecb"),
        ("64}", "32}"),
    ] {
        assert_eq!(changed(area, &area.replace(from, to)), Refusal::Area(0), "{from} {to}");
    }
    // A second one in the same place.
    let twin = changed_as(|json| {
        let slot = &json[json.find(r#"{"type":"luks2""#).unwrap()..json.find(r#"},"tokens""#).unwrap()];
        json.replace(r#"},"tokens""#, &format!(r#","5":{slot}}},"tokens""#))
    });
    assert_eq!(twin, Refusal::Area(5));
    let high = changed(r#""keyslots":{"0""#, r#""keyslots":{"32""#);
    assert!(matches!(&high, Refusal::Metadata(what) if what.contains("32")), "{high}");
    assert!(matches!(changed(r#""keyslots":{"0""#, r#""keyslots":{"00""#), Refusal::Metadata(_)));
    let priority = changed(r#""kdf":"#, r#""priority":3,"kdf":"#);
    assert!(matches!(&priority, Refusal::Metadata(what) if what.contains("priority")), "{priority}");
}

#[test]
fn digests() {
    assert_eq!(changed(r#""iterations":1000"#, r#""iterations":999"#), Refusal::Digest);
    assert_eq!(changed(r#""iterations":1000"#, r#""iterations":4000001"#), Refusal::Digest);
    assert_eq!(changed(r#""type":"pbkdf2""#, r#""type":"none""#), Refusal::Digest);
    assert_eq!(changed(r#""hash":"sha256","iterations""#, r#""hash":"sha1","iterations""#), Refusal::Digest);
    assert_eq!(changed(r#""digest":""#, r#""digest":"AAAA"#), Refusal::Digest);
    assert_eq!(changed(r#""segments":["0"]"#, r#""segments":["0","1"]"#), Refusal::DigestLinks);
    for slots in [r"[]", r#"["1"]"#, r#"["0","0"]"#, r#"["0","1"]"#] {
        assert_eq!(changed(r#""keyslots":["0"]"#, &format!(r#""keyslots":{slots}"#)), Refusal::DigestLinks);
    }
    let none = changed_as(|json| {
        let start = json.find(r#""digests":{"#).unwrap();
        let end = json.find(r#","config""#).unwrap();
        format!("{}\"digests\":{{}}{}", &json[..start], &json[end..])
    });
    assert_eq!(none, Refusal::Digests(0));
    let salt = changed_as(|json| {
        let at = json.rfind(r#""salt":""#).unwrap() + 8;
        format!("{}AAAA{}", &json[..at], &json[json[at..].find('"').unwrap() + at..])
    });
    assert_eq!(salt, Refusal::Salt("the key digest".to_owned()));
}

#[test]
fn tokens() {
    let foreign = changed(r#""tokens":{"#, r#""tokens":{"3":{"type":"systemd-tpm2","keyslots":["0"]}"#);
    assert_eq!(foreign, Refusal::TokenType(3, "systemd-tpm2".to_owned()));
    let ours =
        changed(r#""tokens":{"#, r#""tokens":{"0":{"type":"ashlar-state","keyslots":[],"filesystem":"x"}"#);
    assert!(matches!(ours, Refusal::Token(0, _)));
}

#[test]
fn copies_of_different_volumes() {
    let mut device = volume();
    let mut second = device.get(16384, 16384);
    second[168] = if second[168] == b'0' { b'1' } else { b'0' };
    reseal(&mut second);
    device.put(&second, 16384);
    assert!(matches!(refusal(&device), Refusal::Copies(_, _)));
    let mut device = volume();
    for at in [0, 16384] {
        let mut copy = device.get(at, 16384);
        copy[168..172].copy_from_slice(b"UUID");
        reseal(&mut copy);
        device.put(&copy, at);
    }
    assert!(matches!(refusal(&device), Refusal::Uuid(_)));
}

/// What is newer counts, whichever copy it is, even when it is the one to be refused: an attacker gains nothing by
/// leaving an old copy, and a good old copy does not hide a bad new one.
#[test]
fn the_newer_copy_counts() {
    for (newer, older) in [(0, 16384), (16384, 0)] {
        let mut device = volume();
        let good = device.get(older, 16384);
        patch(&mut device, |json| json.replace("\"sector_size\":4096", "\"sector_size\":1024"));
        let mut bad = device.get(newer, 16384);
        bad[23] = 2;
        reseal(&mut bad);
        device.put(&bad, newer);
        device.put(&good, older);
        assert_eq!(refusal(&device), Refusal::SectorSize(1024));
    }
}

/// Whether it is what was expected.
type Expected = fn(&Result<Found, Error>) -> bool;

#[test]
fn volumes_by_cryptsetup() {
    let base = "luksFormat -q --pbkdf-force-iterations 4 --key-file -";
    let argon = "--pbkdf-memory 32768 --pbkdf-parallel 1";
    let ours = "--type luks2 --luks2-metadata-size 16k --offset 32768 -s 512";
    let cases: [(String, Expected); 9] = [
        (format!("{argon} {ours} -c cipher_null-ecb"), |found| {
            matches!(found, Err(Error::Refused(Refusal::NullCipher(_))))
        }),
        (format!("{argon} {ours} -c aes-xts-plain"), |found| {
            matches!(found, Err(Error::Refused(Refusal::Cipher(_))))
        }),
        (format!("{argon} {ours} --integrity hmac-sha256 --integrity-no-wipe"), |found| {
            matches!(found, Err(Error::Refused(Refusal::Integrity)))
        }),
        (format!("{argon} --type luks2 --luks2-metadata-size 16k --offset 65536 -s 512"), |found| {
            matches!(found, Err(Error::Refused(Refusal::DataOffset(33_554_432))))
        }),
        (format!("{argon} --type luks2 --luks2-metadata-size 32k --offset 32768 -s 512"), |found| {
            matches!(found, Err(Error::Refused(Refusal::HeaderSize(32_768))))
        }),
        (format!("{argon} --type luks2 --luks2-metadata-size 16k --offset 32768 -s 256"), |found| {
            matches!(found, Err(Error::Refused(Refusal::KeySize(0, 32))))
        }),
        (format!("{argon} {ours} --sector-size 2048"), |found| {
            matches!(found, Err(Error::Refused(Refusal::SectorSize(2048))))
        }),
        (
            format!("{ours} --pbkdf pbkdf2 --pbkdf-force-iterations 1000"),
            |found| matches!(found, Err(Error::Refused(Refusal::Kdf(0, name))) if name == "pbkdf2"),
        ),
        ("--type luks1 --pbkdf-force-iterations 1000".to_owned(), |found| {
            matches!(found, Ok(Found::Foreign("a LUKS1 volume")))
        }),
    ];
    for (options, expected) in cases {
        let file = file(&MemoryDevice::new(SIZE));
        let arguments = format!("{base} {options} {}", file.path().display());
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let Some(made) = cryptsetup(&arguments, b"a passphrase") else { return };
        if !made.success && (made.text.contains("device-mapper") || made.text.contains("device mapper")) {
            common::unable(&format!("cryptsetup wants the device mapper for {options}"));
            continue;
        }
        assert!(made.success, "{options}: {}", made.text);
        let found = luks::read(&from_file(file.path()));
        assert!(expected(&found), "{options}: {found:?}");
    }
}

#[test]
fn a_reencryption_that_was_begun() {
    let file = file(&volume());
    let path = file.path().to_str().unwrap();
    let arguments = [
        "reencrypt",
        "-q",
        "--init-only",
        "--key-file",
        "-",
        "--pbkdf-memory",
        "32768",
        "--pbkdf-force-iterations",
        "4",
        "--pbkdf-parallel",
        "1",
        path,
    ];
    let Some(begun) = cryptsetup(&arguments, common::recovery_key().text().as_bytes()) else { return };
    if !begun.success && begun.text.contains("device-mapper") {
        return common::unable("cryptsetup wants the device mapper to begin a re-encryption");
    }
    assert!(begun.success, "{}", begun.text);
    let refusal = refusal(&from_file(file.path()));
    assert!(
        matches!(&refusal, Refusal::Requirements(what) if what.contains("online-reencrypt")),
        "{refusal}"
    );
}

/// Bytes changed at random: with wrong checksums the other copy serves, with right ones everything is read or refused.
#[test]
fn changed_at_random() {
    let device = volume();
    let Ok(Found::Volume(good)) = luks::read(&device) else { panic!() };
    let mut numbers = Numbers(7);
    for round in 0..4000u32 {
        let copy_at = if round % 2 == 0 { 0 } else { 16384 };
        let mut copy = device.get(copy_at, 16384);
        let json = 4096 + copy[4096..].iter().position(|byte| *byte == 0).unwrap() as u64;
        for _ in 0..=numbers.next() % 3 {
            let at = if numbers.next().is_multiple_of(4) {
                numbers.next() % 512
            } else {
                4096 + numbers.next() % (json - 4096)
            };
            copy[at as usize] ^= 1 << (numbers.next() % 8);
        }
        let mut changed = device.settled();
        changed.put(&copy, copy_at);
        match luks::read(&changed).unwrap() {
            Found::Volume(header) => {
                assert_eq!(
                    (header.uuid(), header.tokens(), header.crypt_table()),
                    (good.uuid(), good.tokens(), good.crypt_table())
                );
            }
            other => panic!("{other:?}"),
        }
        reseal(&mut copy);
        changed.put(&copy, copy_at);
        if let Ok(found) = luks::read(&changed) {
            assert!(matches!(found, Found::Volume(_)), "{found:?}");
        }
    }
}
