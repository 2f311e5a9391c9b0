//! The reboot lock: no more machines of a group are down at once than the group allows.
//!
//! A group has a semaphore in etcd: how many may be down, and who is. It is changed only by transactions that compare
//! its revision, so whatever the network, the clocks and the machines do, there are never more holders than places.
//! [`semaphore`] is the state and what may become of it, without any I/O; [`attempt`] decides what a machine does next;
//! [`etcd`] keeps it; [`client`] drives both. Who waits stands in a queue, in the order of coming, and is told by a watch.

pub mod attempt;
pub mod client;
pub mod etcd;
pub mod fleetlock;
pub mod names;
pub mod semaphore;
pub mod store;

pub use client::{Granted, Lock, LockError, Request, Turn};
pub use etcd::{Etcd, EtcdOptions};
pub use names::{Group, HolderId};
pub use semaphore::{Event, Gate, Holder, Refusal, Semaphore, Stale};
pub use store::{Change, Snapshot, Store, StoreError};

/// Seconds since 1970 by the machine's clock: for people only, nothing is decided by it.
#[must_use]
pub fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
