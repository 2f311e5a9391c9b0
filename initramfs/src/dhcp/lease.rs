//! What a server's message says about the network, taken only where it makes sense.

use crate::dhcp::message::{Reply, option};
use crate::netlink::Route;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Most routes and most name servers that are taken.
const MAX_ENTRIES: usize = 32;
/// Smallest packet size that is set: what every IPv4 host must be able to receive (RFC 791).
const MIN_MTU: u16 = 576;

/// A lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Length in bits of the network's prefix.
    pub prefix: u8,
    /// The server that gave it.
    pub server: Ipv4Addr,
    /// Routes.
    pub routes: Vec<Route>,
    /// Name servers.
    pub name_servers: Vec<Ipv4Addr>,
    /// Time servers (NTP).
    pub time_servers: Vec<Ipv4Addr>,
    /// Domain.
    pub domain: Option<String>,
    /// Name for this machine.
    pub host_name: Option<String>,
    /// Largest packet.
    pub mtu: Option<u16>,
    /// How long the lease lasts from the acknowledgement on; none is for ever.
    pub duration: Option<Duration>,
    /// When to renew it; before `rebind`.
    pub renew: Duration,
    /// When any server may renew it; before `duration`.
    pub rebind: Duration,
}

fn usable(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    first != 0 && first != 127 && first < 224
}

fn addresses(value: &[u8]) -> impl Iterator<Item = Ipv4Addr> {
    value
        .as_chunks::<4>()
        .0
        .iter()
        .map(|octets| Ipv4Addr::from(*octets))
        .filter(|address| usable(*address))
        .take(MAX_ENTRIES)
}

/// A name that can go into a file without changing its meaning. Servers end names with NUL sometimes.
fn name(value: &[u8], limit: usize) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    (!text.is_empty() && text.len() <= limit && !text.starts_with(['-', '.']) && text.bytes().all(good))
        .then(|| text.to_owned())
}

/// Routes with prefixes: for each the prefix' length, as many octets of the network as it needs, the gateway
/// (RFC 3442). None if the list is malformed.
fn classless_routes(mut value: &[u8]) -> Option<Vec<Route>> {
    let mut routes = Vec::new();
    while let Some((&prefix, rest)) = value.split_first() {
        if prefix > 32 || routes.len() == MAX_ENTRIES {
            return None;
        }
        let (significant, rest) = rest.split_at_checked(usize::from(prefix).div_ceil(8))?;
        let (gateway, rest) = rest.split_first_chunk::<4>()?;
        let mut network = [0; 4];
        network.iter_mut().zip(significant).for_each(|(to, from)| *to = *from);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = Ipv4Addr::from(u32::from_be_bytes(network) & mask);
        routes.push(Route { network, prefix, gateway: (*gateway).into() });
        value = rest;
    }
    Some(routes)
}

