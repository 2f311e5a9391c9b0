//! The clock: set by time servers (SNTP: RFC 5905, section 14; RFC 4330), never below a floor.
//!
//! [`packet`] reads and writes messages, [`agree`] finds what a majority of servers says, [`client`] decides when to ask
//! and what to do, [`dns`] looks names up. All of it is pure. Here are the sockets and the clock.

pub mod agree;
pub mod client;
pub mod dns;
pub mod floor;
pub mod packet;

use crate::console;
use crate::sys;
use client::{Action, Client};
use dns::{Lookup, MAX_ANSWER, Outcome, Query};
use packet::Nanos;
use rustix::time::{ClockId, Timespec};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Port of time servers.
const NTP_PORT: u16 = 123;
/// Port of name servers.
const DNS_PORT: u16 = 53;
/// How often the time is saved.
const SAVE_INTERVAL: Duration = Duration::from_secs(600);
/// Most messages that are read from a socket at once.
const MAX_MESSAGES: usize = 16;

/// The clock that is set.
pub trait Clock {
    /// What it tells.
    fn read(&self) -> Nanos;
    /// Sets it.
    fn set(&mut self, time: Nanos) -> io::Result<()>;
    /// Moves it slowly by `offset`, until it is looked at again after `pause`.
    fn slew(&mut self, offset: Nanos, pause: Duration) -> io::Result<()>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Clock for System {
    fn read(&self) -> Nanos {
        let time = rustix::time::clock_gettime(ClockId::Realtime);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    }

    fn set(&mut self, time: Nanos) -> io::Result<()> {
        let seconds = time.div_euclid(1_000_000_000);
        let tv_sec = i64::try_from(seconds).map_err(|_| io::ErrorKind::InvalidInput)?;
        let tv_nsec = i64::try_from(time.rem_euclid(1_000_000_000)).unwrap_or_default();
        rustix::time::clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec })?;
        // Best effort: not every machine has a clock that goes on without power.
        if let Ok(rtc) = OpenOptions::new().read(true).write(true).open("/dev/rtc0")
            && let Err(error) = sys::set_rtc(&rtc, tv_sec)
        {
            console::warning(format_args!("clock: cannot set the hardware clock: {error}"));
        }
        Ok(())
    }

    fn slew(&mut self, offset: Nanos, pause: Duration) -> io::Result<()> {
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        // The kernel's loop has a time constant of 2^(4 + n) seconds.
        let constant = i64::from(pause.as_secs().max(64).ilog2()) - 4;
        sys::slew_clock(offset, constant)
    }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Early in the boot the kernel may have little of it; what it has is more than a forger knows.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    u64::from_ne_bytes(bytes)
}

/// A socket on a port that nobody knows, for one peer.
fn connect(peer: IpAddr, port: u16) -> io::Result<UdpSocket> {
    let any: IpAddr =
        if peer.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect((peer, port))?;
    Ok(socket)
}

