//! `ashlar channel` as a user types it. Another client of TUF judges: python-tuf (PyPI's `tuf`), which the folder of judges
//! has that `cargo xtask setup` makes.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_formats::verity;
use ashlar_image::digest::Digest;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Exit codes as documented.
const INPUT: i32 = 2;
const KEYS: i32 = 4;
const OUTPUT: i32 = 5;
const FINDING: i32 = 7;

/// How a program ended and what it said.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    /// Runs to the end, or two minutes.
    fn of(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return Self { code: status.code(), out: read("out"), err: read("err") };
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{command:?} did not end: {}{}", read("out"), read("err"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
    command.args(arguments).current_dir(folder);
    command
}

/// Runs `ashlar channel` with these words; `--keys owner` is added where it signs.
fn channel(folder: &Path, words: &str) -> Run {
    Run::of(&mut command(folder, &[&["channel"], words.split(' ').collect::<Vec<_>>().as_slice()].concat()))
}

fn signed(folder: &Path, words: &str) -> Run {
    channel(folder, &format!("{words} --keys owner --json"))
}

fn skip(why: &str) {
    assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "{why}");
    println!("skipped: {why}");
}

/// Keys for all tests here.
fn keys() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let _ = Run::of(&mut command(folder.path(), &["keys", "new", "owner"])).ok();
        folder
    };
    FOLDER.get_or_init(make).path()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            let _ = fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A folder with the owner's keys as `owner`, and the channels stable and alpha in `site`.
fn case() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&keys().join("owner"), &folder.path().join("owner"));
    let _ = signed(folder.path(), "new site --image-id host --channel stable,alpha").ok();
    folder
}

/// Bytes that do not compress.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// A release of `blocks` blocks in the folder `NAME`: real images and a real verity tree, a description that says nothing
/// of PCRs.
fn release(folder: &Path, version: &str, security: u64, blocks: usize) {
    let out = folder.join(version);
    fs::create_dir(&out).unwrap();
    let mut root = noise(blocks * 4096, 1);
    let own = noise(8192, Digest::of(version).0.iter().map(|byte| u64::from(*byte)).sum());
    root[4096..12288].copy_from_slice(&own);
    root[16384..40960].fill(0);
    let mut file = File::create_new(out.join("root.erofs")).unwrap();
    file.write_all(&root).unwrap();
    file.rewind().unwrap();
    let file = File::open(out.join("root.erofs")).unwrap();
    let mut tree = Vec::new();
    let root_hash = verity::write(&file, root.len() as u64, [7; 32], [3; 16], &mut tree).unwrap().root_hash;
    let esp = noise(64 * 4096, security);
    let artifact = |name: &str, bytes: &[u8]| {
        if name != "root.erofs" {
            fs::write(out.join(name), bytes).unwrap();
        }
        json!({ "file": name, "size": bytes.len(), "sha256": Digest::of(bytes) })
    };
    let mut uki = artifact("uki.efi", b"MZ");
    for (key, value) in [
        ("authenticode", json!(Digest::ZERO)),
        ("kernel_authenticode", json!(Digest::ZERO)),
        ("stub_version", json!("257")),
        ("cmdline", json!("quiet")),
        ("sections", json!({})),
    ] {
        uki[key] = value;
    }
    let document = json!({
        "format": 1, "image_id": "host", "image_version": version, "architecture": "x86-64", "security_version": security,
        "build_time": 0, "kernel": "6.12",
        "partition_sizes": { "esp": 1 << 20, "root": 1 << 24, "verity": 1 << 20, "state": 1 << 24 },
        "slot": { "esp": artifact("esp.img", &esp), "root": artifact("root.erofs", &root), "verity": artifact("root.verity", &tree) },
        "disk": { "file": "disk.raw", "size": 0 }, "root_hash": root_hash, "uki": uki, "pcrs": {}, "init": Digest::ZERO, "packages": [],
    });
    fs::write(out.join("release.json"), serde_json::to_vec(&document).unwrap()).unwrap();
    fs::write(out.join("provenance.json"), "{}").unwrap();
    fs::write(out.join("sbom.spdx.json"), "{}").unwrap();
}

