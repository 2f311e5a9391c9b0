//! What is written, judged by `qemu-img`.
#![allow(clippy::unwrap_used)]

use ashlar_outputs::{Compression, Format, Options, Written, convert};
use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const FORMATS: [(&str, Format); 6] = [
    ("qcow2", Format::Qcow2(Compression::None)),
    ("qcow2", Format::Qcow2(Compression::Zlib)),
    ("qcow2", Format::Qcow2(Compression::Zstd)),
    ("vpc", Format::VhdFixed),
    ("vpc", Format::VhdDynamic),
    ("vhdx", Format::Vhdx),
];
const OPTIONS: Options = Options { id: *b"ashlar test disk", time: 1_760_000_000 };

/// Runs `qemu-img`, at most a minute; none when it is not installed.
fn qemu_img(arguments: &[&str]) -> Option<Output> {
    let child = Command::new("qemu-img")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: qemu-img is not installed (Debian package qemu-utils)");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("qemu-img {arguments:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(child.wait_with_output().unwrap())
}

/// Runs `qemu-img`, which must succeed; false when it is not installed.
fn judge(arguments: &[&str]) -> bool {
    let Some(output) = qemu_img(arguments) else { return false };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "qemu-img {arguments:?}: {out}{err}");
    true
}

/// Bytes that are the same each time and do not compress.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

struct Disk {
    folder: tempfile::TempDir,
    raw: File,
}

