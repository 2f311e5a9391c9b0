//! What a configuration asks of the kernel, as a set of items, and the way from one set to another. Pure.

use ashlar_image::machine::{Addressing, BondMode, Cidr, LinkName, Network as NetworkConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An interface that the kernel has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// The address of the hardware, also while it is a member of a bond and has another one.
    pub mac: Option<[u8; 6]>,
    /// Whether it was made by a request, as VLANs and bonds are.
    pub made: bool,
    /// Whether it is wired Ethernet hardware.
    pub wired: bool,
}

/// One thing that is set in the kernel. The order of the variants is the order in which they are set; what is
/// removed goes in the opposite order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A bond.
    Bond {
        /// Name of the interface.
        link: String,
        /// Its mode, by its number in the kernel.
        mode: u8,
        /// Period of looking at the links, in milliseconds.
        miimon: u16,
    },
    /// A member of a bond.
    Member {
        /// The bond.
        bond: String,
        /// Its place in the configuration: the first one works first.
        position: usize,
        /// The member.
        link: String,
    },
    /// Largest packet in bytes, of what is no VLAN.
    Mtu {
        /// Interface.
        link: String,
        /// Bytes.
        mtu: u16,
    },
    /// A VLAN.
    Vlan {
        /// Name of the interface.
        link: String,
        /// The interface that carries it.
        parent: String,
        /// Its number.
        id: u16,
    },
    /// Largest packet in bytes, of a VLAN: after its parent's, which it cannot exceed.
    VlanMtu {
        /// Interface.
        link: String,
        /// Bytes.
        mtu: u16,
    },
    /// Whether IPv6 routers are listened to.
    Routers {
        /// Interface.
        link: String,
        /// Whether they are.
        on: bool,
    },
    /// Switched on.
    Up {
        /// Interface.
        link: String,
    },
    /// A static address.
    Address {
        /// Interface.
        link: String,
        /// The address.
        cidr: Cidr,
    },
    /// A static route.
    Route {
        /// Interface.
        link: String,
        /// Where it leads to.
        to: Cidr,
        /// The gateway.
        via: Option<IpAddr>,
        /// Its metric, where it is given.
        metric: Option<u32>,
    },
    /// An address by DHCP.
    Dhcp {
        /// Interface.
        link: String,
        /// Metric of its routes, where it is given.
        metric: Option<u32>,
    },
}

impl Item {
    /// The interface that it belongs to.
    pub fn link(&self) -> &str {
        match self {
            Self::Bond { link, .. }
            | Self::Member { link, .. }
            | Self::Mtu { link, .. }
            | Self::Vlan { link, .. }
            | Self::VlanMtu { link, .. }
            | Self::Routers { link, .. }
            | Self::Up { link }
            | Self::Address { link, .. }
            | Self::Route { link, .. }
            | Self::Dhcp { link, .. } => link,
        }
    }

    /// Whether it makes the interface that it belongs to.
    pub const fn is_device(&self) -> bool {
        matches!(self, Self::Bond { .. } | Self::Vlan { .. })
    }

    /// Whether it goes when the interface `name` goes.
    pub fn needs(&self, name: &str) -> bool {
        let other = match self {
            Self::Member { bond, .. } => bond,
            Self::Vlan { parent, .. } => parent,
            _ => "",
        };
        self.link() == name || other == name
    }

    /// Whether the kernel drops it when other settings of the interface change.
    pub const fn is_volatile(&self) -> bool {
        matches!(self, Self::Address { .. } | Self::Route { .. })
    }
}

/// Name of a bond's mode.
fn mode_name(mode: u8) -> &'static str {
    BondMode::ALL.iter().find(|(_, value)| *value as u8 == mode).map_or("?", |(name, _)| name)
}

impl fmt::Display for Item {
    /// The setting without its interface.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bond { mode, miimon, .. } => {
                write!(f, "the bond (mode {}, miimon {miimon} ms)", mode_name(*mode))
            }
            Self::Member { bond, .. } => write!(f, "membership in the bond {bond}"),
            Self::Mtu { mtu, .. } | Self::VlanMtu { mtu, .. } => write!(f, "the MTU {mtu}"),
            Self::Vlan { parent, id, .. } => write!(f, "the VLAN {id} of {parent}"),
            Self::Routers { on: true, .. } => write!(f, "addresses from IPv6 routers"),
            Self::Routers { on: false, .. } => write!(f, "no addresses from IPv6 routers"),
            Self::Up { .. } => write!(f, "the interface"),
            Self::Address { cidr, .. } => write!(f, "the address {cidr}"),
            Self::Route { to, via, .. } => {
                if to.prefix == 0 {
                    write!(f, "the default route")?;
                } else {
                    write!(f, "the route to {to}")?;
                }
                via.iter().try_for_each(|via| write!(f, " via {via}"))
            }
            Self::Dhcp { .. } => write!(f, "DHCP"),
        }
    }
}

