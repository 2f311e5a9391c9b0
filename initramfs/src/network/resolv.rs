//! `resolv.conf`: which name servers and domains.

use crate::dhcp::lease::Lease;
use ashlar_image::machine::Dns;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

/// What resolvers read at most (resolv.conf(5)).
const MAX_NAME_SERVERS: usize = 3;
/// Most domains, likewise.
const MAX_DOMAINS: usize = 6;

fn add<T: PartialEq>(list: &mut Vec<T>, item: T, limit: usize) {
    if list.len() < limit && !list.contains(&item) {
        list.push(item);
    }
}

/// The name servers in the order of preference: the configuration's; without any, those of leases, then those of IPv6
/// routers.
pub fn name_servers<'a>(
    config: &Dns,
    leases: impl Iterator<Item = &'a Lease>,
    routers: impl Iterator<Item = Ipv6Addr>,
) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    let leased = leases.flat_map(|lease| &lease.name_servers).map(|server| IpAddr::V4(*server));
    let told = leased.chain(routers.map(IpAddr::V6));
    if config.servers.is_empty() {
        told.for_each(|server| add(&mut servers, server, MAX_NAME_SERVERS));
    } else {
        config.servers.iter().for_each(|server| add(&mut servers, *server, MAX_NAME_SERVERS));
    }
    servers
}

/// The text of `resolv.conf`.
pub fn text<'a>(config: &Dns, leases: impl Iterator<Item = &'a Lease>, servers: &[IpAddr]) -> String {
    let mut domains: Vec<&str> = Vec::new();
    if config.search.is_empty() {
        leases
            .filter_map(|lease| lease.domain.as_deref())
            .for_each(|domain| add(&mut domains, domain, MAX_DOMAINS));
    } else {
        config.search.iter().for_each(|domain| add(&mut domains, domain, MAX_DOMAINS));
    }
    let mut text = String::from(
        "# Written by init from the machine configuration, or from what DHCP and routers say.\n",
    );
    for server in servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !domains.is_empty() {
        let _ = writeln!(text, "search {}", domains.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    fn lease(server: u8, domain: Option<&str>) -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 0, 0, 9),
            prefix: 24,
            server: Ipv4Addr::new(10, 0, 0, 1),
            routes: Vec::new(),
            name_servers: vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, server)],
            time_servers: Vec::new(),
            domain: domain.map(str::to_owned),
            host_name: None,
            mtu: None,
            duration: None,
            renew: Duration::ZERO,
            rebind: Duration::ZERO,
        }
    }

    fn lines(config: &Dns, leases: &[Lease], routers: &[&str]) -> Vec<String> {
        let routers = routers.iter().map(|router| router.parse().unwrap());
        let servers = name_servers(config, leases.iter(), routers);
        text(config, leases.iter(), &servers).lines().skip(1).map(str::to_owned).collect()
    }

    #[test]
    fn name_servers_of_all_interfaces() {
        let none = Dns::default();
        let leases = [lease(2, Some("a.example")), lease(3, None), lease(4, Some("b.example"))];
        assert_eq!(
            lines(&none, &leases, &["2001:db8::1"]),
            [
                "nameserver 10.0.0.1",
                "nameserver 10.0.0.2",
                "nameserver 10.0.0.3",
                "search a.example b.example"
            ]
        );
        assert_eq!(lines(&none, &[], &["2001:db8::1"]), ["nameserver 2001:db8::1"]);
        assert!(lines(&none, &[], &[]).is_empty());
    }

    #[test]
    fn the_configuration_comes_first() {
        let config = Dns { servers: vec!["192.0.2.1".parse().unwrap()], search: Vec::new() };
        let leases = [lease(2, Some("a.example"))];
        assert_eq!(lines(&config, &leases, &[]), ["nameserver 192.0.2.1", "search a.example"]);
        let config = Dns { servers: Vec::new(), search: vec!["b.example".into()] };
        assert_eq!(lines(&config, &leases, &[])[2], "search b.example");
    }
}
