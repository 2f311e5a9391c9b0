use super::*;
use crate::time::packet::tests::{EARLIEST, answer};
use proptest::prelude::*;

const SECOND: Nanos = 1_000_000_000;

/// A world with a client, its clock and servers. Each server answers 10 ms after it was asked what `reply` says.
struct World {
    client: Client,
    now: Duration,
    /// How far the clock is behind the truth.
    behind: Nanos,
    stepped: Vec<Nanos>,
    slewed: Vec<Nanos>,
    asked: Vec<(Duration, usize)>,
    random: u64,
}

#[derive(Clone, Copy)]
enum Reply {
    Good,
    Off(Nanos),
    Silent,
    Kiss([u8; 4]),
    Alarm,
    Forged,
}

impl World {
    fn new(servers: &[&str], behind: Nanos) -> Self {
        let servers: Vec<String> = servers.iter().map(|name| (*name).to_owned()).collect();
        Self {
            client: Client::new(&servers, EARLIEST),
            now: Duration::from_secs(5),
            behind,
            stepped: Vec::new(),
            slewed: Vec::new(),
            asked: Vec::new(),
            random: 0,
        }
    }

    fn truth(&self) -> Nanos {
        (i128::from(EARLIEST) + 86_400) * SECOND + i128::try_from(self.now.as_nanos()).unwrap()
    }

    /// Lets `span` pass.
    fn run(&mut self, span: u64, reply: impl Fn(usize) -> Reply) {
        let end = self.now + Duration::from_secs(span);
        let mut mail: Vec<(Duration, usize, Vec<u8>)> = Vec::new();
        let mut names: Vec<usize> = Vec::new();
        loop {
            let wall = self.truth() - self.behind;
            let mut random = || {
                self.random += 0x0101_0101;
                self.random
            };
            let actions = if let Some(number) = names.pop() {
                let address = IpAddr::from([192, 0, 2, 100 + number as u8]);
                self.client.resolved(number, Ok(vec![address]), self.now, wall, &mut random)
            } else if let Some(at) = mail.iter().position(|(when, ..)| *when <= self.now) {
                let (_, number, data) = mail.remove(at);
                self.client.answer(number, &data, self.now, wall, &mut random)
            } else if self.client.deadline() <= self.now {
                self.client.tick(self.now, wall, &mut random)
            } else {
                let next = mail.iter().map(|(when, ..)| *when).chain([self.client.deadline()]).min().unwrap();
                if next >= end {
                    self.now = end;
                    return;
                }
                self.now = next;
                continue;
            };
            for action in actions {
                match action {
                    Action::Resolve { server, .. } => names.push(server),
                    Action::Step(offset) => {
                        self.behind -= offset;
                        self.stepped.push(offset);
                    }
                    Action::Slew { offset, .. } => {
                        self.behind -= offset;
                        self.slewed.push(offset);
                    }
                    Action::Ask { server, message, .. } => {
                        self.asked.push((self.now, server));
                        let cookie = u64::from_be_bytes(message[40..].try_into().unwrap());
                        let at_server = self.truth() + 5_000_000;
                        let mut data = answer(cookie, at_server);
                        match reply(server) {
                            Reply::Good => {}
                            Reply::Off(offset) => data = answer(cookie, at_server + offset),
                            Reply::Silent => continue,
                            Reply::Kiss(code) => {
                                data[1] = 0;
                                data[12..16].copy_from_slice(&code);
                            }
                            Reply::Alarm => data[0] |= 0xc0,
                            Reply::Forged => data = answer(cookie ^ 1, at_server + 3600 * SECOND),
                        }
                        mail.push((self.now + Duration::from_millis(10), server, data));
                    }
                }
            }
        }
    }
}

#[test]
fn the_first_offset_is_stepped_and_later_ones_are_slewed() {
    let mut world = World::new(&["192.0.2.1", "192.0.2.2", "time.example"], 3600 * SECOND);
    world.run(1, |_| Reply::Good);
    assert_eq!(world.stepped.len(), 1);
    assert!(world.behind.abs() < SMALL, "{}", world.behind);
    assert!(world.client.synchronized().is_some());
    assert_eq!(world.client.problem(), None);
    world.behind += 200_000_000;
    world.run(200, |_| Reply::Good);
    assert_eq!(world.stepped.len(), 1);
    assert!(world.slewed.iter().any(|offset| *offset > 190_000_000), "{:?}", world.slewed);
    assert!(world.behind.abs() < SMALL);
}

#[test]
fn a_falseticker_is_outvoted_and_a_dead_server_is_no_harm() {
    let mut world = World::new(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], 5 * SECOND);
    world.run(30, |server| if server == 0 { Reply::Off(1000 * SECOND) } else { Reply::Good });
    assert!(world.behind.abs() < SMALL);
    assert_ne!(world.client.synchronized(), Some("192.0.2.1"));

    let mut world = World::new(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], 5 * SECOND);
    world.run(30, |server| if server == 0 { Reply::Silent } else { Reply::Good });
    assert!(world.behind.abs() < SMALL);
}

