//! What keys of a configuration have to do with each other.

use super::network::{Addressing, Network};
use super::reader::Reader;
use super::settings::{Lock, UpdatePolicy};
use super::values::{Cidr, LinkName};
use super::{MachineConfig, names};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// An interface, VLAN or bond that has addresses.
struct Place<'a> {
    path: String,
    link: LinkName,
    addressing: &'a Addressing,
}

impl Place<'_> {
    /// For people: its name, or its hardware address.
    fn shown(&self) -> String {
        format!("`{}`", self.link)
    }
}

fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// All that have addresses; those whose name could not be read among them.
fn places(network: &Network) -> Vec<Place<'_>> {
    let interfaces = network.interfaces.iter().enumerate().map(|(number, interface)| Place {
        path: format!("network.interface[{number}]"),
        link: interface.link(),
        addressing: &interface.addressing,
    });
    let vlans = network.vlans.iter().enumerate().map(|(number, vlan)| Place {
        path: format!("network.vlan[{number}]"),
        link: LinkName::Name(vlan.name.clone()),
        addressing: &vlan.addressing,
    });
    let bonds = network.bonds.iter().enumerate().map(|(number, bond)| Place {
        path: format!("network.bond[{number}]"),
        link: LinkName::Name(bond.name.clone()),
        addressing: &bond.addressing,
    });
    interfaces.chain(vlans).chain(bonds).collect()
}

/// Tells of each item that has been there before.
fn no_twins<T: Ord>(reader: &mut Reader<'_>, path: &str, items: impl Iterator<Item = T>) {
    let mut seen = BTreeSet::new();
    for (number, item) in items.enumerate() {
        if !seen.insert(item) {
            reader.refuse(&format!("{path}[{number}]"), "it is there twice");
        }
    }
}

/// Checks the whole configuration.
pub(super) fn check(reader: &mut Reader<'_>, config: &MachineConfig) {
    let places = places(&config.network);
    links(reader, &config.network, &places);
    for place in &places {
        addresses(reader, place);
        gateways(reader, place);
        routes(reader, place);
    }
    overlaps(reader, &places);
    let network = &config.network;
    no_twins(reader, "network.dns.servers", network.dns.servers.iter());
    no_twins(reader, "network.dns.search", network.dns.search.iter());
    for (number, server) in network.dns.servers.iter().enumerate() {
        if server.is_unspecified() || server.is_multicast() {
            let message = format!("no name server can have the address `{server}`");
            reader.refuse(&format!("network.dns.servers[{number}]"), message);
        }
    }
    no_twins(reader, "time.servers", config.time.servers.iter());
    control(reader, config, &places);
    update(reader, config);
    if let Some(cluster) = &config.cluster {
        no_twins(reader, "cluster.endpoints", cluster.endpoints.iter());
        for (number, url) in cluster.endpoints.iter().enumerate() {
            if !url.is_https() {
                let message = format!("`{url}` is not encrypted; use `https://`");
                reader.refuse(&format!("cluster.endpoints[{number}]"), message);
            }
        }
    }
    if let Some(lock) = &config.lock {
        check_lock(reader, lock);
    }
    let mut containers = BTreeMap::new();
    for (number, container) in config.containers.iter().enumerate().filter(|(_, one)| !one.name.is_empty()) {
        if let Some(first) = containers.insert(&container.name, number) {
            let message = format!("`{}` is the name of `container[{first}]` too", container.name);
            reader.refuse(&format!("container[{number}].name"), message);
        }
    }
}

/// Exactly one kind of lock, all of it encrypted.
fn check_lock(reader: &mut Reader<'_>, lock: &Lock) {
    let (etcd, fleetlock) = (reader.knows("lock.etcd"), reader.knows("lock.fleetlock"));
    if etcd == fleetlock {
        reader.refuse("lock", "exactly one of `etcd` and `fleetlock` is wanted");
    }
    no_twins(reader, "lock.etcd", lock.etcd.iter());
    let places = lock.etcd.iter().enumerate().map(|(number, url)| (format!("lock.etcd[{number}]"), url));
    for (path, url) in places.chain(lock.fleetlock.iter().map(|url| ("lock.fleetlock".to_owned(), url))) {
        if !url.is_https() {
            reader.refuse(&path, format!("`{url}` is not encrypted; use `https://`"));
        }
    }
    if fleetlock && lock.group.contains(['_', '/']) {
        reader.refuse("lock.group", "a FleetLock group has letters, digits, `.` and `-` only");
    }
    if fleetlock && !lock.certificate.is_empty() {
        reader.refuse("lock.certificate", "it is for etcd only");
    }
}

