//! PID 1's socket: who asks, one line each, and who is answered.
//!
//! `ashlar_image::control` says what is spoken. The module moves bytes and never waits: the loop polls
//! [`Control::sources`], calls [`Control::handle`] for what is ready, does what the requests want, now or later, and
//! gives the answers to [`Control::answer`]. What a peer may do is decided by [`exchange`], without a socket.

pub mod exchange;
pub mod request;

pub use request::parse_request;

use ashlar_image::control::{Answer, MAX_LINE, Request};
use exchange::{Exchange, Step};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recv, send, socket_with, sockopt,
};
use rustix::process::Uid;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// Connections at one time; who comes then waits in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 16;
/// Connections that wait in the kernel's queue.
const BACKLOG: i32 = 64;
/// Bytes of all requests that have begun, together: two of the longest.
const MAX_BUFFERED: usize = 2 * MAX_LINE;
/// Bytes read at a time: between them the loop does its other work.
const BLOCK: usize = 16 << 10;
/// How long nobody is accepted after the kernel could not give a descriptor.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection, never used for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// What the loop polls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// The socket itself: somebody comes.
    Listener,
    /// A connection.
    Connection(ConnectionId),
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    exchange: Exchange,
}

/// The socket and its connections.
#[derive(Debug)]
pub struct Control {
    listener: OwnedFd,
    /// Who may ask besides nobody.
    owner: Uid,
    connections: BTreeMap<ConnectionId, Connection>,
    next: u64,
    paused_until: Duration,
}

impl Control {
    /// Makes the socket at `path` with mode 0600; one that is left there from before is replaced. Only root is
    /// listened to.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_for(path, Uid::ROOT)
    }

    /// As [`Control::open`], for the user `owner`: tests are not root.
    pub fn open_for(path: &Path, owner: Uid) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(old) if old.file_type().is_socket() => fs::remove_file(path)?,
            // Not ours to remove; binding says that it is in the way.
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file gets the mode of the socket: at no time may others open it.
        rustix::fs::fchmod(&listener, Mode::RUSR | Mode::WUSR)?;
        bind(&listener, &SocketAddrUnix::new(path)?)?;
        listen(&listener, BACKLOG)?;
        Ok(Self { listener, owner, connections: BTreeMap::new(), next: 0, paused_until: Duration::ZERO })
    }

    /// What to poll for, at the time `now`: for writing where the third says so, for reading otherwise. A connection
    /// that waits for an answer and has nothing more to say is not among them.
    pub fn sources(&self, now: Duration) -> impl Iterator<Item = (Token, BorrowedFd<'_>, bool)> {
        let listens = self.connections.len() < MAX_CONNECTIONS && now >= self.paused_until;
        let listener = listens.then(|| (Token::Listener, self.listener.as_fd(), false));
        listener.into_iter().chain(self.connections.iter().filter_map(|(id, connection)| {
            let writes = connection.exchange.wants_write()?;
            Some((Token::Connection(*id), connection.socket.as_fd(), writes))
        }))
    }

    /// When [`Control::tick`] is due.
    pub fn deadline(&self) -> Duration {
        let connections = self.connections.values().map(|connection| connection.exchange.deadline());
        let pause = (self.paused_until > Duration::ZERO).then_some(self.paused_until);
        connections.chain(pause).min().unwrap_or(Duration::MAX)
    }

    /// Lets time pass: who is too slow is dropped, who waits for too long is told so.
    pub fn tick(&mut self, now: Duration) {
        if now >= self.paused_until {
            self.paused_until = Duration::ZERO;
        }
        self.connections.retain(|_, connection| match connection.exchange.expire(now) {
            Step::Close => false,
            _ => connection.flush(),
        });
    }

    /// Does what is possible with what is ready. Gives the requests that are complete; each wants one
    /// [`Control::answer`]. What is no request is refused here.
    pub fn handle(&mut self, token: Token, now: Duration) -> Vec<(ConnectionId, Request)> {
        match token {
            Token::Listener => {
                self.accept(now);
                Vec::new()
            }
            Token::Connection(id) => {
                self.read_or_write(id, now).map(|request| (id, request)).into_iter().collect()
            }
        }
    }

    /// Answers a request. Nothing happens when who asked is gone, or was answered before.
    pub fn answer(&mut self, id: ConnectionId, answer: &Answer, now: Duration) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.exchange.answer(answer, now);
        if !connection.flush() {
            self.connections.remove(&id);
        }
    }

    /// How many are connected.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    fn accept(&mut self, now: Duration) {
        while self.connections.len() < MAX_CONNECTIONS {
            let socket = match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    // No descriptor or no memory: the listener stays ready, and polling it would never sleep.
                    self.paused_until = now.saturating_add(PAUSE);
                    return;
                }
            };
            if !sockopt::socket_peercred(&socket).is_ok_and(|peer| peer.uid == self.owner) {
                continue;
            }
            let id = ConnectionId(self.next);
            self.next = self.next.wrapping_add(1);
            self.connections.insert(id, Connection { socket, exchange: Exchange::new(now) });
        }
    }

    fn read_or_write(&mut self, id: ConnectionId, now: Duration) -> Option<Request> {
        let buffered: usize = self.connections.values().map(|c| c.exchange.buffered()).sum();
        let connection = self.connections.get_mut(&id)?;
        let step = if connection.exchange.wants_write() == Some(true) {
            Step::Wait
        } else {
            let mut block = [0; BLOCK];
            match recv(&connection.socket, &mut block[..], RecvFlags::empty()) {
                Ok((0, _)) => connection.exchange.end_of_input(),
                Ok((length, _)) if buffered.saturating_add(length) > MAX_BUFFERED => {
                    connection.exchange.refuse(request::too_much(), now)
                }
                Ok((length, _)) => connection.exchange.received(block.get(..length).unwrap_or_default(), now),
                Err(Errno::INTR | Errno::AGAIN) => Step::Wait,
                Err(_) => Step::Close,
            }
        };
        let (request, stays) = match step {
            Step::Request(request) => (Some(request), true),
            Step::Wait => (None, connection.flush()),
            Step::Close => (None, false),
        };
        if !stays {
            self.connections.remove(&id);
        }
        request
    }
}

