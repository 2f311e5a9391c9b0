//! Whatever happens to etcd, the network and the clocks: never more holders than places, no unlock is lost, nobody waits for ever.

use crate::cluster::{Cluster, lock};
use crate::inside::inside;
use crate::relay::{Delay, relay};
use ashlar_lock::{LockError, Refusal, Request, Semaphore, StoreError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PLACES: u32 = 3;
const CLIENTS: usize = 10;
const GROUP: &str = "prod/database";
/// What the clients' clock is off by, in seconds.
static OFF: AtomicI64 = AtomicI64::new(0);

fn clock() -> i64 {
    ashlar_lock::now() + OFF.load(Ordering::Relaxed)
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// Inside of what the lock protects.
    inside: AtomicU32,
    most: AtomicU32,
    grants: AtomicU64,
    tries: AtomicU64,
    /// Most grants to others that somebody saw go by, while nothing was wrong.
    passed: AtomicU64,
    /// Counts the beginnings and ends of faults: odd while there is one.
    fault: AtomicU64,
    longest: Mutex<Duration>,
    unavailable: AtomicU64,
}

/// One client: takes a place, checks the fence, is inside, gives the place back.
fn client(number: usize, endpoints: &[String], shared: &Shared) -> u64 {
    let mut lock = lock(endpoints, GROUP).with_clock(clock);
    let id: ashlar_lock::HolderId = format!("client{number}").parse().unwrap();
    let mut served = 0;
    let mut request = Request::new(id.clone(), "test");
    let began =
        || (Instant::now(), shared.grants.load(Ordering::SeqCst), shared.fault.load(Ordering::SeqCst));
    let (mut since, mut before, mut fault) = began();
    while !shared.stop.load(Ordering::Relaxed) {
        shared.tries.fetch_add(1, Ordering::Relaxed);
        let granted = match lock.lock(&request, Instant::now() + Duration::from_secs(5)) {
            Ok(granted) => granted,
            Err(LockError::Store(StoreError::Damaged { .. })) => panic!("the semaphore is damaged"),
            Err(error) => {
                if !error.is_waiting() {
                    shared.unavailable.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                }
                // It may hold a place without knowing: the same wish again finds out.
                continue;
            }
        };
        if lock.holds(&id, &granted).unwrap_or(false) {
            let passed = shared.grants.fetch_add(1, Ordering::SeqCst) - before;
            if fault % 2 == 0 && fault == shared.fault.load(Ordering::SeqCst) {
                shared.passed.fetch_max(passed, Ordering::SeqCst);
            }
            let mut longest = shared.longest.lock().unwrap();
            *longest = longest.max(since.elapsed());
            drop(longest);
            let now = shared.inside.fetch_add(1, Ordering::SeqCst) + 1;
            shared.most.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(served % 7));
            shared.inside.fetch_sub(1, Ordering::SeqCst);
            served += 1;
        }
        release(&mut lock, &id, &granted.token, shared);
        request = Request::new(id.clone(), "test");
        (since, before, fault) = began();
    }
    // What it may have and does not know of.
    let until = Instant::now() + Duration::from_secs(60);
    while lock.unlock_if_held(&id, false, "the end").is_err() {
        assert!(Instant::now() < until, "it cannot give its place back");
    }
    lock.leave(&id).unwrap();
    served
}

