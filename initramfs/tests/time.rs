//! The clock by foreign time servers: chrony, and servers that lie in every way; names by dnsmasq.

#![allow(clippy::unwrap_used)]

mod common;

use ashlar_init::time::packet::Nanos;
use ashlar_init::time::{Clock, Time};
use common::{Server, has, inside, sh};
use std::cell::Cell;
use std::fs;
use std::io;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that is wrong by what is in the cell.
#[derive(Clone)]
struct Wrong(Rc<Cell<Nanos>>);

impl Wrong {
    fn by_seconds(seconds: i128) -> Self {
        Self(Rc::new(Cell::new(seconds * 1_000_000_000)))
    }

    fn truth() -> Nanos {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().cast_signed()
    }
}

impl Clock for Wrong {
    fn read(&self) -> Nanos {
        Self::truth() + self.0.get()
    }

    fn set(&mut self, time: Nanos) -> io::Result<()> {
        self.0.set(time - Self::truth());
        Ok(())
    }

    fn slew(&mut self, offset: Nanos, _: Duration) -> io::Result<()> {
        self.0.set(self.0.get() + offset);
        Ok(())
    }
}

fn floor() -> i64 {
    i64::try_from(Wrong::truth() / 1_000_000_000).unwrap() - 86_400 * 365
}

/// Servers of all kinds at `127.0.1.1` and on, by what they do.
const LIARS: &str = r#"
import socket, struct, sys, time, selectors
KINDS = ["good", "off", "origin", "deny", "rate", "stratum", "alarm", "short", "silent", "echo"]
chosen = selectors.DefaultSelector()
for number, kind in enumerate(KINDS):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.1.%d" % (number + 1), 123))
    chosen.register(s, selectors.EVENT_READ, kind)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        data, peer = key.fileobj.recvfrom(2000)
        kind = key.data
        if kind == "silent":
            continue
        if kind == "echo":
            key.fileobj.sendto(data, peer)
            continue
        now = time.time() + 2208988800 + (86400 * 30 if kind == "off" else 0)
        stamp = struct.pack("!II", int(now) & 0xffffffff, int(now % 1 * 2**32))
        origin = bytes(8) if kind == "origin" else data[40:48]
        stratum = {"stratum": 0, "deny": 0, "rate": 0}.get(kind, 3)
        reference = {"deny": b"DENY", "rate": b"RATE"}.get(kind, b"\x0a\0\0\1")
        first = (3 if kind == "alarm" else 0) << 6 | 4 << 3 | 4
        answer = struct.pack("!BBbb", first, stratum, 6, -20) + bytes(8) + reference + stamp + origin + stamp + stamp
        key.fileobj.sendto(answer[:40] if kind == "short" else answer, peer)
"#;

fn address(kind: &str) -> String {
    let kinds = ["good", "off", "origin", "deny", "rate", "stratum", "alarm", "short", "silent", "echo"];
    format!("127.0.1.{}", kinds.iter().position(|other| *other == kind).unwrap() + 1)
}

