//! An interface that has its address by DHCP: the packets around [`Client`], and what a lease sets in the kernel.

use crate::console;
use crate::dhcp::client::Client;
use crate::dhcp::frame;
use crate::dhcp::lease::Lease;
use crate::netlink::{self, Failure, Netlink, Way};
use crate::sys;
use ashlar_image::machine::Cidr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;

/// An interface and its client.
#[derive(Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address, which the server knows it by.
    pub mac: [u8; 6],
    /// The state machine.
    pub client: Client,
    /// Sends and receives before the interface has an address.
    pub packets: OwnedFd,
    /// Sends to the server of the lease; what comes in is read from `packets`, but the port must be taken, or the
    /// kernel would tell the server that nobody is there.
    renewing: Option<UdpSocket>,
    /// Whether the cable is in.
    pub carrier: bool,
    /// Metric of the routes.
    pub metric: u32,
    /// Whether the largest packet is the configuration's business and not the server's.
    pub has_mtu: bool,
}

impl Interface {
    /// A client for an interface that is switched on: a packet socket on one that is down fails once when it is used.
    pub fn new(index: u32, name: &str, mac: [u8; 6], metric: u32, has_mtu: bool) -> io::Result<Self> {
        let packets = sys::packet_socket(index, &frame::FILTER)?;
        let client = Client::new(mac);
        let name = name.to_owned();
        Ok(Self { name, mac, client, packets, renewing: None, carrier: false, metric, has_mtu })
    }

    /// Sends to the server from the leased address.
    pub fn send_to_server(&mut self, server: Ipv4Addr, message: &[u8]) -> io::Result<()> {
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

    /// Gives the interface what the lease says, unless it has that already. `takes_name` is whether the machine
    /// takes its host name from DHCP.
    pub fn configure(
        &mut self,
        requests: &Netlink,
        index: u32,
        before: Option<&Lease>,
        lease: &Lease,
        takes_name: bool,
    ) -> Result<(), Failure> {
        self.renewing = None;
        if let Some(name) = lease.host_name.as_ref().filter(|_| takes_name) {
            rustix::system::sethostname(name.as_bytes())?;
        }
        match before {
            Some(old) if old.configures_like(lease) => return Ok(()),
            // Routes go with their address.
            Some(old) => requests.remove_address(index, old.address.into(), old.prefix)?,
            None => {}
        }
        if let Some(mtu) = lease.mtu.filter(|_| !self.has_mtu)
            && let Err(error) = requests.set_mtu(index, mtu.into())
        {
            console::warning(format_args!("network: {}: cannot set the MTU {mtu}: {error}", self.name));
        }
        self.set(requests, index, lease)?;
        console::info(format_args!(
            "network: {} has {}/{} from {}",
            self.name, lease.address, lease.prefix, lease.server
        ));
        Ok(())
    }

    /// Sets the address and the routes of the lease, again where they are there.
    pub fn set(&self, requests: &Netlink, index: u32, lease: &Lease) -> Result<(), Failure> {
        requests.add_address(index, lease.address.into(), lease.prefix)?;
        for route in &lease.routes {
            let via = (!route.gateway.is_unspecified()).then_some(IpAddr::V4(route.gateway));
            let to = Cidr { address: route.network.into(), prefix: route.prefix };
            let source = Some(lease.address.into());
            let way = Way { to, via, metric: self.metric, source, protocol: netlink::DHCP };
            requests.add_route(index, &way)?;
        }
        Ok(())
    }

    /// Takes the lease's address away, and with it its routes.
    pub fn deconfigure(&mut self, requests: &Netlink, index: u32, lease: &Lease) -> Result<(), Failure> {
        self.renewing = None;
        match requests.remove_address(index, lease.address.into(), lease.prefix) {
            Err(failure) if failure.is_absence() => Ok(()),
            result => result,
        }
    }
}
