//! The signed index: what is believed and what is not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use ashlar_debian::{Error, Network, verify_in_release};
use common::{Archive, DAY, Deb, Entry, cache, key, names, sign};
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::types::ReasonForRevocation;
use std::time::{Duration, SystemTime};

fn debs() -> Vec<Deb> {
    vec![
        Deb::new("app", "1.0-1", "Depends: lib (>= 2)\n", &[Entry::File("./usr/bin/app", "app")]),
        Deb::new("lib", "2.0-1", "", &[Entry::File("./usr/lib/lib.so", "lib")]),
    ]
}

#[track_caller]
fn refused(archive: &Archive, wanted: &str) {
    let (_folder, cache) = cache();
    let error = archive.load(&cache, Network::Online).err().expect("it was believed").to_string();
    assert!(error.contains(wanted), "{error}");
}

#[test]
fn a_good_index_is_read_and_kept() {
    let archive = Archive::new(&debs());
    let (_folder, cache) = cache();
    let index = archive.load(&cache, Network::Online).unwrap();
    assert_eq!(index.names().collect::<Vec<_>>(), ["app", "lib"]);
    assert_eq!(index.date, 1_605_950_144);
    let bytes = std::fs::read(archive.root().join("dists/test/InRelease")).unwrap();
    assert_eq!(index.in_release_sha256, common::sha256(&bytes));
    let locked = index.resolve(&["app".into()], &[]).unwrap();
    assert_eq!(locked.iter().map(|l| &l.name[..]).collect::<Vec<_>>(), ["app", "lib"]);

    let again = archive.load(&cache, Network::Offline).unwrap();
    assert_eq!(again.resolve(&["app".into()], &[]).unwrap(), locked);
    // By the suite's other name as well.
    std::fs::rename(archive.root().join("dists/test"), archive.root().join("dists/stable")).unwrap();
    let mut suite = archive.suite();
    suite.suite = "stable".into();
    assert!(ashlar_debian::Index::load(&suite, &cache, Network::Online, &ashlar_debian::NoProgress).is_ok());
}

#[test]
fn a_changed_text_is_refused() {
    let archive = Archive::new(&debs());
    archive.change("dists/test/InRelease", |bytes| {
        let at = bytes.windows(9).position(|w| w == b"Codename:").unwrap();
        bytes[at + 10] ^= 1;
    });
    refused(&archive, "bad signature of key");
}

#[test]
fn a_text_without_signature_is_refused() {
    let archive = Archive::new(&debs());
    archive.write("dists/test/InRelease", archive.release(&debs()).as_bytes());
    refused(&archive, "it is not a signed text");
    let signed = sign(&archive.release(&debs()), &archive.key, Duration::ZERO);
    archive.write("dists/test/InRelease", &[&b"Suite: evil\n"[..], &signed].concat());
    refused(&archive, "it is not a signed text");
    let end = signed.windows(20).position(|w| w == b"-----BEGIN PGP SIGNA").unwrap();
    archive.write("dists/test/InRelease", &signed[..end]);
    refused(&archive, "is not signed by a key in the archive keyring");
}

#[test]
fn nothing_outside_of_the_signed_text_is_returned() {
    let cert = key(DAY, None);
    let keyring = [cert.to_vec().unwrap()];
    let signed = sign("inside\n- dashed\n", &cert, Duration::ZERO);
    let now = SystemTime::now();
    let text = verify_in_release(&signed, &keyring, now).unwrap();
    assert_eq!(text.trim_end(), "inside\n- dashed");
    let longer = [&signed[..], b"outside\n"].concat();
    assert!(verify_in_release(&longer, &keyring, now).is_ok_and(|text| !text.contains("outside")));
}

#[test]
fn truncated_and_changed_messages_never_pass_or_panic() {
    let cert = key(DAY, None);
    let keyring = [cert.to_vec().unwrap()];
    let signed = sign("some text\n", &cert, Duration::ZERO);
    let now = SystemTime::now();
    for end in (0..signed.len() - 30).step_by(5) {
        assert!(verify_in_release(&signed[..end], &keyring, now).is_err(), "{end}");
    }
    for at in (0..signed.len()).step_by(3) {
        let mut changed = signed.clone();
        changed[at] ^= 0x11;
        // What passes is the text that was signed.
        if let Ok(text) = verify_in_release(&changed, &keyring, now) {
            assert_eq!(text.trim_end(), "some text", "{at}");
        }
    }
}

