//! What services and containers tell about themselves: messages of sd_notify(3) on a datagram socket for each of
//! them, `KEY=value` on each line.

use crate::journal::lines::clean;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags};
use rustix::process::Pid;
use std::fs::{self, Permissions};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Longest message in bytes; longer ones are ignored.
const MAX_MESSAGE: usize = 4096;
/// Longest status in characters.
const MAX_STATUS: usize = 256;
/// Messages that are read at once: the loop has other things to do.
const BATCH: usize = 64;

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// `READY=1`
    pub ready: bool,
    /// `WATCHDOG=1`
    pub alive: bool,
    /// `WATCHDOG=trigger`
    pub hangs: bool,
    /// `STATUS=`
    pub status: Option<String>,
}

/// Reads a message. What is not known is ignored, as sd_notify(3) asks for.
pub fn parse(bytes: &[u8]) -> Message {
    let mut message = Message::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        match line {
            b"READY=1" => message.ready = true,
            b"WATCHDOG=1" => message.alive = true,
            b"WATCHDOG=trigger" => message.hangs = true,
            _ => {
                if let Some(status) = line.strip_prefix(b"STATUS=") {
                    message.status = Some(clean(status).chars().take(MAX_STATUS).collect());
                }
            }
        }
    }
    message
}

/// The socket of one unit.
#[derive(Debug)]
pub struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notify {
    /// Makes the socket anew. Anybody may send to it; who did is looked at when a message is read.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixDatagram::bind(path)?;
        rustix::net::sockopt::set_socket_passcred(&socket, true)?;
        socket.set_nonblocking(true)?;
        fs::set_permissions(path, Permissions::from_mode(0o666))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The next messages of processes that `is_ours` knows, and how many of others there were.
    pub fn read(&self, is_ours: impl Fn(Pid) -> bool) -> (Vec<Message>, u32) {
        let (mut messages, mut strangers) = (Vec::new(), 0);
        for _ in 0..BATCH {
            let mut bytes = [0; MAX_MESSAGE];
            // There is room for the sender and for nothing else: descriptors that somebody sends are closed by the kernel.
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received = match rustix::net::recvmsg(&self.socket, &mut parts, &mut control, flags) {
                Ok(received) => received,
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => break,
            };
            let sender = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid),
                _ => None,
            });
            if !sender.is_some_and(&is_ours) {
                strangers += 1;
            } else if !received.flags.contains(ReturnFlags::TRUNC) {
                messages.push(parse(bytes.get(..received.bytes).unwrap_or_default()));
            }
        }
        (messages, strangers)
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Notify {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    #[test]
    fn messages() {
        let message = parse(b"STATUS=all \x1bwell\nREADY=1\nMAINPID=7\nX");
        assert_eq!(
            message,
            Message { ready: true, status: Some("all \u{fffd}well".into()), ..Message::default() }
        );
        assert_eq!(parse(b"READY=10\nREADY=\nready=1"), Message::default());
        assert!(parse(b"WATCHDOG=1").alive && parse(b"WATCHDOG=trigger").hangs);
        assert_eq!(parse(&[b"STATUS=".as_slice(), &[b'x'; 4000]].concat()).status.unwrap().len(), MAX_STATUS);
    }

    #[test]
    fn the_sender_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let notify = Notify::bind(&folder.path().join("one")).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.send_to(b"READY=1", notify.path()).unwrap();
        sender.send_to(&[b'x'; MAX_MESSAGE + 1], notify.path()).unwrap();
        let own = rustix::process::getpid();
        let (messages, strangers) = notify.read(|pid| pid == own);
        assert_eq!(
            (messages, strangers),
            (vec![Message { ready: true, ..Message::default() }], 0),
            "one is too long"
        );
        sender.send_to(b"READY=1", notify.path()).unwrap();
        assert_eq!(notify.read(|_| false), (vec![], 1));
        // A socket that is left over makes way for a new one.
        let path = notify.path().to_owned();
        std::mem::forget(notify);
        Notify::bind(&path).unwrap();
        assert!(!path.exists());
    }

    /// The tool of systemd speaks to it.
    #[test]
    fn systemd_notify_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        let notify = Notify::bind(&folder.path().join("one")).unwrap();
        let child = Command::new("systemd-notify")
            .args(["--ready", "--status=up and running"])
            .env("NOTIFY_SOCKET", notify.path())
            .spawn();
        let Ok(mut child) = child else {
            let missing = "systemd-notify is not installed (package systemd)";
            assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "{missing}");
            eprintln!("skipped: {missing}");
            return;
        };
        // It waits until all that it has sent is read: it sends a descriptor and sees that the kernel closes it.
        let mut messages = Vec::new();
        let status = (0..1000).find_map(|_| {
            messages.extend(notify.read(|_| true).0);
            std::thread::sleep(std::time::Duration::from_millis(10));
            child.try_wait().unwrap()
        });
        if status.is_none() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(status.is_some_and(|status| status.success()), "{status:?}");
        assert!(messages.iter().any(|message| message.ready), "{messages:?}");
        assert!(
            messages.iter().any(|message| message.status.as_deref() == Some("up and running")),
            "{messages:?}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let message = parse(&bytes);
            prop_assert!(message.status.is_none_or(|status| status.chars().count() <= MAX_STATUS));
        }
    }
}