/// Names, and who uses whom.
fn links(reader: &mut Reader<'_>, network: &Network, places: &[Place<'_>]) {
    let nobody = LinkName::Name(String::new());
    let mut known: BTreeMap<&LinkName, &str> = BTreeMap::new();
    for place in places.iter().filter(|place| place.link != nobody) {
        if let Some(first) = known.get(&place.link) {
            let key = if matches!(place.link, LinkName::Mac(_)) { "mac" } else { "name" };
            let message = format!("{} is `{first}` already", place.shown());
            reader.refuse(&format!("{}.{key}", place.path), message);
        } else {
            known.insert(&place.link, &place.path);
        }
    }
    let mut members: BTreeMap<&LinkName, String> = BTreeMap::new();
    for (number, bond) in network.bonds.iter().enumerate() {
        let path = format!("network.bond[{number}].members");
        for (at, member) in bond.members.iter().enumerate() {
            let path = format!("{path}[{at}]");
            if let Some(other) = members.get(member) {
                reader.refuse(&path, format!("`{member}` is a member of the bond `{other}` already"));
            } else if let Some(other) = known.get(member) {
                let message = format!("`{member}` has settings of its own in `{other}`; a member has none");
                reader.refuse(&path, message);
            }
            members.entry(member).or_insert_with(|| bond.name.clone());
        }
    }
    let mut carried: BTreeMap<(&LinkName, u16), usize> = BTreeMap::new();
    for (number, vlan) in network.vlans.iter().enumerate().filter(|(_, vlan)| vlan.parent != nobody) {
        let path = format!("network.vlan[{number}]");
        let parent = &vlan.parent;
        if let Some(bond) = members.get(parent) {
            let message = format!("`{parent}` is a member of the bond `{bond}`; use the bond as parent");
            reader.refuse(&format!("{path}.parent"), message);
        }
        if network.vlans.iter().any(|other| *parent == LinkName::Name(other.name.clone())) {
            let message = format!("`{parent}` is a VLAN itself; use an interface or a bond");
            reader.refuse(&format!("{path}.parent"), message);
        }
        match carried.insert((parent, vlan.id), number) {
            Some(first) if vlan.id != 0 => {
                let message = format!("`network.vlan[{first}]` is VLAN {} of `{parent}` already", vlan.id);
                reader.refuse(&format!("{path}.id"), message);
            }
            _ => {}
        }
    }
}

/// Whether an interface can have an address.
fn unfit(cidr: &Cidr) -> Option<&'static str> {
    let address = cidr.address;
    let mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() || mapped {
        return Some("no interface can have this address");
    }
    if cidr.prefix == 0 {
        return Some(
            "a prefix of no bits would be the whole internet; give the length of the network's prefix",
        );
    }
    let IpAddr::V4(v4) = address else { return None };
    if v4.is_broadcast() {
        return Some("no interface can have this address");
    }
    let host = v4.to_bits() & u32::MAX.checked_shr(cidr.prefix.into()).unwrap_or(0);
    match cidr.prefix {
        31 | 32 => None,
        _ if host == 0 => Some("this is the address of the network itself"),
        prefix if host == u32::MAX >> prefix => Some("this is the network's broadcast address"),
        _ => None,
    }
}

fn addresses(reader: &mut Reader<'_>, place: &Place<'_>) {
    let addressing = place.addressing;
    let path = format!("{}.addresses", place.path);
    no_twins(reader, &path, addressing.addresses.iter().map(|cidr| cidr.address));
    for (number, cidr) in addressing.addresses.iter().enumerate() {
        if let Some(why) = unfit(cidr) {
            reader.refuse(&format!("{path}[{number}]"), format!("`{cidr}`: {why}"));
        }
    }
    let has_v6 = addressing.takes_router_advertisements()
        || addressing.addresses.iter().any(|cidr| cidr.address.is_ipv6());
    if let Some(mtu) = addressing.mtu.filter(|mtu| has_v6 && *mtu < 1280) {
        let message =
            format!("{mtu} is too small where there is IPv6; use 1280 at least (RFC 8200, section 5)");
        reader.refuse(&format!("{}.mtu", place.path), message);
    }
}

/// Whether an address is on this link, as far as the configuration tells.
fn is_reached(addressing: &Addressing, address: IpAddr) -> bool {
    is_link_local(address) || addressing.addresses.iter().any(|cidr| cidr.contains(address))
}

fn gateways(reader: &mut Reader<'_>, place: &Place<'_>) {
    let addressing = place.addressing;
    for (number, gateway) in addressing.gateways.iter().enumerate() {
        let path = format!("{}.gateways[{number}]", place.path);
        let family = family(*gateway);
        if addressing.gateways.iter().take(number).any(|other| other.is_ipv4() == gateway.is_ipv4()) {
            reader.refuse(&path, format!("there can be one {family} gateway"));
        }
        if addressing.addresses.iter().any(|cidr| cidr.address == *gateway) {
            reader.refuse(&path, format!("`{gateway}` is the machine's own address"));
        } else if !is_reached(addressing, *gateway) {
            let networks: Vec<String> = (addressing.addresses.iter())
                .filter(|cidr| cidr.address.is_ipv4() == gateway.is_ipv4())
                .map(|cidr| format!("{}/{}", cidr.network(), cidr.prefix))
                .collect();
            let message = match networks.as_slice() {
                [] => format!("`{gateway}` needs an {family} address in its network among `addresses`"),
                networks => format!("`{gateway}` is in no network of `addresses`: {}", networks.join(", ")),
            };
            reader.refuse(&path, message);
        }
    }
}