#[test]
fn another_key_is_refused() {
    let mut archive = Archive::new(&debs());
    archive.key = key(DAY, None);
    refused(&archive, "is not in the keyring");
}

#[test]
fn an_expired_key_is_refused_though_it_was_valid_when_it_signed() {
    let mut archive = Archive::new(&debs());
    archive.key = key(10 * DAY, Some(5 * DAY));
    let signed = sign(&archive.release(&debs()), &archive.key, 7 * DAY);
    archive.write("dists/test/InRelease", &signed);
    refused(&archive, "xpired");
    let then = SystemTime::now() - 6 * DAY;
    let keyring = [archive.key.to_vec().unwrap()];
    assert!(verify_in_release(&signed, &keyring, then).is_ok(), "the key was valid then");
}

#[test]
fn a_revoked_key_is_refused() {
    let mut archive = Archive::new(&debs());
    let mut signer =
        archive.key.primary_key().key().clone().parts_into_secret().unwrap().into_keypair().unwrap();
    let policy = StandardPolicy::new();
    let revocation = archive.key.revoke(&mut signer, ReasonForRevocation::KeyRetired, b"old").unwrap();
    archive.key = archive.key.clone().insert_packets(revocation).unwrap().0;
    assert!(archive.key.with_policy(&policy, None).is_ok());
    refused(&archive, "revoked");
}

#[test]
fn a_subkey_that_may_not_sign_is_refused() {
    let mut archive = Archive::new(&debs());
    let fresh = key(10 * DAY, None);
    // The certificate in the keyring does not have the sub-key that has signed.
    let signed = sign(&archive.release(&debs()), &fresh, Duration::ZERO);
    archive.write("dists/test/InRelease", &signed);
    archive.key = fresh.retain_subkeys(|_| false);
    refused(&archive, "is not in the keyring");
}

#[test]
fn keyrings_that_are_missing_or_empty_are_named() {
    let archive = Archive::new(&debs());
    let (_folder, cache) = cache();
    let mut suite = archive.suite();
    suite.keyring.truncate(1);
    let load = |suite: &ashlar_debian::Suite| {
        ashlar_debian::Index::load(suite, &cache, Network::Online, &ashlar_debian::NoProgress)
            .err()
            .unwrap()
            .to_string()
    };
    assert!(
        load(&suite).contains("none of `/nonexistent/keyring` can be read; install `debian-archive-keyring`")
    );
    archive.write("empty", b"nothing");
    suite.keyring.push(archive.root().join("empty"));
    assert!(load(&suite).contains("holds no OpenPGP certificate"));
}

#[test]
fn an_index_of_another_suite_or_time_is_refused() {
    let mut archive = Archive::new(&debs());
    archive.write(
        "dists/test/InRelease",
        &sign(
            &archive.release(&debs()).replace("Codename: test", "Codename: other"),
            &archive.key,
            Duration::ZERO,
        ),
    );
    refused(&archive, "it is signed for suite stable (codename other)");
    archive.release_fields = "Valid-Until: Sat, 28 Nov 2020 09:15:44 UTC\n".into();
    archive.publish(&debs());
    refused(&archive, "it was valid until 2020-11-28 09:15:44 UTC");
}

#[test]
fn missing_components_are_named_with_those_there_are() {
    let archive = Archive::new(&debs());
    let (_folder, cache) = cache();
    let mut suite = archive.suite();
    suite.components.push("contrib".into());
    let load = |suite: &ashlar_debian::Suite| {
        ashlar_debian::Index::load(suite, &cache, Network::Online, &ashlar_debian::NoProgress).err().unwrap()
    };
    let error = load(&suite).to_string();
    assert!(error.contains("no packages of component contrib for amd64; it has components main"), "{error}");
    suite.components = vec!["../../etc".into()];
    assert!(matches!(load(&suite), Error::BadName(_)));
}

