//! OCI layouts, made by hand and by `skopeo`.
#![allow(clippy::unwrap_used)] // a test fails by it

mod common;

use ashlar_cache::Cache;
use ashlar_image::digest::Digest;
use ashlar_sources::{
    Error, Image, ImageOptions, Platform, layout, parse_config, parse_index, parse_manifest, tree_digest,
};
use ashlar_tree::Kind;
use common::{LAYER, LayoutMaker, archive, cache, digest_of, file, ok, usual_layers};
use serde_json::json;
use std::path::Path;
use std::process::Command;

fn usual() -> LayoutMaker {
    let mut maker = LayoutMaker::new();
    let image = maker.image(&usual_layers(), "amd64");
    maker.add(image, Some("one"));
    maker
}

fn load(path: &Path, cache: &Cache) -> Result<Image, Error> {
    layout(path, &ImageOptions::default(), cache)
}

#[test]
fn an_image_with_all_that_is_said_about_it() {
    let maker = usual();
    let (_folder, cache) = cache();
    let image = load(maker.path(), &cache).unwrap();
    let text = |path: &str| match &image.source.tree.get(path.as_bytes()).unwrap().kind {
        Kind::File(content) => String::from_utf8(content.read().unwrap()).unwrap(),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(
        (text("/etc/both"), text("/srv/data/new"), text("/etc/third")),
        ("two".into(), "new".into(), "3".into())
    );
    assert_eq!(text("/bin/app2"), "#!/bin/sh\necho app\n");
    assert_eq!(text("/lib/x"), "x".repeat(100_000));
    for gone in ["/etc/old", "/srv/data/gone", "/bin/app"] {
        assert!(image.source.tree.get(gone.as_bytes()).is_none(), "{gone}");
    }
    let config = &image.config;
    assert_eq!(
        (config.entrypoint.as_slice(), config.command.as_slice()),
        (&["/bin/app".to_owned()][..], &["--serve".to_owned()][..])
    );
    assert_eq!(config.environment["A"], "b=c");
    assert_eq!(config.environment.len(), 2);
    assert_eq!(config.working_directory.as_deref(), Some("/srv"));
    assert_eq!(config.user.as_deref(), Some("app:app"));
    assert_eq!(config.exposed_ports.iter().map(String::as_str).collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert!(config.volumes.contains("/data") && config.labels["org.example.label"] == "x");
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(image.annotations["org.example.note"], "n");
    assert_eq!(image.digest, digest_of(&maker.manifests[0]));
    assert!(!image.pinned && image.layers.len() == 3);
    // The same again from the cache, and from a copy elsewhere.
    let again = load(maker.path(), &cache).unwrap();
    let (_other, other) = common::cache();
    let elsewhere = load(maker.path(), &other).unwrap();
    assert_eq!((again.source.digest, elsewhere.source.digest), (image.source.digest, image.source.digest));
    let digest = |image: &Image| tree_digest(&image.source.tree).unwrap();
    assert_eq!(digest(&again), digest(&elsewhere));
}

#[test]
fn archives_of_layouts() {
    let maker = usual();
    let dir = tempfile::tempdir().unwrap();
    let (_folder, cache) = cache();
    let wanted = load(maker.path(), &cache).unwrap();
    let path = dir.path().join("image.tar");
    if ok(Command::new("tar").arg("-C").arg(maker.path()).arg("-cf").arg(&path).arg("."), "tar") {
        let image = load(&path, &cache).unwrap();
        assert_eq!((image.digest, image.source.digest), (wanted.digest, wanted.source.digest));
    }
    // What skopeo writes.
    let oci = format!("oci:{}:one", maker.path().display());
    let path = dir.path().join("skopeo.tar");
    let target = format!("oci-archive:{}", path.display());
    if !ok(
        Command::new("skopeo").args(["--insecure-policy", "copy", "--preserve-digests", &oci, &target]),
        "skopeo",
    ) {
        return;
    }
    let image = load(&path, &cache).unwrap();
    assert_eq!((image.digest, image.source.digest), (wanted.digest, wanted.source.digest));
    assert_eq!(image.config, wanted.config);
    // An archive without a layout in it.
    let path = dir.path().join("docker.tar");
    std::fs::write(&path, archive(&[file("manifest.json", "[]")])).unwrap();
    let error = load(&path, &cache).unwrap_err().to_string();
    assert!(error.contains("skopeo copy docker-archive:"), "{error}");
    std::fs::write(&path, archive(&[file("x", "")])).unwrap();
    assert!(load(&path, &cache).unwrap_err().to_string().contains("`index.json` is missing"));
}

#[test]
fn one_of_several() {
    let mut maker = LayoutMaker::new();
    let intel = maker.image(&usual_layers(), "amd64");
    let arm = maker.image(&[archive(&[file("arm", "")])], "arm64");
    let with = |descriptor: &serde_json::Value, architecture: &str| {
        let mut descriptor = descriptor.clone();
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    };
    let mut attestation = with(&arm, "unknown");
    attestation["platform"]["os"] = json!("unknown");
    let index = maker.index(&[attestation, with(&arm, "arm64"), with(&intel, "amd64")]);
    maker.add(index.clone(), Some("many"));
    let (_folder, cache) = cache();
    assert_eq!(load(maker.path(), &cache).unwrap().digest, digest_of(&intel));
    let platform = |architecture: &str| Platform { architecture: architecture.into(), ..Platform::default() };
    let options = ImageOptions { platform: platform("arm64"), ..ImageOptions::default() };
    assert_eq!(layout(maker.path(), &options, &cache).unwrap().digest, digest_of(&arm));
    let options = ImageOptions { platform: platform("riscv64"), ..ImageOptions::default() };
    let error = layout(maker.path(), &options, &cache).unwrap_err().to_string();
    assert!(
        error.contains("no image for linux/riscv64; it has unknown/unknown, linux/arm64, linux/amd64"),
        "{error}"
    );

    // A second image in the same layout.
    let other = maker.image(&[archive(&[file("other", "")])], "amd64");
    maker.add(other.clone(), Some("other"));
    let error = load(maker.path(), &cache).unwrap_err().to_string();
    assert!(error.contains("several images (`many`, `other`)"), "{error}");
    let named = |name: &str| ImageOptions { name: Some(name.into()), ..ImageOptions::default() };
    assert_eq!(layout(maker.path(), &named("other"), &cache).unwrap().digest, digest_of(&other));
    let error = layout(maker.path(), &named("third"), &cache).unwrap_err().to_string();
    assert!(error.contains("no image for the name `third`; it has `many`, `other`"), "{error}");

    // By digest: of an image, of the index that leads to it, of what is not there.
    let pinned = |digest| ImageOptions { digest: Some(digest), ..ImageOptions::default() };
    let image = layout(maker.path(), &pinned(digest_of(&other)), &cache).unwrap();
    assert!(image.pinned && image.digest == digest_of(&other));
    assert_eq!(layout(maker.path(), &pinned(digest_of(&index)), &cache).unwrap().digest, digest_of(&intel));
    let options = ImageOptions { digest: Some(Digest::of("x")), ..named("other") };
    let error = layout(maker.path(), &options, &cache).unwrap_err();
    assert!(matches!(error, Error::Pinned { .. }), "{error}");
    // The name of another architecture than the image says of itself.
    let mut maker = LayoutMaker::new();
    let arm = maker.image(&usual_layers(), "arm64");
    maker.add(arm, None);
    assert!(
        matches!(load(maker.path(), &cache), Err(Error::NoImage { found, .. }) if found == "linux/arm64")
    );
}

#[test]
fn damaged_blobs_are_named() {
    let (_folder, cache) = cache();
    let good = load(usual().path(), &cache).unwrap();
    let blobs: Vec<String> = good.layers.iter().map(|layer| layer.digest.to_string()).collect();
    for blob in blobs.iter().chain([&good.digest.to_string()]) {
        let maker = usual();
        let path = maker.blob_path(blob);
        let bytes = std::fs::read(&path).unwrap();
        let (_folder, cache) = common::cache();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = load(maker.path(), &cache).unwrap_err().to_string();
            assert!(error.contains(blob), "{error}");
            error
        };
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        assert!(refused(&flipped).contains("it is damaged or was replaced"));
        refused(&bytes[..bytes.len() - 1]);
        refused(&[&bytes[..], b"x"].concat());
        std::fs::remove_file(&path).unwrap();
        let error = load(maker.path(), &cache).unwrap_err().to_string();
        assert!(error.contains("cannot open") && error.contains(blob), "{error}");
    }
}

#[test]
fn what_is_wrong_with_an_image_is_said() {
    let (_folder, cache) = cache();
    let error = |change: &dyn Fn(&mut LayoutMaker)| {
        let mut maker = LayoutMaker::new();
        change(&mut maker);
        load(maker.path(), &cache).unwrap_err().to_string()
    };
    let config = |maker: &LayoutMaker, ids: serde_json::Value| {
        maker.blob("", json!({"rootfs": {"diff_ids": ids}}).to_string().as_bytes())
    };
    let tar = archive(&[file("a", "")]);
    let id = json!([format!("sha256:{}", Digest::of(&tar))]);
    let text = error(&|maker| {
        let manifest = maker.manifest(&config(maker, json!([])), &[maker.blob(LAYER, &tar)]);
        maker.add(manifest, None);
    });
    assert!(text.contains("it names 0 layers, the manifest 1"), "{text}");
    let text = error(&|maker| {
        let layer = maker.blob("application/vnd.oci.image.layer.v1.tar+lz4", &tar);
        maker.add(maker.manifest(&config(maker, id.clone()), &[layer]), None);
    });
    assert!(text.contains("tar+lz4` cannot be read"), "{text}");
    let text = error(&|maker| {
        let artifact = maker.blob("application/vnd.example.chart", b"{}");
        maker.add(maker.manifest(&artifact, &[]), None);
    });
    assert!(text.contains("it is an artifact of type `application/vnd.example.chart`"), "{text}");
    let text = error(&|maker| {
        let other = json!([format!("sha256:{}", Digest::of("other"))]);
        maker.add(maker.manifest(&config(maker, other), &[maker.blob(LAYER, &tar)]), None);
    });
    assert!(text.contains("the unpacked content of the layer"), "{text}");
    let text = error(&|maker| {
        let mut index = maker.image(std::slice::from_ref(&tar), "amd64");
        for _ in 0..4 {
            index = maker.index(&[index]);
        }
        maker.add(index, None);
    });
    assert!(text.contains("more than 3 indexes"), "{text}");
    let text = error(&|maker| maker.add(json!({"digest": "sha512:00", "size": 1}), None));
    assert!(text.contains("has no image for linux/amd64; it has none"), "{text}");
    let text = error(&|maker| {
        let bad = archive(&[file("../x", "")]);
        maker.add(maker.image(&[tar.clone(), bad], "amd64"), None);
    });
    assert!(text.contains("the layer sha256:") && text.contains("`../x`: the path leads out"), "{text}");
}

#[test]
fn the_layers_have_a_limit_together() {
    let mut maker = LayoutMaker::new();
    let tars: Vec<_> = ["1", "2", "3"].map(|text| archive(&[file("a", &text.repeat(40_000))])).into();
    let image = maker.image(&tars, "amd64");
    maker.add(image, None);
    for warm in [false, true] {
        let (_folder, cache) = cache();
        if warm {
            load(maker.path(), &cache).unwrap();
        }
        let options = |max_unpacked| ImageOptions { max_unpacked, ..ImageOptions::default() };
        let error = layout(maker.path(), &options(100_000), &cache).unwrap_err();
        assert!(matches!(error, Error::TooLarge { ours: true, .. }), "{error}");
        layout(maker.path(), &options(200_000), &cache).unwrap();
    }
}

#[test]
fn documents_are_one_thing_and_small() {
    let both = br#"{"schemaVersion": 2, "manifests": [], "layers": [], "config": {"digest": "", "size": 0}}"#;
    for error in [parse_index(both, "x").unwrap_err(), parse_manifest(both, "x").unwrap_err()] {
        assert!(error.to_string().contains("an index and a manifest at once"), "{error}");
    }
    let large = vec![b' '; (4 << 20) + 1];
    assert!(matches!(parse_index(&large, "x"), Err(Error::TooLarge { .. })));
    let text = format!(
        r#"{{"schemaVersion": 2, "manifests": [{}]}}"#,
        vec![r#"{"digest":"","size":0}"#; 5000].join(",")
    );
    assert!(parse_index(text.as_bytes(), "x").unwrap_err().to_string().contains("more than 4096"));
    let upper = format!("sha256:{}", "A".repeat(64));
    let text = format!(r#"{{"rootfs": {{"diff_ids": ["{upper}"]}}}}"#);
    assert!(parse_config(text.as_bytes(), "x").unwrap_err().to_string().contains("is not a sha256 digest"));
    let deep = "[".repeat(100_000);
    assert!(parse_config(deep.as_bytes(), "x").is_err());
    assert!(
        parse_index(br#"{"schemaVersion": 1, "manifests": []}"#, "x")
            .unwrap_err()
            .to_string()
            .contains("is 1 and not 2")
    );
}

#[test]
fn damaged_documents_never_panic() {
    let maker = usual();
    let manifest = std::fs::read(maker.blob_path(&digest_of(&maker.manifests[0]).to_string())).unwrap();
    let config = parse_manifest(&manifest, "x").unwrap().config;
    let config = std::fs::read(maker.blob_path(&config.digest.to_string())).unwrap();
    let index = std::fs::read(maker.path().join("index.json")).unwrap();
    for good in [manifest, config, index] {
        for at in 0..good.len() {
            for byte in [b'"', b'{', b'9', 0xff] {
                let mut bad = good.clone();
                bad[at] = byte;
                let _ = (parse_index(&bad, "x"), parse_config(&bad, "x"), parse_manifest(&bad, "x"));
            }
            let cut = &good[..at];
            let _ = (parse_index(cut, "x"), parse_config(cut, "x"), parse_manifest(cut, "x"));
        }
    }
}
