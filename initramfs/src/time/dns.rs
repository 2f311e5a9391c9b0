//! A small resolver: addresses of a name by DNS over UDP (RFC 1035, RFC 3596). PID 1 is a static program, for which the
//! C library's resolver is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Longest answer that is read, in bytes: more than servers send over UDP without being asked for it.
pub const MAX_ANSWER: usize = 1500;
/// How long one server may take.
const WAIT: Duration = Duration::from_secs(2);
/// How often all servers are asked.
const ROUNDS: usize = 2;
/// Most records of an answer that are looked at.
const MAX_RECORDS: usize = 64;
/// Most addresses that are taken.
const MAX_ADDRESSES: usize = 8;
/// Most names that a name may lead to in turn.
const MAX_ALIASES: usize = 8;

/// Type of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4 addresses.
    A = 1,
    /// IPv6 addresses.
    Aaaa = 28,
}

/// Why there are no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAddress {
    /// There is no name server.
    NoServer,
    /// No name server answers.
    Silence,
    /// The name servers fail or refuse.
    Refused,
    /// The name does not exist or has no address.
    NoName,
}

impl NoAddress {
    /// For people.
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoServer => "no name server is known",
            Self::Silence => "no name server answers",
            Self::Refused => "the name servers fail or refuse to answer",
            Self::NoName => "the name does not exist or has no address",
        }
    }
}

/// A name as the labels of a message, in small letters: each with its length before it, a zero at the end. None if it is
/// none.
fn encode(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.bytes().map(|b| b.to_ascii_lowercase()));
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

/// The name at `at` in the form of [`encode`], and where it ends. What it points to lies before it each time, so that
/// this has an end.
fn decode(message: &[u8], at: usize) -> Option<(Vec<u8>, usize)> {
    let mut name = Vec::new();
    let (mut position, mut end, mut start) = (at, None, at);
    loop {
        let length = *message.get(position)?;
        match length {
            0 => {
                name.push(0);
                return (name.len() <= 255).then_some((name, end.unwrap_or(position + 1)));
            }
            1..64 => {
                let label = message.get(position + 1..position + 1 + usize::from(length))?;
                name.push(length);
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                position += 1 + usize::from(length);
                if name.len() > 255 {
                    return None;
                }
            }
            192.. => {
                let target = usize::from(length & 0x3f) << 8 | usize::from(*message.get(position + 1)?);
                end = end.or(Some(position + 2));
                if target >= start {
                    return None;
                }
                (position, start) = (target, target);
            }
            _ => return None,
        }
    }
}

/// A question. None if `name` is no name.
pub fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut bytes = id.to_be_bytes().to_vec();
    // Recursion is desired; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(encode(name)?);
    bytes.extend([0, kind as u8, 0, 1]);
    Some(bytes)
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// Reads an answer to [`question`]; none if it is no answer to it or malformed.
pub fn parse(message: &[u8], id: u16, name: &str, kind: Kind) -> Option<Result<Vec<IpAddr>, NoAddress>> {
    let wanted = encode(name)?;
    let (flags, questions, records) = (number(message, 2)?, number(message, 4)?, number(message, 6)?);
    // An answer (QR), to a standard query, to this question.
    if number(message, 0)? != id || flags & 0xf800 != 0x8000 || questions != 1 {
        return None;
    }
    let (asked, mut at) = decode(message, 12)?;
    if asked != wanted || number(message, at)? != kind as u16 || number(message, at + 2)? != 1 {
        return None;
    }
    at += 4;
    match flags & 0xf {
        0 => {}
        3 => return Some(Err(NoAddress::NoName)),
        _ => return Some(Err(NoAddress::Refused)),
    }
    let mut found: Vec<(Vec<u8>, IpAddr)> = Vec::new();
    let mut aliases: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for _ in 0..usize::from(records).min(MAX_RECORDS) {
        // A long answer may be cut anywhere; what is there is enough.
        let Some((owner, fixed)) = decode(message, at) else { break };
        let (Some(record), Some(class), Some(length)) =
            (number(message, fixed), number(message, fixed + 2), number(message, fixed + 8))
        else {
            break;
        };
        let start = fixed + 10;
        let Some(value) = message.get(start..start + usize::from(length)) else { break };
        at = start + value.len();
        match (class, record, value.len()) {
            (1, 1, 4) if kind == Kind::A => {
                found.extend(
                    value.first_chunk().map(|bytes: &[u8; 4]| (owner, Ipv4Addr::from(*bytes).into())),
                );
            }
            (1, 28, 16) if kind == Kind::Aaaa => {
                found.extend(
                    value.first_chunk().map(|bytes: &[u8; 16]| (owner, Ipv6Addr::from(*bytes).into())),
                );
            }
            (1, 5, _) => {
                aliases.extend(decode(message, start).map(|(target, _)| (owner, target)));
            }
            _ => {}
        }
    }
    let mut current = wanted;
    for _ in 0..MAX_ALIASES {
        let Some((_, target)) = aliases.iter().find(|(owner, _)| *owner == current) else { break };
        current.clone_from(target);
    }
    let usable = |address: &IpAddr| !address.is_unspecified() && !address.is_multicast();
    let addresses: Vec<IpAddr> = found
        .into_iter()
        .filter(|(owner, address)| *owner == current && usable(address))
        .map(|(_, address)| address)
        .take(MAX_ADDRESSES)
        .collect();
    Some(if addresses.is_empty() { Err(NoAddress::NoName) } else { Ok(addresses) })
}

