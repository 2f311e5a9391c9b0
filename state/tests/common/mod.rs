//! What the tests share: tools of others with a deadline, volumes, random numbers that are the same each time.
#![allow(dead_code)] // no test uses all of it

use ashlar_state::luks::{self, Header, Params};
use ashlar_state::memory::MemoryDevice;
use ashlar_state::{RecoveryKey, Token, Uuid, VolumeKey};
use sha2::{Digest as _, Sha256};
use std::io::{ErrorKind, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a tool may run. They take seconds; the machine may be busy.
const DEADLINE: Duration = Duration::from_secs(120);
/// Size of the partitions of most tests, in bytes.
pub const SIZE: u64 = 96 << 20;

/// Notes that a test cannot run here; fails with `ASHLAR_TESTS_NO_SKIP` set.
pub fn skip(why: &str) {
    let strict = std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_some();
    assert!(!strict, "ASHLAR_TESTS_NO_SKIP is set, and this test cannot run: {why}");
    eprintln!("skipped: {why}");
}

/// Notes that the kernel or the user of these tests cannot do something that no package brings.
pub fn unable(why: &str) {
    eprintln!("skipped: {why}");
}

/// How a tool ended.
#[derive(Debug)]
pub struct Ended {
    pub success: bool,
    pub code: Option<i32>,
    /// What it wrote, to both of its outputs.
    pub text: String,
}

/// Runs a tool of `package` with this input; none, with the reason said, where it is not installed.
pub fn tool(package: &str, name: &str, arguments: &[&str], input: &[u8]) -> Option<Ended> {
    let out = tempfile::tempfile().unwrap();
    let spawned = Command::new(name)
        .args(arguments)
        .env("LC_ALL", "C")
        // Where a user's path does not lead.
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::piped())
        .stdout(out.try_clone().unwrap())
        .stderr(out.try_clone().unwrap())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skip(&format!("{name} is not installed (package {package})"));
            return None;
        }
        Err(error) => panic!("{name}: {error}"),
    };
    // A tool that does not want it closes its end.
    let _ = child.stdin.take().unwrap().write_all(input);
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{name} {arguments:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    let mut out = out;
    std::io::Seek::rewind(&mut out).unwrap();
    out.read_to_string(&mut text).unwrap();
    Some(Ended { success: status.success(), code: status.code(), text })
}

/// `cryptsetup`.
pub fn cryptsetup(arguments: &[&str], input: &[u8]) -> Option<Ended> {
    tool("cryptsetup-bin", "cryptsetup", arguments, input)
}

/// Numbers that look random, the same each time for the same start.
#[derive(Clone)]
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ value >> 31
    }

    #[allow(clippy::unnecessary_wraps)] // the form of a source of randomness
    pub fn fill(&mut self, buffer: &mut [u8]) -> std::io::Result<()> {
        for chunk in buffer.chunks_mut(8) {
            let value = self.next().to_le_bytes();
            chunk.copy_from_slice(&value[..chunk.len()]);
        }
        Ok(())
    }
}

pub fn volume_key() -> VolumeKey {
    VolumeKey::new(std::array::from_fn(|index| index as u8 ^ 0xa5))
}

pub fn recovery_key() -> RecoveryKey {
    RecoveryKey::from_random(std::array::from_fn(|index| index as u8 ^ 0x5a))
}

pub fn uuid() -> Uuid {
    Uuid::from_random([0x42; 16])
}

/// Makes the volume of these tests.
pub fn format(device: &mut MemoryDevice, sector_size: u32, tokens: Vec<Token>) -> Header {
    let (volume_key, recovery_key) = (volume_key(), recovery_key());
    let params = Params {
        volume_key: &volume_key,
        recovery_key: &recovery_key,
        uuid: uuid(),
        label: "ashlar-state",
        sector_size,
        tokens,
    };
    let mut numbers = Numbers(1);
    luks::format(device, &params, &mut |buffer| numbers.fill(buffer)).unwrap()
}

/// A partition with the volume of these tests.
pub fn volume() -> MemoryDevice {
    let mut device = MemoryDevice::new(SIZE);
    format(&mut device, 4096, Vec::new());
    device.settled()
}

/// Puts the checksum of one copy of the header right.
pub fn reseal(copy: &mut [u8]) {
    copy[448..512].fill(0);
    let sum = Sha256::digest(&*copy);
    copy[448..480].copy_from_slice(&sum);
}

/// Changes the metadata in both copies as text, and puts the checksums right.
pub fn patch(device: &mut MemoryDevice, change: impl Fn(&str) -> String) {
    for at in [0, 16384] {
        let mut copy = device.get(at, 16384);
        let end = copy[4096..].iter().position(|byte| *byte == 0).unwrap();
        let json = change(std::str::from_utf8(&copy[4096..4096 + end]).unwrap());
        copy[4096..].fill(0);
        copy[4096..4096 + json.len()].copy_from_slice(json.as_bytes());
        reseal(&mut copy);
        device.put(&copy, at);
    }
}

/// The device as a file.
pub fn file(device: &MemoryDevice) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    device.save(file.as_file()).unwrap();
    file
}

/// The start of a file as a device of the file's size.
pub fn from_file(path: &std::path::Path) -> MemoryDevice {
    let mut file = std::fs::File::open(path).unwrap();
    let size = file.metadata().unwrap().len();
    let mut start = vec![0; size.min(16 << 20) as usize];
    file.read_exact(&mut start).unwrap();
    MemoryDevice::with(size, &start)
}
