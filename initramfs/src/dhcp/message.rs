//! DHCP messages in bytes (RFC 2131, section 2).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Size in bytes of the fixed part with the magic cookie.
const FIXED: usize = 240;
/// Shortest message that all relays pass on (RFC 1542, section 2.1).
const MINIMUM: usize = 300;
/// Between the fixed part and the options (RFC 2131, section 3).
const COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where `sname` and `file` lie, which may hold options too.
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// Numbers of the options that init knows (RFC 2132; 121 is RFC 3442).
pub mod option {
    /// Subnet mask.
    pub const MASK: u8 = 1;
    /// Routers.
    pub const ROUTERS: u8 = 3;
    /// Name servers.
    pub const NAME_SERVERS: u8 = 6;
    /// Host name.
    pub const HOST_NAME: u8 = 12;
    /// Domain name.
    pub const DOMAIN: u8 = 15;
    /// Largest packet of the interface.
    pub const MTU: u8 = 26;
    /// Time servers (NTP).
    pub const TIME_SERVERS: u8 = 42;
    /// Address that the client wants.
    pub const REQUESTED: u8 = 50;
    /// Seconds that the lease lasts.
    pub const LEASE: u8 = 51;
    /// Whether `sname` and `file` hold options.
    pub const OVERLOAD: u8 = 52;
    /// Type of the message.
    pub const KIND: u8 = 53;
    /// Server.
    pub const SERVER: u8 = 54;
    /// Options that the client asks for.
    pub const PARAMETERS: u8 = 55;
    /// Longest message that the client takes.
    pub const MAX_SIZE: u8 = 57;
    /// Seconds until the lease is to be renewed.
    pub const RENEW: u8 = 58;
    /// Seconds until any server may renew it.
    pub const REBIND: u8 = 59;
    /// Client.
    pub const CLIENT: u8 = 61;
    /// Routes with prefixes.
    pub const ROUTES: u8 = 121;
}

/// Type of a message (RFC 2132, section 9.6), as far as a client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The client looks for servers.
    Discover = 1,
    /// A server offers an address.
    Offer = 2,
    /// The client wants an address.
    Request = 3,
    /// The server gives it.
    Ack = 5,
    /// The server refuses it.
    Nak = 6,
}

/// A server's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its type: offer, acknowledgement or refusal.
    pub kind: Kind,
    /// The transaction.
    pub xid: u32,
    /// The client's Ethernet address.
    pub mac: [u8; 6],
    /// The address for the client.
    pub address: Ipv4Addr,
    /// The server.
    pub server: Ipv4Addr,
    /// Options; one that occurs more than once is joined (RFC 3396).
    pub options: BTreeMap<u8, Vec<u8>>,
}

fn chunk<const N: usize>(data: &[u8], at: usize) -> Option<[u8; N]> {
    data.get(at..)?.first_chunk().copied()
}

/// Adds the options in `data`; it ends with option 255 or with the bytes.
fn collect(mut data: &[u8], options: &mut BTreeMap<u8, Vec<u8>>) -> Option<()> {
    while let Some((&code, rest)) = data.split_first() {
        match code {
            0 => data = rest,
            255 => break,
            _ => {
                let (&length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(length.into())?;
                options.entry(code).or_default().extend_from_slice(value);
                data = rest;
            }
        }
    }
    Some(())
}

/// Reads a message for an Ethernet client; none if it is malformed or no server's.
pub fn parse(data: &[u8]) -> Option<Reply> {
    // BOOTREPLY, Ethernet, addresses of six bytes.
    if chunk(data, 0)? != [2, 1, 6] || chunk(data, FIXED - 4)? != COOKIE {
        return None;
    }
    let mut options = BTreeMap::new();
    collect(data.get(FIXED..)?, &mut options)?;
    let overload = options.get(&option::OVERLOAD).and_then(|value| value.first()).copied().unwrap_or(0);
    if overload & 1 != 0 {
        collect(data.get(FILE)?, &mut options)?;
    }
    if overload & 2 != 0 {
        collect(data.get(SNAME)?, &mut options)?;
    }
    let kind = match options.get(&option::KIND)?.as_slice() {
        [2] => Kind::Offer,
        [5] => Kind::Ack,
        [6] => Kind::Nak,
        _ => return None,
    };
    Some(Reply {
        kind,
        xid: u32::from_be_bytes(chunk(data, 4)?),
        mac: chunk(data, 28)?,
        address: chunk::<4>(data, 16)?.into(),
        server: <[u8; 4]>::try_from(options.get(&option::SERVER)?.as_slice()).ok()?.into(),
        options,
    })
}

/// A client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Its type: discover or request.
    pub kind: Kind,
    /// The transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub seconds: u16,
    /// The client's Ethernet address.
    pub mac: [u8; 6],
    /// The address that the client has and renews; unspecified otherwise.
    pub current: Ipv4Addr,
    /// The address that the client wants.
    pub requested: Option<Ipv4Addr>,
    /// The server whose offer is accepted.
    pub server: Option<Ipv4Addr>,
}