/// A question to a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The name server.
    pub server: IpAddr,
    /// What to send to its port 53, from a port of its own.
    pub message: Vec<u8>,
}

/// What a lookup comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing yet.
    Waiting,
    /// Ask this, and listen only for its answer.
    Ask(Query),
    /// It is over.
    Done(Result<Vec<IpAddr>, NoAddress>),
}

/// The search for a name's addresses: IPv4 first, then IPv6 where there are none; each server in turn, twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    name: String,
    servers: Vec<IpAddr>,
    kind: Kind,
    id: u16,
    tries: usize,
    deadline: Duration,
    worst: NoAddress,
}

impl Lookup {
    /// A search for `name` at `servers`, of which the first three are asked; [`Lookup::tick`] begins it.
    pub fn new(name: &str, servers: &[IpAddr]) -> Self {
        Self {
            name: name.to_owned(),
            servers: servers.iter().copied().take(3).collect(),
            kind: Kind::A,
            id: 0,
            tries: 0,
            deadline: Duration::ZERO,
            worst: NoAddress::Silence,
        }
    }

    /// When [`Lookup::tick`] is due.
    pub const fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Lets time pass. `random` is a new random number.
    pub fn tick(&mut self, now: Duration, random: u16) -> Outcome {
        if now < self.deadline { Outcome::Waiting } else { self.ask(now, random) }
    }

    fn ask(&mut self, now: Duration, random: u16) -> Outcome {
        if self.servers.is_empty() {
            return Outcome::Done(Err(NoAddress::NoServer));
        }
        let server = self.servers.get(self.tries % self.servers.len()).copied();
        let Some(server) = server.filter(|_| self.tries < self.servers.len() * ROUNDS) else {
            return Outcome::Done(Err(self.worst));
        };
        self.tries += 1;
        self.id = random;
        self.deadline = now.saturating_add(WAIT);
        match question(self.id, &self.name, self.kind) {
            Some(message) => Outcome::Ask(Query { server, message }),
            None => Outcome::Done(Err(NoAddress::NoName)),
        }
    }

    /// Handles what the server that was asked last has sent.
    pub fn answer(&mut self, message: &[u8], now: Duration, random: u16) -> Outcome {
        match parse(message, self.id, &self.name, self.kind) {
            None => Outcome::Waiting,
            Some(Ok(addresses)) => Outcome::Done(Ok(addresses)),
            Some(Err(NoAddress::NoName)) if self.kind == Kind::A => {
                self.kind = Kind::Aaaa;
                self.tries = 0;
                self.ask(now, random)
            }
            Some(Err(NoAddress::NoName)) => Outcome::Done(Err(NoAddress::NoName)),
            Some(Err(other)) => {
                self.worst = other;
                self.ask(now, random)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An answer to a question: `records` are owner, type and value.
    pub(crate) fn answer(question: &[u8], code: u8, records: &[(&[u8], u8, &[u8])]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2] = 0x81;
        bytes[3] = 0x80 | code;
        bytes[7] = records.len() as u8;
        for (owner, kind, value) in records {
            bytes.extend(*owner);
            bytes.extend([0, *kind, 0, 1, 0, 0, 0, 60, 0, value.len() as u8]);
            bytes.extend(*value);
        }
        bytes
    }

    /// The name of the question, by a pointer to it.
    const SAME: &[u8] = &[0xc0, 12];
    const NAME: &str = "Time.example";

    #[test]
    fn addresses_through_aliases() {
        let question = question(7, NAME, Kind::A).unwrap();
        // Alias to `b.example`: the label and a pointer to `example` in the question.
        let alias: &[u8] = &[1, b'b', 0xc0, 17];
        let records: [(&[u8], u8, &[u8]); 4] = [
            (SAME, 5, alias),
            (alias, 1, &[192, 0, 2, 1]),
            (b"\x05other\0", 1, &[6, 6, 6, 6]),
            (alias, 1, &[192, 0, 2, 2]),
        ];
        let found = parse(&answer(&question, 0, &records), 7, NAME, Kind::A).unwrap().unwrap();
        assert_eq!(found, [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])]);
    }

