//! Links, addresses and routes by rtnetlink. [`wire`] is the form of the messages, this is the socket: each request has
//! a number, its answer is waited for within a deadline and tells the kernel's own reason where it refuses.

mod wire;

pub use wire::{Address, Link, Message, NameServers, parse};

use crate::sys;
use ashlar_image::machine::{BondMode, Cidr};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::cell::Cell;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use wire::{
    ACK, APPEND, Attributes, CREATE, DEL_ADDRESS, DEL_LINK, DEL_ROUTE, DUMP, EXCLUSIVE, GET_ADDRESS,
    GET_LINK, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, REPLACE, Request, UP, family, link, link_body, octets,
};

/// `RTMGRP_LINK`: links that come, go and change.
pub const LINK_GROUP: u32 = 1;
/// `RTNLGRP_ND_USEROPT` (20) as a bit: options of IPv6 routers that are for programs.
pub const ROUTER_GROUP: u32 = 1 << 19;
/// What one read may give, in bytes; the kernel's dumps come in parts of 32 KiB at most.
const BUFFER: usize = 64 << 10;
/// How long the kernel may take for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most messages that one request or one look at the news gives; a machine with more links has the rest left alone.
const MAX_MESSAGES: usize = 4096;
/// `RTNH_F_ONLINK`: the gateway need not lie in the interface's network.
const ON_LINK: u32 = 4;

/// The kernel refuses a request, or does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The error's number (errno).
    pub code: i32,
    /// The kernel's reason in words, where it has one.
    pub reason: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        io::Error::from_raw_os_error(self.code).fmt(f)?;
        self.reason.iter().try_for_each(|reason| write!(f, ": {reason}"))
    }
}

impl std::error::Error for Failure {}

impl Failure {
    const fn new(code: i32) -> Self {
        Self { code, reason: None }
    }

    /// Whether what was to be removed is not there.
    pub const fn is_absence(&self) -> bool {
        matches!(
            self.code,
            libc::ENODEV | libc::ENXIO | libc::ENOENT | libc::ESRCH | libc::EADDRNOTAVAIL | libc::ENETUNREACH
        )
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<rustix::io::Errno> for Failure {
    fn from(error: rustix::io::Errno) -> Self {
        Self::new(error.raw_os_error())
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure.reason {
            None => Self::from_raw_os_error(failure.code),
            Some(_) => Self::new(Self::from_raw_os_error(failure.code).kind(), failure),
        }
    }
}

/// A route as a DHCP server tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Network that it leads to.
    pub network: Ipv4Addr,
    /// Length of the network's prefix in bits; 0 is the default route.
    pub prefix: u8,
    /// Next hop; unspecified when the network is on the link itself.
    pub gateway: Ipv4Addr,
}

/// A route of the kernel's main table, through one interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Network that it leads to.
    pub to: Cidr,
    /// Next hop; none when the network is on the link itself.
    pub via: Option<IpAddr>,
    /// Of two routes to the same network the one with the smaller metric is used.
    pub metric: u32,
    /// Own address for what goes this way. With the address the kernel removes the route too.
    pub source: Option<IpAddr>,
    /// Who made it: `RTPROT_DHCP` 16, `RTPROT_STATIC` 4.
    pub protocol: u8,
}

/// `RTPROT_STATIC`.
pub const STATIC: u8 = 4;
/// `RTPROT_DHCP`.
pub const DHCP: u8 = 16;

fn address_request(kind: u16, flags: u16, index: u32, address: IpAddr, prefix: u8) -> Request {
    // `struct ifaddrmsg`: the scope is 0, universe.
    let mut body = vec![family(address), prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    let mut attributes = Attributes::default().with(2, &octets(address)).with(1, &octets(address));
    if let IpAddr::V4(address) = address
        && prefix < 31
    {
        let broadcast = address.to_bits() | u32::MAX >> prefix;
        attributes = attributes.with(4, &broadcast.to_be_bytes());
    }
    Request::new(kind, flags, &body, &attributes)
}

fn route_request(kind: u16, flags: u16, index: u32, way: &Way) -> Request {
    // Scope link where IPv4 needs no gateway; IPv6 knows only universe.
    let scope = if way.via.is_none() && way.to.address.is_ipv4() { 253 } else { 0 };
    // `struct rtmsg`: main table, type unicast.
    let mut body = vec![family(way.to.address), way.to.prefix, 0, 0, 254, way.protocol, scope, 1];
    body.extend(if way.via.is_some() { ON_LINK } else { 0 }.to_ne_bytes());
    let mut attributes = Attributes::default().word(4, index).word(6, way.metric);
    if let Some(source) = way.source {
        attributes = attributes.with(7, &octets(source));
    }
    if way.to.prefix > 0 {
        attributes = attributes.with(1, &octets(way.to.network()));
    }
    if let Some(via) = way.via {
        attributes = attributes.with(5, &octets(via));
    }
    Request::new(kind, flags, &body, &attributes)
}

fn vlan_request(name: &str, parent: u32, id: u16) -> Request {
    let data = Attributes::default().with(1, &id.to_ne_bytes());
    let info = Attributes::default().text(link::INFO_KIND, "vlan").nest(link::INFO_DATA, &data);
    let attributes =
        Attributes::default().word(link::PARENT, parent).text(link::NAME, name).nest(link::INFO, &info);
    Request::new(NEW_LINK, ACK | CREATE | EXCLUSIVE, &link_body(0, 0, 0), &attributes)
}

fn bond_request(name: &str, mode: BondMode, miimon: u16) -> Request {
    // `IFLA_BOND_MODE` and `IFLA_BOND_MIIMON`.
    let data = Attributes::default().with(1, &[mode as u8]).word(3, miimon.into());
    let info = Attributes::default().text(link::INFO_KIND, "bond").nest(link::INFO_DATA, &data);
    let attributes = Attributes::default().text(link::NAME, name).nest(link::INFO, &info);
    Request::new(NEW_LINK, ACK | CREATE | EXCLUSIVE, &link_body(0, 0, 0), &attributes)
}

/// A socket to the kernel's networking.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: Cell<u32>,
}

