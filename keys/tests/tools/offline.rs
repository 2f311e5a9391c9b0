//! Signing on another machine gives the bytes of signing here.

use crate::program::hello;
use crate::run::{stdout, tool};
use crate::{TIME, key_file, keys};
use ashlar_image::digest::Digest;
use ashlar_keys::offline::{About, Recorder, SignatureSet, SigningRequest, answer};
use ashlar_keys::{KeyError, KeyFolder, Purpose, Role, auth, authenticode, pcr_policy};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use tempfile::TempDir;

fn values() -> Vec<BTreeMap<u32, Digest>> {
    let value = |text: &str| BTreeMap::from([(11, Digest::of(text))]);
    vec![value("enter-initrd"), value("another phase")]
}

/// What the builder does: the program that is signed has the policies' signatures in it.
fn pipeline(keys: &KeyFolder) -> Result<Vec<u8>, KeyError> {
    let mut program = hello();
    program.extend(pcr_policy::sign(keys.pcr(), &values())?.as_bytes());
    authenticode::sign(&program, keys.db(), Some(TIME))
}

/// A folder with the public half and the named private ones.
fn host(private: &[&str]) -> (TempDir, KeyFolder) {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(keys().path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_public = !Role::ALL.iter().any(|role| name == format!("{role}.key"));
        if is_public || private.contains(&name.as_str()) {
            fs::copy(key_file(&name), dir.path().join(&name)).unwrap();
        }
    }
    let keys = KeyFolder::open(dir.path()).unwrap();
    (dir, keys)
}

fn about() -> About {
    About {
        image_id: "example".into(),
        image_version: "1\u{1b}[2J".into(),
        root_hash: Some(Digest::of("root")),
        cmdline: Some("quiet".into()),
    }
}

/// A request or answers as they travel: as text.
fn travel(request: &SigningRequest) -> SigningRequest {
    SigningRequest::parse(&request.to_json().unwrap()).unwrap()
}

#[test]
fn two_hosts_and_two_rounds_come_to_the_bytes_of_one() {
    let online = pipeline(keys()).unwrap();
    let (_build, build) = host(&[]);
    let (_pcr, pcr_host) = host(&["pcr.key"]);
    let (_db, db_host) = host(&["db.key"]);

    // First round: both policies in one request, and nothing else yet.
    let recorder = Recorder::default();
    let error = pipeline(&build.recording(&recorder).unwrap()).unwrap_err();
    assert!(matches!(error, KeyError::Unanswered(Role::Pcr)), "{error}");
    let first = travel(&recorder.request(about()));
    assert_eq!(first.items.iter().map(|item| item.role).collect::<Vec<_>>(), [Role::Pcr; 2]);
    let shown = first.to_string();
    for part in ["example", "PCR 11", &Digest::of("enter-initrd").to_string(), "quiet", "\\u{1b}"] {
        assert!(shown.contains(part), "{shown}");
    }
    let mut answers = answer(&first, &pcr_host, &[Role::Pcr]).unwrap();
    assert!(first.unanswered(&answers, &build).unwrap().is_empty());

    // Second round: the program with the policies' signatures in it.
    let recorder = Recorder::new(answers.clone());
    let error = pipeline(&build.recording(&recorder).unwrap()).unwrap_err();
    assert!(matches!(error, KeyError::Unanswered(Role::Db)), "{error}");
    let second = travel(&recorder.request(about()));
    assert_eq!(second.unanswered(&answers, &build).unwrap().len(), 1);
    let more = answer(&second, &db_host, &[Role::Db]).unwrap();
    answers.merge(SignatureSet::parse(&more.to_json().unwrap()).unwrap()).unwrap();
    answers.merge(more).unwrap();

    let answers = SignatureSet::parse(&answers.to_json().unwrap()).unwrap();
    assert_eq!(pipeline(&build.replaying(answers).unwrap()).unwrap(), online);
}

