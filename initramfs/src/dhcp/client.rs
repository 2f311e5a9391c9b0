//! The client's state machine (RFC 2131, section 4.4, figure 5). Times are since some fixed moment; random
//! numbers come with each step.

use crate::dhcp::lease::Lease;
use crate::dhcp::message::{Kind, Query, Reply};
use std::net::Ipv4Addr;
use std::time::Duration;

/// First wait for an answer; it doubles up to [`LONGEST_WAIT`]. Shorter than the RFC's four seconds, because a
/// machine that starts waits for it.
const FIRST_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for an answer (RFC 2131, section 4.1).
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// How often a request is sent before the client starts again.
const REQUESTS: u32 = 3;
/// Least time between two requests for the same lease (RFC 2131, section 4.4.5).
const RENEW_INTERVAL: Duration = Duration::from_secs(60);

/// What happens to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The cable is in, or it was taken out.
    Carrier(bool),
    /// A message came.
    Reply(Reply),
    /// Time has passed.
    Tick,
}

/// What the client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send a message to everybody on the link.
    Broadcast(Query),
    /// Send a message to a server by the ordinary way, from the leased address.
    Unicast {
        /// The server.
        to: Ipv4Addr,
        /// The message.
        query: Query,
    },
    /// Configure the interface. An earlier lease is replaced.
    Configure(Lease),
    /// Take the lease's address away.
    Deconfigure(Lease),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// No cable.
    Idle,
    Selecting,
    Requesting(Lease),
    /// Asks whether the lease is good after the cable was out.
    Rebooting,
    Bound,
    Renewing,
    Rebinding,
}

/// A lease and since when it is held.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    lease: Lease,
    since: Duration,
}

impl Held {
    fn end(&self) -> Duration {
        self.lease.duration.map_or(Duration::MAX, |duration| self.since.saturating_add(duration))
    }
}

/// A client for one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    mac: [u8; 6],
    phase: Phase,
    held: Option<Held>,
    xid: u32,
    started: Duration,
    tries: u32,
    /// When to act next.
    next: Duration,
}

