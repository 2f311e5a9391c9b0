//! What a machine that wants a place does with what it sees. Pure: the same in a machine and in a simulation of thousands.

use crate::semaphore::{Holder, Refusal, Stale};
use crate::store::{Change, Snapshot};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// Make this change; then the place is there.
    Take(Box<Change>),
    /// The place is there already, taken with this token.
    Have,
    /// Not now.
    Wait(Refusal),
    /// Others came first; for how many places there is a queue.
    Behind,
}

/// Whether `id` has its turn: it is among the first that wait, as many as places are free. Who does not wait comes after all that do.
fn its_turn(seen: &Snapshot, id: &str, free: u32) -> bool {
    let free = usize::try_from(free).unwrap_or(usize::MAX);
    match seen.waiting.iter().position(|waiting| waiting == id) {
        Some(place) => place < free,
        None => seen.waiting.len() < free,
    }
}

/// Those that are gone: the group has a bound for silence, and their lease has run out.
pub fn gone(seen: &Snapshot) -> impl Iterator<Item = &Holder> {
    let bound = seen.semaphore.stale.is_some();
    // A machine that has failed and is back is there; one that has failed and is gone is like any other.
    seen.semaphore.holders.iter().filter(move |holder| bound && !seen.alive.contains(&holder.id))
}

/// How many of those that wait look at each change; those behind look when the one before them has gone.
const NEAR: usize = 16;

/// What to wait for, so that ten thousand that wait do not all look whenever one comes or goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Watch {
    /// Any change of the group.
    All,
    /// That this one waits no more: it is the one before, or for those far behind the last that was seen.
    Waiter(String),
}

/// What `id` waits for after it has seen this.
#[must_use]
pub fn watch(seen: &Snapshot, id: &str) -> Watch {
    let place = seen.waiting.iter().position(|waiting| waiting == id).unwrap_or(seen.waiting.len());
    match place.checked_sub(1).and_then(|before| seen.waiting.get(before)) {
        Some(before) if place >= NEAR => Watch::Waiter(before.clone()),
        _ => Watch::All,
    }
}

