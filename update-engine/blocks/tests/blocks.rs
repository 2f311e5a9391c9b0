//! Images that are published, planned and downloaded again.
#![allow(clippy::unwrap_used)]

use ashlar_blocks::{
    BLOCK, BlocksError, Download, FRAME_BLOCKS, Hashing, Index, Leaves, Origin, Plan, Progress, Retry,
    decode_frame, fetch_leaves, publish, verity,
};
use ashlar_fetch::{Body, FetchError, Request, Source};
use proptest::prelude::*;
use std::collections::HashMap;
use std::io::{self, Cursor, Read};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const SALT: Hashing = Hashing::Verity { salt: [9; 32] };

/// Files in memory, and what was asked of them.
#[derive(Debug, Default)]
struct Server {
    files: HashMap<String, Vec<u8>>,
    ranges: bool,
    sent: AtomicU64,
    /// Connections break after so many bytes.
    breaks: Option<u64>,
    requests: Mutex<Vec<Request>>,
}

impl Source for Server {
    fn open(&self, request: &Request) -> Result<Body, FetchError> {
        self.requests.lock().unwrap().push(request.clone());
        let file = self.files.get(&request.path).ok_or_else(|| FetchError::NotFound(request.path.clone()))?;
        let (start, end) = match request.range {
            Some(range) if self.ranges => {
                let start = usize::try_from(range.start).unwrap();
                (start, (start + usize::try_from(range.length).unwrap()).min(file.len()))
            }
            _ => (0, file.len()),
        };
        let mut bytes = file.get(start..end).unwrap_or_default().to_vec();
        if let Some(most) = self.breaks {
            bytes.truncate(usize::try_from(most).unwrap());
        }
        self.sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(Body { start: start as u64, length: None, reader: Box::new(Cursor::new(bytes)) })
    }

    fn name(&self) -> String {
        "memory".into()
    }
}

struct Never;

impl Retry for Never {
    fn pause(&self, _: u32) -> Option<Duration> {
        None
    }
}

struct Thrice;

impl Retry for Thrice {
    fn pause(&self, number: u32) -> Option<Duration> {
        (number <= 3).then_some(Duration::ZERO)
    }
}

fn read_of(image: &[u8]) -> impl FnMut(u64, &mut [u8]) -> io::Result<()> + '_ {
    move |block, buffer| {
        let at = usize::try_from(block).unwrap() * BLOCK;
        buffer.copy_from_slice(&image[at..at + BLOCK]);
        Ok(())
    }
}

fn leaves_of(hashing: Hashing, image: &[u8]) -> Leaves {
    Leaves::of(hashing, (image.len() / BLOCK) as u64, read_of(image)).unwrap()
}

fn serve(hashing: Hashing, image: &[u8]) -> (Server, Index) {
    let mut frames = Vec::new();
    let published =
        publish(&mut Cursor::new(image), image.len() as u64, hashing, [3; 16], &mut frames, |_| {}).unwrap();
    let index = Index::parse(&published.index.to_bytes().unwrap()).unwrap();
    assert_eq!(index, published.index);
    assert_eq!(index.frames_length(), frames.len() as u64);
    let files = HashMap::from([
        ("frames".to_owned(), frames),
        ("leaves".to_owned(), published.leaves.as_bytes().to_vec()),
    ]);
    (Server { files, ranges: true, ..Server::default() }, index)
}

/// A block that cannot be packed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..BLOCK)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn image(blocks: impl IntoIterator<Item = u64>) -> Vec<u8> {
    blocks
        .into_iter()
        .flat_map(|block| match block {
            0 => vec![0; BLOCK],
            block if block % 3 == 0 => vec![u8::try_from(block % 251).unwrap(); BLOCK],
            block => noise(block),
        })
        .collect()
}

