//! A repository between the client and somebody who can change every byte of it, or has some of its keys.
#![allow(clippy::unwrap_used)]

mod common;

use ashlar_fetch::FetchError;
use ashlar_tuf::repository::{Ed25519, Keys, Lifetimes, Repository, Roles, Sign, roles};
use ashlar_tuf::{Bootstrap, Client, Clock, Limits, MemoryStore, Role, TufError};
use common::{Mirror, key};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const NOW: i64 = 1_800_000_000;
const DAY: i64 = 24 * 3600;

struct Lab {
    folder: tempfile::TempDir,
    owner: Ed25519,
    online: Ed25519,
    repository: Repository,
}

/// The public key's 32 bytes.
fn raw(key: &Ed25519) -> [u8; 32] {
    key.public().ed25519_bytes().unwrap()
}

fn two(owner: &Ed25519, online: &Ed25519) -> Roles {
    let keys = |key: &Ed25519| Keys { keys: vec![key.public().clone()], threshold: 1 };
    Roles { root: keys(owner), targets: keys(owner), snapshot: keys(online), timestamp: keys(online) }
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (owner, online) = (key(1), key(2));
        let path = folder.path().join("channel");
        let mut repository =
            Repository::create(&path, &two(&owner, &online), Lifetimes::default(), &[&owner, &online], NOW)
                .unwrap();
        repository.put_bytes("releases/a/1.0/release.json", b"one".to_vec(), None).unwrap();
        repository.publish(Lifetimes::default(), &[&owner, &online], NOW).unwrap();
        Self { folder, owner, online, repository }
    }

    fn add(&mut self, name: &str, bytes: &[u8]) {
        self.repository.put_bytes(name, bytes.to_vec(), None).unwrap();
        self.repository.publish(Lifetimes::default(), &[&self.owner, &self.online], NOW).unwrap();
    }

    fn mirror(&self) -> Mirror {
        Mirror::of(&self.folder.path().join("channel"))
    }

    fn client(&self) -> Client<MemoryStore> {
        Client::new(MemoryStore::default(), Bootstrap::Key(raw(&self.owner)), Limits::default())
    }
}

const CLOCK: Clock = Clock { now: NOW, built: 0 };

fn at(now: i64) -> Clock {
    Clock { now, built: 0 }
}

/// A client that has seen the good repository meets a bad one: the reason, and a store that is as before.
#[track_caller]
fn refused(client: &mut Client<MemoryStore>, mirror: &Mirror, clock: Clock) -> TufError {
    let before = client.store().clone();
    let error = client.refresh(mirror, clock).unwrap_err();
    assert_eq!(*client.store(), before, "nothing of what was refused is kept: {error}");
    assert!(client.trusted().is_none());
    assert!(client.open_target(mirror, "releases/a/1.0/release.json").is_err(), "nothing is given out");
    error
}

#[test]
fn a_good_repository() {
    let mut lab = Lab::new();
    let mut client = lab.client();
    client.refresh(&lab.mirror(), CLOCK).unwrap();
    assert_eq!(client.read_target(&lab.mirror(), "releases/a/1.0/release.json", 100).unwrap(), b"one");
    assert!(matches!(client.target(&lab.mirror(), "other"), Err(TufError::NoTarget(_))));
    let names: Vec<&str> = client.store().files.keys().map(String::as_str).collect();
    assert_eq!(names, ["clock.json", "root.json", "snapshot.json", "targets.json", "timestamp.json"]);
    lab.add("b", b"two");
    client.refresh(&lab.mirror(), CLOCK).unwrap();
    assert_eq!(client.read_target(&lab.mirror(), "b", 100).unwrap(), b"two");
    assert!(client.read_target(&lab.mirror(), "b", 2).is_err(), "too long for who asks");
    let report = ashlar_tuf::repository::check(&lab.mirror(), Bootstrap::Key(raw(&lab.owner)), NOW).unwrap();
    assert_eq!((report.targets, report.bytes), (2, 6));
    // What was opened again is the same.
    let again = Repository::open(&lab.folder.path().join("channel")).unwrap();
    assert_eq!(again.read_target("b", 100).unwrap(), b"two");
    assert_eq!(again.targets(), lab.repository.targets());
}

