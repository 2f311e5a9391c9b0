//! The machine's network: loopback, every wired interface up, an address for each by DHCP.

use crate::console;
use crate::dhcp::client::{Action, Client, Event};
use crate::dhcp::lease::Lease;
use crate::dhcp::{frame, message};
use crate::netlink::{LINK_GROUP, Link, Message, Netlink};
use crate::oci::bundle::RESOLV_CONF;
use crate::sys;
use rustix::net::RecvFlags;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Index of the loopback interface.
const LOOPBACK: u32 = 1;
/// The metric of a route is this and the interface's index: the first interface wins.
const METRIC: u32 = 100;
/// What resolvers read at most.
const MAX_NAME_SERVERS: usize = 3;
/// Longest IPv4 packet that is read.
const MAX_PACKET: usize = 4096;

/// A wired interface.
#[derive(Debug)]
struct Interface {
    name: String,
    client: Client,
    /// Sends and receives before the interface has an address.
    packets: OwnedFd,
    /// Sends to the server of the lease; what comes in is read from `packets`, but the port must be taken, or the
    /// kernel would tell the server that nobody is there.
    renewing: Option<UdpSocket>,
    /// Whether the cable is in.
    carrier: bool,
}

/// The machine's network.
#[derive(Debug)]
pub struct Network {
    requests: Netlink,
    events: Netlink,
    interfaces: BTreeMap<u32, Interface>,
}

/// Whether an interface is wired Ethernet hardware.
fn is_wired(name: &str) -> bool {
    let folder = Path::new("/sys/class/net").join(name);
    fs::read_to_string(folder.join("type")).is_ok_and(|kind| kind.trim() == "1")
        && folder.join("device").exists()
        && !folder.join("wireless").exists()
        && !folder.join("phy80211").exists()
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Only transaction numbers and pauses depend on it: early in the boot, less than all bytes is no harm.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::NONBLOCK);
    u32::from_ne_bytes(bytes)
}

impl Network {
    /// Switches the loopback on and begins to look for interfaces.
    pub fn start() -> io::Result<Self> {
        let requests = Netlink::open(0)?;
        requests.set_up(LOOPBACK)?;
        let events = Netlink::open(LINK_GROUP)?;
        events.ask_for_links()?;
        Ok(Self { requests, events, interfaces: BTreeMap::new() })
    }

    /// Where news of links come in.
    pub fn links(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Where DHCP messages come in, by interface index.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.interfaces.iter().map(|(index, interface)| (*index, interface.packets.as_fd()))
    }

    /// When [`Network::tick`] is due.
    pub fn deadline(&self) -> Duration {
        self.interfaces.values().map(|i| i.client.deadline()).min().unwrap_or(Duration::MAX)
    }

    /// Whether an address is still to be expected: none is there at all, though cards may take seconds until they
    /// know of their cable, or one with its cable in has none.
    pub fn is_waiting(&self) -> bool {
        let has_address = |interface: &Interface| interface.client.lease().is_some();
        let mut interfaces = self.interfaces.values();
        !self.interfaces.is_empty()
            && (!interfaces.clone().any(has_address) || interfaces.any(|i| i.carrier && !has_address(i)))
    }

    /// The addresses, as `eth0 10.0.2.15/24`.
    pub fn addresses(&self) -> Vec<String> {
        self.interfaces
            .values()
            .filter_map(|interface| {
                let lease = interface.client.lease()?;
                Some(format!("{} {}/{}", interface.name, lease.address, lease.prefix))
            })
            .collect()
    }

    /// Reads the news of links.
    pub fn handle_links(&mut self, now: Duration) {
        for message in self.events.drain() {
            if let Message::Link(link) = message {
                self.handle_link(&link, now);
            }
        }
    }

    fn handle_link(&mut self, link: &Link, now: Duration) {
        if link.removed {
            if let Some(interface) = self.interfaces.remove(&link.index) {
                console::info(format_args!("network: {} is gone", interface.name));
            }
            return;
        }
        if !self.interfaces.contains_key(&link.index) {
            let Some(mac) = link.mac.filter(|_| is_wired(&link.name)) else { return };
            match self.add(link.index, &link.name, mac) {
                Ok(interface) => {
                    self.interfaces.insert(link.index, interface);
                }
                Err(error) => {
                    console::error(format_args!("network: cannot use {}: {error}", link.name));
                    return;
                }
            }
        }
        if let Some(interface) = self.interfaces.get_mut(&link.index)
            && interface.carrier != link.carrier
        {
            interface.carrier = link.carrier;
            let state = if link.carrier { "up" } else { "down" };
            console::info(format_args!("network: {} is {state}", interface.name));
            self.step(link.index, Event::Carrier(link.carrier), now);
        }
    }

    fn add(&self, index: u32, name: &str, mac: [u8; 6]) -> io::Result<Interface> {
        // In this order: a packet socket on an interface that is down fails once when it is used.
        self.requests.set_up(index)?;
        let packets = sys::packet_socket(index, &frame::FILTER)?;
        Ok(Interface {
            name: name.to_owned(),
            client: Client::new(mac),
            packets,
            renewing: None,
            carrier: false,
        })
    }

