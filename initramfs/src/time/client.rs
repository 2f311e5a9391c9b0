//! When servers are asked, and what their answers do to the clock. Pure: the time since the kernel's start, the clock and
//! random numbers come with each step.
//!
//! Servers are asked in rounds. At the end of a round, a majority of all servers must agree on the offset of the clock
//! ([`agree`]). The first offset is stepped; afterwards the clock is slewed, and stepped only when a majority insists on
//! it for three rounds, as after a machine was asleep.

use crate::time::agree::{agree, majority};
use crate::time::dns::NoAddress;
use crate::time::packet::{self, Bad, LENGTH, Nanos, Sample};
use ashlar_image::machine::Timestamp;
use std::net::IpAddr;
use std::time::Duration;

/// Most servers that are asked.
pub const MAX_SERVERS: usize = 8;
/// How long one answer may take. Questions to a server are as far apart, for servers do not like bursts.
const WAIT: Duration = Duration::from_secs(2);
/// Most questions to a server in a round.
const QUESTIONS: u32 = 4;
/// How many answers of a server make its part in a round once the clock is set: the one with the shortest way counts.
const SAMPLES: usize = 3;
/// Longest round.
const ROUND: Duration = Duration::from_secs(40);
/// First and longest pause after a round without agreement; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(4);
const LONGEST_PAUSE: Duration = Duration::from_secs(256);
/// Shortest and longest pause after one with agreement: 2^6 and 2^10 seconds (RFC 5905, `MINPOLL`, default `maxpoll`).
const SHORTEST_POLL: Duration = Duration::from_secs(64);
const LONGEST_POLL: Duration = Duration::from_secs(1024);
/// How long a server that refuses is left alone.
const DENIED_PAUSE: Duration = Duration::from_secs(86_400);
/// After so long without agreement the clock counts as not synchronized.
const TRUST: Duration = Duration::from_secs(6 * 3600);
/// An offset below which the first one is slewed too, and above which the pause does not grow: 10 ms.
const SMALL: Nanos = 10_000_000;
/// Largest offset that the kernel slews: half a second.
const LARGEST_SLEW: Nanos = 500_000_000;
/// How many rounds in turn must find a larger one until the clock is stepped.
const INSISTENCE: u32 = 3;
/// Rounds without an answer until another address of the server is tried.
const PATIENCE: u32 = 2;

