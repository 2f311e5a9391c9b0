//! Resolves packages of a suite, fetches them and composes a tree; prints what it took.
//!
//! `cargo run --release -p ashlar-debian --example resolve -- CACHE MIRROR SUITE PACKAGE… [-- EXCLUDED…]`, where MIRROR
//! `host` is the build host's and `offline` the host's with nothing fetched.

use ashlar_debian::{Cache, DEFAULT_KEYRINGS, Index, Network, Progress, Suite, compose, fetch, host_mirror};
use ashlar_tree::{Kind, Metadata, Tree};
use std::path::Path;
use std::time::Instant;

/// Prints notes and nothing else.
struct Notes;

impl Progress for Notes {
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
    fn note(&self, text: &str) {
        eprintln!("note: {text}");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(mirror), Some(suite)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: resolve CACHE MIRROR SUITE PACKAGE… [-- EXCLUDED…]".into());
    };
    let rest: Vec<String> = arguments.collect();
    let mut halves = rest.split(|argument| argument == "--");
    let wanted = halves.next().unwrap_or_default();
    let excluded = halves.next().unwrap_or_default();
    let network = if mirror == "offline" { Network::Offline } else { Network::Online };
    let mirror = if mirror == "host" || mirror == "offline" { host_mirror()? } else { mirror };
    let suite = Suite {
        mirror: mirror.clone(),
        suite,
        components: vec!["main".into()],
        architecture: "amd64".into(),
        keyring: DEFAULT_KEYRINGS.iter().map(Into::into).collect(),
    };

    let start = Instant::now();
    let mut last = start;
    let mut took = |what: &str| {
        println!("{what:>8}: {:6.0} ms", last.elapsed().as_secs_f64() * 1e3);
        last = Instant::now();
    };
    let cache = Cache::open(Path::new(&folder))?;
    let index = Index::load(&suite, &cache, network, &Notes)?;
    took("load");
    let locked = index.resolve(wanted, excluded)?;
    took("resolve");
    for package in &locked {
        println!("{:10} {} {}", package.size, package.name, package.version);
    }
    let packages = fetch(&locked, Some(&mirror), &cache, network, &Notes)?;
    took("fetch");
    let mut tree = Tree::new(Metadata::root(0o755, index.date));
    compose(&packages, &mut tree)?;
    took("compose");

    let (mut nodes, mut bytes) = (0_u64, 0);
    tree.walk(|_, node| {
        nodes += 1;
        if let Kind::File(content) = &node.kind {
            bytes += content.len();
        }
    });
    let fetched: u64 = locked.iter().map(|package| package.size).sum();
    println!("{} packages, {fetched} bytes packed, {nodes} nodes, {bytes} bytes of files", locked.len());
    Ok(())
}
