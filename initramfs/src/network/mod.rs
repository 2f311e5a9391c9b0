//! The machine's network: loopback, and what the machine configuration says; without one, an address by DHCP for every
//! wired interface.
//!
//! [`plan`] says which items a configuration needs and by which steps the kernel gets from one set of items to another.
//! Here the steps are made. A configuration that the kernel refuses in part is taken back as a whole.

mod dhcp;
mod kernel;
pub mod plan;
pub mod resolv;

use crate::console;
use crate::dhcp::client::{Action, Event};
use crate::dhcp::{frame, message};
use crate::netlink::{Failure, LINK_GROUP, Link, Message, NameServers, Netlink, ROUTER_GROUP};
use crate::oci::bundle::RESOLV_CONF;
use crate::sys;
use ashlar_image::machine::{MachineConfig, Network as NetworkConfig};
use dhcp::Interface;
use plan::{Item, Seen, Step, Wanted};
use rustix::net::RecvFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Index of the loopback interface.
const LOOPBACK: u32 = 1;
/// Longest IPv4 packet that is read.
const MAX_PACKET: usize = 4096;
/// Most interfaces that are looked at.
const MAX_LINKS: usize = 1024;
/// Most name servers of IPv6 routers that are kept.
const MAX_ROUTER_SERVERS: usize = 16;
/// Most addresses that are told.
const MAX_ADDRESSES: usize = 64;

/// A setting that the kernel refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("network: {interface}: {setting} cannot be {action}: {failure}{}", hint(*missing_module))]
pub struct Refused {
    /// The interface.
    pub interface: String,
    /// The setting, for people.
    pub setting: String,
    /// What was tried: `set`, `removed`.
    pub action: &'static str,
    /// Why not.
    pub failure: Failure,
    /// The module that the kernel lacks.
    pub missing_module: Option<&'static str>,
}

fn hint(module: Option<&'static str>) -> String {
    module.map_or_else(String::new, |name| {
        format!(
            "; the kernel module `{name}` is not loaded: put it into `modules` of the recipe's `[kernel]`"
        )
    })
}

/// What the module of this name is, where the kernel's own words would not tell that it is missing.
const fn module(item: &Item) -> Option<&'static str> {
    match item {
        Item::Bond { .. } => Some("bonding"),
        Item::Vlan { .. } => Some("8021q"),
        _ => None,
    }
}

/// What is outside of this module, for tests.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The file that name servers are written to.
    pub resolv_conf: PathBuf,
    /// Whether an interface is wired Ethernet hardware.
    pub is_wired: fn(&str) -> bool,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self { resolv_conf: RESOLV_CONF.into(), is_wired }
    }
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

/// An interface that the kernel has.
#[derive(Debug)]
struct Known {
    link: Link,
    /// The address of the hardware: the first one that was seen, unless the driver tells.
    hardware: Option<[u8; 6]>,
    wired: bool,
    /// Largest packet in bytes before anybody changed it.
    mtu: u32,
}

/// The machine's network.
#[derive(Debug)]
pub struct Network {
    surroundings: Surroundings,
    requests: Netlink,
    events: Netlink,
    config: NetworkConfig,
    /// Whether the configuration names the machine, and DHCP must not.
    has_host_name: bool,
    links: BTreeMap<u32, Known>,
    /// What is set in the kernel.
    current: BTreeSet<Item>,
    /// Interfaces of which the kernel may have dropped addresses and routes since.
    shaken: BTreeSet<String>,
    missing: BTreeSet<String>,
    /// What could not be set, by interface and setting.
    failed: BTreeMap<(String, String), String>,
    dhcp: BTreeMap<u32, Interface>,
    /// Name servers of IPv6 routers, and until when they may be used.
    routers: BTreeMap<(u32, Ipv6Addr), Duration>,
    written: Option<String>,
}

