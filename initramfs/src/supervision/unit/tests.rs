use super::*;
use proptest::prelude::*;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const TICK: Event = Event::Tick { may_start: true };

fn rules(restart: Restart) -> Rules {
    Rules::new(restart, &Supervision::default())
}

fn started_with(rules: Rules) -> Unit {
    let (unit, action) = Unit::new(rules, true, at(0)).step(TICK, at(0));
    assert_eq!(action, Some(Action::Start));
    unit
}

fn started(restart: Restart) -> Unit {
    started_with(rules(restart))
}

fn ended(unit: Unit, exit: Exit, now: Duration) -> Unit {
    let (unit, action) = unit.step(Event::Ended(exit), now);
    assert_eq!(action, Some(Action::Kill));
    unit
}

#[test]
fn pauses_double_up_to_a_minute_and_fall_back() {
    let mut unit = started(Restart::Always);
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        unit = ended(unit, Exit::Status(1), now);
        let next = unit.deadline(true).unwrap();
        assert_eq!(unit.deadline(false), None);
        pauses.push(next.saturating_sub(now).as_secs());
        let (same, action) = unit.step(TICK, next.saturating_sub(Duration::from_nanos(1)));
        assert_eq!(action, None, "too early");
        let (same, action) = same.step(Event::Tick { may_start: false }, next);
        assert_eq!(action, None, "something is missing");
        let (again, action) = same.step(TICK, next);
        assert_eq!(action, Some(Action::Start));
        (unit, now) = (again, next);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(unit.starts, 9);
    assert!(unit.problem(now).unwrap().contains("started 3 times and more"), "{:?}", unit.problem(now));
    assert_eq!(unit.problem(now + REMEMBERED), None);
    let unit = ended(unit, Exit::Signal(11), now + at(60));
    assert_eq!(unit.deadline(true), Some(now + at(61)));
}

#[test]
fn the_policy_decides() {
    for (restart, exit, again) in [
        (Restart::Always, Exit::Status(0), true),
        (Restart::OnFailure, Exit::Status(0), false),
        (Restart::OnFailure, Exit::Signal(9), true),
        (Restart::OnFailure, Exit::NotStarted("x".into()), true),
        (Restart::Never, Exit::Status(1), false),
    ] {
        let unit = ended(started(restart), exit.clone(), at(1));
        assert_eq!(matches!(unit.state, State::Waiting { .. }), again, "{restart:?} {exit}");
        assert_eq!(unit.is_ready(), !again && exit.is_success());
        assert_eq!(unit.problem(at(1)).is_some(), again || !exit.is_success(), "{restart:?} {exit}");
        assert_eq!(unit.last_exit, Some(exit));
    }
}

#[test]
fn stopping_asks_first_and_kills_then() {
    let (unit, action) = started(Restart::Always).step(Event::Stop, at(5));
    assert_eq!(action, Some(Action::Terminate));
    assert_eq!(unit.clone().step(TICK, at(14)).1, None);
    let (killed, action) = unit.clone().step(TICK, at(15));
    assert_eq!(action, Some(Action::Kill));
    assert_eq!(killed.deadline(true), Some(at(25)), "it is tried again");
    let (killed, action) = killed.step(TICK, at(25));
    assert_eq!(action, Some(Action::Kill));
    assert!(killed.problem(at(25)).unwrap().contains("the kernel holds it"));
    let unit = ended(unit, Exit::Signal(15), at(6));
    assert_eq!(unit.state, State::Off);
    assert_eq!(unit.step(TICK, at(100)).1, None);
}

#[test]
fn what_is_not_ready_in_time_has_failed() {
    let supervision =
        Supervision { ready: Readiness::Notify, start_timeout: 5, watchdog: Some(3), ..Default::default() };
    let unit = started_with(Rules::new(Restart::Always, &supervision));
    assert!(matches!(unit.state, State::Starting { .. }) && !unit.is_ready());
    let (late, action) = unit.clone().step(TICK, at(5));
    assert_eq!(action, Some(Action::Terminate));
    let late = ended(late, Exit::Signal(15), at(6));
    assert_eq!(late.last_exit, Some(Exit::NotReady(at(5))));
    assert_eq!(late.state, State::Waiting { until: at(7) });
    // It also fails when it ends well before it is ready.
    let early = ended(unit.clone(), Exit::Status(0), at(1));
    assert_eq!(early.state, State::Waiting { until: at(2) });

    let (ready, _) = unit.step(Event::Ready, at(4));
    assert!(ready.is_ready());
    assert_eq!(ready.deadline(true), Some(at(7)));
    let (alive, _) = ready.step(Event::Alive, at(6));
    assert_eq!(alive.clone().step(TICK, at(8)).1, None);
    let (hung, action) = alive.clone().step(TICK, at(9));
    assert_eq!(action, Some(Action::Kill));
    assert_eq!(ended(hung, Exit::Signal(9), at(9)).last_exit, Some(Exit::Hung));
    assert_eq!(alive.step(Event::Hangs, at(7)).1, Some(Action::Kill));
}