impl Netlink {
    /// Opens a socket that receives the messages of `groups`; 0 for one that only asks.
    pub fn open(groups: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // No protocol is number 0, which is NETLINK_ROUTE.
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        // `NETLINK_CAP_ACK` and `NETLINK_EXT_ACK`: answers do not repeat the request, and say why. Older kernels lack them.
        for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_EXT_ACK] {
            let _ = sys::set_socket_option(&socket, libc::SOL_NETLINK, option, 1);
        }
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { socket, sequence: Cell::new(0) })
    }

    /// The messages that are there now, and whether some were lost because nobody came to take them.
    pub fn drain(&self) -> (Vec<Message>, bool) {
        let (mut messages, mut lost) = (Vec::new(), false);
        let mut buffer = vec![0; BUFFER];
        while messages.len() < MAX_MESSAGES {
            match rustix::net::recv(&self.socket, buffer.as_mut_slice(), RecvFlags::empty()) {
                Ok((length, _)) => messages.extend(parse(buffer.get(..length).unwrap_or_default())),
                Err(rustix::io::Errno::NOBUFS) => lost = true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        (messages, lost)
    }

    /// Sends `request` and waits for its result; gives what came before it.
    fn run(&self, request: Request) -> Result<Vec<Message>, Failure> {
        let number = self.sequence.get().wrapping_add(1);
        self.sequence.set(number);
        rustix::net::send(&self.socket, &request.numbered(number), SendFlags::empty())?;
        let end = Instant::now() + DEADLINE;
        let mut found = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(|_| Failure::new(libc::EINVAL))?;
            match rustix::event::poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timeout)) {
                Ok(0) => return Err(Failure::new(libc::ETIMEDOUT)),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let (messages, lost) = self.drain();
            for message in messages {
                match message {
                    Message::Result { sequence, code: 0, .. } if sequence == number => return Ok(found),
                    Message::Result { sequence, code, reason } if sequence == number => {
                        return Err(Failure { code: code.saturating_neg(), reason });
                    }
                    other if found.len() < MAX_MESSAGES => found.push(other),
                    _ => {}
                }
            }
            if lost {
                return Err(Failure::new(libc::ENOBUFS));
            }
        }
    }

    fn change(&self, request: Request) -> Result<(), Failure> {
        self.run(request).map(|_| ())
    }

    /// All links.
    pub fn links(&self) -> Result<Vec<Link>, Failure> {
        let request = Request::new(GET_LINK, DUMP, &link_body(0, 0, 0), &Attributes::default());
        let links = self.run(request)?.into_iter().filter_map(|message| match message {
            Message::Link(link) => Some(link),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The link of this name.
    pub fn link(&self, name: &str) -> Result<Link, Failure> {
        let attributes = Attributes::default().text(link::NAME, name);
        let messages = self.run(Request::new(GET_LINK, ACK, &link_body(0, 0, 0), &attributes))?;
        let found = messages.into_iter().find_map(|message| match message {
            Message::Link(link) if link.name == name => Some(link),
            _ => None,
        });
        found.ok_or(Failure::new(libc::ENODEV))
    }

    /// All addresses of all links.
    pub fn addresses(&self) -> Result<Vec<Address>, Failure> {
        let request = Request::new(GET_ADDRESS, DUMP, &[0; 8], &Attributes::default());
        let addresses = self.run(request)?.into_iter().filter_map(|message| match message {
            Message::Address(address) => Some(address),
            _ => None,
        });
        Ok(addresses.collect())
    }

    /// Switches an interface on or off.
    pub fn set_up(&self, index: u32, up: bool) -> Result<(), Failure> {
        let flags = if up { UP } else { 0 };
        self.change(Request::new(NEW_LINK, ACK, &link_body(index, flags, UP), &Attributes::default()))
    }

    /// Sets the largest packet in bytes.
    pub fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), Failure> {
        let attributes = Attributes::default().word(link::MTU, mtu);
        self.change(Request::new(NEW_LINK, ACK, &link_body(index, 0, 0), &attributes))
    }

    /// Makes an interface, which is switched off, a member of the bond `master`; of none when it is 0.
    pub fn set_master(&self, index: u32, master: u32) -> Result<(), Failure> {
        let attributes = Attributes::default().word(link::MASTER, master);
        self.change(Request::new(NEW_LINK, ACK, &link_body(index, 0, 0), &attributes))
    }

    /// Makes a VLAN on the interface `parent`.
    pub fn make_vlan(&self, name: &str, parent: u32, id: u16) -> Result<(), Failure> {
        self.change(vlan_request(name, parent, id))
    }

    /// Makes a bond without members. `miimon` is in milliseconds.
    pub fn make_bond(&self, name: &str, mode: BondMode, miimon: u16) -> Result<(), Failure> {
        self.change(bond_request(name, mode, miimon))
    }

    /// Removes an interface that was made.
    pub fn remove_link(&self, index: u32) -> Result<(), Failure> {
        self.change(Request::new(DEL_LINK, ACK, &link_body(index, 0, 0), &Attributes::default()))
    }

    /// Gives an interface an address.
    pub fn add_address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<(), Failure> {
        self.change(address_request(NEW_ADDRESS, ACK | CREATE | REPLACE, index, address, prefix))
    }

    /// Takes an address from an interface, and with it the routes that use it.
    pub fn remove_address(&self, index: u32, address: IpAddr, prefix: u8) -> Result<(), Failure> {
        self.change(address_request(DEL_ADDRESS, ACK, index, address, prefix))
    }

    /// Adds a route through an interface; one that is there already is fine. Routes of other interfaces stay.
    pub fn add_route(&self, index: u32, way: &Way) -> Result<(), Failure> {
        match self.change(route_request(NEW_ROUTE, ACK | CREATE | APPEND, index, way)) {
            Err(failure) if failure.code == libc::EEXIST => Ok(()),
            result => result,
        }
    }

    /// Removes a route through an interface.
    pub fn remove_route(&self, index: u32, way: &Way) -> Result<(), Failure> {
        self.change(route_request(DEL_ROUTE, ACK, index, way))
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_bytes() {
        let own = IpAddr::from([10, 0, 2, 15]);
        let address = address_request(NEW_ADDRESS, ACK, 3, own, 24).numbered(5);
        assert_eq!(address.len(), 48);
        assert_eq!(&address[0..12], &[48, 0, 0, 0, 20, 0, 5, 0, 5, 0, 0, 0]);
        assert_eq!(&address[16..24], &[2, 24, 0, 0, 3, 0, 0, 0]);
        assert_eq!(&address[24..32], &[8, 0, 2, 0, 10, 0, 2, 15]);
        assert_eq!(&address[40..48], &[8, 0, 4, 0, 10, 0, 2, 255]);
        let six = address_request(NEW_ADDRESS, ACK, 3, "2001:db8::1".parse().unwrap(), 64).numbered(5);
        assert_eq!((six.len(), six[16]), (64, 10));
        let default = Way {
            to: Cidr::parse("0.0.0.0/0").unwrap(),
            via: Some([10, 0, 2, 2].into()),
            metric: 103,
            source: Some(own),
            protocol: DHCP,
        };
        let route = route_request(NEW_ROUTE, ACK, 3, &default).numbered(1);
        assert_eq!(&route[16..28], &[2, 0, 0, 0, 254, 16, 0, 1, 4, 0, 0, 0]);
        assert!(route.windows(8).any(|w| w == [8, 0, 5, 0, 10, 0, 2, 2]));
    }

    #[test]
    fn the_kernel_understands() {
        let socket = Netlink::open(0).unwrap();
        let links = socket.links().unwrap();
        assert!(links.iter().any(|link| link.name == "lo" && link.index == 1), "{links:?}");
        let lo = socket.link("lo").unwrap();
        assert_eq!((lo.index, lo.removed), (1, false));
        assert!(socket.link("no-such-link").unwrap_err().is_absence());
        socket.addresses().unwrap();
        let failure = socket.set_up(0x7fff_fff0, true).unwrap_err();
        assert!(matches!(failure.code, libc::ENODEV | libc::EPERM), "{failure}");
    }
}