fn release<S: ashlar_lock::Store>(
    lock: &mut ashlar_lock::Lock<S>,
    id: &ashlar_lock::HolderId,
    token: &str,
    shared: &Shared,
) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match lock.unlock(id, Some(token), false, "done") {
            // Not held: an earlier attempt without an answer was made after all.
            Ok(_) | Err(LockError::Refused(Refusal::NotHeld)) => return,
            Err(LockError::Refused(refusal)) => panic!("{refusal}"),
            Err(_) => {
                shared.unavailable.fetch_add(1, Ordering::Relaxed);
                assert!(Instant::now() < until, "it cannot give its place back");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// All semaphores that there ever were, as etcd itself tells them.
fn watch(
    endpoints: &[String],
    stop: &AtomicBool,
    seen: &Mutex<BTreeMap<i64, Semaphore>>,
    progress: &AtomicI64,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let key = GROUP.parse::<ashlar_lock::Group>().unwrap().key("semaphore");
    let mut member = 0;
    while !stop.load(Ordering::Relaxed) {
        member += 1;
        let endpoint = endpoints[member % endpoints.len()].clone();
        let _: Result<(), etcd_client::Error> = runtime.block_on(async {
            let options = etcd_client::ConnectOptions::new()
                .with_connect_timeout(Duration::from_secs(1))
                .with_require_leader(true)
                .with_keep_alive(Duration::from_secs(1), Duration::from_secs(1));
            let mut client = etcd_client::Client::connect([endpoint], Some(options)).await?;
            let from = progress.load(Ordering::SeqCst) + 1;
            let options = etcd_client::WatchOptions::new().with_start_revision(from);
            let mut stream = client.watch(key.clone(), Some(options)).await?;
            while !stop.load(Ordering::Relaxed) {
                let Ok(message) = tokio::time::timeout(Duration::from_millis(200), stream.message()).await
                else {
                    continue;
                };
                let Some(message) = message? else { return Ok(()) };
                assert_eq!(message.compact_revision(), 0, "the test has compacted what was not seen yet");
                if message.canceled() {
                    return Ok(());
                }
                for event in message.events() {
                    let kv = event.kv().unwrap();
                    let semaphore = Semaphore::parse(kv.value()).unwrap();
                    seen.lock().unwrap().insert(kv.mod_revision(), semaphore);
                    progress.fetch_max(kv.mod_revision(), Ordering::SeqCst);
                }
            }
            Ok(())
        });
    }
}

/// Looks at all semaphores in their order.
fn check(seen: &BTreeMap<i64, Semaphore>) -> (u64, u64) {
    let (mut taken, mut given) = (0, 0);
    let mut before = Semaphore::default();
    for (revision, now) in seen {
        let old: Vec<&str> = before.holders.iter().map(|holder| holder.token.as_str()).collect();
        let new: Vec<&str> = now.holders.iter().map(|holder| holder.token.as_str()).collect();
        let added: Vec<&&str> = new.iter().filter(|token| !old.contains(token)).collect();
        if !added.is_empty() {
            assert!(new.len() <= now.max as usize, "at revision {revision}: {now:?}");
        }
        assert!(now.changes > before.changes, "at revision {revision} a change was lost");
        taken += added.len() as u64;
        given += old.iter().filter(|token| !new.contains(token)).count() as u64;
        before = now.clone();
    }
    assert!(before.holders.is_empty(), "an unlock was lost: {before:?}");
    (taken, given)
}

/// A number from a seed (SplitMix64).
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn some_time(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// Fills the database until etcd refuses writes; then nobody may get a place, and what is there can still be read.
fn fill(cluster: &Cluster) {
    let mut reader = cluster.lock(GROUP);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let filled = runtime.block_on(async {
        let mut client = etcd_client::Client::connect(cluster.endpoints(), None).await.unwrap();
        for number in 0..200 {
            if let Err(error) = client.put(format!("fill/{}", number % 4), vec![7; 1 << 20], None).await {
                return error.to_string();
            }
        }
        String::new()
    });
    assert!(filled.contains("database space exceeded"), "{filled}");
    let id: ashlar_lock::HolderId = "late".parse().unwrap();
    let refused = reader.try_lock(&Request::new(id, "full"), false).unwrap_err();
    assert!(!matches!(refused, LockError::Contended), "{refused}");
    reader.read().unwrap();
}

/// Room is made again, as an operator does it.
fn make_room(cluster: &Cluster, progress: &AtomicI64) {
    cluster.etcdctl("del --prefix fill/");
    cluster.etcdctl(&format!("compact {}", progress.load(Ordering::SeqCst)));
    // What the keys needed is free only when the revisions with them are gone: the watch has seen all by now.
    let until = Instant::now() + Duration::from_secs(20);
    while progress.load(Ordering::SeqCst) == 0 && Instant::now() < until {
        some_time(50);
    }
    cluster.etcdctl("defrag");
    let disarmed = cluster.etcdctl("alarm disarm");
    assert!(disarmed.contains("NOSPACE"), "no alarm was there: {disarmed}");
}

#[test]
fn whatever_happens() {
    if !inside("faults::whatever_happens") {
        return;
    }
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64
    });
    eprintln!("SEED={seed}");
    let mut random_state = seed;
    let mut cluster = Cluster::start(3);
    cluster.lock(GROUP).set_max(PLACES).unwrap();
    let shared = Arc::new(Shared::default());
    let delay = Delay::default();
    let relays: Vec<String> = cluster.endpoints().iter().map(|target| relay(target, &delay)).collect();
    let (seen, progress) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicI64::new(0)));
    let watched = Arc::new(AtomicBool::new(false));
    let watcher = {
        let (endpoints, watched, seen, progress) =
            (cluster.endpoints(), watched.clone(), seen.clone(), progress.clone());
        std::thread::spawn(move || watch(&endpoints, &watched, &seen, &progress))
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (endpoints, shared) = (relays.clone(), shared.clone());
            std::thread::spawn(move || client(number, &endpoints, &shared))
        })
        .collect();
    some_time(3000);
    let calm = shared.grants.load(Ordering::SeqCst);
    assert!(calm > 20, "without faults there are places: {calm}");
    for round in 0..10 {
        let before = shared.grants.load(Ordering::SeqCst);
        let leader = cluster.leader().unwrap_or(0);
        let victim = if round % 2 == 0 { leader } else { (leader + 1) % 3 };
        let long = 500 + random(&mut random_state) % 1500;
        shared.fault.fetch_add(1, Ordering::SeqCst);
        let what = match round {
            0 | 1 => {
                cluster.kill(victim);
                some_time(long);
                cluster.run(victim);
                "killed"
            }
            2 | 3 => {
                cluster.plug(victim, "down");
                some_time(long);
                cluster.plug(victim, "up");
                "unplugged"
            }
            4 | 5 => {
                // Its clients are on the side of the minority.
                cluster.split(victim);
                some_time(long);
                cluster.join(victim);
                "split from the others"
            }
            6 => {
                cluster.pause(victim);
                some_time(long);
                cluster.go_on(victim);
                "stopped for a while"
            }
            7 => {
                for step in [86_400 * 365, -86_400 * 365 * 10, 3, 0] {
                    OFF.store(step, Ordering::Relaxed);
                    some_time(300);
                }
                cluster.etcdctl(&format!("compact {}", progress.load(Ordering::SeqCst)));
                "clocks stepped, history compacted"
            }
            8 => {
                delay.store(40 + random(&mut random_state) % 100, Ordering::Relaxed);
                some_time(long + 1000);
                delay.store(0, Ordering::Relaxed);
                "slow network"
            }
            _ => {
                fill(&cluster);
                some_time(500);
                make_room(&cluster, &progress);
                "disk full"
            }
        };
        cluster.ready();
        shared.fault.fetch_add(1, Ordering::SeqCst);
        let until = Instant::now() + Duration::from_secs(40);
        let back = shared.grants.load(Ordering::SeqCst);
        while shared.grants.load(Ordering::SeqCst) < back + 7 * CLIENTS as u64 {
            assert!(Instant::now() < until, "after `{what}` nobody gets a place any more");
            some_time(50);
        }
        eprintln!("m{victim} {what}: {} grants meanwhile", back - before);
    }
    shared.stop.store(true, Ordering::Relaxed);
    let served: Vec<u64> = clients.into_iter().map(|thread| thread.join().unwrap()).collect();
    let last = cluster.lock(GROUP).read().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while progress.load(Ordering::SeqCst) < last.changed {
        assert!(Instant::now() < until, "the watch does not come to the end");
        some_time(50);
    }
    watched.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    let (taken, given) = check(&seen.lock().unwrap());
    let most = shared.most.load(Ordering::SeqCst);
    let passed = shared.passed.load(Ordering::SeqCst);
    eprintln!(
        "{} semaphores, {taken} taken, {given} given back, {} tries, {} without an answer, at most {most} inside of {PLACES}, \
         at most {passed} passed by, longest wait {:?}, served {served:?}",
        seen.lock().unwrap().len(),
        shared.tries.load(Ordering::Relaxed),
        shared.unavailable.load(Ordering::Relaxed),
        shared.longest.lock().unwrap()
    );
    assert_eq!(taken, given);
    assert!(most <= PLACES, "{most} were inside");
    assert!(most == PLACES, "the places were never all taken: the test shows nothing");
    assert!(taken > 700, "{taken}");
    assert!(served.iter().all(|served| *served > 20), "somebody starves: {served:?}");
    // In the order of coming: those before it in the queue, those inside, and who came before it stood there.
    assert!(passed > 0 && passed <= 3 * CLIENTS as u64, "{passed} were let in before one that waited");
    assert!(*shared.longest.lock().unwrap() < Duration::from_secs(60));
}