/// Lets all run until `done` is true for each, at most so many seconds.
fn run_all(times: &mut [Time<Wrong>], limit: u64, done: impl Fn(&Time<Wrong>) -> bool) -> bool {
    let began = Instant::now();
    while !times.iter().all(&done) {
        if began.elapsed() > Duration::from_secs(limit) {
            return false;
        }
        for time in &mut *times {
            let now = || Duration::from_secs(1) + began.elapsed();
            time.tick(now());
            let sources: Vec<usize> = time.sockets().map(|(source, _)| source).collect();
            for source in sources {
                time.handle(source, now());
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

fn run(time: &mut Time<Wrong>, limit: u64, done: impl Fn(&Time<Wrong>) -> bool) -> bool {
    run_all(std::slice::from_mut(time), limit, done)
}

fn of(clock: &Wrong, servers: &[&str], file: Option<&str>) -> Time<Wrong> {
    let servers: Vec<String> = servers.iter().map(|name| (*name).to_owned()).collect();
    Time::of(clock.clone(), &servers, floor(), file.map(Into::into))
}

#[test]
fn foreign_servers_good_and_bad() {
    if !has("chronyd", "chrony")
        || !has("dnsmasq", "dnsmasq-base")
        || !has("python3", "python3")
        || !inside("foreign_servers_good_and_bad")
    {
        return;
    }
    sh("mount -t tmpfs tmp /run; mount -t tmpfs tmp /tmp; ip link set lo up");
    fs::write(
        "/tmp/chrony.conf",
        "local stratum 5\nallow all\nbindaddress 127.0.0.1\ncmdport 0\npidfile /run/chronyd.pid\nuser root\n",
    )
    .unwrap();
    let _chrony =
        Server::start(Command::new("/usr/sbin/chronyd").args(["-d", "-x", "-U", "-f", "/tmp/chrony.conf"]));
    let _names = Server::start(Command::new("/usr/sbin/dnsmasq").args([
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-hosts",
        "--no-resolv",
        "--user=root",
        "--group=root",
        "--pid-file",
        "--listen-address=127.0.0.53",
        "--bind-interfaces",
        "--host-record=time.example,127.0.0.1",
        "--cname=alias.example,time.example",
    ]));
    fs::write("/tmp/liars.py", LIARS).unwrap();
    let mut liars =
        Server::start(Command::new("/usr/bin/python3").arg("/tmp/liars.py").stdout(Stdio::piped()));
    let mut ready = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(liars.0.stdout.take().unwrap()), &mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let close = |clock: &Wrong| clock.0.get().abs() < 50_000_000;

    // By name, through an alias, at chrony; the first name server is dead. The time is saved.
    let clock = Wrong::by_seconds(-3600);
    let mut time = of(&clock, &["alias.example"], Some("/tmp/saved/clock"));
    time.network_changed(
        &["127.0.0.99".parse().unwrap(), "127.0.0.53".parse().unwrap()],
        Duration::from_secs(1),
    );
    assert!(run(&mut time, 20, |time| time.synchronized().is_some()), "{:?}", time.problem());
    assert!(close(&clock), "{}", clock.0.get());
    assert_eq!((time.synchronized(), time.problem()), (Some("alias.example"), None));
    let saved: i64 = fs::read_to_string("/tmp/saved/clock").unwrap().trim().parse().unwrap();
    assert!((i128::from(saved) - Wrong::truth() / 1_000_000_000).abs() < 5);

    // Two good ones and one that is a month off.
    let clock = Wrong::by_seconds(86_400);
    let mut time = of(&clock, &[&address("off"), "127.0.0.1", &address("good")], None);
    assert!(run(&mut time, 20, |time| time.synchronized().is_some()), "{:?}", time.problem());
    assert!(close(&clock), "{}", clock.0.get());

    // Each bad one together with a good one, all at once: no majority, the clock stays, and the reason is told.
    let kinds = [
        ("off", "do not agree"),
        ("origin", "no answer to the question"),
        ("deny", "refuses"),
        ("rate", "less often"),
        ("stratum", "not set"),
        ("alarm", "not set"),
        ("short", "no answer to the question"),
        ("echo", "no answer to the question"),
        ("silent", "does not answer"),
    ];
    let clocks: Vec<Wrong> = kinds.iter().map(|_| Wrong::by_seconds(3600)).collect();
    let mut times: Vec<Time<Wrong>> = (kinds.iter().zip(&clocks))
        .map(|((kind, _), clock)| of(clock, &[&address("good"), &address(kind)], None))
        .collect();
    run_all(&mut times, 20, |time| time.problem().is_some());
    for (((kind, word), clock), time) in kinds.iter().zip(&clocks).zip(&times) {
        let problem = time.problem().unwrap_or_default();
        assert!(problem.contains(word) && problem.contains(&address(kind)), "{kind}: {problem}");
        assert_eq!(time.synchronized(), None, "{kind}");
        assert_eq!(clock.0.get(), 3_600_000_000_000, "{kind}");
    }

    // Nobody there; a name that does not exist; no name server.
    let clock = Wrong::by_seconds(0);
    let mut times = [of(&clock, &["127.0.2.1"], None), of(&clock, &["none.example"], None)];
    times[1].network_changed(&["127.0.0.53".parse().unwrap()], Duration::from_secs(1));
    assert!(run_all(&mut times, 15, |time| time.problem().is_some()));
    assert!(times[0].problem().unwrap().contains("refused"), "{:?}", times[0].problem());
    assert!(times[1].problem().unwrap().contains("none.example: the name"), "{:?}", times[1].problem());
}