/// Decides. `wanted` is the place as it would be; `in_turn` respects the queue. `now` is for the history only.
#[must_use]
pub fn attempt(seen: &Snapshot, wanted: &Holder, in_turn: bool, now: i64) -> Attempt {
    let own = seen.semaphore.holder(&wanted.id);
    if own.is_some_and(|own| own.token == wanted.token && own.failure.is_none()) {
        return Attempt::Have;
    }
    let behind = |free: u32| if free == 0 { Attempt::Wait(Refusal::Full) } else { Attempt::Behind };
    // Seen at once by most of thousands that wait.
    if in_turn && own.is_none() && !its_turn(seen, &wanted.id, seen.semaphore.max) {
        return behind(seen.semaphore.available());
    }
    let mut semaphore = seen.semaphore.clone();
    let mut events = Vec::new();
    let mut freed = Vec::new();
    if let Some(Stale { automatic: true, .. }) = semaphore.stale {
        let stale: Vec<(String, String)> = gone(seen)
            .filter(|holder| holder.id != wanted.id)
            .map(|h| (h.id.clone(), h.token.clone()))
            .collect();
        for (id, token) in stale {
            if let Ok(event) = semaphore.free(&id, &token, &wanted.id, now) {
                events.push(event);
                freed.push(id);
            }
        }
    }
    if in_turn && semaphore.holder(&wanted.id).is_none() && !its_turn(seen, &wanted.id, semaphore.available())
    {
        return behind(semaphore.available());
    }
    match semaphore.lock(wanted.clone(), now) {
        Ok(event) => {
            events.push(event);
            Attempt::Take(Box::new(Change {
                from: seen.changed,
                semaphore,
                events,
                served: Some(wanted.id.clone()),
                gone: freed,
            }))
        }
        Err(refusal) => Attempt::Wait(refusal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semaphore::Semaphore;

    fn holder(id: &str) -> Holder {
        Holder {
            id: id.into(),
            token: format!("{id}-token"),
            since: 0,
            reason: "test".into(),
            from: None,
            to: Some("1.1".into()),
            deadline: None,
            failure: None,
        }
    }

    fn seen(max: u32, holders: &[&str], waiting: &[&str]) -> Snapshot {
        let semaphore =
            Semaphore { max, holders: holders.iter().map(|id| holder(id)).collect(), ..Semaphore::default() };
        let alive = holders.iter().map(|id| (*id).to_owned()).collect();
        let waiting = waiting.iter().map(|id| (*id).to_owned()).collect();
        Snapshot { semaphore, changed: 7, revision: 9, waiting, alive }
    }

    fn takes(attempt: &Attempt) -> bool {
        matches!(attempt, Attempt::Take(_))
    }

    #[test]
    fn in_the_order_of_coming() {
        let two = seen(3, &["a"], &["b", "c", "d"]);
        for (id, taken) in [("b", true), ("c", true), ("d", false), ("e", false)] {
            assert_eq!(takes(&attempt(&two, &holder(id), true, 0)), taken, "{id}");
        }
        assert_eq!(attempt(&two, &holder("d"), true, 0), Attempt::Behind);
        assert!(takes(&attempt(&two, &holder("e"), false, 0)), "an operator does not stand in the queue");
        assert_eq!(attempt(&two, &holder("a"), true, 0), Attempt::Have);
        let full = seen(1, &["a"], &["b"]);
        assert_eq!(attempt(&full, &holder("b"), true, 0), Attempt::Wait(Refusal::Full));
        assert_eq!(attempt(&full, &holder("b"), false, 0), Attempt::Wait(Refusal::Full));
        let Attempt::Take(change) = attempt(&two, &holder("b"), true, 5) else { panic!() };
        assert_eq!((change.from, change.served.as_deref()), (7, Some("b")));
        assert_eq!(change.semaphore.holders.len(), 2);
    }

    #[test]
    fn those_far_behind_do_not_look_at_each_change() {
        let ids: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        let seen = Snapshot { waiting: ids, ..seen(1, &["a"], &[]) };
        assert_eq!(watch(&seen, "0"), Watch::All);
        assert_eq!(watch(&seen, "15"), Watch::All);
        assert_eq!(watch(&seen, "16"), Watch::Waiter("15".into()));
        assert_eq!(watch(&seen, "39"), Watch::Waiter("38".into()));
        assert_eq!(watch(&seen, "far"), Watch::Waiter("39".into()));
        assert_eq!(watch(&Snapshot::default(), "x"), Watch::All);
    }

    #[test]
    fn who_has_lost_its_token_keeps_its_place() {
        let full = seen(1, &["a"], &["b"]);
        let again = Holder { token: "other".into(), since: 5, ..holder("a") };
        let Attempt::Take(change) = attempt(&full, &again, true, 5) else { panic!() };
        assert_eq!(change.semaphore.holders, [Holder { since: 0, ..again }]);
    }

    #[test]
    fn a_holder_that_is_gone() {
        let mut full = seen(1, &["a"], &[]);
        full.alive.clear();
        assert_eq!(
            attempt(&full, &holder("b"), true, 0),
            Attempt::Wait(Refusal::Full),
            "no bound for silence"
        );
        full.semaphore.stale = Some(Stale { after: 60, automatic: false });
        assert_eq!(
            attempt(&full, &holder("b"), true, 0),
            Attempt::Wait(Refusal::Full),
            "an operator frees it"
        );
        assert_eq!(gone(&full).count(), 1);
        full.semaphore.stale = Some(Stale { after: 60, automatic: true });
        full.waiting = vec!["b".into()];
        let Attempt::Take(change) = attempt(&full, &holder("b"), true, 0) else { panic!() };
        assert_eq!(change.gone, ["a"]);
        assert_eq!(
            change.events.iter().map(|event| event.what.as_str()).collect::<Vec<_>>(),
            ["freed", "locked"]
        );
        assert_eq!(change.semaphore.holders[0].id, "b");
        assert_eq!(change.semaphore.changes, 2);
        full.alive.push("a".into());
        assert_eq!(attempt(&full, &holder("b"), true, 0), Attempt::Wait(Refusal::Full), "it is there");
    }
}
