//! What several tests of this folder need.
#![allow(dead_code, clippy::unwrap_used)] // each test uses a part of it; a test fails by unwrap

pub mod mount;
pub mod trees;

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs a tool to its end, at most two minutes; none, with a remark, when it is not installed.
pub fn run(command: &mut Command, package: &str) -> Option<Output> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: {} is needed (package {package})", command.get_program().display());
        return None;
    };
    let collect = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        })
    };
    let stdout = collect(Box::new(child.stdout.take().unwrap()));
    let stderr = collect(Box::new(child.stderr.take().unwrap()));
    let end = Instant::now() + Duration::from_secs(120);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} ran for more than two minutes");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Some(Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() })
}

/// Bytes that compress to about a half: words of a small set, some of them new.
pub fn prose(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12_345);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    state_is_not_zero(&mut next);
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        let word = next();
        match word % 4 {
            0 => bytes.extend_from_slice(&word.to_le_bytes()),
            _ => bytes.extend_from_slice(format!("word-{:03} ", word / 4 % 300).as_bytes()),
        }
    }
    bytes.truncate(length);
    bytes
}

fn state_is_not_zero(next: &mut impl FnMut() -> u32) {
    for _ in 0..4 {
        next();
    }
}

/// Bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