/// Brings `target` to the image of `index`, with what `running` has.
fn update(
    server: &Server,
    index: &Index,
    running: &[u8],
    target: &mut [u8],
    retry: &dyn Retry,
    mut cut: u64,
) -> Result<Progress, BlocksError> {
    let old = leaves_of(index.hashing, running);
    let (leaves, _) = fetch_leaves(server, "leaves", index, &[&old])?;
    let plan = Plan::new(index, &leaves, &old, &leaves_of(index.hashing, target));
    let cancel = AtomicBool::new(false);
    let download = Download {
        source: server,
        path: "frames",
        index,
        leaves: &leaves,
        plan: &plan,
        connections: 3,
        retry,
        cancel: &cancel,
    };
    download.run(
        read_of(running),
        |block, bytes| {
            cut = cut.checked_sub(1).ok_or_else(|| io::Error::other("power cut"))?;
            let at = usize::try_from(block).unwrap() * BLOCK;
            target[at..at + BLOCK].copy_from_slice(bytes);
            Ok(())
        },
        |_| {},
    )
}

#[test]
fn only_what_no_slot_has_is_fetched() {
    // Forty blocks are new in the midst of a thousand, and everything behind them has moved.
    let old = image((1..1000).map(|n| n * 3 + 1));
    let new = image((1..500).chain(5000..5040).chain(500..1000).map(|n| n * 3 + 1));
    let (server, index) = serve(SALT, &new);
    let mut target = vec![0xAA; new.len()];
    let done = update(&server, &index, &old, &mut target, &Never, u64::MAX).unwrap();
    assert!(target == new);
    assert_eq!(done.fetched, 40 * BLOCK as u64, "they cannot be packed, and no other is fetched");
    let leaves: u64 = server.sent.load(Ordering::Relaxed) - done.fetched;
    assert!(leaves < 40 * 32 + 2 * 512 * 32, "{leaves} bytes of {} of leaves", index.leaves_length());
    // Once more: nothing is to be done.
    let done = update(&server, &index, &old, &mut target, &Never, 0).unwrap();
    assert_eq!((done.written, done.fetched), (0, 0));
}

#[test]
fn a_server_without_ranges_is_read_once() {
    let new = image(1..300);
    let (mut server, index) = serve(Hashing::Plain, &new);
    server.ranges = false;
    let mut target = vec![0; new.len()];
    update(&server, &index, &image(100..200), &mut target, &Never, u64::MAX).unwrap();
    assert!(target == new);
    let frames = server.requests.lock().unwrap().iter().filter(|request| request.path == "frames").count();
    assert!(frames <= 2, "one to find out and one to read, not {frames}");
}

#[test]
fn broken_connections_go_on_where_they_broke() {
    let new = image((1..200).map(|n| n * 3 + 1));
    let (mut server, index) = serve(Hashing::Plain, &new);
    server.breaks = Some(30_000);
    let mut target = vec![0; new.len()];
    update(&server, &index, &[], &mut target, &Thrice, u64::MAX).unwrap();
    assert!(target == new);
    let error = update(&server, &index, &[], &mut vec![0; new.len()], &Never, u64::MAX).unwrap_err();
    assert!(error.to_string().contains("`frames` cannot be fetched: the connection ended"), "{error}");
    server.files.remove("frames");
    let error = update(&server, &index, &[], &mut vec![0; new.len()], &Thrice, u64::MAX).unwrap_err();
    assert!(matches!(error, BlocksError::Fetch(FetchError::NotFound(_))), "{error}");
}

#[test]
fn a_cut_at_any_block_loses_what_was_under_way_only() {
    let new = image((1..120).map(|n| n * 3 + 1));
    let (server, index) = serve(Hashing::Plain, &new);
    for cut in [0, 1, 17, 64, 118] {
        let mut target = vec![0; new.len()];
        assert!(update(&server, &index, &[], &mut target, &Never, cut).is_err());
        let done = update(&server, &index, &[], &mut target, &Never, u64::MAX).unwrap();
        assert!(target == new);
        assert_eq!(done.fetched, (119 - cut) * BLOCK as u64, "cut at {cut}");
    }
}

