//! Delegated roles: who is asked for a target, in which order, and who is believed.
#![allow(clippy::unwrap_used)]

mod common;

use ashlar_tuf::repository::{Ed25519, Keys, Lifetimes, Repository, Roles, Sign};
use ashlar_tuf::{Bootstrap, Client, Clock, Limits, MemoryStore, TufError, canonical};
use common::{Mirror, key};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const NOW: i64 = 1_800_000_000;
const CLOCK: Clock = Clock { now: NOW, built: 0 };

/// One delegation: from, to, terminating, paths.
type Edge = (&'static str, &'static str, bool, &'static [&'static str]);
const ALL: &[&str] = &["*"];

/// The key of a delegated role.
fn role_key(name: &str) -> Ed25519 {
    key(100 + name.bytes().fold(0_u8, |sum, byte| sum.wrapping_mul(7).wrapping_add(byte)) % 100)
}

/// A role with these delegations and targets, signed with `signer`.
fn role(name: &str, edges: &[Edge], targets: &Value, signer: &Ed25519) -> Vec<u8> {
    let own: Vec<&Edge> = edges.iter().filter(|(from, ..)| *from == name).collect();
    let keys: serde_json::Map<String, Value> = own
        .iter()
        .map(|(_, to, ..)| {
            let key = role_key(to);
            let public = json!({
                "keytype": "ed25519", "scheme": "ed25519",
                "keyval": { "public": hex::encode(key.public().ed25519_bytes().unwrap()) },
            });
            (key.public().id().clone(), public)
        })
        .collect();
    let roles: Vec<Value> = own
        .iter()
        .map(|(_, to, terminating, paths)| {
            json!({ "name": to, "keyids": [role_key(to).public().id()], "threshold": 1, "terminating": terminating, "paths": paths })
        })
        .collect();
    let mut signed = json!({
        "_type": "targets", "spec_version": "1.0.31", "version": 1, "expires": "2030-01-01T00:00:00Z", "targets": targets,
    });
    if !roles.is_empty() {
        signed["delegations"] = json!({ "keys": keys, "roles": roles });
    }
    let signature = hex::encode(signer.sign(&canonical(&signed).unwrap()).unwrap());
    serde_json::to_vec(
        &json!({ "signed": signed, "signatures": [{ "keyid": signer.public().id(), "sig": signature }] }),
    )
    .unwrap()
}

fn file(content: &[u8]) -> Value {
    json!({ "length": content.len(), "hashes": { "sha256": hex::encode(Sha256::digest(content)) } })
}

