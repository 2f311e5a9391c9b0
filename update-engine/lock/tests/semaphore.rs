//! The semaphore by itself: the cases of locksmith's own tests, and what must hold whatever is done to it.

use ashlar_lock::semaphore::{Gate, Holder, MAX_PLACES, Refusal, Semaphore, Stale};
use proptest::prelude::*;

fn holder(id: &str, token: u32, to: Option<&str>) -> Holder {
    Holder {
        id: id.into(),
        token: token.to_string(),
        since: 5,
        reason: "test".into(),
        from: Some("1.0".into()),
        to: to.map(str::to_owned),
        deadline: None,
        failure: None,
    }
}

#[test]
fn as_in_locksmith() {
    let mut semaphore = Semaphore::default();
    assert_eq!((semaphore.max, semaphore.available()), (1, 1));
    semaphore.lock(holder("a", 1, None), 0).unwrap();
    assert_eq!(semaphore.lock(holder("b", 1, None), 0).unwrap_err().to_string(), "semaphore is at 0");
    assert_eq!(semaphore.unlock("b", None, false, "", 0).unwrap_err().to_string(), "holder does not exist");
    semaphore.unlock("a", None, false, "", 0).unwrap();
    semaphore.set_max(3, 0).unwrap();
    for id in ["c", "b", "a"] {
        semaphore.lock(holder(id, 1, None), 0).unwrap();
    }
    assert_eq!(semaphore.available(), 0);
    // Its set-max with one holder left: the number of free places follows, and never falls below zero.
    semaphore.unlock("a", None, false, "", 0).unwrap();
    semaphore.unlock("b", None, false, "", 0).unwrap();
    for max in [1, 2, 3, 7, MAX_PLACES] {
        semaphore.set_max(max, 0).unwrap();
        assert_eq!(semaphore.available(), max - 1);
    }
    for bad in [0, MAX_PLACES + 1, u32::MAX] {
        assert_eq!(semaphore.set_max(bad, 0), Err(Refusal::Max(bad)));
    }
    // What locksmith did not know: the holder asks again and keeps its place and the time of the first.
    let again = Holder { since: 9, ..holder("c", 2, None) };
    semaphore.set_max(1, 0).unwrap();
    semaphore.lock(again, 0).unwrap();
    assert_eq!(semaphore.holders, [holder("c", 2, None)]);
    assert_eq!(semaphore.unlock("c", Some("1"), false, "", 0), Err(Refusal::Another));
    semaphore.unlock("c", Some("2"), false, "", 0).unwrap();
}

#[test]
fn a_bad_release_stops_and_another_goes_on() {
    let mut semaphore = Semaphore { max: 10, ..Semaphore::default() };
    semaphore.set_gate(Some(Gate { share: 0.25, at_least: 4 }), 0).unwrap();
    for (number, good) in [true, false, true, true].into_iter().enumerate() {
        let id = format!("m{number}");
        semaphore.lock(holder(&id, 1, Some("1.1")), 0).unwrap();
        if good {
            semaphore.unlock(&id, Some("1"), true, "", 0).unwrap();
        } else {
            let event = semaphore.fail(&id, "1", "no network", 0).unwrap().unwrap();
            assert_eq!((event.what.as_str(), event.detail.as_str()), ("failed", "release 1.1: no network"));
            assert_eq!(semaphore.fail(&id, "1", "no network", 0), Ok(None), "told twice, counted once");
        }
    }
    // One of four is not more than a quarter; the next failure is.
    semaphore.lock(holder("m4", 1, Some("1.1")), 0).unwrap();
    let event = semaphore.fail("m4", "1", "panic", 0).unwrap().unwrap();
    assert!(
        event.detail.ends_with("the release is stopped: 2 of 5 machines have failed"),
        "{}",
        event.detail
    );
    let refused = semaphore.lock(holder("m5", 1, Some("1.1")), 0).unwrap_err();
    assert_eq!(refused.to_string(), "release 1.1 is stopped in this group: 2 of 5 machines have failed");
    // The one that mends it gets a place; so does a restart without a release, and the failed machine itself.
    semaphore.lock(holder("m5", 1, Some("1.2")), 0).unwrap();
    semaphore.lock(holder("m6", 1, None), 0).unwrap();
    semaphore.lock(holder("m4", 2, Some("1.2")), 0).unwrap();
    assert_eq!(semaphore.holder("m4").unwrap().failure, None);
    semaphore.resume(Some("1.2"), 0).unwrap_err();
    semaphore.resume(None, 0).unwrap();
    semaphore.lock(holder("m7", 1, Some("1.1")), 0).unwrap();
    assert_eq!(semaphore.resume(None, 0), Err(Refusal::NotStopped));
    for bad in [
        Gate { share: 1.0, at_least: 1 },
        Gate { share: -0.1, at_least: 1 },
        Gate { share: f64::NAN, at_least: 1 },
        Gate { share: 0.1, at_least: 0 },
    ] {
        assert!(semaphore.set_gate(Some(bad), 0).is_err());
    }
    for bad in [0, 59, 30 * 86_400 + 1] {
        assert!(semaphore.set_stale(Some(Stale { after: bad, automatic: true }), 0).is_err());
    }
}