/// The messages that are there.
fn receive(socket: &UdpSocket) -> (Vec<Vec<u8>>, Option<io::Error>) {
    let mut messages = Vec::new();
    let mut buffer = [0; MAX_ANSWER];
    while messages.len() < MAX_MESSAGES {
        match socket.recv(&mut buffer) {
            Ok(length) => messages.push(buffer.get(..length).unwrap_or_default().to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (messages, None),
            Err(error) => return (messages, Some(error)),
        }
    }
    (messages, None)
}

#[derive(Debug)]
struct Search {
    lookup: Lookup,
    socket: Option<UdpSocket>,
}

/// What keeps the clock right.
#[derive(Debug)]
pub struct Time<C: Clock = System> {
    clock: C,
    client: Client,
    name_servers: Vec<IpAddr>,
    /// By number of the server.
    sockets: BTreeMap<usize, UdpSocket>,
    searches: BTreeMap<usize, Search>,
    file: Option<PathBuf>,
    next_save: Duration,
    told: Option<String>,
}

impl Time<System> {
    /// Begins to keep the machine's clock by these servers (names or addresses, at most eight). `floor`, in seconds since
    /// 1970, is what [`floor::raise`] gave.
    pub fn new(servers: &[String], floor: i64) -> Self {
        Self::of(System, servers, floor, Some(floor::FILE.into()))
    }
}

impl<C: Clock> Time<C> {
    /// [`Time::new`] for another clock, with the file for the time that is saved.
    pub fn of(clock: C, servers: &[String], floor: i64, file: Option<PathBuf>) -> Self {
        Self {
            clock,
            client: Client::new(servers, floor),
            name_servers: Vec::new(),
            sockets: BTreeMap::new(),
            searches: BTreeMap::new(),
            file,
            next_save: SAVE_INTERVAL,
            told: None,
        }
    }

    /// Uses these servers from now on.
    pub fn set_servers(&mut self, servers: &[String], now: Duration) {
        if self.client.set_servers(servers, now) {
            self.sockets.clear();
            self.searches.clear();
        }
    }

    /// Asks these name servers from now on; to be told whenever they or the addresses change.
    pub fn network_changed(&mut self, name_servers: &[IpAddr], now: Duration) {
        self.name_servers = name_servers.to_vec();
        self.client.hurry(now);
    }

    /// Where answers come in, with what [`Time::handle`] takes.
    pub fn sockets(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let times = self.sockets.iter().map(|(number, socket)| (number * 2, socket.as_fd()));
        let names = self
            .searches
            .iter()
            .filter_map(|(number, search)| Some((number * 2 + 1, search.socket.as_ref()?.as_fd())));
        times.chain(names)
    }

    /// When [`Time::tick`] is due.
    pub fn deadline(&self) -> Duration {
        let searches = self.searches.values().map(|search| search.lookup.deadline());
        let save = self.client.synchronized().map_or(Duration::MAX, |_| self.next_save);
        searches.chain([self.client.deadline(), save]).min().unwrap_or(Duration::MAX)
    }

    /// The server that the clock was set by; none while it is not set.
    pub fn synchronized(&self) -> Option<&str> {
        self.client.synchronized()
    }

    /// What is wrong, for people: which server does not answer, or why what they say is not taken.
    pub fn problem(&self) -> Option<String> {
        self.client.problem().map(str::to_owned)
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        let due: Vec<usize> = self
            .searches
            .iter()
            .filter(|(_, search)| search.lookup.deadline() <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            if let Some(search) = self.searches.get_mut(&number) {
                let outcome = search.lookup.tick(now, random() as u16);
                self.follow(number, outcome, now);
            }
        }
        if self.client.deadline() <= now {
            let actions = self.client.tick(now, self.clock.read(), &mut random);
            self.obey(actions, now);
        }
        if self.client.synchronized().is_some() && now >= self.next_save {
            self.next_save = now.saturating_add(SAVE_INTERVAL);
            self.save();
        }
    }

    /// Reads what came in at a socket of [`Time::sockets`].
    pub fn handle(&mut self, source: usize, now: Duration) {
        let number = source / 2;
        if source.is_multiple_of(2) {
            let Some(socket) = self.sockets.get(&number) else { return };
            let (messages, error) = receive(socket);
            for message in messages {
                let actions = self.client.answer(number, &message, now, self.clock.read(), &mut random);
                self.obey(actions, now);
            }
            if let Some(error) = error {
                // An ICMP message: the server's port is closed, or there is no way.
                self.client.unreachable(number, &error.to_string());
            }
        } else if let Some(search) = self.searches.get_mut(&number)
            && let Some(socket) = &search.socket
        {
            let (messages, error) = receive(socket);
            if error.is_some() {
                // The time for the answer goes on; nothing will come.
                search.socket = None;
            }
            for message in messages {
                let Some(search) = self.searches.get_mut(&number) else { return };
                let outcome = search.lookup.answer(&message, now, random() as u16);
                self.follow(number, outcome, now);
            }
        }
    }

    /// Saves the time as the floor of the next start: at the end of the machine. Only a time that servers have set is
    /// worth it: a wrong one could not be corrected any more.
    pub fn save(&self) {
        let Some(file) = self.file.as_deref().filter(|_| self.client.synchronized().is_some()) else {
            return;
        };
        let seconds = i64::try_from(self.clock.read().div_euclid(1_000_000_000)).unwrap_or_default();
        if let Err(error) = floor::save(file, seconds) {
            console::warning(format_args!("clock: cannot save the time to {}: {error}", file.display()));
        }
    }

    /// Goes on with a search.
    fn follow(&mut self, number: usize, outcome: Outcome, now: Duration) {
        match outcome {
            Outcome::Waiting => {}
            Outcome::Ask(Query { server, message }) => {
                let Some(search) = self.searches.get_mut(&number) else { return };
                // A failure is like no answer: the next server is asked when the time is over.
                search.socket =
                    connect(server, DNS_PORT).and_then(|socket| socket.send(&message).map(|_| socket)).ok();
            }
            Outcome::Done(result) => {
                self.searches.remove(&number);
                let actions = self.client.resolved(number, result, now, self.clock.read(), &mut random);
                self.obey(actions, now);
            }
        }
    }

    fn obey(&mut self, actions: Vec<Action>, now: Duration) {
        for action in actions {
            match action {
                Action::Resolve { server, name } => {
                    let mut lookup = Lookup::new(&name, &self.name_servers);
                    let outcome = lookup.tick(now, random() as u16);
                    self.searches.insert(server, Search { lookup, socket: None });
                    self.follow(server, outcome, now);
                }
                Action::Ask { server, to, message } => {
                    let sent = connect(to, NTP_PORT).and_then(|socket| socket.send(&message).map(|_| socket));
                    match sent {
                        Ok(socket) => {
                            self.sockets.insert(server, socket);
                        }
                        Err(error) => self.client.unreachable(server, &error.to_string()),
                    }
                }
                Action::Step(offset) => {
                    let target = self.clock.read() + offset;
                    match self.clock.set(target) {
                        Ok(()) => {
                            console::info(format_args!("clock: set, it was {} ms off", offset / 1_000_000));
                            self.save();
                        }
                        Err(error) => console::error(format_args!("clock: cannot be set: {error}")),
                    }
                }
                Action::Slew { offset, pause } => {
                    if let Err(error) = self.clock.slew(offset, pause) {
                        console::error(format_args!("clock: cannot be slewed: {error}"));
                    }
                }
            }
        }
        let problem = self.client.problem().map(str::to_owned);
        if problem != self.told {
            match &problem {
                Some(problem) => console::warning(problem),
                None => console::info("clock: the time servers agree"),
            }
            self.told = problem;
        }
    }
}
