//! Messages in bytes (Linux, `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr,neighbour}.h`). Numbers are in the
//! machine's own byte order; lengths and alignment are those of `NLMSG_ALIGN` and `RTA_ALIGN`, four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
pub(super) const ERROR: u16 = 2;
const DONE: u16 = 3;
pub(super) const NEW_LINK: u16 = 16;
pub(super) const DEL_LINK: u16 = 17;
pub(super) const GET_LINK: u16 = 18;
pub(super) const NEW_ADDRESS: u16 = 20;
pub(super) const DEL_ADDRESS: u16 = 21;
pub(super) const GET_ADDRESS: u16 = 22;
pub(super) const NEW_ROUTE: u16 = 24;
pub(super) const DEL_ROUTE: u16 = 25;
const NEW_ND_USER_OPTION: u16 = 68;

/// `NLM_F_REQUEST`, on every request.
const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const EXCLUSIVE: u16 = 0x200;
pub(super) const DUMP: u16 = 0x300;
pub(super) const CREATE: u16 = 0x400;
pub(super) const APPEND: u16 = 0x800;

/// Flags of an answer: the request is not repeated in it, and attributes follow.
const CAPPED: u16 = 0x100;
const ACK_ATTRIBUTES: u16 = 0x200;

/// `IFF_UP` and `IFF_LOWER_UP` (the cable is in).
pub(super) const UP: u32 = 0x1;
pub(super) const LOWER_UP: u32 = 0x1_0000;
/// `AF_INET` and `AF_INET6`.
pub(super) const INET: u8 = 2;
pub(super) const INET6: u8 = 10;

/// Attributes of links (`IFLA_*`).
pub(super) mod link {
    pub const ADDRESS: u16 = 1;
    pub const NAME: u16 = 3;
    pub const MTU: u16 = 4;
    pub const PARENT: u16 = 5;
    pub const MASTER: u16 = 10;
    pub const INFO: u16 = 18;
    pub const INFO_KIND: u16 = 1;
    pub const INFO_DATA: u16 = 2;
    pub const PERMANENT_ADDRESS: u16 = 54;
}

/// Longest reason of the kernel that is kept, in bytes.
const MAX_REASON: usize = 200;
/// Most name servers in one option of a router.
const MAX_SERVERS: usize = 8;

/// What the kernel tells of a link.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Ethernet address, where there is one.
    pub mac: Option<[u8; 6]>,
    /// The address that the hardware was made with, where the driver knows it: members of a bond have another one.
    pub permanent_mac: Option<[u8; 6]>,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// What it is when it was made by a request: `vlan`, `bond`, `veth`; empty for hardware.
    pub kind: String,
    /// Index of the bond or bridge that it belongs to.
    pub master: Option<u32>,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it can carry packets now.
    pub carrier: bool,
    /// Whether it is gone.
    pub removed: bool,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Interface index.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix in bits.
    pub prefix: u8,
    /// `RT_SCOPE_*`: 0 is everywhere, 253 the link, 254 the machine.
    pub scope: u8,
}

/// Name servers that an IPv6 router tells (RFC 8106, section 5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameServers {
    /// Interface index.
    pub index: u32,
    /// How long they may be used, in seconds; 0 is not any more, `u32::MAX` for ever.
    pub lifetime: u32,
    /// Their addresses.
    pub servers: Vec<Ipv6Addr>,
}

/// One message of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A link.
    Link(Link),
    /// An address.
    Address(Address),
    /// Name servers of a router.
    NameServers(NameServers),
    /// The end of a request.
    Result {
        /// The request's number.
        sequence: u32,
        /// 0 or a negative error number.
        code: i32,
        /// The kernel's reason in words.
        reason: Option<String>,
    },
    /// Something else.
    Other,
}

fn chunk<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    chunk(data, at).map(u32::from_ne_bytes)
}

/// The attributes of a message as pairs of type and value; the list ends where it is malformed.
fn attributes(mut data: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(chunk(data, 0)?));
        let kind = u16::from_ne_bytes(chunk(data, 2)?);
        let value = data.get(4..length)?;
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
        // The upper bits say that it is nested and in which byte order.
        Some((kind & 0x3fff, value))
    })
}

