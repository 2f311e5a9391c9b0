//! Setting and taking away single items.

use super::Network;
use super::dhcp::Interface;
use super::plan::Item;
use crate::netlink::{self, Failure, Way};
use ashlar_image::machine::BondMode;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The metric of a route is this and the interface's index, unless the configuration says otherwise: the first
/// interface wins.
const METRIC: u32 = 100;

impl Network {
    /// The index of an interface; an error without it.
    fn need(&self, name: &str) -> Result<u32, Failure> {
        self.index(name).ok_or(Failure { code: libc::ENODEV, reason: None })
    }

    fn way(index: u32, item: &Item) -> Option<Way> {
        let Item::Route { to, via, metric, .. } = item else { return None };
        let metric = metric.unwrap_or(METRIC.saturating_add(index));
        Some(Way { to: *to, via: *via, metric, source: None, protocol: netlink::STATIC })
    }

    /// Sets one thing.
    pub(super) fn put(&mut self, item: &Item, wanted: &BTreeSet<Item>, now: Duration) -> Result<(), Failure> {
        match item {
            Item::Bond { link, mode, miimon } => {
                let mode = BondMode::ALL.iter().map(|(_, value)| *value).find(|value| *value as u8 == *mode);
                self.make_room(link, "bond")?;
                self.requests.make_bond(link, mode.unwrap_or_default(), *miimon)?;
                self.meet(link, now)
            }
            Item::Vlan { link, parent, id } => {
                self.make_room(link, "vlan")?;
                self.requests.make_vlan(link, self.need(parent)?, *id)?;
                self.meet(link, now)
            }
            Item::Member { bond, link, .. } => {
                let (bond, index) = (self.need(bond)?, self.need(link)?);
                self.requests.set_up(index, false)?;
                self.requests.set_master(index, bond)?;
                // It takes the address of its first member.
                let name = self.links.get(&bond).map(|known| known.link.name.clone()).unwrap_or_default();
                self.meet(&name, now)
            }
            Item::Mtu { link, mtu } | Item::VlanMtu { link, mtu } => {
                self.requests.set_mtu(self.need(link)?, (*mtu).into())
            }
            Item::Routers { link, on } => self.listen_to_routers(link, *on),
            Item::Up { link } => self.requests.set_up(self.need(link)?, true),
            Item::Address { link, cidr } => {
                self.requests.add_address(self.need(link)?, cidr.address, cidr.prefix)
            }
            Item::Route { link, .. } => {
                let index = self.need(link)?;
                Self::way(index, item).map_or(Ok(()), |way| self.requests.add_route(index, &way))
            }
            Item::Dhcp { link, metric } => {
                let index = self.need(link)?;
                let now_is = self.requests.link(link)?;
                let mac = now_is.mac.ok_or(Failure { code: libc::EOPNOTSUPP, reason: None })?;
                let metric = metric.unwrap_or(METRIC.saturating_add(index));
                let has_mtu = wanted.iter().any(|item| {
                    matches!(item, Item::Mtu { .. } | Item::VlanMtu { .. }) && item.link() == link
                });
                self.dhcp.insert(index, Interface::new(index, link, mac, metric, has_mtu)?);
                self.learn(&now_is, now);
                Ok(())
            }
        }
    }

    /// Takes a setting away. The interface may be gone already.
    pub(super) fn take(&mut self, item: &Item) -> Result<(), Failure> {
        let Some(index) = self.index(item.link()) else { return Ok(()) };
        match item {
            Item::Bond { .. } | Item::Vlan { .. } => {
                self.requests.remove_link(index)?;
                self.dhcp.remove(&index);
                self.routers.retain(|(of, _), _| *of != index);
                self.links.remove(&index);
                Ok(())
            }
            Item::Member { .. } => self.requests.set_master(index, 0),
            Item::Mtu { .. } | Item::VlanMtu { .. } => {
                let mtu = self.links.get(&index).map(|known| known.mtu).filter(|mtu| *mtu > 0);
                mtu.map_or(Ok(()), |mtu| self.requests.set_mtu(index, mtu))
            }
            Item::Routers { link, on: true } => self.listen_to_routers(link, false),
            Item::Routers { on: false, .. } => Ok(()),
            Item::Up { .. } => self.requests.set_up(index, false),
            Item::Address { cidr, .. } => self.requests.remove_address(index, cidr.address, cidr.prefix),
            Item::Route { .. } => {
                Self::way(index, item).map_or(Ok(()), |way| self.requests.remove_route(index, &way))
            }
            Item::Dhcp { .. } => {
                let Some(mut interface) = self.dhcp.remove(&index) else { return Ok(()) };
                let lease = interface.client.lease().cloned();
                lease.map_or(Ok(()), |lease| interface.deconfigure(&self.requests, index, &lease))
            }
        }
    }

    /// Removes an interface of the same kind that is in the way: the module `bonding` makes a `bond0` of its own.
    fn make_room(&mut self, name: &str, kind: &str) -> Result<(), Failure> {
        match self.requests.link(name) {
            Ok(link) if link.kind == kind => {
                self.requests.remove_link(link.index)?;
                self.links.remove(&link.index);
                Ok(())
            }
            // Any other makes the kernel refuse the new one.
            Ok(_) => Ok(()),
            Err(failure) if failure.is_absence() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Looks at an interface that was made or changed.
    fn meet(&mut self, name: &str, now: Duration) -> Result<(), Failure> {
        let link = self.requests.link(name)?;
        self.learn(&link, now);
        Ok(())
    }

    /// Lets the kernel take addresses, routes and name servers from IPv6 routers, or drops those.
    fn listen_to_routers(&mut self, link: &str, on: bool) -> Result<(), Failure> {
        let folder = Path::new("/proc/sys/net/ipv6/conf").join(link);
        if !folder.exists() {
            // A kernel without IPv6, or an interface that cannot have it.
            return Ok(());
        }
        let index = self.need(link)?;
        let before = fs::read_to_string(folder.join("accept_ra")).unwrap_or_default();
        // 2 is also on a machine that forwards packets between its containers and the network.
        let value = if on { "2" } else { "0" };
        fs::write(folder.join("accept_ra"), value)?;
        self.routers.retain(|(of, _), _| *of != index);
        if before.trim() != value && self.requests.link(link)?.up {
            // The kernel asks routers only when IPv6 begins on an interface, and drops what it has of them only when
            // it ends.
            fs::write(folder.join("disable_ipv6"), "1")?;
            fs::write(folder.join("disable_ipv6"), "0")?;
        }
        Ok(())
    }
}
