//! Links, addresses and routes by rtnetlink (Linux, `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h`).

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// `RTMGRP_LINK`: links that come, go and change.
pub const LINK_GROUP: u32 = 1;
/// What one read may give, in bytes; the kernel's dumps come in parts of 32 KiB at most.
const BUFFER: usize = 64 << 10;
/// How long the kernel may take for an answer, in seconds.
const DEADLINE: i64 = 5;

const HEADER: usize = 16;
const DONE: u16 = 3;
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const REPLACE: u16 = 0x100;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;

/// `IFF_UP` and `IFF_LOWER_UP` (the cable is in).
const UP: u32 = 0x1;
const LOWER_UP: u32 = 0x1_0000;
/// `AF_INET`.
const INET: u8 = 2;
/// `RTNH_F_ONLINK`: the gateway need not lie in the interface's network.
const ON_LINK: u32 = 4;

/// What the kernel tells of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address, where there is one.
    pub mac: Option<[u8; 6]>,
    /// Whether it can carry packets now.
    pub carrier: bool,
    /// Whether it is gone.
    pub removed: bool,
}

/// One message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A link.
    Link(Link),
    /// The end of a request: 0 or a negative error number.
    Result(i32),
    /// Something else.
    Other,
}

fn chunk<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// The attributes of a message as pairs of type and value; the list ends where it is malformed.
fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(chunk(data, 0)?));
        let kind = u16::from_ne_bytes(chunk(data, 2)?);
        let value = data.get(4..length)?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

fn link(body: &[u8], removed: bool) -> Option<Link> {
    let index = u32::from_ne_bytes(chunk(body, 4)?);
    let flags = u32::from_ne_bytes(chunk(body, 8)?);
    let mut link = Link { index, name: String::new(), mac: None, carrier: flags & LOWER_UP != 0, removed };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            1 => link.mac = value.try_into().ok(),
            3 => link.name = value.split(|b| *b == 0).next().map(String::from_utf8_lossy)?.into_owned(),
            _ => {}
        }
    }
    Some(link)
}