/// A text up to its NUL.
fn text(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// `struct ifinfomsg` and its attributes.
fn link(body: &[u8], removed: bool) -> Option<Link> {
    let (index, flags) = (word(body, 4)?, word(body, 8)?);
    let mut link =
        Link { index, up: flags & UP != 0, carrier: flags & LOWER_UP != 0, removed, ..Link::default() };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            link::ADDRESS => link.mac = value.try_into().ok(),
            link::PERMANENT_ADDRESS => link.permanent_mac = value.try_into().ok(),
            link::NAME => link.name = text(value),
            link::MTU => link.mtu = word(value, 0).unwrap_or_default(),
            link::MASTER => link.master = word(value, 0).filter(|index| *index != 0),
            link::INFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == link::INFO_KIND);
                link.kind = kind.map(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

/// `struct ifaddrmsg` and its attributes. `IFA_LOCAL` is the machine's own address where there are two.
fn address(body: &[u8]) -> Option<Address> {
    let &[family, prefix, _, scope] = body.first_chunk()?;
    let index = word(body, 4)?;
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            1 => other = ip(family, value),
            2 => local = ip(family, value),
            _ => {}
        }
    }
    Some(Address { index, address: local.or(other)?, prefix, scope })
}

/// `struct nduseroptmsg` and the option of a router's message that it carries.
fn name_servers(body: &[u8]) -> Option<NameServers> {
    let length = usize::from(u16::from_ne_bytes(chunk(body, 2)?));
    let index = word(body, 4)?;
    let option = body.get(16..)?.get(..length)?;
    // Type 25; its length counts units of 8 bytes: one for the head, two for each address.
    let (&25, units) = (option.first()?, usize::from(*option.get(1)?)) else { return None };
    if units < 3 || units % 2 == 0 || units * 8 > option.len() {
        return None;
    }
    let lifetime = chunk(option, 4).map(u32::from_be_bytes)?;
    let servers = option.get(8..units * 8)?.as_chunks::<16>().0.iter().map(|bytes| Ipv6Addr::from(*bytes));
    let usable =
        |server: &Ipv6Addr| !server.is_unspecified() && !server.is_multicast() && !server.is_loopback();
    Some(NameServers { index, lifetime, servers: servers.filter(usable).take(MAX_SERVERS).collect() })
}

/// `struct nlmsgerr`, with the kernel's reason where it gives one.
fn result(sequence: u32, flags: u16, body: &[u8]) -> Message {
    let code = chunk(body, 0).map_or(-libc::EIO, i32::from_ne_bytes);
    let reason = (flags & ACK_ATTRIBUTES != 0)
        .then(|| {
            let request = if flags & CAPPED != 0 { HEADER } else { word(body, 4)? as usize };
            let start = request.checked_next_multiple_of(4)?.checked_add(4)?;
            let (_, value) = attributes(body.get(start..)?).find(|(kind, _)| *kind == 1)?;
            let mut reason: String = text(value).chars().filter(|c| !c.is_control()).collect();
            while reason.len() > MAX_REASON {
                reason.pop();
            }
            (!reason.is_empty()).then_some(reason)
        })
        .flatten();
    Message::Result { sequence, code, reason }
}

/// Reads the messages in one datagram; what is malformed ends the list.
pub fn parse(mut data: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(length) = word(data, 0).map(|length| length as usize) {
        let Some(body) = data.get(HEADER..length) else { break };
        let (Some(kind), Some(flags), Some(sequence)) = (chunk(data, 4), chunk(data, 6), word(data, 8))
        else {
            break;
        };
        messages.push(match u16::from_ne_bytes(kind) {
            NEW_LINK => link(body, false).map_or(Message::Other, Message::Link),
            DEL_LINK => link(body, true).map_or(Message::Other, Message::Link),
            NEW_ADDRESS => address(body).map_or(Message::Other, Message::Address),
            NEW_ND_USER_OPTION => name_servers(body).map_or(Message::Other, Message::NameServers),
            DONE => {
                Message::Result { sequence, code: chunk(body, 0).map_or(0, i32::from_ne_bytes), reason: None }
            }
            ERROR => result(sequence, u16::from_ne_bytes(flags), body),
            _ => Message::Other,
        });
        data = data.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// Attributes in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds one. Values of this module are addresses, names and numbers: none is near the limit of 64 KiB, and one
    /// that were is left out.
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        if let Ok(length) = u16::try_from(4 + value.len()) {
            self.0.extend(length.to_ne_bytes());
            self.0.extend(kind.to_ne_bytes());
            self.0.extend(value);
            self.0.resize(self.0.len().next_multiple_of(4), 0);
        }
        self
    }

    /// Adds attributes within one.
    pub fn nest(self, kind: u16, inner: &Self) -> Self {
        self.with(kind, &inner.0)
    }

    /// Adds a text with its NUL.
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.with(kind, &[value.as_bytes(), b"\0"].concat())
    }

    /// Adds a number.
    pub fn word(self, kind: u16, value: u32) -> Self {
        self.with(kind, &value.to_ne_bytes())
    }
}