/// What a configuration asks for on a machine with certain interfaces.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// All of it.
    pub items: BTreeSet<Item>,
    /// Interfaces of the configuration that are not there (yet), as they are named in it.
    pub missing: BTreeSet<String>,
}

/// The default network of the family of `address`.
const fn everywhere(address: IpAddr) -> Cidr {
    let address = match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    Cidr { address, prefix: 0 }
}

impl Wanted {
    /// What `config` asks for where `seen` is there. Without any interface in it, DHCP on all that is wired.
    pub fn new(config: &NetworkConfig, seen: &[Seen]) -> Self {
        let mut wanted = Self::default();
        if config.interfaces.is_empty() && config.vlans.is_empty() && config.bonds.is_empty() {
            let addressing = Addressing { dhcp: true, ..Addressing::default() };
            for link in seen.iter().filter(|link| link.wired && !link.made) {
                wanted.addresses(&link.name, &addressing, false);
            }
            return wanted;
        }
        let find = |link: &LinkName| -> Option<String> {
            match link {
                LinkName::Mac(mac) => seen
                    .iter()
                    .find(|seen| !seen.made && seen.mac == Some(mac.0))
                    .map(|seen| seen.name.clone()),
                LinkName::Name(name) => {
                    let there = seen.iter().any(|seen| seen.name == *name)
                        || config.bonds.iter().any(|bond| bond.name == *name);
                    there.then(|| name.clone())
                }
            }
        };
        let mut mtus = BTreeMap::new();
        for bond in &config.bonds {
            let link = bond.name.clone();
            wanted.items.insert(Item::Bond { link, mode: bond.mode as u8, miimon: bond.miimon });
            for (position, member) in bond.members.iter().enumerate() {
                let Some(link) = find(member) else {
                    wanted.missing.insert(member.to_string());
                    continue;
                };
                wanted.items.insert(Item::Routers { link: link.clone(), on: false });
                wanted.items.insert(Item::Member { bond: bond.name.clone(), position, link });
            }
            mtus.insert(bond.name.clone(), bond.addressing.mtu);
            wanted.addresses(&bond.name, &bond.addressing, false);
        }
        for interface in &config.interfaces {
            let Some(name) = find(&interface.link()) else {
                wanted.missing.insert(interface.link().to_string());
                continue;
            };
            mtus.insert(name.clone(), interface.addressing.mtu);
            wanted.addresses(&name, &interface.addressing, false);
        }
        for vlan in &config.vlans {
            let Some(parent) = find(&vlan.parent) else {
                wanted.missing.insert(vlan.parent.to_string());
                continue;
            };
            let mut addressing = vlan.addressing.clone();
            // As the kernel does it when it makes the VLAN; so it is also when the parent's is changed later.
            addressing.mtu = addressing.mtu.or(mtus.get(&parent).copied().flatten());
            wanted.items.insert(Item::Up { link: parent.clone() });
            wanted.items.insert(Item::Vlan { link: vlan.name.clone(), parent, id: vlan.id });
            wanted.addresses(&vlan.name, &addressing, true);
        }
        wanted
    }

    fn addresses(&mut self, name: &str, addressing: &Addressing, is_vlan: bool) {
        let link = || name.to_owned();
        let metric = addressing.metric;
        if let Some(mtu) = addressing.mtu {
            let of_vlan = Item::VlanMtu { link: link(), mtu };
            self.items.insert(if is_vlan { of_vlan } else { Item::Mtu { link: link(), mtu } });
        }
        self.items.insert(Item::Routers { link: link(), on: addressing.takes_router_advertisements() });
        self.items.insert(Item::Up { link: link() });
        self.items
            .extend(addressing.addresses.iter().map(|cidr| Item::Address { link: link(), cidr: *cidr }));
        self.items.extend(addressing.gateways.iter().map(|via| Item::Route {
            link: link(),
            to: everywhere(*via),
            via: Some(*via),
            metric,
        }));
        self.items.extend(addressing.routes.iter().map(|route| Item::Route {
            link: link(),
            to: route.to,
            via: route.via,
            metric: route.metric,
        }));
        if addressing.dhcp {
            self.items.insert(Item::Dhcp { link: link(), metric });
        }
    }
}

