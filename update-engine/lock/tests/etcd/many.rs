//! Two hundred clients of one group.

use crate::cluster::{Cluster, lock};
use crate::inside::inside;
use ashlar_lock::Request;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const CLIENTS: u32 = 200;
const PLACES: u32 = 10;
/// How long each is inside.
const INSIDE: Duration = Duration::from_millis(700);

#[test]
fn two_hundred_machines() {
    if !inside("many::two_hundred_machines") {
        return;
    }
    let cluster = Cluster::start(3);
    cluster.lock("many").set_max(PLACES).unwrap();
    let inside = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
    let start = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (endpoints, inside) = (cluster.endpoints(), inside.clone());
            std::thread::spawn(move || {
                let mut lock = lock(&endpoints, "many");
                let id: ashlar_lock::HolderId = format!("machine{number}").parse().unwrap();
                let request = Request::new(id.clone(), "update");
                let until = Instant::now() + Duration::from_secs(240);
                let granted = loop {
                    match lock.lock(&request, until) {
                        Ok(granted) => break granted,
                        Err(error) => assert!(Instant::now() < until, "{error}"),
                    }
                };
                assert!(lock.holds(&id, &granted).unwrap());
                let now = inside.0.fetch_add(1, Ordering::SeqCst) + 1;
                inside.1.fetch_max(now, Ordering::SeqCst);
                std::thread::sleep(INSIDE);
                inside.0.fetch_sub(1, Ordering::SeqCst);
                while lock.unlock(&id, Some(&granted.token), true, "done").is_err() {
                    assert!(Instant::now() < until);
                }
            })
        })
        .collect();
    for thread in clients {
        thread.join().unwrap();
    }
    let took = start.elapsed();
    let ideal = INSIDE * CLIENTS / PLACES;
    eprintln!("{CLIENTS} clients, {PLACES} places: {took:?}, at best {ideal:?}");
    assert_eq!(inside.1.load(Ordering::SeqCst), PLACES, "all places are used, and no more");
    let seen = cluster.lock("many").read().unwrap();
    assert_eq!((seen.semaphore.holders.len(), seen.waiting.len()), (0, 0));
}