/// A request in bytes, without its number, which the socket gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request(Vec<u8>);

impl Request {
    pub fn new(kind: u16, flags: u16, body: &[u8], attributes: &Attributes) -> Self {
        let length = (HEADER + body.len() + attributes.0.len()) as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes.extend(&attributes.0);
        Self(bytes)
    }

    /// The bytes, with the request's number.
    pub fn numbered(mut self, sequence: u32) -> Vec<u8> {
        if let Some(field) = self.0.get_mut(8..12) {
            field.copy_from_slice(&sequence.to_ne_bytes());
        }
        self.0
    }
}

/// `struct ifinfomsg`.
pub(super) fn link_body(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

pub(super) const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { INET } else { INET6 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link_message() -> Vec<u8> {
        let info = Attributes::default().text(link::INFO_KIND, "vlan");
        let attributes = Attributes::default()
            .text(link::NAME, "eth0")
            .with(link::ADDRESS, &[2, 0, 0, 0, 0, 1])
            .word(link::MTU, 1500)
            .nest(link::INFO, &info);
        Request::new(NEW_LINK, 0, &link_body(2, UP | LOWER_UP, 0), &attributes).numbered(7)
    }

    fn error_message() -> Vec<u8> {
        let mut body = (-22i32).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        let attributes = Attributes::default().with(3, b"x").text(1, "Device\n is there");
        Request::new(ERROR, CAPPED | ACK_ATTRIBUTES, &body, &attributes).numbered(9)
    }

    fn servers_message() -> Vec<u8> {
        let mut body = vec![INET6, 0];
        body.extend(24u16.to_ne_bytes());
        body.extend(3u32.to_ne_bytes());
        body.extend([134, 0, 0, 0, 0, 0, 0, 0]);
        body.extend([25, 3, 0, 0, 0, 0, 0, 60]);
        body.extend("2001:db8::53".parse::<Ipv6Addr>().unwrap().octets());
        Request::new(NEW_ND_USER_OPTION, 0, &body, &Attributes::default()).numbered(0)
    }

    fn address_message() -> Vec<u8> {
        let attributes = Attributes::default().with(1, &[10, 0, 0, 2]).with(2, &[10, 0, 0, 1]);
        Request::new(NEW_ADDRESS, 0, &[INET, 24, 0, 0, 2, 0, 0, 0], &attributes).numbered(0)
    }

    #[test]
    fn messages_of_all_kinds() {
        let data = [link_message(), error_message(), servers_message(), address_message()].concat();
        let link = Link {
            index: 2,
            name: "eth0".into(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            mtu: 1500,
            kind: "vlan".into(),
            up: true,
            carrier: true,
            ..Link::default()
        };
        let servers = vec!["2001:db8::53".parse().unwrap()];
        let address = IpAddr::from([10, 0, 0, 1]);
        let reason = Some("Device is there".into());
        assert_eq!(
            parse(&data),
            [
                Message::Link(link),
                Message::Result { sequence: 9, code: -22, reason },
                Message::NameServers(NameServers { index: 3, lifetime: 60, servers }),
                Message::Address(Address { index: 2, address, prefix: 24, scope: 0 }),
            ]
        );
    }

    #[test]
    fn broken_messages_end_the_list() {
        for good in [link_message(), error_message(), servers_message(), address_message()] {
            for length in 0..good.len() {
                assert!(parse(&good[..length]).is_empty());
            }
        }
        assert!(parse(&[0; 64]).is_empty(), "a length of zero must not loop");
        let mut even = servers_message();
        even[HEADER + 17] = 4;
        assert_eq!(parse(&even), [Message::Other]);
    }

    proptest! {
        #[test]
        fn changed_messages_never_panic(
            which in 0usize..4,
            changes in proptest::collection::vec((0usize..120, any::<u8>()), 0..6),
        ) {
            let messages = [link_message(), error_message(), servers_message(), address_message()];
            let mut data = messages[which].clone();
            for (at, value) in changes {
                if let Some(byte) = data.get_mut(at) {
                    *byte = value;
                }
            }
            data.extend(link_message());
            let found = parse(&data);
            prop_assert!(found.len() <= data.len() / HEADER);
        }

        #[test]
        fn any_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&data);
        }
    }
}
