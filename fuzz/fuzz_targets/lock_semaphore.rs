//! What lies in etcd under the key of a group, and what FleetLock clients and servers say.
#![no_main]

use ashlar_lock::attempt::{Attempt, attempt, watch};
use ashlar_lock::fleetlock::{Body, Failure, app_specific_id};
use ashlar_lock::semaphore::Holder;
use ashlar_lock::{Semaphore, Snapshot};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = serde_json::from_slice::<Body>(data);
    let _ = serde_json::from_slice::<Failure>(data);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = app_specific_id(text);
    }
    let Ok(semaphore) = Semaphore::parse(data) else { return };
    let text = serde_json::to_vec(&semaphore).expect("what was read can be written");
    assert_eq!(Semaphore::parse(&text).expect("what was written can be read"), semaphore);
    let holders = semaphore.holders.len();
    let seen = Snapshot { semaphore, waiting: vec!["x".into()], ..Snapshot::default() };
    let holder = Holder {
        id: "x".into(),
        token: "y".into(),
        since: 0,
        reason: String::new(),
        from: None,
        to: Some("1.1".into()),
        deadline: None,
        failure: None,
    };
    let _ = watch(&seen, "x");
    if let Attempt::Take(change) = attempt(&seen, &holder, true, 0) {
        let now = change.semaphore.holders.len();
        assert!(now <= holders || now <= change.semaphore.max as usize);
        assert!(change.semaphore.holder("x").is_some());
    }
});