#[test]
fn changed_bytes_are_told_and_not_written() {
    let new = image(1..100);
    let (mut server, index) = serve(Hashing::Plain, &new);
    let frames = server.files.get_mut("frames").unwrap();
    let middle = frames.len() / 2;
    frames[middle] ^= 1;
    let mut target = vec![0; new.len()];
    let error = update(&server, &index, &[], &mut target, &Thrice, u64::MAX).unwrap_err();
    assert!(matches!(error, BlocksError::Block { .. }), "{error}");
    assert!(error.to_string().contains("not what was signed"), "{error}");
    for (found, wanted) in target.chunks(BLOCK).zip(new.chunks(BLOCK)) {
        assert!(found == wanted || found.iter().all(|byte| *byte == 0), "nothing else is written");
    }
    // A slot that runs with a damaged block.
    let (server, index) = serve(Hashing::Plain, &new);
    let old = leaves_of(Hashing::Plain, &new);
    let plan = Plan::new(&index, &old, &old, &Leaves::default());
    let cancel = AtomicBool::new(false);
    let download = Download {
        source: &server,
        path: "frames",
        index: &index,
        leaves: &old,
        plan: &plan,
        connections: 1,
        retry: &Never,
        cancel: &cancel,
    };
    let error = download.run(
        |_, buffer| {
            buffer.fill(1);
            Ok(())
        },
        |_, _| Ok(()),
        |_| {},
    );
    assert!(matches!(error, Err(BlocksError::Running { .. })));
    cancel.store(true, Ordering::Relaxed);
    assert!(matches!(download.run(|_, _| Ok(()), |_, _| Ok(()), |_| {}), Err(BlocksError::Cancelled)));
}

#[test]
fn leaves_that_are_not_those_of_the_index() {
    let new = image(1..300);
    let (mut server, index) = serve(Hashing::Plain, &new);
    server.files.get_mut("leaves").unwrap()[5] ^= 1;
    let error = fetch_leaves(&server, "leaves", &index, &[]).unwrap_err();
    assert!(matches!(error, BlocksError::Leaves { .. }), "{error}");
}

#[test]
fn more_than_four_gibibytes() {
    /// Zeros with a block of noise at the end, behind 4 GiB.
    struct Sparse(u64);
    impl Read for Sparse {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let last = 5u64 << 30;
            let tail = noise(7);
            for (at, byte) in (self.0..).zip(buffer.iter_mut()) {
                *byte = at
                    .checked_sub(last)
                    .and_then(|at| tail.get(usize::try_from(at).ok()?))
                    .copied()
                    .unwrap_or(0);
            }
            self.0 += buffer.len() as u64;
            Ok(buffer.len())
        }
    }
    // The index alone: hashing five gibibytes takes too long for a test.
    let blocks = (5u64 << 30) / 4096 + 1;
    let mut frames = Vec::new();
    let tail =
        publish(&mut Sparse((5 << 30) - 7 * 4096), 8 * 4096, Hashing::Plain, [0; 16], &mut frames, |_| {})
            .unwrap();
    assert_eq!(tail.index.blocks, 8);
    let zeros = Hashing::Plain.of(&[0; BLOCK]);
    let mut bytes: Vec<u8> = zeros.repeat(usize::try_from(blocks - 1).unwrap());
    bytes.extend(Hashing::Plain.of(&noise(7)));
    let wanted = Leaves::from_bytes(&bytes).unwrap();
    assert_eq!(wanted.len(), blocks);
    let old = Leaves::from_bytes(&bytes[..bytes.len() - 32]).unwrap();
    let index = big_index(blocks, &wanted);
    let plan = Plan::new(&index, &wanted, &Leaves::default(), &old);
    assert_eq!((plan.keep, plan.fetch), (blocks - 1, 1));
    assert_eq!(plan.origin(blocks - 1), Some(Origin::Fetch));
    assert_eq!(plan.bytes, 4096);
    assert!(index.length() > 5 << 30);
}

/// An index of zeros but for its last frame, through its bytes as another program would write them.
fn big_index(blocks: u64, leaves: &Leaves) -> Index {
    let frames = blocks.div_ceil(FRAME_BLOCKS);
    let mut out = b"ASHLARB1".to_vec();
    out.extend(0u32.to_le_bytes());
    out.extend(8u32.to_le_bytes());
    out.extend(blocks.to_le_bytes());
    out.extend([0; 48]);
    out.extend(leaves.digest().0);
    out.extend(4096u64.to_le_bytes());
    out.extend(frames.to_le_bytes());
    let runs = blocks.div_ceil(512);
    out.extend(runs.to_le_bytes());
    for frame in 1..=frames {
        out.extend(u32::from(frame == frames).to_le_bytes());
    }
    for run in 0..runs {
        out.extend([0; 8]);
        let rest = blocks - run * 512;
        out.extend(u16::try_from(rest.min(512)).unwrap().to_le_bytes());
    }
    Index::parse_unpacked(&out).unwrap()
}

