//! `cargo run --release -p ashlar-formats --example rate`
//!
//! The machine's rate of SHA-256 over salted blocks of 4 KiB that lie in its caches, on all cores, and the rate at which
//! the verity tree of a file of 1 GiB in the page cache is made, as a part of the first. Each is the best of nine.
#![allow(clippy::print_stdout)] // it is what the example is for

use ashlar_formats::verity;
use rayon::prelude::*;
use ring::digest::{Context, SHA256};
use std::error::Error;
use std::io::Write;
use std::time::Instant;

const LENGTH: u64 = 1 << 30;
const BLOCK: usize = 4096;
const ROUNDS: usize = 9;

/// Seconds that it takes.
fn seconds(run: impl FnOnce() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Hashes as many bytes as the file has, all from one piece.
fn raw(salted: &Context, piece: &[u8]) {
    let sum = (0..LENGTH / piece.len() as u64)
        .into_par_iter()
        .map(|_| {
            let hash = |block: &[u8]| {
                let mut context = salted.clone();
                context.update(block);
                context.finish().as_ref()[0]
            };
            piece.chunks(BLOCK).map(hash).fold(0_u8, u8::wrapping_add)
        })
        .reduce(|| 0, u8::wrapping_add);
    std::hint::black_box(sum);
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut salted = Context::new(&SHA256);
    salted.update(&[0x5a; 32]);
    let piece: Vec<u8> = (0..1_u32 << 15).flat_map(u32::to_le_bytes).collect();
    let mut file = tempfile::tempfile()?;
    for _ in 0..LENGTH / piece.len() as u64 {
        file.write_all(&piece)?;
    }
    let (mut best_raw, mut best_tree) = (f64::INFINITY, f64::INFINITY);
    // By turns, so that what else the machine does hits both.
    for _ in 0..ROUNDS {
        best_raw = best_raw.min(seconds(|| {
            raw(&salted, &piece);
            Ok(())
        })?);
        best_tree = best_tree.min(seconds(|| {
            verity::write(&file, LENGTH, [0x5a; 32], [0; 16], &mut std::io::sink())?;
            Ok(())
        })?);
    }
    #[allow(clippy::cast_precision_loss)] // 2^30
    let (raw, tree) = (LENGTH as f64 / best_raw, LENGTH as f64 / best_tree);
    let cores = rayon::current_num_threads();
    println!("SHA-256 of salted 4 KiB blocks on {cores} cores: {:.0} MB/s", raw / 1e6);
    println!("verity tree of 1 GiB in the page cache:    {:.0} MB/s", tree / 1e6);
    println!("ratio: {:.3}", tree / raw);
    Ok(())
}