impl Network {
    /// Switches the loopback on and does what `config` says as far as the kernel takes it: what it does not take is
    /// among [`Network::problems`].
    pub fn start(config: Option<&MachineConfig>, now: Duration) -> io::Result<Self> {
        Self::start_in(Surroundings::default(), config, now)
    }

    /// [`Network::start`] elsewhere than on a machine.
    pub fn start_in(
        surroundings: Surroundings,
        config: Option<&MachineConfig>,
        now: Duration,
    ) -> io::Result<Self> {
        let requests = Netlink::open(0)?;
        requests.set_up(LOOPBACK, true)?;
        let events = Netlink::open(LINK_GROUP | ROUTER_GROUP)?;
        // When an address goes, others of its network stay; interfaces listen to routers only where they are told to.
        for (path, value) in [
            ("ipv4/conf/all/promote_secondaries", "1"),
            ("ipv4/conf/default/promote_secondaries", "1"),
            ("ipv6/conf/default/accept_ra", "0"),
        ] {
            if let Err(error) = fs::write(Path::new("/proc/sys/net").join(path), value)
                && error.kind() != io::ErrorKind::NotFound
            {
                console::warning(format_args!("network: cannot set net/{path} to {value}: {error}"));
            }
        }
        let mut network = Self {
            surroundings,
            requests,
            events,
            config: config.map(|config| config.network.clone()).unwrap_or_default(),
            has_host_name: config.is_some_and(|config| config.hostname.is_some()),
            links: BTreeMap::new(),
            current: BTreeSet::new(),
            shaken: BTreeSet::new(),
            missing: BTreeSet::new(),
            failed: BTreeMap::new(),
            dhcp: BTreeMap::new(),
            routers: BTreeMap::new(),
            written: None,
        };
        network.look_at_links(now)?;
        network.settle(now);
        network.write_resolv_conf()?;
        Ok(network)
    }

    /// Does what `config` says from now on: tells what has changed, one line each. What is no longer in it is removed.
    ///
    /// # Errors
    /// The first setting that the kernel refuses. All is as before then; what could not be put back is among
    /// [`Network::problems`].
    pub fn apply(&mut self, config: Option<&MachineConfig>, now: Duration) -> Result<Vec<String>, Refused> {
        let new = config.map(|config| config.network.clone()).unwrap_or_default();
        let old = std::mem::replace(&mut self.config, new);
        let wanted = self.wanted();
        let mut changes = Vec::new();
        let result = self.reach(&wanted.items, now, &mut changes);
        if let Err(refused) = result {
            self.config = old;
            self.settle(now);
            self.save_resolv_conf();
            return Err(refused);
        }
        self.has_host_name = config.is_some_and(|config| config.hostname.is_some());
        self.failed.clear();
        for name in &wanted.missing {
            changes.push(format!("{name}: there is no such interface; its settings wait for it"));
        }
        self.missing = wanted.missing;
        if old.dns != self.config.dns {
            changes.push("name servers and search domains changed".into());
        }
        self.save_resolv_conf();
        Ok(changes)
    }

    /// What is wrong, one line each.
    pub fn problems(&self) -> Vec<String> {
        let missing = self.missing.iter().map(|name| {
            format!("network: {name} is in the machine configuration, but there is no such interface")
        });
        self.failed.values().cloned().chain(missing).collect()
    }