/// A repository with these delegations; `files` are role, name, content.
fn mirror(edges: &[Edge], files: &[(&str, &str, &[u8])]) -> (Mirror, Client<MemoryStore>) {
    let folder = tempfile::tempdir().unwrap();
    let (path, owner) = (folder.path().join("channel"), key(1));
    let keys = || Keys { keys: vec![owner.public().clone()], threshold: 1 };
    let roles = Roles { root: keys(), targets: keys(), snapshot: keys(), timestamp: keys() };
    Repository::create(&path, &roles, Lifetimes::default(), &[&owner], NOW).unwrap();
    let mirror = Mirror::of(&path);
    let of = |name: &str| -> Value {
        files
            .iter()
            .filter(|(role, ..)| *role == name)
            .map(|(_, path, content)| ((*path).to_owned(), file(content)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let mut meta = json!({ "targets.json": { "version": 1 } });
    for (_, to, ..) in edges {
        mirror.set(&format!("1.{to}.json"), role(to, edges, &of(to), &role_key(to)));
        meta[format!("{to}.json")] = json!({ "version": 1 });
    }
    mirror.set(&mirror.newest("targets"), role("targets", edges, &of("targets"), &owner));
    mirror.forge(&mirror.newest("snapshot"), &[&owner], |snapshot| snapshot["meta"] = meta);
    mirror.forge("timestamp.json", &[&owner], |timestamp| {
        timestamp["meta"] = json!({ "snapshot.json": { "version": 1 } });
    });
    for (_, name, content) in files {
        let (folder, file) = name
            .rsplit_once('/')
            .map_or((String::new(), *name), |(folder, file)| (format!("{folder}/"), file));
        mirror.set(
            &format!("targets/{folder}{}.{file}", hex::encode(Sha256::digest(content))),
            content.to_vec(),
        );
    }
    let client = Client::new(
        MemoryStore::default(),
        Bootstrap::Key(owner.public().ed25519_bytes().unwrap()),
        Limits::default(),
    );
    (mirror, client)
}

/// The delegated roles that were asked for.
fn visited(mirror: &Mirror) -> Vec<String> {
    let asked = mirror.asked.lock().unwrap();
    let role = |path: &String| Some(path.strip_prefix("1.")?.strip_suffix(".json")?.to_owned());
    asked
        .iter()
        .filter_map(role)
        .filter(|role| !["root", "snapshot", "targets"].contains(&role.as_str()))
        .collect()
}

#[test]
fn roles_are_asked_in_their_order_depth_first() {
    let py: &[&str] = &["*.py"];
    let cases: &[(&[Edge], &[&str])] = &[
        (&[("targets", "A", false, ALL)], &["A"]),
        (&[("targets", "A", false, ALL), ("targets", "B", false, ALL)], &["A", "B"]),
        (
            &[
                ("targets", "A", false, ALL),
                ("targets", "B", false, ALL),
                ("A", "C", false, ALL),
                ("A", "D", false, ALL),
            ],
            &["A", "C", "D", "B"],
        ),
        // A terminating role is the last word, with those below it.
        (
            &[
                ("targets", "A", false, ALL),
                ("targets", "B", false, ALL),
                ("A", "C", true, ALL),
                ("A", "D", false, ALL),
            ],
            &["A", "C"],
        ),
        (
            &[
                ("targets", "A", false, ALL),
                ("targets", "B", false, ALL),
                ("A", "C", true, ALL),
                ("C", "D", false, ALL),
            ],
            &["A", "C", "D"],
        ),
        // Who is not trusted with the name is not asked, nor are those below.
        (&[("targets", "A", false, py), ("targets", "B", false, ALL), ("A", "C", false, ALL)], &["B"]),
        (
            &[
                ("targets", "A", false, ALL),
                ("targets", "B", false, ALL),
                ("A", "C", false, py),
                ("C", "D", false, ALL),
            ],
            &["A", "B"],
        ),
        // Circles end; a role is asked once.
        (
            &[
                ("targets", "A", false, ALL),
                ("targets", "B", false, ALL),
                ("B", "C", false, ALL),
                ("C", "D", false, ALL),
                ("D", "B", false, ALL),
            ],
            &["A", "B", "C", "D"],
        ),
        (
            &[
                ("targets", "A", false, ALL),
                ("targets", "B", false, ALL),
                ("B", "C", false, ALL),
                ("A", "C", false, ALL),
            ],
            &["A", "C", "B"],
        ),
    ];
    for (edges, order) in cases {
        let (mirror, mut client) = mirror(edges, &[]);
        client.refresh(&mirror, CLOCK).unwrap();
        assert!(matches!(client.target(&mirror, "missing"), Err(TufError::NoTarget(_))), "{edges:?}");
        assert_eq!(visited(&mirror), *order, "{edges:?}");
    }
}

const TREE: &[Edge] = &[
    ("targets", "A", false, &["*.doc", "*.md"]),
    ("targets", "B", false, &["releases/*/*"]),
    ("B", "C", false, &["releases/x/*"]),
    ("B", "D", false, &["releases/y/*.zip"]),
];

#[test]
fn a_target_is_found_where_each_of_the_chain_is_trusted_with_it() {
    let files: &[(&str, &str, &[u8])] = &[
        ("targets", "top", b"top"),
        ("A", "README.md", b"readme"),
        ("C", "releases/x/one", b"x"),
        ("D", "releases/y/one.zip", b"y"),
        // Outside of what it is trusted with.
        ("D", "releases/z/one.zip", b"z"),
        ("A", "releases/x/two", b"by A"),
    ];
    for (name, content) in [
        ("top", Some(&b"top"[..])),
        ("README.md", Some(b"readme")),
        ("releases/x/one", Some(b"x")),
        ("releases/y/one.zip", Some(b"y")),
        ("releases/z/one.zip", None),
        ("releases/x/two", None),
    ] {
        let (mirror, mut client) = mirror(TREE, files);
        client.refresh(&mirror, CLOCK).unwrap();
        assert_eq!(client.read_target(&mirror, name, 100).ok().as_deref(), content, "{name}");
    }
}

#[test]
fn who_is_not_believed() {
    let files: &[(&str, &str, &[u8])] = &[("A", "file", b"good")];
    let edges: &[Edge] = &[("targets", "A", false, ALL)];
    let refused = |change: &dyn Fn(&Mirror)| {
        let (mirror, mut client) = mirror(edges, files);
        change(&mirror);
        client.refresh(&mirror, CLOCK).unwrap();
        let before = client.store().clone();
        let error = client.read_target(&mirror, "file", 100).unwrap_err();
        assert_eq!(*client.store(), before, "nothing of it is kept: {error}");
        error
    };
    // Signed by another key; the owner's own is another one too.
    let other = refused(&|mirror| {
        mirror.set("1.A.json", role("A", edges, &json!({ "file": file(b"good") }), &key(9)));
    });
    assert!(matches!(other, TufError::Threshold { .. }), "{other}");
    let owner = refused(&|mirror| {
        mirror.set("1.A.json", role("A", edges, &json!({ "file": file(b"good") }), &key(1)));
    });
    assert!(matches!(owner, TufError::Threshold { .. }), "{owner}");
    let expired = refused(&|mirror| {
        mirror.forge("1.A.json", &[&role_key("A")], |role| role["expires"] = "2020-01-01T00:00:00Z".into());
    });
    assert!(matches!(expired, TufError::Expired { .. }), "{expired}");
    // Another version than the snapshot names.
    let version =
        refused(&|mirror| mirror.forge("1.A.json", &[&role_key("A")], |role| role["version"] = 2.into()));
    assert!(matches!(version, TufError::Mixed { .. } | TufError::Differs { .. }), "{version}");
    let kind = refused(&|mirror| {
        mirror.forge("1.A.json", &[&role_key("A")], |role| role["_type"] = "snapshot".into());
    });
    assert!(matches!(kind, TufError::WrongType { .. } | TufError::Malformed { .. }), "{kind}");
    refused(&|mirror| drop(mirror.files.lock().unwrap().remove("1.A.json")));
    refused(&|mirror| mirror.set("1.A.json", b"{".to_vec()));
}

#[test]
fn names_do_not_lead_anywhere_else() {
    for (name, asked) in [("../root", "1...%2Froot.json"), ("a/b", "1.a%2Fb.json"), ("?", "1.%3F.json")] {
        let edges: Vec<Edge> = vec![("targets", name, false, ALL)];
        let (mirror, mut client) = mirror(&edges, &[]);
        mirror.set(asked, role(name, &edges, &json!({}), &role_key(name)));
        client.refresh(&mirror, CLOCK).unwrap();
        assert!(matches!(client.target(&mirror, "missing"), Err(TufError::NoTarget(_))), "{name}");
        let asked_for = mirror.asked.lock().unwrap().clone();
        // Encoded, it is one segment of a path, whatever it was.
        assert!(asked_for.iter().all(|path| !path.contains(['/', '?'])), "{asked_for:?}");
    }
}