/// Another owner's keys as `name`: the same but for the channel's.
fn other_owner(folder: &Path, name: &str) {
    copy(&folder.join("owner"), &folder.join(name));
    for file in ["online.key", "online.pub"] {
        let _ = fs::remove_file(folder.join(name).join(file));
    }
    // Any Ed25519 key is as good as another.
    let words = format!("new scratch-{name} --image-id x --keys {name}");
    let _ = channel(folder, &words).ok();
    for (from, to) in [("online.key", "channel.key"), ("online.pub", "channel.pub")] {
        fs::rename(folder.join(name).join(from), folder.join(name).join(to)).unwrap();
    }
}

fn check(folder: &Path) -> Value {
    channel(folder, "check site --key owner/channel.pub --json").ok().json()
}

fn errors(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| {
            format!("{}: {}", finding["place"].as_str().unwrap(), finding["text"].as_str().unwrap())
        })
        .collect()
}

#[test]
fn the_way_of_a_release() {
    let case = case();
    let folder = case.path();
    for (version, security) in [("1.0", 1), ("1.1", 1), ("1.2", 2)] {
        release(folder, version, security, 64);
    }
    let added = signed(folder, "add-release site 1.0 --channel alpha --notes first").ok().json();
    assert_eq!(added["result"]["version"], "1.0");
    assert_eq!(added["repository"]["channels"]["alpha"]["releases"][0]["notes"], "first");
    let _ = signed(folder, "add-release site 1.1 --channel alpha").ok();
    let _ = signed(folder, "add-release site 1.2 --channel alpha --floor").ok();
    let promoted = signed(
        folder,
        "promote site 1.1 --from alpha --to stable --wave 2026-01-01T00:00:00Z/1d/10% --wave 2026-01-03T00:00:00Z/3d/90%",
    );
    let waves = &promoted.ok().json()["result"]["rollout"];
    assert_eq!(waves[0], json!({ "start": 1_767_225_600, "duration": 86_400, "share": 100_000 }));
    assert_eq!(waves[1]["share"], 900_000);
    // What is published was signed, and is whole; blocks of one release are there once.
    let report = check(folder);
    assert_eq!(report["findings"], json!([]), "{report}");
    assert_eq!(report["targets"], 2 + 3 * 9);
    assert_eq!(report["channels"], json!(["alpha", "stable"]));
    // What comes with a release is signed too.
    let shown = channel(folder, "show site").ok().out;
    assert!(
        shown.contains(
            "  1.1             10 % from 2026-01-01 00:00:00 UTC to 2026-01-02 00:00:00 UTC, then 90 %"
        ),
        "{shown}"
    );
    assert!(shown.contains("everybody at once; older machines pass through it"), "{shown}");
    // Nobody else's.
    other_owner(folder, "stranger");
    let run = channel(folder, "check site --key stranger/channel.pub");
    assert!(run.code == Some(FINDING) && run.out.contains("is not signed by the channel's key"), "{run:?}");
    let _ = signed(folder, "withdraw site 1.1 --channel stable --reason slow").ok();
    let texts = errors(&check(folder));
    assert_eq!(texts, ["stable 1.1: machines that run 1.1 stay on it, although it was withdrawn; `set --max-version` recalls it", "stable: older machines get nothing: it was withdrawn: slow"].map(String::from).into_iter().rev().collect::<Vec<_>>());
    assert_eq!(channel(folder, "check site --deny-warnings").code, Some(FINDING));
    let _ = signed(folder, "withdraw site 1.1 --channel stable --undo").ok();
    let _ = signed(folder, "rollout site 1.1 --channel stable --all").ok();
    let _ = signed(folder, "set site --channel stable --max-version 1.0").ok();
    let texts = errors(&check(folder));
    assert!(
        texts.iter().any(|text| text.contains("is recalled, and there is none to go back to")),
        "{texts:?}"
    );
    // Gone from one channel, then from both.
    let files = || fs::read_dir(folder.join("site/targets/releases/host/1.1")).map_or(0, Iterator::count);
    let before = files();
    assert_eq!(before, 9);
    assert_eq!(signed(folder, "remove site 1.1 --channel stable").ok().json()["result"], 0);
    assert_eq!(
        (files(), signed(folder, "remove site 1.1 --channel alpha").ok().json()["result"].clone()),
        (9, json!(9))
    );
    assert_eq!(files(), 0);
    let _ = signed(folder, "refresh site").ok();
    let renewed =
        channel(folder, "refresh site --online-key owner/online.key --valid 12h --json").ok().json();
    assert_eq!(renewed["result"].as_array().unwrap().len(), 4);
    let texts = errors(&check(folder));
    assert!(
        texts.iter().any(|text| text.starts_with("timestamp: expires in 1") && text.contains(" hours, ")),
        "{texts:?}"
    );
}

