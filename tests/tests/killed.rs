//! Builds that end hard, at any moment: the output is the old release, the new one or none, never a half; the next build
//! uses no stale part and gives the right bytes.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_tests::folders::{self, assert_same, release_difference};
use ashlar_tests::{Case, built};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where the moments come from (Marsaglia's xorshift64).
struct Random(u64);

impl Random {
    /// From `ASHLAR_TESTS_SEED`, or another one each time; printed, so that a failure can be had again.
    fn new() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into();
        let seed: u64 =
            std::env::var("ASHLAR_TESTS_SEED").ok().map_or_else(now, |text| text.parse().unwrap());
        eprintln!("ASHLAR_TESTS_SEED={seed}");
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// How many builds are killed.
fn rounds() -> u64 {
    std::env::var("ASHLAR_TESTS_KILLS").map_or(25, |text| text.parse().unwrap())
}

/// What a killed build has left beside its output.
fn leftovers(case: &Case) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(case.path("")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(".ashlar-build-")).collect()
}

/// Makes the build begin anew: no stage is kept, and some packages have to be unpacked again.
fn make_cold(case: &Case, random: &mut Random) {
    case.forget_stages();
    for entry in std::fs::read_dir(case.cache.join("unpacked")).unwrap() {
        let path = entry.unwrap().path();
        // The kernel's is the largest and takes the longest; it goes sometimes, as the others do.
        if random.below(4) == 0 {
            std::fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_build_that_is_killed_at_any_moment_does_no_harm() {
    let Some(built) = built() else { return };
    let mut random = Random::new();
    let case = Case::of(built).with_own_cache();
    // What lies there before: another version.
    case.edit("version = \"1\"", "version = \"0\"");
    let _ = case.build(&["--locked"]).ok();
    let old = case.path("old");
    std::fs::rename(case.out(), &old).unwrap();
    case.edit("version = \"0\"", "version = \"1\"");

    let start = Instant::now();
    make_cold(&case, &mut random);
    let _ = case.build(&["--locked"]).ok();
    assert_same(&built.out, &case.out(), "not killed");
    let whole = start.elapsed();
    let (mut killed, mut finished) = (0, 0);
    for round in 0..rounds() {
        std::fs::remove_dir_all(case.out()).unwrap();
        let before = round % 2 == 1;
        if before {
            folders::copy(&old, &case.out());
        }
        if round % 3 == 2 {
            case.forget_stages();
        } else {
            make_cold(&case, &mut random);
        }
        // A build with all packages unpacked takes a part of the time of one that unpacks: both halves are reached.
        let limit = u64::try_from(whole.as_micros()).unwrap() / if round % 3 == 2 { 3 } else { 1 };
        let moment = Duration::from_micros(random.below(limit));
        let mut command = case.build_command(&["--offline", "--locked"]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let what = format!("round {round}, killed after {moment:?} of {whole:?}");
        if status.code().is_none() {
            killed += 1;
        } else {
            assert!(status.success(), "{what}: {status}");
            finished += 1;
        }
        // The old release, the new one, or none; a folder that waits to be renamed is no output.
        let out = case.out();
        if out.exists() {
            let is = |release: &Path| release_difference(release, &out).is_none();
            assert!(is(&built.out) || (before && is(&old)), "{what}: a half release");
        } else {
            assert!(!before, "{what}: the old release is gone");
        }
        let run = case.build(&["--locked"]);
        assert_eq!(run.code, Some(0), "{what}: {run}");
        assert!(
            !run.stderr.contains("damaged"),
            "{what} left a damaged file under a name of the cache: {run}"
        );
        assert_same(&built.out, &out, &what);
        for folder in leftovers(&case) {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
    eprintln!("{killed} builds were killed, {finished} had ended before");
    assert!(killed * 2 > rounds(), "only {killed} builds were killed before their end");
    // What they left in the cache for nobody is gone.
    let left: Vec<_> =
        std::fs::read_dir(case.cache.join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.iter().all(|path| path.extension().is_some_and(|ending| ending == "lock")), "{left:?}");
}