#[test]
fn freeze() {
    let lab = Lab::new();
    let mut client = lab.client();
    let mirror = lab.mirror();
    client.refresh(&mirror, CLOCK).unwrap();
    for (days, role) in [(8, Role::Timestamp), (400, Role::Root)] {
        let error = refused(&mut client, &mirror, at(NOW + days * DAY));
        assert!(matches!(&error, TufError::Expired { role: found, .. } if *found == role), "{error}");
        assert!(error.to_string().contains("expired at 20"), "{error}");
    }
    // Each other role, with a timestamp that is fresh.
    for (lifetimes, role) in [
        (Lifetimes { snapshot: DAY, ..Lifetimes::default() }, Role::Snapshot),
        (Lifetimes { targets: DAY, ..Lifetimes::default() }, Role::Targets),
    ] {
        let mut lab = Lab::new();
        lab.repository.put_bytes("x", b"x".to_vec(), None).unwrap();
        lab.repository.publish(lifetimes, &[&lab.owner, &lab.online], NOW).unwrap();
        let error = lab.client().refresh(&lab.mirror(), at(NOW + 2 * DAY)).unwrap_err();
        assert!(matches!(&error, TufError::Expired { role: found, .. } if *found == role), "{error}");
    }
}

#[test]
fn rollback_of_each_role() {
    let mut lab = Lab::new();
    let old = lab.mirror();
    lab.add("b", b"two");
    let mut client = lab.client();
    client.refresh(&lab.mirror(), CLOCK).unwrap();
    let error = refused(&mut client, &old, CLOCK);
    assert!(matches!(error, TufError::Rollback { role: Role::Timestamp, .. }), "{error}");
    // The online key is stolen: old snapshots under a new timestamp, old targets under a new snapshot.
    let mirror = lab.mirror();
    mirror.forge("timestamp.json", &[&lab.online], |signed| {
        signed["version"] = json!(100);
        signed["meta"]["snapshot.json"] = json!({ "version": 1 });
    });
    let error = refused(&mut client, &mirror, CLOCK);
    assert!(matches!(error, TufError::Rollback { role: Role::Snapshot, .. }), "{error}");
    let newest = |mirror: &Mirror, change: &dyn Fn(&mut Value)| {
        let snapshot = mirror.newest("snapshot");
        mirror.forge(&snapshot, &[&lab.online], change);
        let version: u64 = snapshot.split('.').next().unwrap().parse().unwrap();
        let next = format!("{}.snapshot.json", version + 1);
        let bytes = mirror.get(&snapshot);
        mirror.set(&next, bytes);
        mirror.forge(&next, &[&lab.online], |signed| signed["version"] = json!(version + 1));
        mirror.forge("timestamp.json", &[&lab.online], |signed| {
            signed["version"] = json!(100);
            signed["meta"]["snapshot.json"] = json!({ "version": version + 1 });
        });
    };
    let mirror = lab.mirror();
    newest(&mirror, &|signed| signed["meta"]["targets.json"] = json!({ "version": 1 }));
    let error = client.refresh(&mirror, CLOCK).unwrap_err();
    assert!(matches!(error, TufError::Rollback { role: Role::Targets, .. }), "{error}");
    let mirror = lab.mirror();
    newest(&mirror, &|signed| signed["meta"] = json!({}));
    let error = client.refresh(&mirror, CLOCK).unwrap_err();
    assert!(matches!(error, TufError::Removed(_) | TufError::Rollback { .. }), "{error}");
}

#[test]
fn mix_and_match() {
    let mut lab = Lab::new();
    let old = lab.mirror();
    lab.add("b", b"two");
    let mirror = lab.mirror();
    let name = mirror.newest("targets");
    mirror.set(&name, old.get(&old.newest("targets")));
    let error = lab.client().refresh(&mirror, CLOCK).unwrap_err();
    assert!(matches!(error, TufError::Differs { .. }), "{error}");
    // The same where the snapshot has no hashes.
    let mirror = lab.mirror();
    mirror.forge("timestamp.json", &[&lab.online], |signed| {
        let meta = signed["meta"]["snapshot.json"].as_object_mut().unwrap();
        meta.remove("hashes");
        meta.remove("length");
    });
    mirror.set(&mirror.newest("snapshot"), old.get(&old.newest("snapshot")));
    let error = lab.client().refresh(&mirror, CLOCK).unwrap_err();
    assert!(matches!(error, TufError::Mixed { role: Role::Snapshot, .. }), "{error}");
}

