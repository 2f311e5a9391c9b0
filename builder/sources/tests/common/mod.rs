//! What the tests share: programs with a deadline, raw tar archives, an OCI layout made by hand.
#![allow(dead_code)] // each test uses a part of it
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_cache::Cache;
use ashlar_image::digest::Digest;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Ends a child that a failed test leaves behind.
pub struct Guard(pub Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program for a minute at most; none when it is not installed. Its output goes through files, so that it cannot
/// block.
pub fn run(command: &mut Command, package: &str) -> Option<Output> {
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!(
                "skipped: {} is not installed (Debian package {package})",
                command.get_program().display()
            );
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let mut guard = Guard(child);
    let end = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = guard.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "{command:?} does not end");
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut output = Output { status, stdout: Vec::new(), stderr: Vec::new() };
    for (file, bytes) in [(&mut out, &mut output.stdout), (&mut err, &mut output.stderr)] {
        std::io::Seek::rewind(file).unwrap();
        file.read_to_end(bytes).unwrap();
    }
    Some(output)
}

/// Runs a program that must succeed; false when it is not installed.
#[must_use]
pub fn ok(command: &mut Command, package: &str) -> bool {
    let Some(output) = run(command, package) else { return false };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    true
}

/// A cache of the test's own.
pub fn cache() -> (tempfile::TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    (folder, cache)
}

/// One entry with this raw name and link, as only hostile writers make some of them.
pub fn entry(kind: u8, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(content.len() as u64);
    header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    let mut out = Vec::new();
    for (kind, text) in [(b'L', name), (b'K', link)] {
        if text.len() > 100 {
            out.extend(entry(kind, "././@LongLink", "", &[text.as_bytes(), b"\0"].concat()));
        }
    }
    let cut = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
    header.as_old_mut().name[..name.len().min(100)].copy_from_slice(&cut(name));
    header.as_old_mut().linkname[..link.len().min(100)].copy_from_slice(&cut(link));
    if matches!(kind, b'3' | b'4') {
        header.set_device_major(8).unwrap();
        header.set_device_minor(1).unwrap();
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

pub fn file(name: &str, content: &str) -> Vec<u8> {
    entry(b'0', name, "", content.as_bytes())
}

pub fn folder(name: &str) -> Vec<u8> {
    entry(b'5', name, "", b"")
}

pub fn symlink(name: &str, target: &str) -> Vec<u8> {
    entry(b'2', name, target, b"")
}

pub fn hard_link(name: &str, target: &str) -> Vec<u8> {
    entry(b'1', name, target, b"")
}

/// A pax header with one record for the entry that follows.
pub fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..rest + 9).find(|length| length.to_string().len() + rest == *length).unwrap();
    let record = [format!("{length} {key}=").as_bytes(), value, b"\n"].concat();
    entry(b'x', "pax", "", &record)
}

/// An archive of these entries.
pub fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.resize(out.len() + 1024, 0);
    out
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// An OCI layout that grows.
pub struct LayoutMaker {
    pub folder: tempfile::TempDir,
    pub manifests: Vec<Value>,
}

pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

impl LayoutMaker {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("blobs/sha256")).unwrap();
        std::fs::write(folder.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { folder, manifests: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.path().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = format!("sha256:{}", Digest::of(bytes));
        std::fs::write(self.blob_path(&digest), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// An image of these tars; they are stored plain, as gzip and as Zstandard in turn.
    pub fn image(&self, tars: &[Vec<u8>], architecture: &str) -> Value {
        let stored: Vec<(String, Vec<u8>)> = tars
            .iter()
            .enumerate()
            .map(|(number, tar)| match number % 3 {
                0 => (format!("{LAYER}+gzip"), gzip(tar)),
                1 => (format!("{LAYER}+zstd"), zstd(tar)),
                _ => (LAYER.to_owned(), tar.clone()),
            })
            .collect();
        let layers: Vec<Value> = stored.iter().map(|(kind, bytes)| self.blob(kind, bytes)).collect();
        let ids: Vec<String> = tars.iter().map(|tar| format!("sha256:{}", Digest::of(tar))).collect();
        let config = json!({
            "architecture": architecture, "os": "linux",
            "config": {
                "User": "app:app", "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Env": ["PATH=/bin", "A=b=c", "odd"],
                "Entrypoint": ["/bin/app"], "Cmd": ["--serve"], "Volumes": {"/data": {}}, "WorkingDir": "/srv",
                "Labels": {"org.example.label": "x"}, "StopSignal": "SIGINT"
            },
            "rootfs": {"type": "layers", "diff_ids": ids},
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        self.manifest(&config, &layers)
    }

    pub fn manifest(&self, config: &Value, layers: &[Value]) -> Value {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers,
            "annotations": {"org.example.note": "n"}});
        self.blob(kind, manifest.to_string().as_bytes())
    }

    pub fn index(&self, manifests: &[Value]) -> Value {
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
        self.blob(kind, index.to_string().as_bytes())
    }

    /// Puts an image into `index.json`.
    pub fn add(&mut self, mut descriptor: Value, name: Option<&str>) {
        if let Some(name) = name {
            descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        self.manifests.push(descriptor);
        let index = json!({"schemaVersion": 2, "manifests": self.manifests});
        std::fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }
}

/// The layers of a usual image: changes, whiteouts, links.
pub fn usual_layers() -> Vec<Vec<u8>> {
    vec![
        archive(&[
            folder("bin/"),
            file("bin/app", "#!/bin/sh\necho app\n"),
            hard_link("bin/app2", "bin/app"),
            folder("etc/"),
            file("etc/old", "old"),
            file("etc/both", "one"),
            folder("srv/data/"),
            file("srv/data/gone", "gone"),
            symlink("lib", "usr/lib"),
        ]),
        archive(&[
            file("etc/.wh.old", ""),
            file("etc/both", "two"),
            file("srv/data/.wh..wh..opq", ""),
            file("srv/data/new", "new"),
            file("usr/lib/x", &"x".repeat(100_000)),
            file("bin/.wh.app", ""),
        ]),
        archive(&[file("etc/third", "3")]),
    ]
}

pub fn digest_of(descriptor: &Value) -> Digest {
    descriptor["digest"].as_str().unwrap()[7..].parse().unwrap()
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
