//! `[network]`

use super::is_default;
use super::values::{Cidr, LinkName, Mac, Url};
use serde::Serialize;
use std::net::IpAddr;

/// `[network]`. Without any interface, VLAN or bond, each wired interface asks a DHCP server for an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Network {
    /// Interfaces of the machine.
    #[serde(rename = "interface", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub interfaces: Vec<Interface>,
    /// Virtual LANs (IEEE 802.1Q).
    #[serde(rename = "vlan", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub vlans: Vec<Vlan>,
    /// Interfaces that work as one.
    #[serde(rename = "bond", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub bonds: Vec<Bond>,
    /// Name servers.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub dns: Dns,
    /// Proxies for what goes out of the machine.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub proxy: Proxy,
}

/// What an interface, a VLAN and a bond have in common: their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Addressing {
    /// Whether a DHCP server is asked for an IPv4 address; off unless given.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub dhcp: bool,
    /// Whether addresses and routes are taken from IPv6 routers (RFC 4862); as `dhcp` unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub router_advertisements: Option<bool>,
    /// Static addresses with the length of their network's prefix, IPv4 or IPv6: `192.0.2.10/24`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub addresses: Vec<Cidr>,
    /// Default gateways, at most one of IPv4 and one of IPv6, each in a network of `addresses` or link-local.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default, length(max = 2)))]
    pub gateways: Vec<IpAddr>,
    /// Metric of the default routes: the lowest wins. 1 to 2^32 - 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub metric: Option<u32>,
    /// Other routes.
    #[serde(rename = "route", skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub routes: Vec<Route>,
    /// Largest packet in bytes: 576 to 9216, from 1280 where there is IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 576, max = 9216)))]
    pub mtu: Option<u16>,
}

impl Addressing {
    /// Whether addresses are taken from IPv6 routers.
    pub fn takes_router_advertisements(&self) -> bool {
        self.router_advertisements.unwrap_or(self.dhcp)
    }
}

/// `[[network.interface]]`: exactly one of `name` and `mac` is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
#[cfg_attr(
    feature = "schema",
    schemars(extend("oneOf" = [{ "required": ["name"] }, { "required": ["mac"] }]))
)]
pub struct Interface {
    /// The kernel's name of it: `eth0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Addresses.
    #[serde(flatten)]
    pub addressing: Addressing,
}

impl Interface {
    /// Which interface it is.
    pub fn link(&self) -> LinkName {
        match (self.mac, &self.name) {
            (Some(mac), _) => LinkName::Mac(mac),
            (None, name) => LinkName::Name(name.clone().unwrap_or_default()),
        }
    }
}

/// `[[network.vlan]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Vlan {
    /// Name of the interface that is made.
    pub name: String,
    /// Number of the VLAN: 1 to 4094.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 4094)))]
    pub id: u16,
    /// The interface or bond that carries it: a name, or the hardware address of an interface.
    pub parent: LinkName,
    /// Addresses.
    #[serde(flatten)]
    pub addressing: Addressing,
}

/// `[[network.bond]]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Bond {
    /// Name of the interface that is made.
    pub name: String,
    /// How the members share the work; `active-backup` unless given.
    #[cfg_attr(feature = "schema", schemars(default))]
    pub mode: BondMode,
    /// The interfaces that it is made of, by name or hardware address; one at least. They have no settings of their own.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 16)))]
    pub members: Vec<LinkName>,
    /// How often the links are looked at, in milliseconds: 10 to 10000; 100 unless given.
    #[cfg_attr(feature = "schema", schemars(default = "miimon", range(min = 10, max = 10_000)))]
    pub miimon: u16,
    /// Addresses.
    #[serde(flatten)]
    pub addressing: Addressing,
}

/// `miimon` where none is given, in milliseconds.
pub const MIIMON: u16 = 100;

#[cfg(feature = "schema")]
fn miimon() -> u16 {
    MIIMON
}

/// How the members of a bond share the work. The numbers are the kernel's (`BOND_MODE_*` in `linux/if_bonding.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum BondMode {
    /// One after the other.
    BalanceRr = 0,
    /// One works, the others wait.
    #[default]
    ActiveBackup = 1,
    /// By addresses.
    BalanceXor = 2,
    /// All send the same.
    Broadcast = 3,
    /// Link aggregation with a switch that knows of it (LACP).
    #[serde(rename = "802.3ad")]
    Ieee8023ad = 4,
    /// By load when sending.
    BalanceTlb = 5,
    /// By load when sending and receiving.
    BalanceAlb = 6,
}

impl BondMode {
    /// All modes with their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("balance-rr", Self::BalanceRr),
        ("active-backup", Self::ActiveBackup),
        ("balance-xor", Self::BalanceXor),
        ("broadcast", Self::Broadcast),
        ("802.3ad", Self::Ieee8023ad),
        ("balance-tlb", Self::BalanceTlb),
        ("balance-alb", Self::BalanceAlb),
    ];
}

/// `[[network.interface.route]]`, and the same of VLANs and bonds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Route {
    /// The network that it leads to: `10.0.0.0/8`.
    pub to: Cidr,
    /// The gateway; without it, the network is on this link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Metric: the lowest wins. 1 to 2^32 - 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub metric: Option<u32>,
}

/// `[network.dns]`: what is given here takes the place of what a DHCP server says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Dns {
    /// Name servers, the first is asked first; at most 3, which is what resolvers read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default, length(max = 3)))]
    pub servers: Vec<IpAddr>,
    /// Domains in which short names are looked up; at most 6.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default, length(max = 6)))]
    pub search: Vec<String>,
}

/// `[network.proxy]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct Proxy {
    /// For http.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<Url>,
    /// For https.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https: Option<Url>,
    /// What is reached without one: host names, domains with all below them (`.example.com`), addresses, networks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(default))]
    pub no_proxy: Vec<String>,
}