#[test]
fn what_is_stored_is_looked_at() {
    let mut semaphore = Semaphore::default();
    semaphore.lock(holder("a", 1, Some("1.1")), 7).unwrap();
    semaphore.fail("a", "1", &"x".repeat(10_000), 0).unwrap();
    let text = serde_json::to_vec(&semaphore).unwrap();
    assert!(text.len() < 2000, "texts are bounded");
    assert_eq!(Semaphore::parse(&text).unwrap(), semaphore);
    for (bad, why) in [
        (&b""[..], "damaged"),
        (b"{\"version\":2,\"max\":1}", "version 2"),
        (b"{\"version\":1,\"max\":0}", "max must be"),
        (b"{\"version\":1,\"max\":-1}", "damaged"),
        (br#"{"version":1,"max":2,"holders":[{"id":"a","token":"","since":0},{"id":"a","token":"","since":0}]}"#, "twice"),
    ] {
        assert!(Semaphore::parse(bad).unwrap_err().contains(why), "{why}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Lock(u8, u32, Option<u8>),
    Unlock(u8, Option<u32>),
    Free(u8, u32),
    Fail(u8, u32),
    Max(u32),
    Resume,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..12, 0u32..3, prop::option::of(0u8..3)).prop_map(|(id, token, to)| Step::Lock(id, token, to)),
        3 => (0u8..12, prop::option::of(0u32..3)).prop_map(|(id, token)| Step::Unlock(id, token)),
        1 => (0u8..12, 0u32..3).prop_map(|(id, token)| Step::Free(id, token)),
        1 => (0u8..12, 0u32..3).prop_map(|(id, token)| Step::Fail(id, token)),
        1 => (0u32..6).prop_map(Step::Max),
        1 => Just(Step::Resume),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn nobody_gets_a_place_that_is_not_there(steps in steps()) {
        let mut semaphore = Semaphore::default();
        semaphore.set_gate(Some(Gate { share: 0.5, at_least: 2 }), 0).unwrap();
        for step in steps {
            let before = semaphore.clone();
            let result = match &step {
                Step::Lock(id, token, to) => {
                    let to = to.map(|to| format!("1.{to}"));
                    semaphore.lock(holder(&id.to_string(), *token, to.as_deref()), 0).map(|_| ())
                }
                Step::Unlock(id, token) => {
                    let token = token.map(|token| token.to_string());
                    semaphore.unlock(&id.to_string(), token.as_deref(), true, "", 0).map(|_| ())
                }
                Step::Free(id, token) => semaphore.free(&id.to_string(), &token.to_string(), "x", 0).map(|_| ()),
                Step::Fail(id, token) => semaphore.fail(&id.to_string(), &token.to_string(), "x", 0).map(|_| ()),
                Step::Max(max) => semaphore.set_max(*max, 0).map(|_| ()),
                Step::Resume => semaphore.resume(None, 0).map(|_| ()),
            };
            if result.is_err() {
                prop_assert_eq!(&semaphore, &before, "what is refused changes nothing");
            }
            // Holders become more only where a place was free; a smaller max leaves those that are there.
            if semaphore.holders.len() > before.holders.len() {
                prop_assert!(before.available() > 0);
                prop_assert!(semaphore.holders.len() <= semaphore.max as usize);
            }
            prop_assert!(semaphore.changes >= before.changes && semaphore.changes <= before.changes + 1);
            prop_assert_eq!(Semaphore::parse(&serde_json::to_vec(&semaphore).unwrap()).unwrap(), semaphore.clone());
        }
    }
}