/// Reads the messages in one datagram; what is malformed ends the list.
pub fn parse(mut data: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(length) = chunk(data, 0).map(|bytes| u32::from_ne_bytes(bytes) as usize) {
        let (Some(body), Some(kind)) = (data.get(HEADER..length), chunk(data, 4)) else { break };
        messages.push(match u16::from_ne_bytes(kind) {
            NEW_LINK => link(body, false).map_or(Message::Other, Message::Link),
            DEL_LINK => link(body, true).map_or(Message::Other, Message::Link),
            DONE => Message::Result(0),
            ERROR => Message::Result(chunk(body, 0).map_or(-libc::EIO, i32::from_ne_bytes)),
            _ => Message::Other,
        });
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// A request under construction.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request(Vec<u8>);

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes.splice(4..6, kind.to_ne_bytes());
        bytes.splice(6..8, (REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend(((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0.splice(0..4, length.to_ne_bytes());
        self.0
    }
}

/// `struct ifinfomsg`.
fn link_body(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

fn address_request(kind: u16, flags: u16, index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    // `struct ifaddrmsg`: the scope is 0, universe.
    let mut body = vec![INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    let mut request =
        Request::new(kind, flags, &body).attribute(2, &address.octets()).attribute(1, &address.octets());
    if prefix < 31 {
        let broadcast = u32::from(address) | u32::MAX >> prefix;
        request = request.attribute(4, &broadcast.to_be_bytes());
    }
    request.finish()
}

/// A route to configure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Network that it leads to.
    pub network: Ipv4Addr,
    /// Length of the network's prefix in bits; 0 is the default route.
    pub prefix: u8,
    /// Next hop; unspecified when the network is on the link itself.
    pub gateway: Ipv4Addr,
}

fn route_request(index: u32, source: Ipv4Addr, metric: u32, route: &Route) -> Vec<u8> {
    let direct = route.gateway.is_unspecified();
    // `struct rtmsg`: main table, protocol DHCP, scope link or universe, type unicast.
    let mut body = vec![INET, route.prefix, 0, 0, 254, 16, if direct { 253 } else { 0 }, 1];
    body.extend(if direct { 0 } else { ON_LINK }.to_ne_bytes());
    let mut request = Request::new(NEW_ROUTE, ACK | CREATE | REPLACE, &body)
        .attribute(4, &index.to_ne_bytes())
        .attribute(6, &metric.to_ne_bytes())
        // With its source address gone the kernel removes the route too.
        .attribute(7, &source.octets());
    if route.prefix > 0 {
        request = request.attribute(1, &route.network.octets());
    }
    if !direct {
        request = request.attribute(5, &route.gateway.octets());
    }
    request.finish()
}

/// A socket to the kernel's networking.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// Opens a socket that receives the messages of `groups`; 0 for one that only asks.
    pub fn open(groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is number 0, which is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    /// The messages that are there now.
    pub fn drain(&self) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match rustix::net::recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => messages.extend(parse(buffer.get(..length).unwrap_or_default())),
                Err(rustix::io::Errno::INTR | rustix::io::Errno::NOBUFS) => {}
                Err(_) => return messages,
            }
        }
    }

    /// Asks for all links; they come as messages.
    pub fn ask_for_links(&self) -> io::Result<()> {
        let request = Request::new(GET_LINK, DUMP, &link_body(0, 0, 0)).finish();
        rustix::net::send(&self.0, &request, SendFlags::empty())?;
        Ok(())
    }

    /// Sends `request` and waits for its result.
    fn run(&self, request: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, request, SendFlags::empty())?;
        loop {
            let timeout = Timespec { tv_sec: DEADLINE, tv_nsec: 0 };
            match rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for message in self.drain() {
                match message {
                    Message::Result(0) => return Ok(()),
                    Message::Result(error) => {
                        return Err(io::Error::from_raw_os_error(error.saturating_neg()));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Switches an interface on.
    pub fn set_up(&self, index: u32) -> io::Result<()> {
        self.run(&Request::new(NEW_LINK, ACK, &link_body(index, UP, UP)).finish())
    }

    /// Sets the largest packet in bytes.
    pub fn set_mtu(&self, index: u32, mtu: u16) -> io::Result<()> {
        let body = link_body(index, 0, 0);
        self.run(&Request::new(NEW_LINK, ACK, &body).attribute(4, &u32::from(mtu).to_ne_bytes()).finish())
    }

    /// Gives an interface an address.
    pub fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.run(&address_request(NEW_ADDRESS, ACK | CREATE | REPLACE, index, address, prefix))
    }

    /// Takes an address from an interface, and with it the routes that use it.
    pub fn remove_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        self.run(&address_request(DEL_ADDRESS, ACK, index, address, prefix))
    }

    /// Adds a route through an interface with `source` as own address; of two routes to the same network the one
    /// with the smaller `metric` is used.
    pub fn add_route(&self, index: u32, source: Ipv4Addr, metric: u32, route: &Route) -> io::Result<()> {
        self.run(&route_request(index, source, metric, route))
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link_message() -> Vec<u8> {
        Request::new(NEW_LINK, 0, &link_body(2, UP | LOWER_UP, 0))
            .attribute(3, b"eth0\0")
            .attribute(1, &[2, 0, 0, 0, 0, 1])
            .finish()
    }

    #[test]
    fn a_link_and_what_follows() {
        let mut data = link_message();
        data.extend(Request::new(ERROR, 0, &(-17i32).to_ne_bytes()).finish());
        let link = Link {
            index: 2,
            name: "eth0".into(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            carrier: true,
            removed: false,
        };
        assert_eq!(parse(&data), [Message::Link(link), Message::Result(-17)]);
    }

    #[test]
    fn broken_messages_end_the_list() {
        let good = link_message();
        for length in 0..good.len() {
            assert!(parse(&good[..length]).is_empty());
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = parse(&bad);
            }
        }
        assert!(parse(&[0; 64]).is_empty(), "a length of zero must not loop");
    }

    #[test]
    fn requests_in_bytes() {
        let address = address_request(NEW_ADDRESS, ACK, 3, Ipv4Addr::new(10, 0, 2, 15), 24);
        assert_eq!(address.len(), 48);
        assert_eq!(&address[0..8], &[48, 0, 0, 0, 20, 0, 5, 0]);
        assert_eq!(&address[16..24], &[2, 24, 0, 0, 3, 0, 0, 0]);
        assert_eq!(&address[24..32], &[8, 0, 2, 0, 10, 0, 2, 15]);
        assert_eq!(&address[40..48], &[8, 0, 4, 0, 10, 0, 2, 255]);
        let default =
            Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway: Ipv4Addr::new(10, 0, 2, 2) };
        let route = route_request(3, Ipv4Addr::new(10, 0, 2, 15), 103, &default);
        assert_eq!(&route[16..28], &[2, 0, 0, 0, 254, 16, 0, 1, 4, 0, 0, 0]);
        assert!(route.windows(8).any(|w| w == [8, 0, 5, 0, 10, 0, 2, 2]));
    }

    #[test]
    fn the_kernel_understands() {
        let socket = Netlink::open(0).unwrap();
        socket.ask_for_links().unwrap();
        let mut links = Vec::new();
        for _ in 0..100 {
            let messages = socket.drain();
            links.extend(messages.iter().filter_map(|m| match m {
                Message::Link(link) => Some(link.clone()),
                _ => None,
            }));
            if messages.contains(&Message::Result(0)) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(links.iter().any(|link| link.name == "lo" && link.index == 1), "{links:?}");
        let error = socket.set_up(0x7fff_fff0).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)), "{error}");
    }
}