impl Lease {
    /// The lease in an offer or acknowledgement; none if it lacks what RFC 2131 demands or gives an address that
    /// no machine can have.
    pub fn from_reply(reply: &Reply) -> Option<Self> {
        let value = |code: u8| reply.options.get(&code).map(Vec::as_slice);
        let word = |code: u8| Some(u32::from_be_bytes(value(code)?.try_into().ok()?));
        let mask = word(option::MASK).filter(|mask| mask.leading_ones() + mask.trailing_zeros() == 32)?;
        let prefix = u8::try_from(mask.leading_ones()).ok().filter(|prefix| *prefix > 0)?;
        if !usable(reply.address) || !usable(reply.server) {
            return None;
        }
        let seconds = word(option::LEASE).filter(|seconds| *seconds > 0)?;
        let full = Duration::from_secs(seconds.into());
        let rebind = word(option::REBIND)
            .map(|seconds| Duration::from_secs(seconds.into()))
            .filter(|rebind| *rebind < full)
            .unwrap_or(full * 7 / 8);
        let renew = word(option::RENEW)
            .map(|seconds| Duration::from_secs(seconds.into()))
            .filter(|renew| *renew < rebind)
            .unwrap_or((full / 2).min(rebind));
        // The classless routes replace the routers (RFC 3442, page 5).
        let routes = match value(option::ROUTES).and_then(classless_routes) {
            Some(routes) => routes,
            None => addresses(value(option::ROUTERS).unwrap_or_default())
                .take(1)
                .map(|gateway| Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway })
                .collect(),
        };
        Some(Self {
            address: reply.address,
            prefix,
            server: reply.server,
            routes,
            name_servers: addresses(value(option::NAME_SERVERS).unwrap_or_default()).collect(),
            time_servers: addresses(value(option::TIME_SERVERS).unwrap_or_default()).collect(),
            domain: value(option::DOMAIN).and_then(|value| name(value, 253)),
            host_name: value(option::HOST_NAME).and_then(|value| name(value, 64)),
            mtu: value(option::MTU)
                .and_then(|value| Some(u16::from_be_bytes(value.try_into().ok()?)))
                .filter(|mtu| *mtu >= MIN_MTU),
            duration: (seconds != u32::MAX).then_some(full),
            renew,
            rebind,
        })
    }

    /// Whether the kernel would be configured in the same way.
    pub fn configures_like(&self, other: &Self) -> bool {
        self.address == other.address
            && self.prefix == other.prefix
            && self.routes == other.routes
            && self.mtu == other.mtu
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::dhcp::message::{self, Kind};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const MASK: (u8, &[u8]) = (option::MASK, &[255, 255, 255, 0]);
    const HOUR: (u8, &[u8]) = (option::LEASE, &[0, 0, 0x0e, 0x10]);

    fn lease(options: &[(u8, &[u8])]) -> Option<Lease> {
        Lease::from_reply(&message::parse(&message::tests::reply(Kind::Ack, 7, MAC, options)).unwrap())
    }

    #[test]
    fn what_a_common_server_says() {
        let lease = lease(&[
            MASK,
            HOUR,
            (option::ROUTERS, &[10, 0, 2, 2]),
            (option::NAME_SERVERS, &[10, 0, 2, 3, 0, 0, 0, 0]),
            (option::TIME_SERVERS, &[10, 0, 2, 4, 127, 0, 0, 1, 10, 0, 2, 5]),
            (option::DOMAIN, b"example.org\0"),
            (option::HOST_NAME, b"web1"),
            (option::MTU, &[5, 0xdc]),
        ])
        .unwrap();
        assert_eq!((lease.address, lease.prefix), (Ipv4Addr::new(10, 0, 2, 15), 24));
        let gateway = Ipv4Addr::new(10, 0, 2, 2);
        assert_eq!(lease.routes, [Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway }]);
        assert_eq!(lease.name_servers, [Ipv4Addr::new(10, 0, 2, 3)]);
        assert_eq!(lease.time_servers, [Ipv4Addr::new(10, 0, 2, 4), Ipv4Addr::new(10, 0, 2, 5)]);
        assert_eq!(lease.domain.as_deref(), Some("example.org"));
        assert_eq!(lease.host_name.as_deref(), Some("web1"));
        assert_eq!(lease.mtu, Some(1500));
        assert_eq!(lease.duration, Some(Duration::from_secs(3600)));
        assert_eq!(lease.renew, Duration::from_secs(1800));
        assert_eq!(lease.rebind, Duration::from_secs(3150));
    }

    #[test]
    fn times_stay_in_order() {
        let odd = lease(&[MASK, HOUR, (option::RENEW, &[0xff; 4]), (option::REBIND, &[0xff; 4])]).unwrap();
        assert!(odd.renew < odd.rebind && Some(odd.rebind) < odd.duration);
        let early = lease(&[MASK, HOUR, (option::REBIND, &[0, 0, 0, 9])]).unwrap();
        assert!(early.renew <= early.rebind);
        let forever = lease(&[MASK, (option::LEASE, &[0xff; 4])]).unwrap();
        assert_eq!(forever.duration, None);
    }

    #[test]
    fn classless_routes_win() {
        let routers = (option::ROUTERS, &[10, 0, 2, 2][..]);
        let both =
            lease(&[MASK, HOUR, routers, (option::ROUTES, &[0, 10, 0, 2, 9, 20, 10, 1, 0xff, 0, 0, 0, 0])]);
        let wanted = [
            Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, gateway: Ipv4Addr::new(10, 0, 2, 9) },
            Route { network: Ipv4Addr::new(10, 1, 0xf0, 0), prefix: 20, gateway: Ipv4Addr::UNSPECIFIED },
        ];
        assert_eq!(both.unwrap().routes, wanted);
        for malformed in [&[33, 1, 2, 3, 4, 5, 10, 0, 2, 9][..], &[24, 10, 1], &[0, 10, 0, 2]] {
            let lease = lease(&[MASK, HOUR, routers, (option::ROUTES, malformed)]).unwrap();
            assert_eq!(lease.routes[0].gateway, Ipv4Addr::new(10, 0, 2, 2));
        }
    }

    #[test]
    fn nonsense_is_no_lease_and_bad_names_are_left_out() {
        assert_eq!(lease(&[HOUR]), None, "no mask");
        assert_eq!(lease(&[MASK]), None, "no time");
        assert_eq!(lease(&[MASK, (option::LEASE, &[0; 4])]), None);
        assert_eq!(lease(&[(option::MASK, &[255, 0, 255, 0]), HOUR]), None);
        for bad in [&b"a\nnameserver 6.6.6.6"[..], b"", b"-a", b"a b", b"\xff"] {
            let lease = lease(&[MASK, HOUR, (option::DOMAIN, bad), (option::HOST_NAME, bad)]).unwrap();
            assert_eq!((lease.domain, lease.host_name), (None, None));
        }
        assert_eq!(lease(&[MASK, HOUR, (option::MTU, &[0, 68])]).unwrap().mtu, None);
    }
}