#[test]
fn a_changed_byte_and_a_trap_are_found() {
    let case = case();
    let folder = case.path();
    release(folder, "1.0", 1, 64);
    let _ = signed(folder, "add-release site 1.0 --channel alpha --dead-end moved").ok();
    let texts = errors(&check(folder));
    assert_eq!(
        texts,
        ["alpha 1.0: machines that run 1.0 get nothing: the release that runs is a dead end: moved"]
    );
    let frames = fs::read_dir(folder.join("site/targets/releases/host/1.0"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let frames = frames.into_iter().find(|path| path.to_string_lossy().ends_with("root.frames")).unwrap();
    let mut bytes = fs::read(&frames).unwrap();
    bytes[100] ^= 1;
    fs::write(&frames, bytes).unwrap();
    let run = channel(folder, "check site");
    assert_eq!(run.code, Some(FINDING));
    assert!(
        run.out.contains("error: releases/host/1.0/root.frames: ") && run.out.contains("machines refuse it"),
        "{run:?}"
    );
}

#[test]
fn keys_are_rotated() {
    let case = case();
    let folder = case.path();
    release(folder, "1.0", 1, 64);
    let _ = signed(folder, "add-release site 1.0 --channel stable").ok();
    other_owner(folder, "next");
    let rotated =
        signed(folder, "rotate-key site --new-keys next --new-online-key next/online.key").ok().json();
    assert_eq!(rotated["result"], 3, "one root with both keys, one with the new ones");
    let report = check(folder);
    assert_eq!((&report["root_version"], &report["findings"]), (&json!(3), &json!([])));
    let run = signed(folder, "withdraw site 1.0 --channel stable --reason x");
    assert!(run.code == Some(KEYS) && run.err.contains("its root names others"), "{run:?}");
    let _ = channel(folder, "withdraw site 1.0 --channel stable --reason x --keys next").ok();
    // The online key alone; the file is made.
    let _ = channel(folder, "rotate-key site --keys next --new-online-key second.key").ok();
    let run = channel(folder, "refresh site --online-key next/online.key");
    assert_eq!(run.code, Some(KEYS), "{run:?}");
    let _ = channel(folder, "refresh site --root --keys next --online-key second.key").ok();
    assert_eq!(check(folder)["root_version"], 6);
    let run = channel(
        folder,
        "rotate-key site --keys next --new-keys next --online-key second.key --new-online-key second.key",
    );
    assert!(run.code == Some(INPUT) && run.err.contains("the new keys are the old ones"), "{run:?}");
    python_tuf(folder, &["channels/stable.json", "releases/host/1.0/root.frames"]);
}

/// python-tuf trusts the first root and reads these targets.
fn python_tuf(folder: &Path, targets: &[&str]) {
    let beside =
        || Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap_or(Path::new(".")).join("sbom-judges");
    let judges = std::env::var_os("ASHLAR_SBOM_JUDGES").map_or_else(beside, PathBuf::from);
    let python = judges.join("bin/python3");
    let has = || Run::of(Command::new(&python).args(["-c", "import tuf.ngclient"])).code == Some(0);
    if !python.exists() || !has() {
        skip(&format!("`{}` with python-tuf is needed; `cargo xtask setup` makes it", python.display()));
        return;
    }
    let script = r#"
import sys, os
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import Updater, FetcherInterface
class Files(FetcherInterface):
    def _fetch(self, url):
        path = sys.argv[1] + url.removeprefix("http://site")
        if not os.path.isfile(path):
            raise DownloadHTTPError("404", 404)
        with open(path, "rb") as file:
            return iter([file.read()])
os.makedirs("metadata"); os.makedirs("targets")
first = open(sys.argv[1] + "/1.root.json", "rb").read()
updater = Updater("metadata", "http://site/", "targets", "http://site/targets/", fetcher=Files(), bootstrap=first)
updater.refresh()
for name in sys.argv[2:]:
    info = updater.get_targetinfo(name)
    assert info is not None, name
    updater.download_target(info)
    print(name, info.length)
"#;
    let work = tempfile::tempdir().unwrap();
    let site = folder.join("site");
    let run =
        Run::of(Command::new(python).args(["-c", script]).arg(site).args(targets).current_dir(work.path()))
            .ok();
    assert_eq!(run.out.lines().count(), targets.len(), "{run:?}");
}

#[test]
fn another_client_takes_it() {
    let case = case();
    release(case.path(), "1.0+a~b", 1, 64);
    let _ = signed(case.path(), "add-release site 1.0+a~b --channel alpha").ok();
    let names = [
        "release.json",
        "root.index",
        "root.leaves",
        "root.frames",
        "esp.index",
        "provenance.json",
        "sbom.spdx.json",
    ];
    let names: Vec<String> = names.iter().map(|name| format!("releases/host/1.0+a~b/{name}")).collect();
    let mut all = vec!["channels/alpha.json", "channels/stable.json"];
    all.extend(names.iter().map(String::as_str));
    python_tuf(case.path(), &all);
}

#[test]
fn what_is_cut_off_changes_nothing() {
    let case = case();
    let folder = case.path();
    release(folder, "1.0", 1, 64);
    release(folder, "2.0", 1, 8192);
    let _ = signed(folder, "add-release site 1.0 --channel stable").ok();
    let before = fs::read(folder.join("site/timestamp.json")).unwrap();
    // Killed while it packs.
    let words = "channel add-release site 2.0 --channel stable --keys owner";
    let mut child = command(folder, &words.split(' ').collect::<Vec<_>>())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let staged = || {
        let mut entries = fs::read_dir(folder.join("site")).unwrap().map(|entry| entry.unwrap());
        entries.find(|entry| entry.file_name().to_string_lossy().starts_with(".staging-")).is_some()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !staged() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    // Meanwhile nobody else changes anything.
    let busy = signed(folder, "withdraw site 1.0 --channel stable --reason x");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(busy.code == Some(OUTPUT) && busy.err.contains("another command is changing"), "{busy:?}");
    assert!(staged());
    assert_eq!(fs::read(folder.join("site/timestamp.json")).unwrap(), before);
    assert_eq!(check(folder)["targets"], 11);
    let _ = signed(folder, "add-release site 2.0 --channel stable").ok();
    assert!(!staged(), "what was cut off is cleared away");
    assert_eq!(check(folder)["targets"], 20);
    // The power goes before the last write: all files are there, and the old timestamp.
    fs::write(folder.join("site/timestamp.json"), &before).unwrap();
    assert_eq!(check(folder)["targets"], 11);
    let _ = signed(folder, "add-release site 2.0 --channel stable --notes again").ok();
    assert_eq!(check(folder)["targets"], 20);
}

#[test]
fn an_offline_bundle() {
    let case = case();
    let folder = case.path();
    for version in ["1.0", "1.1"] {
        release(folder, version, 1, 64);
        let _ = signed(folder, &format!("add-release site {version} --channel stable")).ok();
    }
    let report = channel(folder, "bundle site 1.1 --channel stable -o one.tar --json").ok().json();
    // 1 root, 3 other metadata, the document, 9 targets.
    assert_eq!(report["files"], 1 + 3 + 1 + 9);
    let _ = channel(folder, "bundle site 1.1 --channel stable -o same.tar").ok();
    assert_eq!(fs::read(folder.join("one.tar")).unwrap(), fs::read(folder.join("same.tar")).unwrap());
    let checked = channel(folder, "check one.tar --key owner/channel.pub --json").ok().json();
    assert_eq!((&checked["targets"], &checked["left_out"]), (&json!(10), &json!(10)));
    assert_eq!(checked["findings"], json!([]));
    // It is good for longer than the channels, which stay as they were.
    let long = channel(
        folder,
        "bundle site 1.0 1.1 --channel stable -o long.tar --lifetime 60d --online-key owner/online.key --json",
    );
    let long = long.ok().json()["good_until"].as_i64().unwrap();
    let until = |report: &Value| {
        let times =
            report["expires"].as_array().unwrap().iter().map(|expiry| expiry["time"].as_i64().unwrap());
        times.min().unwrap()
    };
    assert!(long > until(&check(folder)) + 50 * 86_400);
    assert!(channel(folder, "check long.tar --key owner/channel.pub --deny-warnings").code == Some(0));
    // Standard tools read it.
    let list = Run::of(Command::new("tar").args(["-tf", "one.tar"]).current_dir(folder)).ok().out;
    assert!(list.starts_with("1.root.json\ntimestamp.json\n"), "{list}");
    let run = channel(folder, "bundle site 3 --channel stable -o x.tar");
    assert!(run.code == Some(INPUT) && run.err.contains("has no release 3; it has: 1.0, 1.1"), "{run:?}");
}

#[test]
fn what_is_wrong_is_named_and_nothing_changes() {
    let case = case();
    let folder = case.path();
    for version in ["1.0", "2.0", "3.0", "4.0", "5.0", "6.0"] {
        release(folder, version, 1, 64);
    }
    let edit = |version: &str, change: &dyn Fn(&mut Value)| {
        let path = folder.join(version).join("release.json");
        let mut document = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut document);
        fs::write(path, serde_json::to_vec(&document).unwrap()).unwrap();
    };
    let _ = signed(folder, "add-release site 1.0 --channel stable").ok();
    edit("1.0", &|document| document["kernel"] = json!("6.13"));
    edit("2.0", &|document| document["image_id"] = json!("other"));
    edit("3.0", &|document| document["architecture"] = json!("arm64"));
    edit("4.0", &|document| document["root_hash"] = json!(Digest::ZERO));
    edit("6.0", &|document| document["slot"]["esp"]["file"] = json!("../1.0/esp.img"));
    let mut root = fs::read(folder.join("5.0/root.erofs")).unwrap();
    root[99] ^= 1;
    fs::write(folder.join("5.0/root.erofs"), root).unwrap();
    fs::create_dir(folder.join("empty")).unwrap();
    let before = fs::read(folder.join("site/timestamp.json")).unwrap();
    for (words, code, text) in [
        ("add-release site 1.0 --channel stable", INPUT, "has a release 1.0 already"),
        ("add-release site 1.0 --channel alpha", INPUT, "was published before, with another release.json"),
        (
            "add-release site 2.0 --channel alpha",
            INPUT,
            "`image_id` is `other`, and the channel `alpha` is for `host`",
        ),
        ("add-release site 3.0 --channel alpha", INPUT, "`architecture` is `arm64`"),
        ("add-release site 4.0 --channel alpha", INPUT, "`root_hash`"),
        ("add-release site 5.0 --channel alpha", INPUT, "`slot.root`: its SHA-256 is"),
        ("add-release site 6.0 --channel alpha", INPUT, "`slot.esp`: `../1.0/esp.img` is no file's name"),
        ("add-release site empty --channel alpha", INPUT, "release.json"),
        (
            "add-release site 1.0 --channel aplha",
            INPUT,
            "there is no channel `aplha`; there are: alpha, stable",
        ),
        ("add-release empty 1.0 --channel alpha", INPUT, "there is no 1.root.json"),
        ("promote site 9 --from stable --to alpha", INPUT, "has no release 9; it has: 1.0"),
        ("set site 1.0 --channel stable", INPUT, "nothing to change"),
        ("set site --channel stable --floor", INPUT, "name it"),
        ("set site --channel stable --max-version ../1", INPUT, "`max_version`"),
        ("set site --channel stable --collector ftp://x", INPUT, "`collector`"),
        (
            "rollout site 1.0 --channel stable --wave now/1d/60% --wave +1d/1d/60%",
            INPUT,
            "`releases[0].rollout`",
        ),
        (
            "rollout site 1.0 --channel stable --wave now/1d/60% --wave +1h/1d/40%",
            INPUT,
            "`releases[0].rollout`",
        ),
        ("rollout site 1.0 --channel stable --fraction 101%", INPUT, "--fraction"),
        ("rollout site 1.0 --channel stable --rollout-start tomorrow", INPUT, "--rollout-start"),
        ("rollout site 1.0 --channel stable --stop", INPUT, "is over"),
        ("withdraw site 1.0 --channel stable", INPUT, "--reason"),
        ("new site --image-id host --channel stable", INPUT, "there already"),
        ("new empty/x/../../owner --image-id host", INPUT, "something else in it"),
    ] {
        let run = signed(folder, words);
        assert!(
            run.code == Some(code) && run.err.replace(['\n', '│'], " ").contains(text),
            "{words}: {run:?}"
        );
    }
    let run = channel(folder, "withdraw site 1.0 --channel stable --reason x --online-key owner/online.key");
    assert!(run.code == Some(KEYS) && run.err.contains("the key `channel` is needed"), "{run:?}");
    assert_eq!(channel(folder, "refresh site").code, Some(KEYS));
    assert_eq!(channel(folder, "refresh site --online-key 1.0/release.json").code, Some(KEYS));
    assert_eq!(fs::read(folder.join("site/timestamp.json")).unwrap(), before);
    assert_eq!(check(folder)["targets"], 11);
}
