//! `cargo run --release -p ashlar-formats --example erofs_bench -- FOLDER [CLUSTER [OUTPUT]]`
//!
//! Packs a folder with each compression, hashes while writing, and prints size and seconds: of the plan, which
//! compresses, and of the writing. With OUTPUT, the images are kept as `OUTPUT.NAME` for other tools to read.
#![allow(clippy::print_stdout)] // it is what the example is for

mod shared;

use ashlar_formats::erofs::{Compression, Options, Plan};
use ashlar_formats::verity::Hashing;
use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let folder = arguments.next().ok_or("which folder?")?;
    let cluster_size = match arguments.next() {
        Some(size) => size.to_str().ok_or("the cluster size is no number")?.parse()?,
        None => Options::default().cluster_size,
    };
    let keep = arguments.next();
    let tree = shared::tree(Path::new(&folder), 1_700_000_000)?;
    println!("{:<12} {:>14} {:>9} {:>9}", "compression", "bytes", "plan s", "write s");
    for (name, compression) in [
        ("none", Compression::None),
        ("lz4", Compression::Lz4),
        ("lz4hc,9", Compression::Lz4hc { level: 9 }),
        ("lz4hc,12", Compression::Lz4hc { level: 12 }),
        ("zstd,3", Compression::Zstd { level: 3 }),
        ("zstd,15", Compression::Zstd { level: 15 }),
    ] {
        let options = Options {
            volume_name: "bench".into(),
            build_time: 1_700_000_000,
            compression,
            cluster_size,
            ..Options::default()
        };
        let start = Instant::now();
        let plan = Plan::new(&tree, options)?;
        let planned = start.elapsed();
        let image = match &keep {
            Some(path) => {
                let mut path = OsString::from(path);
                path.push(format!(".{name}"));
                File::create(path)?
            }
            None => tempfile::tempfile()?,
        };
        let start = Instant::now();
        let mut out = Hashing::new(image, [0; 32]);
        plan.write(&mut out)?;
        let (_, hashes) = out.finish()?;
        let (planned, written) = (planned.as_secs_f64(), start.elapsed().as_secs_f64());
        println!("{name:<12} {:>14} {planned:>9.2} {written:>9.2}", hashes.length);
    }
    Ok(())
}