#[test]
fn what_starts_too_often_is_given_up_until_somebody_starts_it() {
    let supervision =
        Supervision { start_limit: Some(StartLimit { count: 3, interval: 60 }), ..Default::default() };
    let mut unit = Unit::new(Rules::new(Restart::Always, &supervision), true, at(0));
    let mut now = at(0);
    for _ in 0..3 {
        let (next, action) = unit.step(TICK, now);
        assert_eq!(action, Some(Action::Start));
        unit = ended(next, Exit::Status(1), now);
        now = unit.deadline(true).unwrap();
    }
    let (unit, action) = unit.step(TICK, now);
    assert_eq!((action, unit.state), (None, State::Failed));
    assert_eq!(unit.problem(now).unwrap(), "given up after 3 starts, the last time: exit status 1");
    let (unit, _) = unit.step(Event::Start, now);
    assert_eq!(unit.step(TICK, now).1, Some(Action::Start));
}

#[test]
fn a_restart_is_a_stop_and_a_start() {
    let (unit, action) = started(Restart::Never).step(Event::Restart, at(5));
    assert_eq!(action, Some(Action::Terminate));
    let unit = ended(unit, Exit::Signal(15), at(6));
    assert_eq!(unit.state, State::Waiting { until: at(6) });
    let (unit, _) = unit.step(TICK, at(6));
    // A stop wins over a restart that is under way, and a start over a stop.
    let (unit, _) = unit.step(Event::Restart, at(7));
    let (unit, _) = unit.step(Event::Stop, at(7));
    assert_eq!(ended(unit.clone(), Exit::Signal(15), at(8)).state, State::Off);
    let (unit, _) = unit.step(Event::Start, at(7));
    assert_eq!(ended(unit, Exit::Signal(15), at(8)).state, State::Waiting { until: at(8) });
}

#[test]
fn settled_is_up_for_a_moment_or_seen_to_fail() {
    let moment = at(2);
    assert!(!Unit::new(rules(Restart::Always), true, at(0)).has_settled(at(9), moment));
    assert!(Unit::new(rules(Restart::Always), false, at(0)).has_settled(at(0), moment));
    let unit = started(Restart::Always);
    assert!(!unit.has_settled(at(1), moment));
    assert!(unit.has_settled(at(2), moment));
    assert!(ended(unit, Exit::Status(1), at(1)).has_settled(at(1), moment));
}

proptest! {
    /// Starts and ends alternate, whatever happens; after a stop nothing is started until somebody asks for it;
    /// what runs and must end always has a time at which it is killed.
    #[test]
    fn any_history(
        limited in any::<bool>(),
        waits in any::<bool>(),
        events in proptest::collection::vec((0u8..10, 0u64..70), 1..120),
    ) {
        let supervision = Supervision {
            ready: if waits { Readiness::Notify } else { Readiness::Started },
            start_limit: limited.then_some(StartLimit { count: 2, interval: 100 }),
            watchdog: Some(30),
            ..Default::default()
        };
        let mut unit = Unit::new(Rules::new(Restart::Always, &supervision), true, at(0));
        let (mut now, mut alive, mut wanted) = (at(0), false, true);
        for (what, passed) in events {
            now += at(passed);
            let event = match what {
                0 | 1 if alive => Event::Ended(Exit::Status(i32::from(what))),
                2 => Event::Stop,
                3 => Event::Start,
                4 => Event::Restart,
                5 => Event::Ready,
                6 => Event::Alive,
                7 => Event::Hangs,
                8 => Event::Tick { may_start: false },
                _ => TICK,
            };
            match event {
                Event::Ended(_) => alive = false,
                Event::Stop => wanted = false,
                Event::Start | Event::Restart => wanted = true,
                _ => {}
            }
            let blocked = event == Event::Tick { may_start: false };
            let (next, action) = unit.step(event, now);
            unit = next;
            if action == Some(Action::Start) {
                prop_assert!(!alive && wanted && !blocked);
                alive = true;
            }
            prop_assert_eq!(unit.is_running(), alive);
            prop_assert!(wanted || alive || unit.state == State::Off);
            prop_assert!(!alive || unit.is_up() || unit.deadline(false).is_some());
            prop_assert!(unit.recent.len() <= TOO_OFTEN);
        }
    }
}
