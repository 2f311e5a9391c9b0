//! The event log's parser against real logs of other firmware, collected from other projects. The folder
//! lies beside the checkout; without it these tests skip, and the captures in `testdata/` remain.

#![allow(clippy::unwrap_used)]

use ashlar_image::digest::Digest;
use ashlar_measured_boot::eventlog::{ALG_SHA1, ALG_SHA256, EventLog, EventType, LogError};
use proptest::prelude::*;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The collection, if it is there.
static CORPUS: LazyLock<Option<(PathBuf, Vec<Value>)>> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata/measured-boot");
    let Ok(manifest) = fs::read(folder.join("manifest.json")) else {
        eprintln!("skipped: there is no collection of logs in {}", folder.display());
        return None;
    };
    Some((folder, serde_json::from_slice(&manifest).unwrap()))
});

/// Name, content and expectation of each file in `folder` of the collection.
fn collection(folder: &str) -> Vec<(String, Vec<u8>, Value)> {
    let Some((root, manifest)) = CORPUS.as_ref() else { return Vec::new() };
    let named = manifest.iter().map(|entry| (entry["file"].as_str().unwrap(), &entry["expect"]));
    named
        .filter(|(name, _)| name.starts_with(folder))
        .map(|(name, expect)| (name.to_owned(), fs::read(root.join(name)).unwrap(), expect.clone()))
        .collect()
}

/// A log of our own, which is always there.
fn own(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name).join("log.bin")).unwrap()
}

#[test]
fn every_log_parses_and_replays_to_its_values() {
    let logs = collection("eventlogs/");
    let mut compared = 0;
    for (name, bytes, expect) in &logs {
        let log = EventLog::parse(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Some(events) = expect["events"].as_u64() {
            // The collection counts the header of some logs and not of others.
            let found = log.all().len() as u64;
            assert!(found == events || found + 1 == events, "{name}: {found} events");
        }
        if let Some(locality) = expect["startup_locality"].as_u64() {
            assert_eq!(u64::from(log.startup_locality()), locality, "{name}");
        }
        for values in [&expect["pcrs"]["sha256"], &expect["our_replay"]["sha256"]] {
            let Some(values) = values.as_object() else { continue };
            let replay = log.replay_sha256().unwrap_or_else(|error| panic!("{name}: {error}"));
            for (pcr, value) in values {
                // PCR 10 is the kernel's and not in the firmware's log; 17 to 22 start with ones and have no
                // events without a dynamic launch.
                let number: u32 = pcr.parse().unwrap();
                if let Some(found) = replay.get(&number)
                    && number != 10
                {
                    assert_eq!(found.to_string(), value.as_str().unwrap(), "{name}, PCR {pcr}");
                    compared += 1;
                }
            }
            for pcr in replay.keys() {
                assert!(values.contains_key(&pcr.to_string()), "{name}, PCR {pcr}");
            }
        }
        for event in log.all() {
            assert!(!event.explain().text.contains(char::is_control), "{name}, {}", event.index);
        }
    }
    assert!(logs.is_empty() || compared > 80, "{compared}");
}

#[test]
fn the_efi_programs_of_a_log_are_found() {
    for (name, bytes, expect) in collection("eventlogs/") {
        let Some(wanted) = expect["efi_app_digests"]["sha256"].as_array() else { continue };
        let log = EventLog::parse(&bytes).unwrap();
        let found: Vec<_> = log
            .events(4)
            .filter(|event| event.event_type == EventType::BOOT_SERVICES_APPLICATION)
            .map(|event| event.sha256().unwrap().to_string())
            .collect();
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            wanted.iter().map(|v| v.as_str().unwrap()).collect::<Vec<_>>(),
            "{name}"
        );
    }
}

#[test]
fn a_sha1_log_is_read_and_says_that_it_has_no_sha256() {
    let logs = collection("eventlogs/");
    let old: Vec<_> =
        logs.iter().filter(|(name, ..)| name.contains("sha1") || name.contains("_nuc")).collect();
    assert!(logs.is_empty() || old.len() == 2);
    for (name, bytes, _) in old {
        let log = EventLog::parse(bytes).unwrap();
        assert_eq!(log.algorithms().iter().map(|a| a.id).collect::<Vec<_>>(), [ALG_SHA1], "{name}");
        assert_eq!(log.replay_sha256(), Err(LogError::NoSha256("SHA-1".into())), "{name}");
    }
}

#[test]
fn malformed_logs_are_refused() {
    for (name, bytes, _) in collection("malformed/") {
        let result = EventLog::parse(&bytes);
        match name.trim_start_matches("malformed/") {
            "specid_ok_sha1_sha256.bin" => {
                let log = result.unwrap();
                let algorithms: Vec<_> = log.algorithms().iter().map(|a| a.id).collect();
                assert_eq!((algorithms, log.all().len()), (vec![ALG_SHA1, ALG_SHA256], 0));
            }
            "specid_bad_version.bin" => assert!(matches!(result, Err(LogError::SpecId(_))), "{result:?}"),
            "event_size_3g.bin" => assert!(matches!(result, Err(LogError::Short { .. })), "{result:?}"),
            _ => assert!(result.is_err(), "{name}"),
        }
    }
}