    /// Reads the DHCP messages of an interface.
    pub fn handle_packets(&mut self, index: u32, now: Duration) {
        let mut buffer = [0; MAX_PACKET];
        while let Some(interface) = self.interfaces.get(&index) {
            let length = match rustix::net::recv(&interface.packets, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                // Nothing more, or the interface is down; the link's news tell.
                Err(_) => return,
            };
            let reply = buffer.get(..length).and_then(frame::parse).and_then(message::parse);
            if let Some(reply) = reply {
                self.step(index, Event::Reply(reply), now);
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Duration) {
        let due: Vec<u32> =
            self.interfaces.iter().filter(|(_, i)| i.client.deadline() <= now).map(|(n, _)| *n).collect();
        for index in due {
            self.step(index, Event::Tick, now);
        }
    }

    fn step(&mut self, index: u32, event: Event, now: Duration) {
        let Some(interface) = self.interfaces.get_mut(&index) else { return };
        let before = interface.client.lease().cloned();
        let actions = interface.client.step(event, now, random());
        let mut configured = false;
        for action in actions {
            let result = match action {
                Action::Broadcast(query) => {
                    let packet = frame::broadcast(&query.to_bytes());
                    sys::send_packet(&interface.packets, index, [0xff; 6], &packet)
                }
                Action::Unicast { to, query } => interface.send_to_server(to, &query.to_bytes()),
                Action::Configure(lease) => {
                    configured = true;
                    configure(&self.requests, index, interface, before.as_ref(), &lease)
                }
                Action::Deconfigure(lease) => {
                    configured = true;
                    interface.renewing = None;
                    console::warning(format_args!("network: {} lost {}", interface.name, lease.address));
                    self.requests.remove_address(index, lease.address, lease.prefix)
                }
            };
            if let Err(error) = result {
                console::error(format_args!("network: {}: {error}", interface.name));
            }
        }
        if configured && let Err(error) = self.write_resolv_conf() {
            console::error(format_args!("network: cannot write {RESOLV_CONF}: {error}"));
        }
    }

    /// Writes the file in place: containers have it mounted over theirs.
    pub fn write_resolv_conf(&self) -> io::Result<()> {
        fs::write(RESOLV_CONF, resolv_conf(self.interfaces.values().filter_map(|i| i.client.lease())))
    }
}

impl Interface {
    fn send_to_server(&mut self, server: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        let Some(lease) = self.client.lease() else { return Ok(()) };
        let socket = match self.renewing.take() {
            Some(socket) => socket,
            None => UdpSocket::bind((lease.address, frame::CLIENT_PORT))?,
        };
        socket.set_nonblocking(true)?;
        socket.send_to(message, (server, frame::SERVER_PORT))?;
        self.renewing = Some(socket);
        Ok(())
    }
}

/// Gives the interface what the lease says, unless it has that already.
fn configure(
    requests: &Netlink,
    index: u32,
    interface: &mut Interface,
    before: Option<&Lease>,
    lease: &Lease,
) -> io::Result<()> {
    interface.renewing = None;
    match before {
        Some(old) if old.configures_like(lease) => return Ok(()),
        // Routes go with their address.
        Some(old) => requests.remove_address(index, old.address, old.prefix)?,
        None => {}
    }
    if let Some(mtu) = lease.mtu
        && let Err(error) = requests.set_mtu(index, mtu)
    {
        console::warning(format_args!("network: {}: cannot set the MTU {mtu}: {error}", interface.name));
    }
    requests.add_address(index, lease.address, lease.prefix)?;
    for route in &lease.routes {
        requests.add_route(index, lease.address, METRIC.saturating_add(index), route)?;
    }
    if let Some(name) = &lease.host_name {
        rustix::system::sethostname(name.as_bytes())?;
    }
    console::info(format_args!(
        "network: {} has {}/{} from {}",
        interface.name, lease.address, lease.prefix, lease.server
    ));
    Ok(())
}

/// `resolv.conf` for leases in the order of preference.
fn resolv_conf<'a>(leases: impl Iterator<Item = &'a Lease>) -> String {
    let mut servers: Vec<Ipv4Addr> = Vec::new();
    let mut domains: Vec<&str> = Vec::new();
    for lease in leases {
        for server in &lease.name_servers {
            if !servers.contains(server) {
                servers.push(*server);
            }
        }
        if let Some(domain) = lease.domain.as_deref().filter(|domain| !domains.contains(domain)) {
            domains.push(domain);
        }
    }
    let mut text = String::from("# Written by init from what DHCP says.\n");
    for server in servers.into_iter().take(MAX_NAME_SERVERS) {
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

    #[test]
    fn name_servers_of_all_interfaces() {
        let lease = |server: u8, domain: Option<&str>| Lease {
            address: Ipv4Addr::new(10, 0, 0, 9),
            prefix: 24,
            server: Ipv4Addr::new(10, 0, 0, 1),
            routes: Vec::new(),
            name_servers: vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, server)],
            domain: domain.map(str::to_owned),
            host_name: None,
            mtu: None,
            duration: None,
            renew: Duration::ZERO,
            rebind: Duration::ZERO,
        };
        let leases = [lease(2, Some("a.example")), lease(3, None), lease(4, Some("b.example"))];
        assert_eq!(
            resolv_conf(leases.iter()),
            "# Written by init from what DHCP says.\nnameserver 10.0.0.1\nnameserver 10.0.0.2\n\
             nameserver 10.0.0.3\nsearch a.example b.example\n"
        );
        assert_eq!(resolv_conf([].iter()).lines().count(), 1);
    }
}