impl Connection {
    /// Sends what the kernel takes now. Whether the connection stays.
    fn flush(&mut self) -> bool {
        while self.exchange.wants_write() == Some(true) {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.socket, self.exchange.to_send(), flags) {
                Ok(sent) => {
                    if self.exchange.sent(sent) == Step::Close {
                        return false;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::control::{Refusal, RefusalKind, Reply};
    use rustix::event::{PollFd, PollFlags, poll};
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    const NOW: Duration = Duration::from_secs(100);

    fn open(folder: &Path) -> Control {
        Control::open_for(&folder.join("init.sock"), rustix::process::geteuid()).unwrap()
    }

    /// What the loop does: everything that is ready now.
    fn turn(control: &mut Control, now: Duration) -> Vec<(ConnectionId, Request)> {
        let sources: Vec<(Token, bool)> = {
            let sources: Vec<_> = control.sources(now).collect();
            let mut polled: Vec<PollFd<'_>> = sources
                .iter()
                .map(|(_, fd, writes)| {
                    PollFd::from_borrowed_fd(*fd, if *writes { PollFlags::OUT } else { PollFlags::IN })
                })
                .collect();
            poll(&mut polled, Some(&rustix::time::Timespec::default())).unwrap();
            let ready = polled.iter().map(|poll| !poll.revents().is_empty());
            sources.iter().zip(ready).map(|((token, _, _), ready)| (*token, ready)).collect()
        };
        let ready = sources.into_iter().filter(|(_, ready)| *ready);
        ready.flat_map(|(token, _)| control.handle(token, now)).collect()
    }

    fn ask(folder: &Path, text: &[u8]) -> UnixStream {
        let mut stream = UnixStream::connect(folder.join("init.sock")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(text).unwrap();
        stream
    }

    fn read(mut stream: UnixStream) -> Answer {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with('\n') && text.matches('\n').count() == 1, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_request_and_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let mut control = open(folder.path());
        let mode = fs::metadata(folder.path().join("init.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut stream = ask(folder.path(), b"{\"op\":\"stat");
        assert!(turn(&mut control, NOW).is_empty() && turn(&mut control, NOW).is_empty());
        stream.write_all(b"us\"}\n").unwrap();
        let requests = turn(&mut control, NOW);
        let [(id, Request::Status)] = requests[..] else { panic!("{requests:?}") };
        // Nothing is asked twice, and the loop sleeps until it has the answer.
        assert!(turn(&mut control, NOW).is_empty());
        control.answer(id, &Answer::Ok(Reply::Done), NOW);
        assert_eq!(read(stream), Answer::Ok(Reply::Done));
        assert_eq!(control.connections(), 0);
        control.answer(id, &Answer::Ok(Reply::Done), NOW);
    }

    #[test]
    fn an_answer_longer_than_the_kernels_buffer() {
        let folder = tempfile::tempdir().unwrap();
        let mut control = open(folder.path());
        let stream = ask(folder.path(), b"{\"op\":\"configuration\"}\n");
        turn(&mut control, NOW);
        let (id, _) = turn(&mut control, NOW).remove(0);
        let long = Answer::Error(Refusal {
            kind: RefusalKind::Failed,
            message: "x".repeat(3 << 20),
            advice: String::new(),
        });
        control.answer(id, &long, NOW);
        assert_eq!(control.connections(), 1);
        let reader = std::thread::spawn(move || read(stream));
        while control.connections() > 0 {
            turn(&mut control, NOW);
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap(), long);
    }

    #[test]
    fn what_is_no_request_is_refused_and_the_next_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let mut control = open(folder.path());
        for bad in [&b"\n"[..], b"GET / HTTP/1.1\r\n", b"{\"op\":\"burn\"}\n", b"\xff\xfe\n"] {
            let stream = ask(folder.path(), bad);
            assert!(turn(&mut control, NOW).is_empty() && turn(&mut control, NOW).is_empty());
            let Answer::Error(refusal) = read(stream) else { panic!("{bad:?}") };
            assert_eq!(refusal.kind, RefusalKind::Invalid);
        }
        let _stream = ask(folder.path(), b"{\"op\":\"reboot\"}\n");
        turn(&mut control, NOW);
        assert_eq!(turn(&mut control, NOW).remove(0).1, Request::Reboot);
    }

    #[test]
    fn too_many_wait_and_slow_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut control = open(folder.path());
        let mut streams: Vec<UnixStream> = (0..20).map(|_| ask(folder.path(), b"{")).collect();
        turn(&mut control, NOW);
        assert_eq!(control.connections(), MAX_CONNECTIONS);
        assert!(control.sources(NOW).all(|(token, ..)| token != Token::Listener));
        turn(&mut control, NOW);
        let late = control.deadline();
        assert!(late > NOW && late <= NOW + Duration::from_secs(10));
        control.tick(late);
        assert_eq!(control.connections(), 0);
        turn(&mut control, late);
        assert_eq!(control.connections(), 4);
        // Who comes and goes leaves nothing.
        streams.clear();
        turn(&mut control, late);
        turn(&mut control, late);
        assert_eq!(control.connections(), 0);
        assert_eq!(control.deadline(), Duration::MAX);
    }

    #[test]
    fn all_requests_together_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut control = open(folder.path());
        let path = folder.path().to_owned();
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let path = path.clone();
                std::thread::spawn(move || {
                    let mut stream = UnixStream::connect(path.join("init.sock")).unwrap();
                    let _ = stream.write_all(&vec![b' '; MAX_LINE - 1]);
                    stream
                })
            })
            .collect();
        let mut most = 0;
        while !writers.iter().all(std::thread::JoinHandle::is_finished) {
            assert!(turn(&mut control, NOW).is_empty());
            most = most.max(control.connections.values().map(|c| c.exchange.buffered()).sum());
        }
        // The refusals, short as they are, are buffered too.
        assert!(most <= MAX_BUFFERED + 4 * 1024, "{most}");
    }

    #[test]
    fn others_are_not_listened_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("init.sock");
        let other = Uid::from_raw(rustix::process::geteuid().as_raw() ^ 1);
        let mut control = Control::open_for(&path, other).unwrap();
        let mut stream = ask(folder.path(), b"{\"op\":\"reboot\"}\n");
        assert!(turn(&mut control, NOW).is_empty());
        assert_eq!(control.connections(), 0);
        assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    }

    #[test]
    fn a_socket_from_before_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        drop(open(folder.path()));
        let mut control = open(folder.path());
        let _stream = ask(folder.path(), b"");
        turn(&mut control, NOW);
        assert_eq!(control.connections(), 1);
        let file = folder.path().join("file");
        fs::write(&file, "mine").unwrap();
        assert!(Control::open(&file).is_err());
        assert_eq!(fs::read(&file).unwrap(), b"mine");
    }
}