impl Query {
    /// The message in bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0];
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.seconds.to_be_bytes());
        // No broadcast flag: a packet socket gets the answer before the interface has its address.
        bytes.extend([0, 0]);
        bytes.extend(self.current.octets());
        bytes.resize(28, 0);
        bytes.extend(self.mac);
        bytes.resize(FIXED - 4, 0);
        bytes.extend(COOKIE);
        let mut put = |code: u8, value: &[u8]| {
            bytes.extend([code, value.len() as u8]);
            bytes.extend(value);
        };
        put(option::KIND, &[self.kind as u8]);
        // Ethernet, then the address.
        put(option::CLIENT, &[&[1], &self.mac[..]].concat());
        if let Some(address) = self.requested {
            put(option::REQUESTED, &address.octets());
        }
        if let Some(server) = self.server {
            put(option::SERVER, &server.octets());
        }
        put(option::MAX_SIZE, &1472u16.to_be_bytes());
        put(
            option::PARAMETERS,
            &[
                option::MASK,
                option::ROUTES,
                option::ROUTERS,
                option::NAME_SERVERS,
                option::HOST_NAME,
                option::DOMAIN,
                option::MTU,
                option::TIME_SERVERS,
                option::RENEW,
                option::REBIND,
            ],
        );
        bytes.push(255);
        bytes.resize(bytes.len().max(MINIMUM), 0);
        bytes
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A server's message with `options`.
    pub(crate) fn reply(kind: Kind, xid: u32, mac: [u8; 6], options: &[(u8, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![2, 1, 6, 0];
        bytes.extend(xid.to_be_bytes());
        bytes.resize(16, 0);
        bytes.extend([10, 0, 2, 15]);
        bytes.resize(28, 0);
        bytes.extend(mac);
        bytes.resize(FIXED - 4, 0);
        bytes.extend(COOKIE);
        bytes.extend([option::KIND, 1, kind as u8, option::SERVER, 4, 10, 0, 2, 2]);
        for (code, value) in options {
            bytes.extend([*code, value.len() as u8]);
            bytes.extend(*value);
        }
        bytes.push(255);
        bytes
    }

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_reply_with_joined_and_overloaded_options() {
        let mut bytes = reply(
            Kind::Ack,
            7,
            MAC,
            &[(option::DOMAIN, b"exam"), (option::OVERLOAD, &[3]), (option::DOMAIN, b"ple.org")],
        );
        bytes[108..114].copy_from_slice(&[option::MTU, 2, 5, 0xdc, 255, 0]);
        bytes[44..51].copy_from_slice(&[option::LEASE, 4, 0, 0, 1, 0, 255]);
        let reply = parse(&bytes).unwrap();
        assert_eq!((reply.kind, reply.xid, reply.mac), (Kind::Ack, 7, MAC));
        assert_eq!(reply.address, Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(reply.server, Ipv4Addr::new(10, 0, 2, 2));
        assert_eq!(reply.options[&option::DOMAIN], b"example.org");
        assert_eq!(reply.options[&option::MTU], [5, 0xdc]);
        assert_eq!(reply.options[&option::LEASE], [0, 0, 1, 0]);
    }

    #[test]
    fn what_is_no_reply() {
        let good = reply(Kind::Offer, 7, MAC, &[(option::MASK, &[255, 255, 255, 0])]);
        assert!(parse(&good).is_some());
        for (at, value) in [(0, 1), (1, 6), (2, 16), (236, 0), (242, 1), (242, 8), (241, 200)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(parse(&bad), None, "byte {at}");
        }
        for length in 0..good.len() - 8 {
            assert_eq!(parse(&good[..length]), None, "cut to {length}");
        }
    }

    #[test]
    fn a_query_in_bytes() {
        let query = Query {
            kind: Kind::Request,
            xid: 0x0102_0304,
            seconds: 5,
            mac: MAC,
            current: Ipv4Addr::UNSPECIFIED,
            requested: Some(Ipv4Addr::new(10, 0, 2, 15)),
            server: Some(Ipv4Addr::new(10, 0, 2, 2)),
        };
        let bytes = query.to_bytes();
        assert!(bytes.len() >= MINIMUM);
        assert_eq!(&bytes[..12], &[1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0, 0]);
        assert_eq!(&bytes[28..34], &MAC);
        assert_eq!(&bytes[236..243], &[99, 130, 83, 99, 53, 1, 3]);
        assert!(bytes.windows(6).any(|w| w == [50, 4, 10, 0, 2, 15]));
        assert!(bytes.windows(6).any(|w| w == [54, 4, 10, 0, 2, 2]));
    }

    proptest! {
        #[test]
        fn mutated_replies_never_panic(changes in proptest::collection::vec((0usize..260, any::<u8>()), 0..8), cut in 0usize..260) {
            let mut bytes = reply(Kind::Ack, 7, MAC, &[(option::ROUTES, &[24, 10, 1, 2, 10, 0, 2, 2]), (option::OVERLOAD, &[3])]);
            for (at, value) in changes {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            bytes.truncate(cut.max(1));
            if let Some(reply) = parse(&bytes) {
                let _ = super::super::lease::Lease::from_reply(&reply);
            }
        }
    }
}