    /// Where news of links and IPv6 routers come in.
    pub fn links(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// Where DHCP messages come in, by interface index.
    pub fn sockets(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.dhcp.iter().map(|(index, interface)| (*index, interface.packets.as_fd()))
    }

    /// When [`Network::tick`] is due.
    pub fn deadline(&self) -> Duration {
        let clients = self.dhcp.values().map(|interface| interface.client.deadline());
        clients.chain(self.routers.values().copied()).min().unwrap_or(Duration::MAX)
    }

    /// Whether an address is still to be expected: an interface of the configuration is not there, none has an
    /// address at all, though cards may take seconds until they know of their cable, or one with its cable in has
    /// none.
    pub fn is_waiting(&self) -> bool {
        let has_lease = |interface: &Interface| interface.client.lease().is_some();
        let has_static = self.current.iter().any(|item| matches!(item, Item::Address { .. }));
        let mut clients = self.dhcp.values();
        !self.missing.is_empty()
            || !self.dhcp.is_empty()
                && (!has_static && !clients.clone().any(has_lease)
                    || clients.any(|interface| interface.carrier && !has_lease(interface)))
    }

    /// The addresses that the kernel has and that others can reach, as `eth0 10.0.2.15/24`.
    pub fn addresses(&self) -> Vec<String> {
        let Ok(addresses) = self.requests.addresses() else { return Vec::new() };
        addresses
            .iter()
            .filter(|address| address.scope == 0 && address.index != LOOPBACK)
            .filter_map(|address| {
                let name = &self.links.get(&address.index)?.link.name;
                Some(format!("{name} {}/{}", address.address, address.prefix))
            })
            .take(MAX_ADDRESSES)
            .collect()
    }

    /// The name servers in use, the first is to be asked first.
    pub fn name_servers(&self) -> Vec<IpAddr> {
        let routers = self.routers.keys().map(|(_, server)| *server);
        resolv::name_servers(&self.config.dns, self.leases(), routers)
    }

    /// The time servers that DHCP servers name.
    pub fn time_servers(&self) -> Vec<Ipv4Addr> {
        let mut servers = Vec::new();
        for server in self.leases().flat_map(|lease| &lease.time_servers) {
            if !servers.contains(server) {
                servers.push(*server);
            }
        }
        servers
    }

    fn leases(&self) -> impl Iterator<Item = &crate::dhcp::lease::Lease> {
        self.dhcp.values().filter_map(|interface| interface.client.lease())
    }

    fn look_at_links(&mut self, now: Duration) -> Result<(), Failure> {
        let links = self.requests.links()?;
        let there: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
        let gone: Vec<u32> = self.links.keys().filter(|index| !there.contains(index)).copied().collect();
        for index in gone {
            self.forget(index);
        }
        for link in &links {
            self.learn(link, now);
        }
        Ok(())
    }

    /// Reads the news of links and routers.
    pub fn handle_links(&mut self, now: Duration) {
        let (messages, lost) = self.events.drain();
        let mut told = false;
        for message in messages {
            match message {
                Message::Link(link) if link.removed => self.forget(link.index),
                Message::Link(link) => self.learn(&link, now),
                Message::NameServers(servers) => told |= self.hear(&servers, now),
                _ => {}
            }
        }
        if lost && let Err(error) = self.look_at_links(now) {
            console::error(format_args!("network: cannot look at the interfaces: {error}"));
        }
        self.settle(now);
        if told {
            self.save_resolv_conf();
        }
    }

    /// Takes note of what a link is now.
    fn learn(&mut self, link: &Link, now: Duration) {
        let index = link.index;
        if index == LOOPBACK {
            return;
        }
        if self.links.get(&index).is_some_and(|known| known.link.name != link.name) {
            self.forget(index);
        }
        if let Some(known) = self.links.get_mut(&index) {
            known.link = link.clone();
        } else if self.links.len() < MAX_LINKS {
            let known = Known {
                hardware: link.permanent_mac.or(link.mac),
                wired: (self.surroundings.is_wired)(&link.name),
                mtu: link.mtu,
                link: link.clone(),
            };
            self.links.insert(index, known);
        }
        let Some(interface) = self.dhcp.get_mut(&index) else { return };
        if let Some(mac) = link.mac.filter(|mac| *mac != interface.mac && interface.client.lease().is_none())
        {
            // A bond takes the address of its first member: the server must answer to that one.
            let (metric, has_mtu) = (interface.metric, interface.has_mtu);
            match Interface::new(index, &link.name, mac, metric, has_mtu) {
                Ok(new) => *interface = new,
                Err(error) => console::error(format_args!("network: {}: {error}", link.name)),
            }
        }
        if interface.carrier != link.carrier {
            interface.carrier = link.carrier;
            let state = if link.carrier { "up" } else { "down" };
            console::info(format_args!("network: {} is {state}", interface.name));
            self.step(index, Event::Carrier(link.carrier), now);
        }
    }

    /// Forgets a link that is gone and all that was set on it.
    fn forget(&mut self, index: u32) {
        self.dhcp.remove(&index);
        self.routers.retain(|(of, _), _| *of != index);
        let Some(known) = self.links.remove(&index) else { return };
        let name = known.link.name;
        // One that was made anew has another index.
        if self.index(&name).is_none() {
            console::info(format_args!("network: {name} is gone"));
            self.current.retain(|item| !item.needs(&name));
        }
    }

    fn index(&self, name: &str) -> Option<u32> {
        self.links.iter().find(|(_, known)| known.link.name == name).map(|(index, _)| *index)
    }

    /// Takes name servers of a router; tells whether any came or went.
    fn hear(&mut self, told: &NameServers, now: Duration) -> bool {
        let Some(known) = self.links.get(&told.index) else { return false };
        let listens = Item::Routers { link: known.link.name.clone(), on: true };
        if !self.current.contains(&listens) {
            return false;
        }
        let end = match told.lifetime {
            u32::MAX => Duration::MAX,
            seconds => now.saturating_add(Duration::from_secs(seconds.into())),
        };
        let before: Vec<_> = self.routers.keys().copied().collect();
        for server in &told.servers {
            let key = (told.index, *server);
            if told.lifetime == 0 {
                self.routers.remove(&key);
            } else if self.routers.len() < MAX_ROUTER_SERVERS || self.routers.contains_key(&key) {
                self.routers.insert(key, end);
            }
        }
        !self.routers.keys().eq(&before)
    }

    fn wanted(&self) -> Wanted {
        let seen: Vec<Seen> = self
            .links
            .values()
            .map(|known| Seen {
                name: known.link.name.clone(),
                mac: known.hardware,
                made: matches!(known.link.kind.as_str(), "vlan" | "bond"),
                wired: known.wired,
            })
            .collect();
        Wanted::new(&self.config, &seen)
    }

    /// Sets what is wanted and not set, as far as the kernel takes it.
    fn settle(&mut self, now: Duration) {
        let wanted = self.wanted();
        self.missing = wanted.missing;
        for step in plan::steps(&self.current, &wanted.items, &self.shaken) {
            let key = match &step {
                Step::Remove(item) | Step::Add { item, .. } => (item.link().to_owned(), item.to_string()),
            };
            match self.make(step, &wanted.items, now) {
                Ok(()) => {
                    self.failed.remove(&key);
                }
                Err(refused) => {
                    let text = refused.to_string();
                    if self.failed.get(&key) != Some(&text) {
                        console::error(&refused);
                        self.failed.insert(key, text);
                    }
                }
            }
        }
        self.shaken.clear();
    }

    /// Goes to `wanted` and stops at what the kernel refuses.
    fn reach(
        &mut self,
        wanted: &BTreeSet<Item>,
        now: Duration,
        changes: &mut Vec<String>,
    ) -> Result<(), Refused> {
        for step in plan::steps(&self.current, wanted, &self.shaken) {
            let line = match &step {
                Step::Remove(item) => Some(format!("{}: {item} removed", item.link())),
                Step::Add { item, again: false } => Some(format!("{}: {item} added", item.link())),
                Step::Add { again: true, .. } => None,
            };
            self.make(step, wanted, now)?;
            changes.extend(line);
        }
        self.shaken.clear();
        Ok(())
    }

    /// Makes one step and takes note of it.
    fn make(&mut self, step: Step, wanted: &BTreeSet<Item>, now: Duration) -> Result<(), Refused> {
        match &step {
            Step::Add { item, .. } if !matches!(item, Item::Routers { .. }) => {}
            Step::Remove(item) | Step::Add { item, .. } => {
                self.shaken.insert(item.link().to_owned());
            }
        }
        let (item, action, result) = match step {
            Step::Remove(item) => {
                // What is wanted otherwise is only set anew: a VLAN would lose its size with its parent's.
                let is_replaced = |other: &Item| match (&item, other) {
                    (Item::Mtu { .. }, Item::Mtu { .. }) | (Item::VlanMtu { .. }, Item::VlanMtu { .. }) => {
                        item.link() == other.link()
                    }
                    _ => false,
                };
                let result = if wanted.iter().any(is_replaced) { Ok(()) } else { self.take(&item) };
                let result =
                    result.or_else(|failure| if failure.is_absence() { Ok(()) } else { Err(failure) });
                if result.is_ok() {
                    self.current.remove(&item);
                }
                (item, "removed", result)
            }
            Step::Add { item, .. } => {
                let result = self.put(&item, wanted, now);
                if result.is_ok() {
                    self.current.insert(item.clone());
                } else {
                    self.current.remove(&item);
                }
                (item, "set", result)
            }
        };
        result.map_err(|failure| Refused {
            interface: item.link().to_owned(),
            setting: item.to_string(),
            action,
            missing_module: module(&item).filter(|_| failure.code == libc::EOPNOTSUPP),
            failure,
        })
    }

    /// Reads the DHCP messages of an interface.
    pub fn handle_packets(&mut self, index: u32, now: Duration) {
        let mut buffer = [0; MAX_PACKET];
        while let Some(interface) = self.dhcp.get(&index) {
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
            self.dhcp.iter().filter(|(_, i)| i.client.deadline() <= now).map(|(n, _)| *n).collect();
        for index in due {
            self.step(index, Event::Tick, now);
        }
        let before = self.routers.len();
        self.routers.retain(|_, end| *end > now);
        if self.routers.len() != before {
            self.save_resolv_conf();
        }
    }

    fn step(&mut self, index: u32, event: Event, now: Duration) {
        let takes_name = !self.has_host_name;
        let Some(interface) = self.dhcp.get_mut(&index) else { return };
        let before = interface.client.lease().cloned();
        let actions = interface.client.step(event, now, random());
        let mut configured = false;
        for action in actions {
            let result = match action {
                Action::Broadcast(query) => {
                    let packet = frame::broadcast(&query.to_bytes());
                    sys::send_packet(&interface.packets, index, [0xff; 6], &packet).map_err(Failure::from)
                }
                Action::Unicast { to, query } => {
                    interface.send_to_server(to, &query.to_bytes()).map_err(Failure::from)
                }
                Action::Configure(lease) => {
                    configured = true;
                    interface.configure(&self.requests, index, before.as_ref(), &lease, takes_name)
                }
                Action::Deconfigure(lease) => {
                    configured = true;
                    console::warning(format_args!("network: {} lost {}", interface.name, lease.address));
                    interface.deconfigure(&self.requests, index, &lease)
                }
            };
            if let Err(error) = result {
                console::error(format_args!("network: {}: {error}", interface.name));
            }
        }
        if configured {
            self.save_resolv_conf();
        }
    }

    fn save_resolv_conf(&mut self) {
        if let Err(error) = self.write_resolv_conf() {
            let path = self.surroundings.resolv_conf.display();
            console::error(format_args!("network: cannot write {path}: {error}"));
        }
    }

    /// Writes the file in place, where it changes: containers have it mounted over theirs.
    pub fn write_resolv_conf(&mut self) -> io::Result<()> {
        let text = resolv::text(&self.config.dns, self.leases(), &self.name_servers());
        if self.written.as_ref() != Some(&text) {
            fs::write(&self.surroundings.resolv_conf, &text)?;
            self.written = Some(text);
        }
        Ok(())
    }
}
