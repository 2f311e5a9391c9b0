//! What an update from one image to another fetches, beside other ways: `update-size OLD NEW`.

use ashlar_blocks::{BLOCK, Hashing, Leaves, Plan, fetch_leaves, publish};
use ashlar_fetch::{Body, FetchError, Request, Source};
use std::collections::HashSet;
use std::io::Cursor;

/// One file in memory, with ranges.
#[derive(Debug)]
struct Memory(Vec<u8>);

impl Source for Memory {
    fn open(&self, request: &Request) -> Result<Body, FetchError> {
        let whole = 0..self.0.len();
        let range = request.range.map_or(whole, |range| {
            let start = usize::try_from(range.start).unwrap_or(usize::MAX);
            start..start.saturating_add(usize::try_from(range.length).unwrap_or(0))
        });
        let start = range.start as u64;
        let bytes = self.0.get(range).unwrap_or_default().to_vec();
        Ok(Body { start, length: None, reader: Box::new(Cursor::new(bytes)) })
    }

    fn name(&self) -> String {
        "memory".into()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: update-size OLD NEW");
    let (old, new) = (std::fs::read(next()?)?, std::fs::read(next()?)?);
    let hashing = Hashing::Plain;
    let mut frames = Vec::new();
    let published = publish(&mut Cursor::new(&new), new.len() as u64, hashing, [0; 16], &mut frames, |_| {})?;
    let index = published.index.to_bytes()?.len() as u64;
    let have =
        Leaves::from_bytes(&old.chunks(BLOCK).flat_map(|block| hashing.of(block)).collect::<Vec<u8>>());
    let have = have.ok_or("no leaves")?;
    let leaves_file = Memory(published.leaves.as_bytes().to_vec());
    let (leaves, leaf_bytes) = fetch_leaves(&leaves_file, "leaves", &published.index, &[&have])?;
    let plan = Plan::new(&published.index, &leaves, &have, &Leaves::default());
    let known: HashSet<&[u8; 32]> = have.iter().collect();
    let changed: Vec<u8> = new
        .chunks(BLOCK)
        .zip(leaves.iter())
        .filter(|(block, leaf)| !known.contains(leaf) && block.iter().any(|byte| *byte != 0))
        .flat_map(|(block, _)| block.iter().copied())
        .collect();
    let ours = plan.bytes + leaf_bytes + index;
    println!("new image                        {:>10}", new.len());
    println!("zstd 19 of the new image         {:>10}", zstd::bulk::compress(&new, 19)?.len());
    println!("changed blocks                   {:>10}", changed.len());
    for level in [3, 19] {
        let packed = zstd::bulk::compress(&changed, level)?.len();
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = ours as f64 / packed.max(1) as f64;
        println!("zstd {level:<2} of the changed blocks    {packed:>10}   ours is {ratio:.3} times that");
    }
    println!("ours: blocks                     {:>10}   in {} requests", plan.bytes, plan.requests());
    println!("ours: leaves                     {leaf_bytes:>10}");
    println!("ours: index                      {index:>10}");
    println!("ours in all                      {ours:>10}");
    Ok(())
}