#[test]
fn without_a_majority_the_clock_stays() {
    for (reply, word) in [
        (Reply::Silent, "does not answer"),
        (Reply::Forged, "no answer to the question"),
        (Reply::Alarm, "not set"),
        (Reply::Kiss(*b"DENY"), "refuses"),
        (Reply::Off(1000 * SECOND), "do not agree"),
    ] {
        let mut world = World::new(&["192.0.2.1", "192.0.2.2"], 5 * SECOND);
        world.run(120, |server| if server == 0 { reply } else { Reply::Good });
        assert_eq!((world.stepped.len(), world.slewed.len()), (0, 0), "{word}");
        assert_eq!(world.client.synchronized(), None);
        assert!(world.client.problem().unwrap().contains(word), "{:?}", world.client.problem());
    }
}

#[test]
fn kisses_are_heeded() {
    let mut world = World::new(&["192.0.2.1"], 5 * SECOND);
    world.run(3600, |_| Reply::Kiss(*b"DENY"));
    assert_eq!(world.asked.len(), 1, "{:?}", world.asked);
    let mut world = World::new(&["192.0.2.1"], 5 * SECOND);
    world.run(3600, |_| Reply::Kiss(*b"RATE"));
    assert!((2..8).contains(&world.asked.len()), "{:?}", world.asked);
    let gaps: Vec<_> = world.asked.windows(2).map(|pair| pair[1].0.abs_diff(pair[0].0)).collect();
    assert!(gaps.windows(2).all(|pair| pair[1] > pair[0]), "{gaps:?}");
}

#[test]
fn time_before_the_floor_is_not_taken() {
    let mut world = World::new(&["192.0.2.1"], 0);
    world.run(30, |_| Reply::Off(-2 * 86_400 * SECOND));
    assert!(world.stepped.is_empty());
    let problem = world.client.problem().unwrap();
    assert!(problem.contains("2025-12-31T") && problem.contains("before 2026-01-01T00:00:00Z"), "{problem}");
}

#[test]
fn a_large_offset_later_must_be_insisted_on() {
    let mut world = World::new(&["192.0.2.1"], 5 * SECOND);
    world.run(10, |_| Reply::Good);
    assert_eq!(world.stepped.len(), 1);
    world.behind = 3600 * SECOND;
    world.run(100, |_| Reply::Good);
    assert_eq!(world.stepped.len(), 1, "not at once");
    assert!(world.client.problem().unwrap().contains("3600"), "{:?}", world.client.problem());
    world.run(300, |_| Reply::Good);
    assert_eq!(world.stepped.len(), 2);
    assert!(world.behind.abs() < SMALL);
}

#[test]
fn trust_ends() {
    let mut world = World::new(&["192.0.2.1"], 5 * SECOND);
    world.run(100, |_| Reply::Good);
    assert!(world.client.synchronized().is_some());
    world.run(7 * 3600, |_| Reply::Silent);
    assert_eq!(world.client.synchronized(), None);
    assert!(world.client.problem().unwrap().contains("does not answer"));
    world.run(600, |_| Reply::Good);
    assert!(world.client.synchronized().is_some());
}

#[test]
fn polls_become_rare_and_two_names_of_one_server_are_one() {
    let mut world = World::new(&["192.0.2.1"], 5 * SECOND);
    world.run(86_400, |_| Reply::Good);
    assert!((80..500).contains(&world.asked.len()), "{}", world.asked.len());

    let mut client = Client::new(&["192.0.2.1".into(), "also.example".into()], EARLIEST);
    let mut random = || 7;
    let wall = (i128::from(EARLIEST) + 5) * SECOND;
    let actions = client.tick(Duration::ZERO, wall, &mut random);
    assert!(actions.contains(&Action::Resolve { server: 1, name: "also.example".into() }));
    let same = Ok(vec!["192.0.2.1".parse().unwrap()]);
    let actions = client.resolved(1, same, Duration::ZERO, wall, &mut random);
    assert!(!actions.iter().any(|action| matches!(action, Action::Ask { server: 1, .. })));
    assert!(!client.set_servers(&["192.0.2.1".into(), "also.example".into()], Duration::ZERO));
    assert!(client.set_servers(&[], Duration::ZERO));
    assert_eq!(client.deadline(), Duration::MAX);
}

proptest! {
    /// Whatever a minority of servers does: the clock is right after five minutes, and never moved away from the truth.
    #[test]
    fn a_minority_does_no_harm(
        what in proptest::collection::vec((0u8..6, -1_000_000i64..1_000_000), 2),
        behind in -1_000_000i64..1_000_000,
    ) {
        // The floor is a day before the truth.
        let behind = i128::from(behind.min(80_000)) * SECOND;
        let mut world = World::new(&["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5"], behind);
        world.run(300, |server| match what.get(server) {
            None | Some((0, _)) => Reply::Good,
            Some((1, offset)) => Reply::Off(i128::from(*offset) * SECOND),
            Some((2, _)) => Reply::Silent,
            Some((3, _)) => Reply::Kiss(*b"RATE"),
            Some((4, _)) => Reply::Alarm,
            Some(_) => Reply::Forged,
        });
        prop_assert!(world.behind.abs() < SMALL * 2, "{} {:?}", world.behind, world.client.problem());
        prop_assert!(world.stepped.len() <= 1);
    }
}
