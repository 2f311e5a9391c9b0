//! `ashlar verify-release` and `ashlar diff`: a release is built again and is the same, or what differs is named; what
//! changed between two releases is told.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_tests::disk::flip;
use ashlar_tests::folders;
use ashlar_tests::{Case, Run, built};
use serde_json::Value;
use std::path::Path;

/// Two releases that should be the same are not.
const FINDING: i32 = 7;

fn verify(case: &Case, release: &Path, more: &[&str]) -> Run {
    let mut command = case.ashlar(&["verify-release", "--recipe", "recipe.toml", "--offline", "--locked"]);
    Run::of(command.arg(release).args(more))
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
}

#[test]
fn a_release_is_built_again_without_any_key() {
    let Some(built) = built() else { return };
    let case = Case::of(built).with_own_cache();
    // Neither the folder of keys nor anything that was kept.
    let run = verify(&case, &built.out, &[]).ok();
    assert_eq!(run.stdout, "same bytes\n");
    let run = verify(&case, &built.out, &["--json"]).ok();
    assert_eq!(json(&run)["same"], true);
    assert_eq!(json(&run)["differences"], serde_json::json!([]));
}

#[test]
fn a_changed_release_is_told_down_to_file_and_byte() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    let copy = case.path("copy");
    folders::copy(&built.out, &copy);
    for (file, at) in [
        ("root.erofs", built.release.slot.root.size / 2),
        ("root.verity", 8192),
        ("uki.efi", built.release.uki.artifact.size / 2),
        ("esp.img", built.release.slot.esp.size / 2),
        ("disk.raw", 1 << 20),
        ("sbom.spdx.json", 1000),
        ("provenance.json", 1000),
        ("secure-boot/db.crt", 40),
    ] {
        flip(&copy.join(file), at);
        let run = verify(&case, &copy, &[]);
        // A certificate that cannot be read any more is a wrong input.
        let expected = if file.ends_with("db.crt") { [FINDING, 2].as_slice() } else { &[FINDING] };
        assert!(expected.contains(&run.code.unwrap()), "{file}: {run}");
        assert!(run.to_string().contains(file.rsplit('/').next().unwrap()), "{file} is not named: {run}");
        if file == "root.erofs" {
            // Which file has the byte depends on the programs' sizes; a compressed one may not be unpacked any more.
            let told = run.stdout.contains(&at.to_string())
                || run.stdout.contains("a compressed extent cannot be decompressed");
            assert!(told, "the byte {at} is not named: {run}");
            let verdict = json(&verify(&case, &copy, &["--json"]));
            assert_eq!(verdict["same"], false);
            assert!(verdict["differences"][0]["place"].as_str().unwrap().len() > 1, "{verdict}");
        }
        flip(&copy.join(file), at);
    }
    let _ = verify(&case, &copy, &[]).ok();
    std::fs::remove_file(copy.join("sbom.cdx.json")).unwrap();
    let run = verify(&case, &copy, &[]);
    assert!(run.code != Some(0) && run.to_string().contains("sbom.cdx.json"), "{run}");
}

#[test]
fn another_recipe_is_told() {
    let Some(built) = built() else { return };
    for (old, new, words) in [
        (
            "Hello from a measured machine.",
            "Hullo from a measured machine.",
            &["root.erofs", "srv/index.html", "differs at byte 1 of 31"][..],
        ),
        ("version = \"1\"", "version = \"2\"", &["usr/lib/os-release", "VERSION_ID"]),
        ("panic=30", "panic=31", &["uki.efi", ".cmdline", "panic=31"]),
    ] {
        let case = Case::of(built);
        case.edit(old, new);
        let run = verify(&case, &built.out, &[]);
        assert_eq!(run.code, Some(FINDING), "{run}");
        for word in words {
            assert!(run.stdout.contains(word), "`{word}` is not in {run}");
        }
        assert!(run.stdout.starts_with("not the same bytes"), "{run}");
    }
}

#[test]
fn what_changed_between_two_releases() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    case.edit("packages = [\"crun\", ", "packages = [\"crun\", \"busybox-static\", ");
    case.edit("version = \"1\"", "version = \"2\"");
    case.edit("panic=30", "panic=31 quiet");
    case.edit("Hello from a measured", "Hullo from a measured");
    case.edit("\"virtio_blk\", ", "");
    let _ = case.build(&[]).ok();
    let diff =
        |more: &[&str]| Run::of(case.ashlar(&["diff"]).arg(&built.out).arg(case.out()).args(more)).ok();
    let text = diff(&[]);
    for line in [
        "container-host 1 -> container-host 2",
        "image version: 1 -> 2",
        "+ busybox-static",
        "- panic=30",
        "+ panic=31",
        "+ quiet",
        "virtio_blk",
        "+ usr/bin/busybox",
        "hello/rootfs/srv/index.html",
        "an update would download",
        "PCR 11",
    ] {
        assert!(text.stdout.contains(line), "`{line}` is not in {text}");
    }
    let told = json(&diff(&["--json"]));
    let packages = told["packages"].as_array().unwrap();
    assert_eq!(packages.len(), 1, "{packages:?}");
    assert_eq!(packages[0]["name"], "busybox-static");
    assert_eq!((&packages[0]["part"], &packages[0]["before"]), (&Value::from("root"), &Value::Null));
    let words = |key: &str| -> Vec<String> { serde_json::from_value(told["cmdline"][key].clone()).unwrap() };
    assert!(
        words("added").contains(&"quiet".into()) && words("removed").contains(&"panic=30".into()),
        "{told}"
    );
    let files = told["files"].as_array().unwrap();
    let file =
        |path: &str| files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("{path}"));
    assert_eq!(file("usr/bin/busybox")["before"], Value::Null);
    let page = file("usr/lib/ashlar/containers/hello/rootfs/srv/index.html");
    assert_eq!((&page["before"]["size"], &page["after"]["size"]), (&Value::from(31), &Value::from(31)));
    let removed: Vec<&Value> =
        told["modules"].as_array().unwrap().iter().flat_map(|m| m["removed"].as_array().unwrap()).collect();
    assert!(removed.iter().any(|name| name.as_str().unwrap().contains("virtio_blk")), "{removed:?}");
    // Much less than the whole.
    let (download, whole) = (told["download"]["bytes"].as_u64().unwrap(), built.release.slot.root.size);
    assert!(download > 0 && download < whole / 2, "{download} of {whole} bytes");
    assert!(told["pcrs"].as_array().unwrap().iter().any(|pcr| pcr["pcr"] == 4), "{told}");

    // Nothing changed: nothing is told.
    let same = Run::of(case.ashlar(&["diff"]).arg(&built.out).arg(&built.out).arg("--json")).ok();
    for key in ["values", "packages", "sections", "modules", "initramfs", "keys", "pcrs", "files"] {
        assert_eq!(json(&same)[key], serde_json::json!([]), "{key}");
    }
    assert_eq!(json(&same)["download"]["bytes"], 0);
}