impl Disk {
    /// A sparse disk with these pieces.
    fn new(size: u64, pieces: &[(u64, Vec<u8>)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let raw =
            File::options().read(true).write(true).create_new(true).open(folder.path().join("raw")).unwrap();
        raw.set_len(size).unwrap();
        for (at, bytes) in pieces {
            raw.write_all_at(bytes, *at).unwrap();
        }
        assert_eq!(raw.metadata().unwrap().len(), size);
        Self { folder, raw }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn convert(&self, name: &str, format: Format) -> (PathBuf, Written) {
        let path = self.path(name);
        let out = File::create(&path).unwrap();
        let last = Cell::new(0);
        let written = convert(&self.raw, &out, format, &OPTIONS, &|done, total| {
            assert!(last.get() <= done && done <= total);
            last.set(done);
        })
        .unwrap();
        assert_eq!(last.get(), self.raw.metadata().unwrap().len());
        assert_eq!(written.file_size, out.metadata().unwrap().len());
        (path, written)
    }

    /// Converts to every format and lets `qemu-img` compare.
    fn check(&self) {
        self.check_formats(|_| true);
    }

    fn check_formats(&self, wanted: impl Fn(Format) -> bool) {
        let raw = self.path("raw");
        let size = self.raw.metadata().unwrap().len();
        for (number, (name, format)) in FORMATS.into_iter().enumerate().filter(|(_, f)| wanted(f.1)) {
            let (path, written) = self.convert(&format!("image{number}"), format);
            assert_eq!(written.virtual_size, size);
            let text = |path: &Path| path.to_str().unwrap().to_owned();
            let (raw, path) = (text(&raw), text(&path));
            if !judge(&["compare", "-f", "raw", "-F", name, &raw, &path]) {
                return;
            }
            // The driver for VHD has no check.
            if name != "vpc" {
                judge(&["check", "-f", name, &path]);
            }
            let info = qemu_img(&["info", "--output=json", "-f", name, &path]).unwrap();
            let info = String::from_utf8(info.stdout).unwrap();
            assert!(info.contains(&format!("\"virtual-size\": {size},")), "{info}");
            let wanted = match format {
                Format::Qcow2(Compression::Zstd) => "\"compression-type\": \"zstd\"",
                Format::Qcow2(_) => "\"compression-type\": \"zlib\"",
                Format::Vhdx => "\"format\": \"vhdx\"",
                _ => "\"format\": \"vpc\"",
            };
            assert!(info.contains(wanted), "{info}");
            if name == "qcow2" {
                assert!(info.contains("\"corrupt\": false"), "{info}");
            }
        }
    }
}

fn mixed(size: u64) -> Disk {
    let text: Vec<u8> = b"a line that compresses well\n".repeat(20_000);
    Disk::new(
        size,
        &[
            (0, noise(1, 3000)),
            (65_000, text.clone()),
            (2 << 20, noise(2, 300_000)),
            ((4 << 20) + 17, vec![0; 100_000]),
            ((5 << 20) + 511, text),
            (size - 512, noise(3, 512)),
        ],
    )
}

#[test]
fn every_format_holds_the_same_disk() {
    mixed(24 << 20).check();
}

#[test]
fn sizes_need_not_be_whole_blocks() {
    mixed((7 << 20) + 512 * 3).check();
    Disk::new(512, &[(0, noise(4, 512))]).check();
    Disk::new((1 << 16) + 512, &[(1 << 16, noise(5, 512))]).check();
}

#[test]
fn a_disk_of_zeros_is_stored_as_nothing() {
    let disk = Disk::new(32 << 20, &[(1 << 20, vec![0; 1 << 20])]);
    disk.check();
    for (number, (_, format)) in FORMATS.into_iter().enumerate() {
        let (path, written) = disk.convert(&format!("zero{number}"), format);
        assert!(std::fs::metadata(path).unwrap().blocks() * 512 < 1 << 20);
        assert!(written.stored == 0 || format == Format::VhdFixed);
    }
}

#[test]
fn ten_gib_of_holes_cost_nothing() {
    let size = 10 << 30;
    let disk = Disk::new(
        size,
        &[
            (0, noise(6, 1 << 20)),
            ((4 << 30) - 70_000, b"over the border of 4 GiB".repeat(10_000)),
            (size - (33 << 9), noise(7, 33 << 9)),
        ],
    );
    // QEMU's driver for VHDX cannot tell holes and would read all ten: a smaller one, over the border of the first chunk.
    disk.check_formats(|format| format != Format::Vhdx);
    let over = Disk::new((4 << 30) + (3 << 20), &[((4 << 30) - 70_000, noise(9, 1 << 20))]);
    over.check_formats(|format| format == Format::Vhdx);
    for (number, (_, format)) in FORMATS.into_iter().enumerate() {
        let (path, _) = disk.convert(&format!("large{number}"), format);
        let used = std::fs::metadata(&path).unwrap().blocks() * 512;
        assert!(used < 8 << 20, "{format:?} takes {used} bytes");
    }
}

#[test]
fn compression_makes_the_file_smaller() {
    let disk = mixed(24 << 20);
    let size = |name: &str, compression| disk.convert(name, Format::Qcow2(compression)).1.file_size;
    let (plain, zlib, zstd) =
        (size("a", Compression::None), size("b", Compression::Zlib), size("c", Compression::Zstd));
    assert!(zlib < plain / 2 && zstd < plain / 2, "{plain} {zlib} {zstd}");
}

#[test]
fn bytes_depend_on_the_content_only() {
    let size = 16 << 20;
    let pieces = vec![(70_000, noise(8, 100_000)), (5 << 20, b"text ".repeat(50_000))];
    let sparse = Disk::new(size, &pieces);
    // The same content with no holes at all, and converted by one thread.
    let mut full = vec![0; size as usize];
    sparse.raw.read_exact_at(&mut full, 0).unwrap();
    let dense = Disk::new(size, &[(0, full)]);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for (number, (_, format)) in FORMATS.into_iter().enumerate() {
        let name = format!("image{number}");
        let (a, _) = sparse.convert(&name, format);
        let out = File::create(dense.path(&name)).unwrap();
        let raw = &dense.raw;
        one.install(|| convert(raw, &out, format, &OPTIONS, &|_, _| {})).unwrap();
        assert!(std::fs::read(a).unwrap() == std::fs::read(dense.path(&name)).unwrap(), "{format:?}");
    }
}

#[test]
fn what_is_no_disk_is_refused() {
    for size in [0, 511, 513] {
        let disk = Disk::new(size, &[]);
        let out = tempfile::tempfile().unwrap();
        let error = convert(&disk.raw, &out, Format::Vhdx, &OPTIONS, &|_, _| {}).unwrap_err();
        assert!(error.to_string().contains("no whole number of 512-byte sectors"), "{error}");
    }
    let disk = Disk::new(3 << 40, &[]);
    let out = tempfile::tempfile().unwrap();
    let error = convert(&disk.raw, &out, Format::VhdDynamic, &OPTIONS, &|_, _| {}).unwrap_err();
    assert!(error.to_string().contains("VHD images hold at most"), "{error}");
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config {
        cases: std::env::var("ASHLAR_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(4),
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn any_disk(
        sectors in 1_u64..12_000,
        pieces in proptest::collection::vec((0.0_f64..1.0, 1_usize..200_000, 0_u64..4), 0..6),
    ) {
        let size = sectors * 512;
        let pieces: Vec<(u64, Vec<u8>)> = pieces
            .into_iter()
            .map(|(place, length, seed)| {
                #[allow(clippy::cast_sign_loss, clippy::cast_precision_loss)]
                let at = (size as f64 * place) as u64;
                let mut bytes = if seed == 0 { vec![b'x'; length] } else { noise(seed, length) };
                bytes.truncate((size - at) as usize);
                (at, bytes)
            })
            .collect();
        Disk::new(size, &pieces).check();
    }
}