#[test]
fn endless_data() {
    let lab = Lab::new();
    for file in ["1.root.json", "2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json"] {
        let mirror = Mirror { endless: Some(file.into()), ..lab.mirror() };
        let error = lab.client().refresh(&mirror, CLOCK).unwrap_err();
        assert!(matches!(error, TufError::Fetch(FetchError::TooLong { .. })), "{file}: {error}");
    }
    let mirror = lab.mirror();
    let mut client = lab.client();
    client.refresh(&mirror, CLOCK).unwrap();
    let target = client.target(&mirror, "releases/a/1.0/release.json").unwrap();
    let path = client.target_path("releases/a/1.0/release.json", &target).unwrap();
    for (bytes, reason) in [(&b"one and more"[..], "longer"), (b"on", "missing"), (b"onf", "sha256")] {
        mirror.set(&path, bytes.to_vec());
        let error = client.read_target(&mirror, "releases/a/1.0/release.json", 100).unwrap_err();
        assert!(matches!(error, TufError::Differs { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{reason}: {error}");
    }
}

#[test]
fn keys_of_others() {
    let lab = Lab::new();
    let stranger = key(3);
    for role in ["root", "targets", "snapshot", "timestamp"] {
        let mirror = lab.mirror();
        let name = if role == "timestamp" { "timestamp.json".to_owned() } else { mirror.newest(role) };
        mirror.forge(&name, &[&stranger], |_| {});
        if role != "timestamp" && role != "root" {
            // As if the hashes above were not there.
            let above = if role == "targets" { mirror.newest("snapshot") } else { "timestamp.json".into() };
            mirror.forge(&above, &[&lab.online], |signed| {
                for (_, meta) in signed["meta"].as_object_mut().unwrap() {
                    meta.as_object_mut().unwrap().retain(|name, _| name == "version");
                }
            });
            if role == "targets" {
                mirror.forge("timestamp.json", &[&lab.online], |signed| {
                    signed["meta"]["snapshot.json"]
                        .as_object_mut()
                        .unwrap()
                        .retain(|name, _| name == "version");
                });
            }
        }
        let error = lab.client().refresh(&mirror, CLOCK).unwrap_err();
        assert!(matches!(error, TufError::Threshold { valid: 0, .. }), "{role}: {error}");
        mirror.forge(&name, &[], |_| {});
        let error = lab.client().refresh(&mirror, CLOCK).unwrap_err();
        assert!(matches!(error, TufError::Threshold { valid: 0, .. }), "{role} unsigned: {error}");
    }
    // A whole repository of somebody else.
    let mut client = Client::new(MemoryStore::default(), Bootstrap::Key(raw(&stranger)), Limits::default());
    assert!(matches!(client.refresh(&lab.mirror(), CLOCK), Err(TufError::NotOwnRoot(_))));
    assert!(client.store().files.is_empty());
    let mut client = Client::new(MemoryStore::default(), Bootstrap::Sha256([7; 32]), Limits::default());
    assert!(matches!(client.refresh(&lab.mirror(), CLOCK), Err(TufError::Differs { .. })));
}

#[test]
fn one_key_under_two_names_counts_once() {
    let lab = Lab::new();
    let mirror = lab.mirror();
    mirror.forge("1.root.json", &[&lab.owner], |signed| {
        let id = lab.owner.public().id();
        let copy = signed["keys"][&id].clone();
        signed["keys"]["again"] = copy;
        signed["roles"]["root"] = json!({ "keyids": [id, "again"], "threshold": 2 });
    });
    let mut value: Value = serde_json::from_slice(&mirror.get("1.root.json")).unwrap();
    let mut second = value["signatures"][0].clone();
    second["keyid"] = json!("again");
    value["signatures"].as_array_mut().unwrap().push(second);
    mirror.set("1.root.json", serde_json::to_vec(&value).unwrap());
    let error = lab.client().refresh(&mirror, CLOCK).unwrap_err();
    assert!(matches!(error, TufError::Threshold { valid: 1, threshold: 2, .. }), "{error}");
    // One signature given twice.
    value["signatures"][1]["keyid"] = json!(lab.owner.public().id());
    mirror.set("1.root.json", serde_json::to_vec(&value).unwrap());
    let error = lab.client().refresh(&mirror, CLOCK).unwrap_err();
    assert!(matches!(error, TufError::Malformed { .. }), "{error}");
}

#[test]
fn roots_follow_one_another() {
    let mut lab = Lab::new();
    let mut client = lab.client();
    client.refresh(&lab.mirror(), CLOCK).unwrap();
    let new = key(3);
    let mut next: Roles = roles(lab.repository.root());
    next.root = Keys { keys: vec![new.public().clone()], threshold: 1 };
    next.targets = next.root.clone();
    let missing = lab.repository.change_root(&next, Lifetimes::default(), &[&new, &lab.online], NOW);
    assert!(matches!(missing, Err(TufError::Threshold { .. })), "the old key must agree");
    lab.repository.change_root(&next, Lifetimes::default(), &[&lab.owner, &new, &lab.online], NOW).unwrap();
    let mirror = lab.mirror();
    // Signed by one side only.
    for side in [&lab.owner, &new] {
        let mirror = lab.mirror();
        mirror.forge("2.root.json", &[side], |_| {});
        let error = refused(&mut client, &mirror, CLOCK);
        assert!(matches!(error, TufError::Threshold { role: Role::Root, .. }), "{error}");
    }
    // A version that is left out.
    let skipped = lab.mirror();
    skipped.forge("2.root.json", &[&lab.owner, &new], |signed| signed["version"] = json!(3));
    let error = refused(&mut client, &skipped, CLOCK);
    assert!(matches!(error, TufError::RootSkipped { trusted: 1, found: 3 }), "{error}");
    client.refresh(&mirror, CLOCK).unwrap();
    assert_eq!(client.trusted().unwrap().root().version, 2);
    // Who begins today with the first key comes to the same.
    lab.client().refresh(&mirror, CLOCK).unwrap();
    // The old key is of no use any more.
    let forged = lab.mirror();
    forged.forge(&forged.newest("targets"), &[&lab.owner], |_| {});
    assert!(lab.client().refresh(&forged, CLOCK).is_err());
}

#[test]
fn names_do_not_lead_out() {
    for name in ["../x", "a/../../x", "/x", "a//b", ".", "", "a/.."] {
        let mut lab = Lab::new();
        assert!(matches!(lab.repository.put_bytes(name, vec![], None), Err(TufError::BadName(_))), "{name}");
        // Somebody with the key lists it all the same.
        let mirror = lab.mirror();
        let targets = mirror.newest("targets");
        mirror.forge(&targets, &[&lab.owner], |signed| {
            signed["targets"][name] = json!({ "length": 1, "hashes": { "sha256": "00" } });
        });
        let snapshot = mirror.newest("snapshot");
        mirror.forge(&snapshot, &[&lab.online], |signed| {
            signed["meta"]["targets.json"].as_object_mut().unwrap().retain(|name, _| name == "version");
        });
        mirror.forge("timestamp.json", &[&lab.online], |signed| {
            signed["meta"]["snapshot.json"].as_object_mut().unwrap().retain(|name, _| name == "version");
        });
        let mut client = lab.client();
        client.refresh(&mirror, CLOCK).unwrap();
        assert!(matches!(client.open_target(&mirror, name), Err(TufError::BadName(_))), "{name}");
    }
}

#[test]
fn clocks_that_are_wrong() {
    let lab = Lab::new();
    let mut client = lab.client();
    let built = Clock { now: NOW, built: NOW + 1 };
    assert!(matches!(client.refresh(&lab.mirror(), built), Err(TufError::ClockBehind { .. })));
    client.refresh(&lab.mirror(), at(NOW + DAY)).unwrap();
    client.refresh(&lab.mirror(), at(NOW + DAY / 2)).unwrap();
    let error = refused(&mut client, &lab.mirror(), at(NOW - DAY / 2));
    assert!(matches!(error, TufError::ClockBehind { .. }), "{error}");
    assert!(error.to_string().contains("2027-01-1"), "{error}");
}

#[test]
fn a_damaged_store_is_told() {
    let lab = Lab::new();
    for file in ["root.json", "clock.json"] {
        let store = MemoryStore { files: BTreeMap::from([(file.to_owned(), b"{".to_vec())]) };
        let mut client = Client::new(store, Bootstrap::Key(raw(&lab.owner)), Limits::default());
        let error = client.refresh(&lab.mirror(), CLOCK).unwrap_err();
        assert!(matches!(error, TufError::Store { .. }), "{error}");
    }
}

#[test]
fn a_half_published_repository_is_the_one_before() {
    let mut lab = Lab::new();
    let before = lab.mirror();
    lab.add("b", b"two");
    let after = lab.mirror();
    // Every file but the timestamp is there already.
    after.set("timestamp.json", before.get("timestamp.json"));
    let mut client = lab.client();
    client.refresh(&after, CLOCK).unwrap();
    assert!(client.target(&after, "b").is_err());
    assert_eq!(client.read_target(&after, "releases/a/1.0/release.json", 9).unwrap(), b"one");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
    #[test]
    fn damaged_bytes_never_change_what_is_trusted(file in 0usize..5, at in 0usize..10_000, flip in 1u8..) {
        let lab = Lab::new();
        let mirror = lab.mirror();
        let names = ["1.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json", "1.targets.json"];
        let mut bytes = mirror.get(names[file]);
        let at = at % bytes.len();
        bytes[at] ^= flip;
        mirror.set(names[file], bytes);
        let mut client = lab.client();
        if client.refresh(&mirror, CLOCK).is_ok() {
            let target = client.target(&mirror, "releases/a/1.0/release.json").unwrap();
            proptest::prop_assert_eq!(&target, &lab.repository.targets().targets["releases/a/1.0/release.json"]);
        }
    }
}
