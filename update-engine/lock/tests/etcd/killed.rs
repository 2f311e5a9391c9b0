//! A client that is killed between any two steps, before or after etcd has done what it asked.

use crate::cluster::Cluster;
use crate::inside::inside;
use ashlar_lock::attempt::Watch;
use ashlar_lock::{
    Change, Event, Group, HolderId, Lock, LockError, Refusal, Request, Snapshot, Store, StoreError, Turn,
};
use std::time::Duration;

/// Dies at a step.
struct Mortal<'a, S> {
    store: &'a mut S,
    /// Steps until the end; whether the last one is still done.
    left: u32,
    done: bool,
}

impl<S> Mortal<'_, S> {
    fn step<T>(&mut self, act: impl FnOnce(&mut S) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // Not to be mistaken for a store that comes back.
        let dead = || StoreError::Refused("dead".into());
        match self.left {
            0 => Err(dead()),
            1 => {
                self.left = 0;
                if self.done {
                    let _ = act(self.store);
                }
                Err(dead())
            }
            _ => {
                self.left -= 1;
                act(self.store)
            }
        }
    }
}

impl<S: Store> Store for Mortal<'_, S> {
    fn read(&mut self, group: &Group) -> Result<Snapshot, StoreError> {
        self.step(|store| store.read(group))
    }

    fn commit(&mut self, group: &Group, change: &Change) -> Result<Option<i64>, StoreError> {
        self.step(|store| store.commit(group, change))
    }

    fn enqueue(&mut self, group: &Group, id: &HolderId, ttl: Duration) -> Result<(), StoreError> {
        self.step(|store| store.enqueue(group, id, ttl))
    }

    fn leave(&mut self, group: &Group, id: &HolderId) -> Result<(), StoreError> {
        self.step(|store| store.leave(group, id))
    }

    fn keep_alive(&mut self, group: &Group, id: &HolderId, ttl: Duration) -> Result<(), StoreError> {
        self.step(|store| store.keep_alive(group, id, ttl))
    }

    fn wait(
        &mut self,
        group: &Group,
        watch: &Watch,
        revision: i64,
        timeout: Duration,
    ) -> Result<bool, StoreError> {
        self.step(|store| store.wait(group, watch, revision, timeout))
    }

    fn history(&mut self, group: &Group) -> Result<Vec<(u64, Event)>, StoreError> {
        self.step(|store| store.history(group))
    }
}

/// A whole visit; where it dies, whoever comes back with the same machine ID, and with its token or without, must be able to
/// clean up.
fn visit<S: Store>(lock: &mut Lock<S>, id: &HolderId, request: &Request) -> Result<(), LockError> {
    let granted = lock.step(request, &mut Turn::default(), Duration::from_millis(10))?;
    if !lock.holds(id, &granted)? {
        return Err(Refusal::NotHeld.into());
    }
    lock.fail(id, &granted.token, "only for the test")?;
    lock.unlock(id, Some(&granted.token), false, "done").map(drop)
}

#[test]
fn a_client_that_dies_leaves_nothing_that_cannot_be_mended() {
    if !inside("killed::a_client_that_dies_leaves_nothing_that_cannot_be_mended") {
        return;
    }
    let cluster = Cluster::start(1);
    let group: Group = "killed".parse().unwrap();
    let mut whole = cluster.lock("killed");
    whole.set_stale(Some(ashlar_lock::Stale { after: 60, automatic: true })).unwrap();
    let id: HolderId = "mortal".parse().unwrap();
    let other: HolderId = "other".parse().unwrap();
    let mut deaths = 0;
    for done in [false, true] {
        for steps in 1.. {
            let request = Request::new(id.clone(), "test");
            let mortal = Mortal { store: whole.store(), left: steps, done };
            let result = visit(&mut Lock::new(mortal, group.clone()), &id, &request);
            let lives = result.is_ok();
            if !lives {
                deaths += 1;
                // With its token it finds what it has.
                let seen = whole.read().unwrap();
                let held = seen.semaphore.holder("mortal").is_some();
                assert!(seen.semaphore.holders.len() <= 1);
                if held {
                    let refused = whole.try_lock(&Request::new(other.clone(), "x"), false).unwrap_err();
                    assert_eq!(refused, LockError::Refused(Refusal::Full), "died at step {steps}");
                    if steps % 2 == 0 {
                        // It has failed perhaps; the same wish or a new one gets the same place.
                        whole.try_lock(&Request::new(id.clone(), "again"), false).unwrap();
                    }
                }
                whole.unlock_if_held(&id, false, "mended").unwrap();
            }
            whole.leave(&id).unwrap();
            let seen = whole.read().unwrap();
            assert_eq!((seen.semaphore.holders.len(), seen.waiting.len()), (0, 0), "died at step {steps}");
            whole.try_lock(&Request::new(other.clone(), "x"), true).unwrap();
            whole.unlock(&other, None, false, "x").unwrap();
            if lives {
                assert!(steps > 6, "a visit has more steps than {steps}");
                break;
            }
        }
    }
    let history = whole.history().unwrap();
    let numbers: Vec<u64> = history.iter().map(|(number, _)| *number).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no event is missing: {numbers:?}");
    let count = |what: &str| history.iter().filter(|(_, event)| event.what == what).count();
    assert_eq!(count("freed"), 0, "nobody was gone");
    assert!(deaths > 16, "{deaths}");
    eprintln!("died {deaths} times, {} events", history.len());
}

#[test]
fn a_machine_that_is_gone_is_freed_as_the_group_says() {
    if !inside("killed::a_machine_that_is_gone_is_freed_as_the_group_says") {
        return;
    }
    let cluster = Cluster::start(1);
    let (mut lock, id) = (cluster.lock("gone"), "dead".parse::<HolderId>().unwrap());
    let other: HolderId = "other".parse().unwrap();
    lock.set_stale(Some(ashlar_lock::Stale { after: 60, automatic: false })).unwrap();
    lock.try_lock(&Request::new(id.clone(), "update"), false).unwrap();
    assert!(lock.gone().unwrap().is_empty(), "it was heard of");
    // Its lease ends at once instead of in a minute: etcd's clock is what counts.
    cluster.etcdctl(&format!("del {}", lock.group().key("alive/dead")));
    assert_eq!(lock.gone().unwrap()[0].id, "dead");
    let want = Request::new(other.clone(), "update");
    assert_eq!(
        lock.try_lock(&want, false).unwrap_err(),
        LockError::Refused(Refusal::Full),
        "an operator decides"
    );
    lock.set_stale(Some(ashlar_lock::Stale { after: 60, automatic: true })).unwrap();
    // The new bound counts from when it was set.
    assert_eq!(lock.try_lock(&want, false).unwrap_err(), LockError::Refused(Refusal::Full));
    cluster.etcdctl(&format!("del {}", lock.group().key("alive/dead")));
    lock.try_lock(&want, false).unwrap();
    let seen = lock.read().unwrap();
    assert_eq!(seen.semaphore.holders.iter().map(|holder| holder.id.as_str()).collect::<Vec<_>>(), ["other"]);
    let history = lock.history().unwrap();
    let freed = &history.iter().find(|(_, event)| event.what == "freed").unwrap().1;
    assert_eq!(freed.id.as_deref(), Some("dead"));
    assert!(freed.detail.starts_with("by other: silent for 60 s or more"), "{}", freed.detail);
    // Should it come back, it knows.
    assert!(!lock.holds(&id, &ashlar_lock::Granted { token: "any".into(), revision: 0 }).unwrap());
}