/// What the client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Look the server's name up.
    Resolve {
        /// The server's number.
        server: usize,
        /// Its name.
        name: String,
    },
    /// Ask the server.
    Ask {
        /// The server's number.
        server: usize,
        /// Its address.
        to: IpAddr,
        /// The message.
        message: [u8; LENGTH],
    },
    /// Set the clock forward by so many nanoseconds, or back.
    Step(Nanos),
    /// Move the clock slowly.
    Slew {
        /// By so many nanoseconds.
        offset: Nanos,
        /// Until the next look at it.
        pause: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question {
    cookie: u64,
    asked: Nanos,
    at: Duration,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Server {
    name: String,
    /// The address in use.
    address: Option<IpAddr>,
    /// What the name led to and was not tried yet.
    others: Vec<IpAddr>,
    resolving: bool,
    question: Option<Question>,
    questions: u32,
    /// When the next question of the round is due.
    ask_at: Duration,
    samples: Vec<Sample>,
    /// Not to be asked before.
    not_before: Duration,
    rate_pause: Duration,
    /// Rounds without an answer.
    misses: u32,
    trouble: Option<String>,
}

impl Server {
    fn best(&self) -> Option<Sample> {
        self.samples.iter().min_by_key(|sample| sample.delay).copied()
    }

    /// Whether it will be asked again in this round, of which `wanted` samples are enough.
    fn is_to_be_asked(&self, wanted: usize) -> bool {
        self.address.is_some()
            && self.questions < QUESTIONS
            && self.samples.len() < wanted
            && self.not_before <= self.ask_at
    }
}

/// The client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    servers: Vec<Server>,
    /// No time before it is right, in seconds since 1970.
    earliest: i64,
    /// When the round began, if there is one.
    round: Option<Duration>,
    /// When the next round begins.
    next: Duration,
    pause: Duration,
    poll: Duration,
    /// The last agreement: when, and the best server's name.
    agreed: Option<(Duration, String)>,
    far: u32,
    problem: Option<String>,
}

impl Client {
    /// A client of these servers (names or addresses), of which the first eight count. `earliest` is in seconds since
    /// 1970.
    pub fn new(servers: &[String], earliest: i64) -> Self {
        let mut client = Self {
            servers: Vec::new(),
            earliest,
            round: None,
            next: Duration::ZERO,
            pause: FIRST_PAUSE,
            poll: SHORTEST_POLL,
            agreed: None,
            far: 0,
            problem: None,
        };
        client.set_servers(servers, Duration::ZERO);
        client
    }

    /// Uses these servers from now on; tells whether that is a change.
    pub fn set_servers(&mut self, servers: &[String], now: Duration) -> bool {
        let mut names: Vec<&String> = Vec::new();
        for name in servers {
            if names.len() < MAX_SERVERS && !names.contains(&name) {
                names.push(name);
            }
        }
        if self.servers.iter().map(|server| &server.name).eq(names.iter().copied()) {
            return false;
        }
        self.servers = names
            .into_iter()
            .map(|name| Server { name: name.clone(), address: name.parse().ok(), ..Server::default() })
            .collect();
        self.round = None;
        self.problem = None;
        self.pause = FIRST_PAUSE;
        self.next = now;
        true
    }

    /// Begins a new round where the clock is not set yet: the network has changed, and what was sent before may have
    /// gone nowhere.
    pub fn hurry(&mut self, now: Duration) {
        if self.agreed.is_none() && self.servers.iter().all(|server| server.samples.is_empty()) {
            self.round = None;
            self.pause = FIRST_PAUSE;
            self.next = self.next.min(now);
        }
    }

    /// The server that the clock was set by, and since when not longer ago than six hours.
    pub fn synchronized(&self) -> Option<&str> {
        self.agreed.as_ref().map(|(_, name)| name.as_str())
    }

    /// What is wrong, for people.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// When [`Client::tick`] is due.
    pub fn deadline(&self) -> Duration {
        let Some(began) = self.round else {
            return if self.servers.is_empty() { Duration::MAX } else { self.next };
        };
        let wanted = self.wanted_samples();
        let due = self.servers.iter().filter_map(|server| match server.question {
            Some(question) => Some(question.at + WAIT),
            None => server.is_to_be_asked(wanted).then_some(server.ask_at),
        });
        due.chain([began + ROUND]).min().unwrap_or(Duration::MAX)
    }

    /// How many answers of each server make a round.
    fn wanted_samples(&self) -> usize {
        if self.agreed.is_some() { SAMPLES } else { 1 }
    }

    /// Lets time pass. `wall` is the clock.
    pub fn tick(&mut self, now: Duration, wall: Nanos, random: &mut impl FnMut() -> u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.agreed.as_ref().is_some_and(|(when, _)| now.saturating_sub(*when) > TRUST) {
            self.agreed = None;
        }
        if self.round.is_none() && now >= self.next && !self.servers.is_empty() {
            self.round = Some(now);
            for (number, server) in self.servers.iter_mut().enumerate() {
                server.samples.clear();
                server.question = None;
                server.questions = 0;
                server.ask_at = now;
                if server.address.is_none() {
                    server.resolving = true;
                    actions.push(Action::Resolve { server: number, name: server.name.clone() });
                }
            }
        }
        actions.extend(self.ask(now, wall, random));
        actions.extend(self.finish(now, wall));
        actions
    }

    /// Asks each server that is to be asked now.
    fn ask(&mut self, now: Duration, wall: Nanos, random: &mut impl FnMut() -> u64) -> Vec<Action> {
        let mut actions = Vec::new();
        let wanted = self.wanted_samples();
        if self.round.is_none() {
            return actions;
        }
        for (number, server) in self.servers.iter_mut().enumerate() {
            server.question.take_if(|question| now >= question.at + WAIT);
            let Some(to) = server.address else { continue };
            if server.question.is_none() && server.is_to_be_asked(wanted) && now >= server.ask_at {
                let cookie = random();
                server.questions += 1;
                server.ask_at = now + WAIT;
                server.question = Some(Question { cookie, asked: wall, at: now });
                actions.push(Action::Ask { server: number, to, message: packet::question(cookie) });
            }
        }
        actions
    }

    /// Takes the result of [`Action::Resolve`].
    pub fn resolved(
        &mut self,
        number: usize,
        result: Result<Vec<IpAddr>, NoAddress>,
        now: Duration,
        wall: Nanos,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Action> {
        let taken: Vec<IpAddr> = self.servers.iter().filter_map(|server| server.address).collect();
        let Some(server) = self.servers.get_mut(number).filter(|server| server.resolving) else {
            return Vec::new();
        };
        server.resolving = false;
        match result {
            // One server under two names has one voice.
            Ok(addresses) => {
                let mut free = addresses.into_iter().filter(|address| !taken.contains(address));
                server.address = free.next();
                server.others = free.collect();
                server.misses = 0;
                server.trouble = match server.address {
                    Some(_) => None,
                    None => Some("it is the same server as another one".into()),
                };
            }
            Err(error) => server.trouble = Some(error.text().into()),
        }
        let mut actions = self.ask(now, wall, random);
        actions.extend(self.finish(now, wall));
        actions
    }

    /// The server cannot be reached at all.
    pub fn unreachable(&mut self, number: usize, reason: &str) {
        if let Some(server) = self.servers.get_mut(number) {
            server.trouble = Some(reason.to_owned());
        }
    }

    /// Takes a message that came from the address of a server.
    pub fn answer(
        &mut self,
        number: usize,
        data: &[u8],
        now: Duration,
        wall: Nanos,
        random: &mut impl FnMut() -> u64,
    ) -> Vec<Action> {
        let (earliest, poll) = (self.earliest, self.poll);
        let Some(server) = self.servers.get_mut(number) else { return Vec::new() };
        let Some(question) = server.question else { return Vec::new() };
        let bad = match packet::parse(data, question.cookie, earliest) {
            Ok(answer) => {
                let took = now.saturating_sub(question.at);
                server.question = None;
                server.misses = 0;
                server.trouble = None;
                server.rate_pause = Duration::ZERO;
                server.samples.extend(Sample::new(&answer, question.asked, wall, took));
                None
            }
            // Whoever sent it: the answer may still come.
            Err(Bad::Foreign) => {
                server.trouble.get_or_insert_with(|| Bad::Foreign.text().into());
                return Vec::new();
            }
            Err(bad) => Some(bad),
        };
        if let Some(bad) = bad {
            server.question = None;
            server.questions = QUESTIONS;
            server.trouble = Some(bad.text().into());
            let pause = match bad {
                Bad::Rate => {
                    server.rate_pause = (server.rate_pause * 2).max(poll * 2).min(DENIED_PAUSE);
                    server.rate_pause
                }
                Bad::Denied => DENIED_PAUSE,
                _ => Duration::ZERO,
            };
            server.not_before = now.saturating_add(pause);
        }
        let mut actions = self.ask(now, wall, random);
        actions.extend(self.finish(now, wall));
        actions
    }

    /// Ends the round when nothing more is to be expected of it.
    fn finish(&mut self, now: Duration, wall: Nanos) -> Vec<Action> {
        let wanted = self.wanted_samples();
        let Some(began) = self.round else { return Vec::new() };
        let is_busy = |server: &Server| {
            server.samples.len() < wanted
                && (server.resolving || server.question.is_some() || server.is_to_be_asked(wanted))
        };
        if now < began + ROUND && self.servers.iter().any(is_busy) {
            return Vec::new();
        }
        self.round = None;
        for server in &mut self.servers {
            server.question = None;
            server.resolving = false;
            if server.samples.is_empty() && server.address.is_some() && now >= server.not_before {
                server.misses += 1;
                server.trouble.get_or_insert_with(|| "it does not answer".into());
                if server.misses >= PATIENCE {
                    server.misses = 0;
                    let is_address = server.name.parse::<IpAddr>().is_ok();
                    if !is_address {
                        server.address = server.others.pop();
                    }
                }
            }
        }
        let samples: Vec<(usize, Sample)> = self
            .servers
            .iter()
            .enumerate()
            .filter_map(|(number, server)| Some((number, server.best()?)))
            .collect();
        let agreement = agree(&samples, majority(self.servers.len()));
        let floor = i128::from(self.earliest) * 1_000_000_000;
        match agreement {
            Some(agreement) if wall + agreement.offset >= floor => {
                let name =
                    self.servers.get(agreement.best).map(|server| server.name.clone()).unwrap_or_default();
                self.obey(agreement.offset, name, now)
            }
            Some(agreement) => {
                let seconds =
                    |nanos: Nanos| Timestamp(i64::try_from(nanos / 1_000_000_000).unwrap_or_default());
                self.fail(
                    format!(
                        "clock: the time servers agree on {}, which is before {}, the latest of the image's build and \
                         the time that this machine saved last; it is not taken",
                        seconds(wall + agreement.offset),
                        Timestamp(self.earliest)
                    ),
                    now,
                )
            }
            None => {
                let problem = self.disagreement(samples.len());
                self.fail(problem, now)
            }
        }
    }

    /// Why there is no agreement.
    fn disagreement(&self, answers: usize) -> String {
        let (all, needed) = (self.servers.len(), majority(self.servers.len()));
        let mut text = if answers < needed {
            format!("clock: {answers} of {all} time servers answered well, {needed} must agree")
        } else {
            format!("clock: the {answers} time servers that answered do not agree; {needed} of {all} must")
        };
        for server in &self.servers {
            let told = match (server.best(), &server.trouble) {
                (Some(sample), _) => format!("{} is {} ms off", server.name, sample.offset / 1_000_000),
                (None, Some(trouble)) => format!("{}: {trouble}", server.name),
                (None, None) => format!("{} was not asked", server.name),
            };
            text.push_str("; ");
            text.push_str(&told);
        }
        text
    }

    fn fail(&mut self, problem: String, now: Duration) -> Vec<Action> {
        self.problem = Some(problem);
        self.next = now.saturating_add(if self.agreed.is_some() { SHORTEST_POLL } else { self.pause });
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.far = 0;
        Vec::new()
    }

    /// Does what a majority agrees on.
    fn obey(&mut self, offset: Nanos, name: String, now: Duration) -> Vec<Action> {
        let size = offset.abs();
        self.pause = FIRST_PAUSE;
        self.problem = None;
        let action = if self.agreed.is_none() && size > SMALL {
            Action::Step(offset)
        } else if size <= LARGEST_SLEW {
            self.far = 0;
            self.poll = if size > SMALL { SHORTEST_POLL } else { (self.poll * 2).min(LONGEST_POLL) };
            Action::Slew { offset, pause: self.poll }
        } else if self.far + 1 >= INSISTENCE {
            Action::Step(offset)
        } else {
            self.far += 1;
            self.poll = SHORTEST_POLL;
            self.next = now.saturating_add(self.poll);
            self.problem = Some(format!(
                "clock: it is {} ms off; it is set if the time servers agree on that {INSISTENCE} times in turn",
                offset / 1_000_000
            ));
            return Vec::new();
        };
        if matches!(action, Action::Step(_)) {
            self.far = 0;
            self.poll = SHORTEST_POLL;
        }
        self.agreed = Some((now, name));
        self.next = now.saturating_add(self.poll);
        vec![action]
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
