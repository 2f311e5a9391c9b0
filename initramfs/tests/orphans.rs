//! Ten thousand orphans fall to the process that takes PID 1's place. It is a test program of its own because it
//! collects every child of its process.

use ashlar_image::manifest::Manifest;
use ashlar_init::journal::Journal;
use ashlar_init::supervision::{REAP_BATCH, Supervisor};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How many.
const ORPHANS: usize = 10_000;
/// How many end at the same time.
const BURST: usize = 1000;
/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
#[expect(clippy::zombie_processes, reason = "the supervisor collects them")]
fn ten_thousand_orphans_are_collected_a_few_at_a_time() {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).unwrap();
    let text = r#"{"image_id":"a","image_version":"1","hostname":"a","build_time":0,"security_version":1}"#;
    let manifest: Manifest = serde_json::from_str(text).unwrap();
    let mut supervisor = Supervisor::new(&manifest, Duration::ZERO);
    let mut journal = Journal::new(1 << 20);

    let begin = Instant::now();
    let mut turns = 0;
    // Collects until so many have ended.
    let mut collect = |count: usize| {
        let mut collected = 0;
        while collected < count {
            assert!(begin.elapsed() < DEADLINE, "{collected} of {count} after {turns} turns");
            let ended = supervisor.reap(begin.elapsed(), &mut journal);
            assert!(ended.len() <= REAP_BATCH);
            if ended.len() == REAP_BATCH {
                // The loop comes back at once, whether or not another signal comes.
                assert_eq!(supervisor.deadline(), Some(Duration::ZERO));
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
            collected += ended.len();
            turns += 1;
        }
        assert_eq!(collected, count);
    };
    // Each time a shell leaves children behind that all end when the pipe is closed, after it has ended itself.
    let script = format!("exec 3<&0; i=0; while [ $i -lt {BURST} ]; do (read x <&3) & i=$((i+1)); done");
    for _ in 0..ORPHANS / BURST {
        let mut shell = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
        collect(1);
        drop(shell.stdin.take());
        collect(BURST);
    }
    assert!(turns >= ORPHANS / REAP_BATCH, "{turns}");
    assert!(supervisor.reap(begin.elapsed(), &mut journal).is_empty());
    assert_eq!(supervisor.deadline(), None);
}