/// Cutting a log between two events leaves a shorter log; anywhere else it is an error, unless all that is
/// left of an event could be padding.
#[test]
fn every_truncation_is_an_error_or_a_prefix() {
    let mut logs = vec![("own".to_owned(), own("257-secure"))];
    logs.extend(collection("eventlogs/").into_iter().map(|(name, bytes, _)| (name, bytes)));
    for (name, bytes) in logs {
        let whole = EventLog::parse(&bytes).unwrap();
        // Every length of the beginning, then steps, because each try reads all that precedes it.
        let lengths = (0..bytes.len().min(4000)).chain((4000..bytes.len()).step_by(97));
        for length in lengths {
            if let Ok(cut) = EventLog::parse(&bytes[..length]) {
                assert!(whole.all().starts_with(cut.all()), "{name}, {length}");
            }
        }
    }
}

#[test]
fn padding_is_passed_over_and_other_trailing_bytes_are_not() {
    let bytes = own("257-open");
    let log = EventLog::parse(&bytes).unwrap();
    for (padding, length) in [(0, 1), (0, 5000), (0xff, 3), (0xff, 65536)] {
        let padded = [bytes.clone(), vec![padding; length]].concat();
        assert_eq!(EventLog::parse(&padded).as_ref(), Ok(&log));
    }
    let trailing = [bytes, vec![0, 0, 0, 1]].concat();
    assert!(matches!(EventLog::parse(&trailing), Err(LogError::Short { .. })));
}

/// A log of one SHA-1 and one SHA-256 bank.
fn log_of(events: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = [&[0; 4][..], &3u32.to_le_bytes(), &[0; 20], &37u32.to_le_bytes()].concat();
    bytes.extend(b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x02\0\0\0\x04\0\x14\0\x0b\0\x20\0\0");
    for (pcr, event_type, data) in events {
        bytes.extend([*pcr, *event_type, 2].map(u32::to_le_bytes).concat());
        bytes.extend([4, 0]);
        bytes.extend([0; 20]);
        bytes.extend([11, 0]);
        bytes.extend(Digest::of(data).0);
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(*data);
    }
    bytes
}

const HCRTM: u32 = 0x8000_0010;

#[test]
fn pcr_0_starts_where_the_log_says() {
    let value = |events: &[(u32, u32, &[u8])]| {
        EventLog::parse(&log_of(events)).unwrap().replay_sha256().unwrap().get(&0).copied()
    };
    let from = |start: u8| {
        let mut pcr = Digest::ZERO;
        pcr.0[31] = start;
        Some(pcr.extend(Digest::of("x")))
    };
    let locality = |byte: u8| [&b"StartupLocality\0"[..], &[byte]].concat();
    assert_eq!(value(&[(0, 1, b"x")]), from(0));
    assert_eq!(value(&[(0, 3, &locality(3)), (0, 1, b"x")]), from(3));
    assert_eq!(value(&[(0, HCRTM, b"x")]), from(4));
    // Information is never extended, whatever PCR it names.
    assert_eq!(value(&[(0, 3, b"x"), (u32::MAX, 3, b"x")]), None);
    for bad in [&[(0, 3, &locality(1)[..])][..], &[(0, 3, &locality(0)[..]), (0, 3, &locality(3)[..])]] {
        assert!(matches!(EventLog::parse(&log_of(bad)), Err(LogError::Locality { .. })));
    }
    assert_eq!(EventLog::parse(&log_of(&[(24, 1, b"x")])), Err(LogError::NoSuchPcr { index: 1, pcr: 24 }));
}

#[test]
fn digests_must_be_those_that_the_header_declares() {
    let good = log_of(&[(4, 1, b"x")]);
    let event = good.len() - (12 + 2 + 20 + 2 + 32 + 4 + 1);
    let changed = |offset: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[event + offset] = value;
        EventLog::parse(&bytes)
    };
    assert!(EventLog::parse(&good).is_ok());
    // Another number of digests, an undeclared algorithm, one twice.
    for (offset, value) in [(8, 1), (8, 3), (8, 0), (12, 0x0c), (12, 0x0b), (34, 0x04)] {
        assert!(changed(offset, value).is_err(), "{offset}");
    }
    assert!(matches!(changed(8, 1), Err(LogError::Digests { index: 1, .. })));
    assert!(matches!(changed(12, 0x0c), Err(LogError::Digests { index: 1, .. })));
}

#[test]
fn only_what_the_digest_covers_counts_as_proven() {
    let mut bytes = log_of(&[(5, 0x8000_0007, b"Exit Boot Services Invocation")]);
    let explain = |bytes: &[u8]| EventLog::parse(bytes).unwrap().all()[0].explain();
    assert_eq!(explain(&bytes).to_string(), "Exit Boot Services Invocation");
    *bytes.last_mut().unwrap() = b'N';
    assert!(!explain(&bytes).proven);
    assert!(explain(&bytes).to_string().contains("not covered by the digest"));
    // Terminal control sequences never reach the operator.
    let nasty = log_of(&[(5, 0x8000_0007, b"\x1b[2Jall is well")]);
    assert_eq!(explain(&nasty).text, "EV_EFI_ACTION, 15 bytes");
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = EventLog::parse(&bytes);
        let _ = EventLog::parse(&[log_of(&[]), bytes].concat());
    }

    #[test]
    fn no_change_of_a_good_log_makes_it_panic(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = own("257-secure");
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(log) = EventLog::parse(&bytes) {
            let _ = log.replay_sha256();
            for event in log.all() {
                let _ = event.explain().to_string();
            }
        }
    }
}
