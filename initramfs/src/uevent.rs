//! The kernel's messages about devices that come and go (Linux, `lib/kobject_uevent.c`).

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::netlink::{KOBJECT_UEVENT, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// The multicast group of the kernel itself; group 2 is udev's.
const KERNEL_GROUP: u32 = 1;
/// The kernel's own limit of a message in bytes.
const MAX_MESSAGE: usize = 8192;
/// How often a condition is looked at when no message comes: some files appear after the message.
const INTERVAL: Duration = Duration::from_millis(250);

/// A message: what happened, to which device, and what more the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent {
    /// `add`, `remove`, `change`.
    pub action: String,
    /// Path below `/sys`.
    pub device: String,
    /// The other pairs.
    pub fields: BTreeMap<String, String>,
}

/// Reads a message: `ACTION@PATH`, then `KEY=VALUE`, each ended by a NUL. Pairs without `=` or that are no text
/// are left out.
pub fn parse(message: &[u8]) -> Option<Uevent> {
    let mut parts = message.split(|byte| *byte == 0).filter_map(|part| std::str::from_utf8(part).ok());
    let (action, device) = parts.next()?.split_once('@')?;
    let fields = parts
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Some(Uevent { action: action.into(), device: device.into(), fields })
}

/// A socket that receives the messages.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Starts to listen.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(KOBJECT_UEVENT))?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP))?;
        Ok(Self(socket))
    }

    /// The messages that are there now. Messages may be lost when many come at once; who waits must look for
    /// itself.
    pub fn drain(&self) -> Vec<Uevent> {
        let mut events = Vec::new();
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            match rustix::net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => events.extend(buffer.get(..length).and_then(parse)),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {}
                Err(_) => return events,
            }
        }
    }

    /// Calls `look` until it finds something, after each message and at least four times a second, for at most
    /// `limit`. It is called once after the time is over, so that a slow call is not the last one.
    pub fn wait<T>(&self, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        let end = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let timeout = Timespec::try_from(left.min(INTERVAL)).ok();
            // Interrupted or not: look again.
            let _ = rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref());
            self.drain();
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_the_kernel() {
        let message =
            b"add@/devices/pci0/virtio1/block/vda\0ACTION=add\0SUBSYSTEM=block\0DEVNAME=vda\0SEQNUM=7\0";
        let event = parse(message).unwrap();
        assert_eq!(
            (event.action.as_str(), event.device.as_str()),
            ("add", "/devices/pci0/virtio1/block/vda")
        );
        assert_eq!(event.fields["SUBSYSTEM"], "block");
        for length in 0..message.len() {
            let _ = parse(&message[..length]);
        }
        assert_eq!(parse(b"libudev\0\xfe\xed"), None);
        assert_eq!(parse(b""), None);
    }
}
