//! An EFI program to build upon, and programs to judge by.
#![allow(dead_code, clippy::unwrap_used)] // each test uses a part; a test fails by it

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Writes `value` at `at`.
pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// An EFI application with `count` sections of 512 bytes, headers of 0x600 bytes as Debian's stub has, and
/// its section table at 0x148.
pub fn program(count: u16, file_alignment: u32) -> Vec<u8> {
    let mut b = vec![0; 0x600 + usize::from(count) * 512];
    put(&mut b, 0, b"MZ");
    put(&mut b, 0x3c, &0x40u32.to_le_bytes());
    put(&mut b, 0x40, b"PE\0\0");
    put(&mut b, 0x44, &0x8664u16.to_le_bytes());
    put(&mut b, 0x46, &count.to_le_bytes());
    put(&mut b, 0x54, &240u16.to_le_bytes());
    put(&mut b, 0x56, &0x22u16.to_le_bytes());
    let o = 0x58;
    put(&mut b, o, &0x20bu16.to_le_bytes());
    put(&mut b, o + 8, &0x200u32.to_le_bytes());
    put(&mut b, o + 16, &0x1000u32.to_le_bytes());
    put(&mut b, o + 20, &0x1000u32.to_le_bytes());
    put(&mut b, o + 32, &0x1000u32.to_le_bytes());
    put(&mut b, o + 36, &file_alignment.to_le_bytes());
    put(&mut b, o + 56, &(0x1000 * (u32::from(count) + 1)).to_le_bytes());
    put(&mut b, o + 60, &0x600u32.to_le_bytes());
    put(&mut b, o + 68, &10u16.to_le_bytes());
    put(&mut b, o + 108, &16u32.to_le_bytes());
    for i in 0..usize::from(count) {
        let s = o + 240 + i * 40;
        put(&mut b, s, format!(".s{i}").as_bytes());
        put(&mut b, s + 8, &0x180u32.to_le_bytes());
        put(&mut b, s + 12, &((i as u32 + 1) * 0x1000).to_le_bytes());
        put(&mut b, s + 16, &0x200u32.to_le_bytes());
        put(&mut b, s + 20, &(0x600 + i as u32 * 512).to_le_bytes());
        put(&mut b, s + 36, &0x6000_0020u32.to_le_bytes());
        b[0x600 + i * 512] = 0xc3;
    }
    b
}

/// Runs a program for at most a minute; none, and a message, when it is not installed.
pub fn run(name: &str, arguments: &[&str], more: &[&str]) -> Option<Output> {
    let child = Command::new(name)
        .args(arguments)
        .args(more)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: {name} is needed");
        return None;
    };
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("{name} did not end within a minute");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Some(child.wait_with_output().unwrap())
}