impl Client {
    /// A client that waits for the cable.
    pub const fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            phase: Phase::Idle,
            held: None,
            xid: 0,
            started: Duration::ZERO,
            tries: 0,
            next: Duration::MAX,
        }
    }

    /// When the next [`Event::Tick`] is due.
    pub fn deadline(&self) -> Duration {
        self.held.as_ref().map_or(Duration::MAX, Held::end).min(self.next)
    }

    /// The lease that is held.
    pub fn lease(&self) -> Option<&Lease> {
        self.held.as_ref().map(|held| &held.lease)
    }

    /// Handles `event` at the time `now`. `random` is a new random number.
    pub fn step(&mut self, event: Event, now: Duration, random: u32) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(expired) = self.held.take_if(|held| held.end() <= now) {
            actions.push(Action::Deconfigure(expired.lease));
            if !matches!(self.phase, Phase::Idle | Phase::Selecting | Phase::Requesting(_)) {
                self.enter(Phase::Selecting, now, random);
            }
        }
        match event {
            Event::Carrier(false) => {
                self.phase = Phase::Idle;
                self.next = Duration::MAX;
            }
            Event::Carrier(true) if self.phase == Phase::Idle => {
                let phase = if self.held.is_some() { Phase::Rebooting } else { Phase::Selecting };
                self.started = now;
                self.enter(phase, now, random);
                actions.extend(self.tick(now, random));
            }
            Event::Reply(reply) if reply.xid == self.xid && reply.mac == self.mac => {
                actions.extend(self.reply(&reply, now, random));
            }
            Event::Carrier(true) | Event::Reply(_) => {}
            Event::Tick => actions.extend(self.tick(now, random)),
        }
        actions
    }

    fn enter(&mut self, phase: Phase, now: Duration, random: u32) {
        // The request answers the offer, so it keeps the transaction.
        if !matches!(phase, Phase::Requesting(_)) {
            self.xid = random;
        }
        self.phase = phase;
        self.tries = 0;
        self.next = now;
    }

    fn query(&self, kind: Kind, now: Duration) -> Query {
        Query {
            kind,
            xid: self.xid,
            seconds: u16::try_from(now.saturating_sub(self.started).as_secs()).unwrap_or(u16::MAX),
            mac: self.mac,
            current: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server: None,
        }
    }

    /// The time of the next try: a doubling wait with half a second of chance on both sides.
    fn again(&mut self, now: Duration, random: u32) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.tries.min(6)).min(LONGEST_WAIT);
        let chance = Duration::from_millis(u64::from(random % 1001));
        self.tries += 1;
        self.next = now + wait.saturating_sub(Duration::from_millis(500)) + chance;
    }

    fn tick(&mut self, now: Duration, random: u32) -> Option<Action> {
        if now < self.next {
            return None;
        }
        match (self.phase.clone(), self.held.clone()) {
            (Phase::Idle, _) => None,
            (Phase::Requesting(_) | Phase::Rebooting, _) if self.tries >= REQUESTS => {
                self.enter(Phase::Selecting, now, random);
                self.tick(now, random)
            }
            (Phase::Requesting(offer), _) => {
                self.again(now, random);
                let mut query = self.query(Kind::Request, now);
                query.requested = Some(offer.address);
                query.server = Some(offer.server);
                Some(Action::Broadcast(query))
            }
            (Phase::Rebooting, Some(held)) => {
                self.again(now, random);
                let mut query = self.query(Kind::Request, now);
                query.requested = Some(held.lease.address);
                Some(Action::Broadcast(query))
            }
            (Phase::Bound, Some(held)) => {
                self.started = now;
                self.enter(Phase::Renewing, now, random);
                Some(self.renew(&held, now, random))
            }
            (Phase::Renewing | Phase::Rebinding, Some(held)) => Some(self.renew(&held, now, random)),
            (Phase::Selecting, _) => {
                self.again(now, random);
                Some(Action::Broadcast(self.query(Kind::Discover, now)))
            }
            // Without a lease these phases have no meaning.
            (Phase::Rebooting | Phase::Bound | Phase::Renewing | Phase::Rebinding, None) => {
                self.enter(Phase::Selecting, now, random);
                self.tick(now, random)
            }
        }
    }

    /// Asks for more time: the server itself until T2, then everybody until the end.
    fn renew(&mut self, held: &Held, now: Duration, random: u32) -> Action {
        let rebind = held.since.saturating_add(held.lease.rebind);
        if self.phase == Phase::Renewing && now >= rebind {
            self.enter(Phase::Rebinding, now, random);
        }
        let mut query = self.query(Kind::Request, now);
        query.current = held.lease.address;
        let (limit, action) = if self.phase == Phase::Renewing {
            (rebind, Action::Unicast { to: held.lease.server, query })
        } else {
            (held.end(), Action::Broadcast(query))
        };
        let wait = (limit.saturating_sub(now) / 2).max(RENEW_INTERVAL);
        self.next = now.saturating_add(wait).min(limit.max(now + Duration::from_secs(1)));
        action
    }

    fn reply(&mut self, reply: &Reply, now: Duration, random: u32) -> Vec<Action> {
        match (&self.phase, reply.kind) {
            (Phase::Selecting, Kind::Offer) => {
                let Some(offer) = Lease::from_reply(reply) else { return Vec::new() };
                self.enter(Phase::Requesting(offer), now, random);
                self.tick(now, random).into_iter().collect()
            }
            (Phase::Requesting(_) | Phase::Rebooting | Phase::Renewing | Phase::Rebinding, Kind::Ack) => {
                let Some(lease) = Lease::from_reply(reply) else { return Vec::new() };
                self.phase = Phase::Bound;
                self.next = match lease.duration {
                    Some(_) => now.saturating_add(lease.renew),
                    None => Duration::MAX,
                };
                self.held = Some(Held { lease: lease.clone(), since: now });
                vec![Action::Configure(lease)]
            }
            (Phase::Requesting(_) | Phase::Rebooting | Phase::Renewing | Phase::Rebinding, Kind::Nak) => {
                self.enter(Phase::Selecting, now, random);
                // Not at once: a server that always refuses must not keep the network busy.
                self.again(now, random);
                self.held.take().map(|held| Action::Deconfigure(held.lease)).into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::message::{self, option, tests::reply as reply_bytes};
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn reply(kind: Kind, xid: u32) -> Event {
        let options = [(option::MASK, &[255, 255, 255, 0][..]), (option::LEASE, &[0, 0, 0x0e, 0x10])];
        Event::Reply(message::parse(&reply_bytes(kind, xid, MAC, &options)).unwrap())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn query(actions: &[Action]) -> &Query {
        match actions {
            [Action::Broadcast(query) | Action::Unicast { query, .. }] => query,
            other => panic!("{other:?}"),
        }
    }

    /// A client that got a lease of an hour at second 1.
    fn bound() -> Client {
        let mut client = Client::new(MAC);
        assert_eq!(client.deadline(), Duration::MAX);
        let actions = client.step(Event::Carrier(true), at(0), 7);
        assert_eq!((query(&actions).kind, query(&actions).xid), (Kind::Discover, 7));
        let actions = client.step(reply(Kind::Offer, 7), at(1), 8);
        let request = query(&actions);
        assert_eq!((request.kind, request.xid), (Kind::Request, 7));
        assert_eq!(request.requested, Some(Ipv4Addr::new(10, 0, 2, 15)));
        assert_eq!(request.server, Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert!(matches!(client.step(reply(Kind::Ack, 7), at(1), 9).as_slice(), [Action::Configure(_)]));
        client
    }

    #[test]
    fn discover_waits_longer_each_time() {
        let mut client = Client::new(MAC);
        client.step(Event::Carrier(true), at(0), 500);
        let mut waits = Vec::new();
        let mut now = Duration::ZERO;
        for _ in 0..7 {
            let next = client.deadline();
            assert!(
                client.step(Event::Tick, next.saturating_sub(Duration::from_millis(1)), 500).is_empty(),
                "too early"
            );
            assert_eq!(query(&client.step(Event::Tick, next, 500)).kind, Kind::Discover);
            waits.push(next.saturating_sub(now).as_secs());
            now = next;
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 64]);
    }

    #[test]
    fn foreign_and_unfitting_messages_change_nothing() {
        let mut client = Client::new(MAC);
        client.step(Event::Carrier(true), at(0), 7);
        let before = client.clone();
        for event in [reply(Kind::Offer, 8), reply(Kind::Ack, 7), reply(Kind::Nak, 7)] {
            assert!(client.step(event, at(1), 9).is_empty());
        }
        assert_eq!(client, before);
    }

    #[test]
    fn a_request_without_answer_starts_again() {
        let mut client = Client::new(MAC);
        client.step(Event::Carrier(true), at(0), 7);
        client.step(reply(Kind::Offer, 7), at(1), 8);
        let mut kinds = Vec::new();
        for _ in 0..3 {
            let next = client.deadline();
            kinds.push(query(&client.step(Event::Tick, next, 9)).kind);
        }
        assert_eq!(kinds, [Kind::Request, Kind::Request, Kind::Discover]);
    }

    #[test]
    fn renew_then_rebind_then_expire() {
        let mut client = bound();
        assert_eq!(client.deadline(), at(1 + 1800));
        let actions = client.step(Event::Tick, at(1801), 20);
        assert!(matches!(actions.as_slice(), [Action::Unicast { .. }]));
        assert_eq!(query(&actions).current, Ipv4Addr::new(10, 0, 2, 15));
        // Acknowledged: the hour starts again.
        let mut renewed = client.clone();
        assert!(matches!(
            renewed.step(reply(Kind::Ack, 20), at(1802), 21).as_slice(),
            [Action::Configure(_)]
        ));
        assert_eq!(renewed.deadline(), at(1802 + 1800));

        let mut seen = Vec::new();
        while client.lease().is_some() {
            let now = client.deadline();
            for action in client.step(Event::Tick, now, 22) {
                seen.push(match action {
                    Action::Unicast { .. } => {
                        assert!(now < at(1 + 3150));
                        'u'
                    }
                    Action::Broadcast(query) if query.kind == Kind::Request => {
                        assert!(now >= at(1 + 3150));
                        'b'
                    }
                    Action::Broadcast(_) => 'd',
                    Action::Deconfigure(_) => {
                        assert_eq!(now, at(1 + 3600));
                        'x'
                    }
                    Action::Configure(_) => panic!("nothing was acknowledged"),
                });
            }
        }
        let text: String = seen.into_iter().collect();
        assert!(text.starts_with("uu") && text.ends_with("xd") && text.contains("bb"), "{text}");
    }

    #[test]
    fn a_refusal_takes_the_address() {
        let mut client = bound();
        client.step(Event::Tick, at(1801), 20);
        let actions = client.step(reply(Kind::Nak, 20), at(1802), 21);
        assert!(matches!(actions.as_slice(), [Action::Deconfigure(_)]));
        assert!(client.deadline() > at(1802));
    }

    #[test]
    fn after_the_cable_was_out_the_lease_is_asked_for() {
        let mut client = bound();
        assert!(client.step(Event::Carrier(false), at(10), 1).is_empty());
        assert_eq!(client.deadline(), at(3601), "the lease still ends");
        let actions = client.step(Event::Carrier(true), at(20), 30);
        assert_eq!(query(&actions).requested, Some(Ipv4Addr::new(10, 0, 2, 15)));
        assert_eq!(query(&actions).server, None);
        assert!(matches!(client.step(reply(Kind::Ack, 30), at(20), 31).as_slice(), [Action::Configure(_)]));

        client.step(Event::Carrier(false), at(30), 1);
        assert!(matches!(client.step(Event::Tick, at(4000), 2).as_slice(), [Action::Deconfigure(_)]));
        assert_eq!(client.deadline(), Duration::MAX);
        assert_eq!(query(&client.step(Event::Carrier(true), at(5000), 3)).kind, Kind::Discover);
    }

    proptest! {
        /// Whatever happens in whatever order: nothing panics, the client never falls asleep with the cable in,
        /// and each address that is configured is taken away at the end of its lease at the latest.
        #[test]
        fn any_history(events in proptest::collection::vec((0u8..6, 0u64..3000, any::<u32>()), 1..60)) {
            let mut client = Client::new(MAC);
            let mut now = Duration::ZERO;
            let mut cable = false;
            let mut configured = false;
            for (what, passed, random) in events {
                now += Duration::from_secs(passed);
                let event = match what {
                    0 => Event::Carrier(true),
                    1 => Event::Carrier(false),
                    2 => reply(Kind::Offer, client.xid),
                    3 => reply(Kind::Ack, client.xid),
                    4 => reply(Kind::Nak, client.xid),
                    _ => Event::Tick,
                };
                if let Event::Carrier(state) = event {
                    cable = state;
                }
                for action in client.step(event, now, random) {
                    match action {
                        Action::Configure(_) => configured = true,
                        Action::Deconfigure(_) => {
                            prop_assert!(configured);
                            configured = false;
                        }
                        _ => {}
                    }
                }
                prop_assert_eq!(configured, client.lease().is_some());
                prop_assert!(!cable || client.deadline() < Duration::MAX);
            }
        }
    }
}