fn routes(reader: &mut Reader<'_>, place: &Place<'_>) {
    let addressing = place.addressing;
    let mut seen = BTreeMap::new();
    for (number, route) in addressing.routes.iter().enumerate() {
        if route.to == names::NO_NETWORK {
            continue;
        }
        let path = format!("{}.route[{number}]", place.path);
        let network = Cidr { address: route.to.network(), prefix: route.to.prefix };
        if network != route.to {
            let help = format!("did you mean `{network}`?");
            let message = format!("`{}` is an address, not a network", route.to);
            reader.refuse_with(&format!("{path}.to"), message, Some(help));
        } else if network.prefix == 0 {
            reader.refuse(&format!("{path}.to"), "a default route is made by `gateways`");
        }
        if let Some(first) = seen.insert((network, route.metric), number) {
            let message =
                format!("`{}.route[{first}]` leads to `{network}` with the same metric", place.path);
            reader.refuse(&format!("{path}.to"), message);
        }
        let Some(via) = route.via else { continue };
        let path = format!("{path}.via");
        let by_server =
            if via.is_ipv4() { addressing.dhcp } else { addressing.takes_router_advertisements() };
        if via.is_ipv4() != route.to.address.is_ipv4() {
            let message = format!(
                "`{via}` is {}, the network `{}` is {}",
                family(via),
                route.to,
                family(route.to.address)
            );
            reader.refuse(&path, message);
        } else if addressing.addresses.iter().any(|cidr| cidr.address == via) {
            reader.refuse(&path, format!("`{via}` is the machine's own address"));
        } else if !by_server && !is_reached(addressing, via) {
            reader.refuse(&path, format!("`{via}` is in no network of `{}.addresses`", place.path));
        }
    }
}

/// Networks of different interfaces have nothing in common: the kernel would use one of the two.
fn overlaps(reader: &mut Reader<'_>, places: &[Place<'_>]) {
    let mut seen: Vec<(&Place<'_>, &Cidr)> = Vec::new();
    for place in places {
        let usable = |cidr: &&Cidr| !is_link_local(cidr.address) && unfit(cidr).is_none();
        for (number, cidr) in place.addressing.addresses.iter().enumerate().filter(|(_, cidr)| usable(cidr)) {
            let other = seen.iter().find(|(other, known)| other.path != place.path && known.overlaps(cidr));
            if let Some((other, known)) = other {
                let message =
                    format!("the network of `{cidr}` overlaps that of `{known}` on {}", other.shown());
                reader.refuse(&format!("{}.addresses[{number}]", place.path), message);
            }
            // Enough to tell of each that overlaps one before it, and the work stays bounded.
            if seen.len() < 1024 {
                seen.push((place, cidr));
            }
        }
    }
}

fn control(reader: &mut Reader<'_>, config: &MachineConfig, places: &[Place<'_>]) {
    let control = &config.control;
    no_twins(reader, "control.listen", control.listen.iter());
    if control.trust_roots.iter().collect::<BTreeSet<_>>().len() != control.trust_roots.len() {
        reader.refuse("control.trust-roots", "a certificate is there twice");
    }
    if !control.listen.is_empty() && !reader.knows("control.trust-roots") {
        let message =
            "without `trust-roots` nobody could be let in; name the authority of users' certificates";
        reader.refuse("control.listen", message);
    }
    let servers_give = places.is_empty()
        || places.iter().any(|place| place.addressing.dhcp || place.addressing.takes_router_advertisements());
    for (number, listen) in control.listen.iter().enumerate() {
        let own = places.iter().any(|p| p.addressing.addresses.iter().any(|cidr| cidr.address == *listen));
        if !(own || servers_give || listen.is_unspecified() || listen.is_loopback()) {
            let message = format!("`{listen}` is the address of no interface in `network`");
            reader.refuse(&format!("control.listen[{number}]"), message);
        }
        if listen.is_multicast() {
            reader.refuse(&format!("control.listen[{number}]"), format!("`{listen}` cannot be listened on"));
        }
    }
}

fn update(reader: &mut Reader<'_>, config: &MachineConfig) {
    if config.update.policy != UpdatePolicy::Off && !reader.knows("channel") {
        reader.refuse("update.policy", "an update comes from a channel; add `[channel]`");
    }
}