    #[test]
    fn what_is_no_answer() {
        let question = question(7, NAME, Kind::A).unwrap();
        let good = answer(&question, 0, &[(SAME, 1, &[192, 0, 2, 1])]);
        assert!(parse(&good, 7, NAME, Kind::A).is_some());
        assert_eq!(parse(&question, 7, NAME, Kind::A), None, "the question itself");
        assert_eq!(parse(&good, 8, NAME, Kind::A), None, "another number");
        assert_eq!(parse(&good, 7, "other.example", Kind::A), None, "another name");
        assert_eq!(parse(&good, 7, NAME, Kind::Aaaa), None, "another type");
        assert_eq!(parse(&answer(&question, 3, &[]), 7, NAME, Kind::A), Some(Err(NoAddress::NoName)));
        assert_eq!(parse(&answer(&question, 2, &[]), 7, NAME, Kind::A), Some(Err(NoAddress::Refused)));
        let mut looped = answer(&question, 0, &[(&[0xc0, 30], 1, &[192, 0, 2, 1])]);
        looped.truncate(40);
        assert_eq!(parse(&looped, 7, NAME, Kind::A), Some(Err(NoAddress::NoName)));
        for name in ["", "a..b", &"a".repeat(64), &["abc"; 64].join(".")] {
            assert_eq!(super::question(7, name, Kind::A), None, "{name}");
        }
    }

    #[test]
    fn servers_are_asked_in_turn() {
        let servers: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let mut lookup = Lookup::new(NAME, &servers);
        let mut asked = Vec::new();
        let end = loop {
            match lookup.tick(lookup.deadline(), 7) {
                Outcome::Ask(query) => asked.push(query.server),
                Outcome::Done(result) => break result,
                Outcome::Waiting => panic!("it is due"),
            }
        };
        assert_eq!(asked, [servers[0], servers[1], servers[0], servers[1]]);
        assert_eq!(end, Err(NoAddress::Silence));
        assert_eq!(Lookup::new(NAME, &[]).tick(Duration::ZERO, 7), Outcome::Done(Err(NoAddress::NoServer)));
    }

    #[test]
    fn without_an_ipv4_address_it_is_ipv6() {
        let mut lookup = Lookup::new(NAME, &["192.0.2.1".parse().unwrap()]);
        let now = Duration::from_secs(1);
        let Outcome::Ask(first) = lookup.tick(now, 7) else { panic!() };
        let Outcome::Ask(second) = lookup.answer(&answer(&first.message, 0, &[]), now, 8) else { panic!() };
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let reply = answer(&second.message, 0, &[(SAME, 28, &address.octets())]);
        assert_eq!(lookup.answer(&reply, now, 9), Outcome::Done(Ok(vec![address.into()])));
    }

    proptest! {
        #[test]
        fn changed_answers_never_panic(
            changes in proptest::collection::vec((0usize..90, any::<u8>()), 0..8),
            cut in 0usize..90,
        ) {
            let question = question(7, NAME, Kind::A).unwrap();
            let alias: &[u8] = &[1, b'b', 0xc0, 17];
            let mut data = answer(&question, 0, &[(SAME, 5, alias), (alias, 1, &[192, 0, 2, 1])]);
            for (at, value) in changes {
                if let Some(byte) = data.get_mut(at) {
                    *byte = value;
                }
            }
            data.truncate(cut.max(1));
            let _ = parse(&data, 7, NAME, Kind::A);
        }

        #[test]
        fn any_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&data, 7, NAME, Kind::A);
            let _ = decode(&data, 0);
        }
    }
}