#[test]
fn one_host_with_both_keys_needs_one_round() {
    let (_build, build) = host(&[]);
    let (_signing, signing) = host(&["pcr.key", "db.key"]);
    let recorder = Recorder::default();
    let answering = signing.answering(&recorder, &Role::BUILD).unwrap();
    answering.require(&Role::BUILD).unwrap();
    let online = pipeline(&answering).unwrap();
    assert!(recorder.request(about()).items.is_empty());
    let answers = SignatureSet::parse(&recorder.answers().to_json().unwrap()).unwrap();
    assert_eq!(answers.signatures.len(), 3);
    assert_eq!(pipeline(&build.replaying(answers).unwrap()).unwrap(), online);
    if let Some(mut sbverify) = tool("sbverify", "sbsigntool") {
        let path = build.path().join("signed.efi");
        fs::write(&path, &online).unwrap();
        stdout(sbverify.arg("--cert").arg(key_file("db.crt")).arg(&path));
    }
}

#[test]
fn variables_and_documents_are_signed_offline_too() {
    let (_build, build) = host(&[]);
    let list = keys().secure_boot().db;
    let online = auth::variable("db", &list, TIME, keys().kek()).unwrap();
    let release = keys().channel().sign(b"a release").unwrap();
    let recorder = Recorder::default();
    let recording = build.recording(&recorder).unwrap();
    assert!(auth::variable("db", &list, TIME, recording.kek()).is_err());
    assert!(recording.channel().sign(b"a release").is_err());
    let answers = answer(&travel(&recorder.request(about())), keys(), &Role::ALL).unwrap();
    let replaying = build.replaying(answers).unwrap();
    assert_eq!(auth::variable("db", &list, TIME, replaying.kek()).unwrap(), online);
    assert_eq!(replaying.channel().sign(b"a release").unwrap(), release);
    assert!(matches!(
        replaying.channel().sign(b"another release"),
        Err(KeyError::NotAnswered { role: Role::Channel, .. })
    ));
}

/// A request cannot have a key sign what is not shown or what it is not for, and answers are checked.
#[test]
fn false_requests_and_answers_are_refused() {
    let (_build, build) = host(&[]);
    let recorder = Recorder::default();
    let _ = pipeline(&build.recording(&recorder).unwrap());
    let request = recorder.request(about());
    // The policy's digest as a document: the PCR key signs no documents.
    let mut other = request.clone();
    other.items[0].purpose = Purpose::Document { content: ashlar_keys::purpose::Base64(vec![1; 32]) };
    assert!(matches!(answer(&other, keys(), &Role::ALL), Err(KeyError::Purpose(Role::Pcr, _))));
    assert!(matches!(SigningRequest::parse(&other.to_json().unwrap()), Err(KeyError::Purpose(..))));
    // Another key.
    let mut other = request.clone();
    other.items[1].key = Digest::of("another key");
    assert!(matches!(answer(&other, keys(), &Role::ALL), Err(KeyError::OtherKey { role: Role::Pcr, .. })));
    // A changed signature.
    let good = answer(&request, keys(), &Role::ALL).unwrap();
    let mut forged = good.clone();
    forged.signatures[0].signature.0[7] ^= 1;
    assert!(matches!(request.unanswered(&forged, &build), Err(KeyError::WrongAnswer(Role::Pcr))));
    let replaying = build.replaying(forged.clone()).unwrap();
    assert!(matches!(pcr_policy::sign(replaying.pcr(), &values()), Err(KeyError::WrongAnswer(Role::Pcr))));
    assert!(matches!(forged.merge(good.clone()), Err(KeyError::Contradiction(Role::Pcr))));
    // A newer format, an unknown field, a field too few.
    let text = good.to_json().unwrap();
    for (from, to, why) in [
        ("\"format\": 1", "\"format\": 2", "its format is 2"),
        ("\"format\": 1", "\"format\": 1, \"note\": 0", "unknown field `note`"),
        ("\"key\"", "\"clef\"", "unknown field `clef`"),
        ("\"signature\": \"", "\"signature\": \"!", "not base64"),
    ] {
        let error = SignatureSet::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

proptest! {
    #[test]
    fn changed_requests_are_survived(at in 0usize..1200, byte in any::<u8>()) {
        let recorder = Recorder::default();
        let _ = pipeline(&keys().recording(&recorder).unwrap());
        let mut text = recorder.request(about()).to_json().unwrap().into_bytes();
        let at = at % text.len();
        text[at] = byte;
        let text = String::from_utf8_lossy(&text);
        let _ = SigningRequest::parse(&text);
        let _ = SignatureSet::parse(&text);
        let _ = SigningRequest::parse(text.get(..at).unwrap_or_default());
    }
}