#[test]
fn the_verity_partition_is_veritysetups() {
    let missing = |what: &str| {
        assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "{what} is missing");
        eprintln!("skipped: {what} is missing (Debian package cryptsetup-bin)");
    };
    let Some(veritysetup) = ["/usr/sbin/veritysetup", "/sbin/veritysetup"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
    else {
        return missing("veritysetup");
    };
    let folder = tempfile::tempdir().unwrap();
    for blocks in [2, 128, 129, 20_000] {
        let image: Vec<u8> = image((0..blocks).map(|n| n % 50));
        let (data, tree) = (folder.path().join("data"), folder.path().join("tree"));
        std::fs::write(&data, &image).unwrap();
        let _ = std::fs::remove_file(&tree);
        let output = Command::new(veritysetup)
            .args(["format", "--uuid", "03030303-0303-0303-0303-030303030303", "--salt", &"09".repeat(32)])
            .args([&data, &tree])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let root =
            text.lines().find_map(|line| line.strip_prefix("Root hash:")).unwrap().trim().parse().unwrap();
        let leaves = leaves_of(SALT, &image);
        let made = verity::partition(SALT, [3; 16], &leaves, root).unwrap();
        assert!(made == std::fs::read(&tree).unwrap(), "{blocks} blocks");
        assert_eq!(verity::leaves(&made, blocks).unwrap(), leaves);
        let other = ashlar_image::digest::Digest([1; 32]);
        assert!(matches!(
            verity::partition(SALT, [3; 16], &leaves, other),
            Err(BlocksError::RootHash { .. })
        ));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_image_from_any_other(
        old in prop::collection::vec(0u64..30, 1..80),
        before in prop::collection::vec(0u64..30, 0..80),
        new in prop::collection::vec(0u64..40, 1..80),
        ranges: bool,
        salted: bool,
    ) {
        let (running, wanted) = (image(old.clone()), image(new.clone()));
        let hashing = if salted { SALT } else { Hashing::Plain };
        let (mut server, index) = serve(hashing, &wanted);
        server.ranges = ranges;
        let mut target = image(before);
        target.resize(wanted.len(), 0x55);
        let held = leaves_of(hashing, &target);
        let leaves = leaves_of(hashing, &wanted);
        let plan = Plan::new(&index, &leaves, &leaves_of(hashing, &running), &held);
        prop_assert_eq!(plan.keep + plan.copy + plan.zero + plan.fetch, plan.blocks());
        for (block, number) in new.iter().enumerate() {
            if plan.origin(block as u64) == Some(Origin::Fetch) {
                prop_assert!(!old.contains(number) && *number != 0, "block {} lies in the running slot", block);
            }
        }
        update(&server, &index, &running, &mut target, &Never, u64::MAX).unwrap();
        prop_assert!(target == wanted);
    }

    #[test]
    fn an_index_of_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400, flip in 1u8..) {
        let _ = Index::parse(&bytes);
        let _ = Index::parse_unpacked(&bytes);
        let _ = decode_frame(&bytes, u64::from(flip));
        let (_, index) = serve(Hashing::Plain, &image(0..20));
        let mut good = zstd::stream::decode_all(&index.to_bytes().unwrap()[..]).unwrap();
        let at = at % good.len();
        good[at] ^= flip;
        if let Ok(index) = Index::parse_unpacked(&good) {
            prop_assert!(index.frames_length() <= index.length());
        }
    }
}

#[test]
fn an_index_that_unpacks_to_too_much() {
    let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 1).unwrap();
    assert!(matches!(Index::parse(&bomb), Err(BlocksError::Index("it is too long"))));
    assert!(decode_frame(&bomb, FRAME_BLOCKS).is_none());
    assert!(decode_frame(&bomb, u64::MAX).is_none());
}