/// One step from one set to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Take it away.
    Remove(Item),
    /// Set it. `again` is set where the kernel may have dropped it with something else.
    Add {
        /// What.
        item: Item,
        /// Whether it was set before.
        again: bool,
    },
}

/// The steps from `current`, which the kernel has, to `wanted`, in order. Of the interfaces `shaken` the kernel may have
/// dropped addresses and routes that are among `current`.
pub fn steps(current: &BTreeSet<Item>, wanted: &BTreeSet<Item>, shaken: &BTreeSet<String>) -> Vec<Step> {
    let mut removed: BTreeSet<&Item> = current.difference(wanted).collect();
    // With an interface that was made goes all that belongs to it or is on it. Each turn finds at least one more.
    loop {
        let gone: Vec<&str> =
            removed.iter().filter(|item| item.is_device()).map(|item| item.link()).collect();
        let more: Vec<&Item> = current
            .iter()
            .filter(|item| !removed.contains(item) && gone.iter().any(|name| item.needs(name)))
            .collect();
        if more.is_empty() {
            break;
        }
        removed.extend(more);
    }
    let touched: BTreeSet<&str> = removed
        .iter()
        .copied()
        // Listening to routers is begun and ended by switching IPv6 off and on.
        .chain(wanted.difference(current).filter(|item| matches!(item, Item::Routers { .. })))
        .map(Item::link)
        .chain(shaken.iter().map(String::as_str))
        .collect();
    let kept = |item: &Item| current.contains(item) && !removed.contains(item);
    let mut steps: Vec<Step> = removed.iter().rev().map(|item| Step::Remove((*item).clone())).collect();
    steps.extend(
        wanted
            .iter()
            .filter(|item| !kept(item) || item.is_volatile() && touched.contains(item.link()))
            .map(|item| Step::Add { item: item.clone(), again: current.contains(item) }),
    );
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::machine::MachineConfig;
    use proptest::prelude::*;

    fn seen() -> Vec<Seen> {
        let link = |name: &str, last: u8| Seen {
            name: name.into(),
            mac: Some([2, 0, 0, 0, 0, last]),
            made: false,
            wired: true,
        };
        vec![link("eth0", 1), link("eth1", 2), link("eth2", 3)]
    }

    fn config(text: &str) -> NetworkConfig {
        match MachineConfig::parse(&format!("serial = 1\n{text}")) {
            Ok(config) => config.network,
            Err(errors) => panic!("{errors:?}"),
        }
    }

    fn shown(wanted: &Wanted) -> Vec<String> {
        wanted.items.iter().map(|item| format!("{}: {item}", item.link())).collect()
    }

    const BOND: &str = "[[network.bond]]\nname = 'bond0'\nmembers = ['eth2', '02:00:00:00:00:02']\nmtu = 9000\n\
        [[network.vlan]]\nname = 'lan'\nparent = 'bond0'\nid = 20\naddresses = ['10.0.0.2/24']\n\
        gateways = ['10.0.0.1']\n";

    #[test]
    fn without_a_configuration_all_that_is_wired_asks() {
        let mut links = seen();
        links[1].wired = false;
        links[2].made = true;
        let wanted = Wanted::new(&NetworkConfig::default(), &links);
        assert_eq!(
            shown(&wanted),
            ["eth0: addresses from IPv6 routers", "eth0: the interface", "eth0: DHCP"]
        );
    }

    #[test]
    fn a_vlan_on_a_bond_in_order() {
        let wanted = Wanted::new(&config(BOND), &seen());
        assert!(wanted.missing.is_empty());
        assert_eq!(
            shown(&wanted),
            [
                "bond0: the bond (mode active-backup, miimon 100 ms)",
                "eth2: membership in the bond bond0",
                "eth1: membership in the bond bond0",
                "bond0: the MTU 9000",
                "lan: the VLAN 20 of bond0",
                "lan: the MTU 9000",
                "bond0: no addresses from IPv6 routers",
                "eth1: no addresses from IPv6 routers",
                "eth2: no addresses from IPv6 routers",
                "lan: no addresses from IPv6 routers",
                "bond0: the interface",
                "lan: the interface",
                "lan: the address 10.0.0.2/24",
                "lan: the default route via 10.0.0.1",
            ]
        );
    }

    #[test]
    fn what_is_not_there_is_told() {
        let wanted = Wanted::new(
            &config(
                "[[network.interface]]\nname = 'eth9'\ndhcp = true\n[[network.interface]]\nmac = '02:00:00:00:00:03'\n",
            ),
            &seen(),
        );
        assert_eq!(wanted.missing, ["eth9".to_owned()].into());
        assert_eq!(shown(&wanted), ["eth2: no addresses from IPv6 routers", "eth2: the interface"]);
    }

    #[test]
    fn another_mode_makes_all_that_is_on_the_bond_anew() {
        let old = Wanted::new(&config(BOND), &seen()).items;
        let new =
            Wanted::new(&config(&BOND.replace("mtu = 9000", "mtu = 9000\nmode = '802.3ad'")), &seen()).items;
        let steps = steps(&old, &new, &BTreeSet::new());
        let first_add = steps.iter().position(|step| matches!(step, Step::Add { .. })).unwrap();
        assert_eq!(steps[first_add - 1], Step::Remove(old.first().unwrap().clone()), "the bond goes last");
        let adds: Vec<&Item> = steps[first_add..]
            .iter()
            .map(|step| match step {
                Step::Add { item, .. } => item,
                Step::Remove(item) => panic!("{item} is removed after the first was added"),
            })
            .collect();
        assert!(adds.iter().any(|item| matches!(item, Item::Vlan { .. })));
        assert!(adds.iter().any(|item| matches!(item, Item::Address { .. })));
        assert_eq!(adds.iter().filter(|item| matches!(item, Item::Member { .. })).count(), 2);
    }

    #[test]
    fn what_the_kernel_drops_with_an_address_is_set_again() {
        let one = "[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.2/24', '10.0.0.3/24']\ngateways = ['10.0.0.1']\n";
        let old = Wanted::new(&config(one), &seen()).items;
        let new = Wanted::new(&config(&one.replace("'10.0.0.2/24', ", "")), &seen()).items;
        let steps = steps(&old, &new, &BTreeSet::new());
        assert_eq!(steps.len(), 3, "{steps:?}");
        assert!(
            matches!(&steps[0], Step::Remove(Item::Address { cidr, .. }) if cidr.to_string() == "10.0.0.2/24")
        );
        assert!(steps[1..].iter().all(|step| matches!(step, Step::Add { again: true, .. })));
        assert!(super::steps(&old, &old, &BTreeSet::new()).is_empty());
    }

    /// Some configuration of the pieces that a strategy chose.
    fn some(pieces: &[bool]) -> BTreeSet<Item> {
        let piece = |at: usize, text: &'static str| if pieces[at] { text } else { "" };
        let text = [
            piece(0, "[[network.interface]]\nname = 'eth0'\naddresses = ['10.1.0.2/24']\n"),
            piece(0, piece(1, "gateways = ['10.1.0.1']\n")),
            piece(2, "[[network.bond]]\nname = 'bond0'\nmembers = ['eth1', 'eth2']\n"),
            piece(2, piece(3, "mode = 'balance-rr'\n")),
            piece(
                2,
                piece(
                    4,
                    "[[network.vlan]]\nname = 'v1'\nparent = 'bond0'\nid = 1\naddresses = ['10.2.0.2/24']\n",
                ),
            ),
            piece(5, "[[network.vlan]]\nname = 'v2'\nparent = 'eth0'\nid = 2\ndhcp = true\n"),
        ];
        Wanted::new(&config(&text.concat()), &seen()).items
    }

    proptest! {
        /// From any configuration to any other: nothing is added that is there, nothing is removed that is not, what
        /// needs an interface that is made never outlives it, and the end is what was wanted.
        #[test]
        fn any_way(from in proptest::collection::vec(any::<bool>(), 6), to in proptest::collection::vec(any::<bool>(), 6)) {
            let (from, to) = (some(&from), some(&to));
            let mut state = from.clone();
            for step in steps(&from, &to, &BTreeSet::new()) {
                match step {
                    Step::Remove(item) => {
                        prop_assert!(state.remove(&item));
                        if item.is_device() {
                            prop_assert!(!state.iter().any(|other| other.needs(item.link())), "{item:?}");
                        }
                    }
                    Step::Add { item, again } => {
                        prop_assert_eq!(again, from.contains(&item));
                        prop_assert!(state.insert(item.clone()) || item.is_volatile());
                    }
                }
            }
            prop_assert_eq!(state, to);
        }
    }
}