#[test]
fn a_changed_package_list_is_refused() {
    let archive = Archive::new(&debs());
    archive.change("dists/test/main/binary-amd64/Packages.xz", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    refused(&archive, "is not what was signed: expected");
    archive.change("dists/test/main/binary-amd64/Packages.xz", |bytes| bytes.truncate(20));
    refused(&archive, "got 20 bytes");
    archive.change("dists/test/main/binary-amd64/Packages.xz", |bytes| bytes.resize(100_000, 0));
    refused(&archive, "larger than");
}

#[test]
fn a_list_of_a_mirror_that_is_being_updated_is_found_by_its_hash() {
    let mut archive = Archive::new(&debs());
    archive.release_fields = "Acquire-By-Hash: yes\n".into();
    archive.publish(&debs());
    let folder = "dists/test/main/binary-amd64";
    let list = std::fs::read(archive.root().join(folder).join("Packages.xz")).unwrap();
    archive.write(&format!("{folder}/by-hash/SHA256/{}", common::sha256(&list)), &list);
    archive.write(&format!("{folder}/Packages.xz"), b"the next one");
    let (_folder, cache) = cache();
    assert!(archive.load(&cache, Network::Online).is_ok());
}

#[test]
fn a_mirror_that_is_down_is_told_with_what_the_cache_has() {
    let archive = Archive::new(&debs());
    let (_folder, cache) = cache();
    let none = archive.load(&cache, Network::Offline).err().unwrap().to_string();
    assert!(
        none.contains(&format!("the cache has no index of suite test from {}", archive.mirror())),
        "{none}"
    );

    let aside = archive.root().join("dists/aside");
    std::fs::rename(archive.root().join("dists/test"), &aside).unwrap();
    let down = archive.load(&cache, Network::Online).err().unwrap().to_string();
    assert!(
        down.contains(&format!("the mirror {} does not give `dists/test/InRelease`", archive.mirror())),
        "{down}"
    );
    assert!(!down.contains("--offline"), "{down}");

    std::fs::rename(&aside, archive.root().join("dists/test")).unwrap();
    archive.load(&cache, Network::Online).unwrap();
    std::fs::rename(archive.root().join("dists/test"), &aside).unwrap();
    let down = archive.load(&cache, Network::Online).err().unwrap().to_string();
    assert!(down.contains("`--offline` would use the cached index of 2020-11-21 09:15:44 UTC"), "{down}");
    assert!(archive.load(&cache, Network::Offline).is_ok());
}

#[test]
fn a_changed_index_in_the_cache_is_not_believed() {
    let archive = Archive::new(&debs());
    let (folder, cache) = cache();
    archive.load(&cache, Network::Online).unwrap();
    for name in names(&folder.path().join("index")) {
        let path = folder.path().join("index").join(&name);
        let good = std::fs::read(&path).unwrap();
        let mut bytes = good.clone();
        bytes[80] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let error = archive.load(&cache, Network::Offline).err().unwrap().to_string();
        assert!(error.starts_with(&format!("`{}` in the cache is damaged (", path.display())), "{error}");
        assert!(error.ends_with("build once without `--offline`"), "{error}");
        let notes = common::Notes::default();
        assert!(
            ashlar_debian::Index::load(&archive.suite(), &cache, Network::Online, &notes).is_ok(),
            "{name}"
        );
        let notes = notes.notes.into_inner().unwrap();
        let wanted = format!("`{}` in the cache was damaged", path.display());
        assert!(matches!(&notes[..], [note] if note.starts_with(&wanted)), "{notes:?}");
        assert_eq!(std::fs::read(&path).unwrap(), good, "{name} was not repaired");
    }
}

#[test]
fn an_old_index_that_is_played_back_brings_nothing_back() {
    let mut archive = Archive::new(&debs());
    let (_folder, cache) = cache();
    archive.load(&cache, Network::Online).unwrap();
    archive.date = "Fri, 20 Nov 2020 09:15:44 UTC";
    let old = vec![Deb::new("app", "0.1", "", &[]), Deb::new("lib", "0.1", "", &[])];
    archive.publish(&old);
    let index = archive.load(&cache, Network::Online).unwrap();
    assert_eq!(index.resolve(&["lib".into()], &[]).unwrap()[0].version, "2.0-1");
}
