//! Who comes: from this machine, or from afar with a certificate.

use super::limits::{HANDSHAKE, MAX_LOCAL, MAX_PER_ADDRESS, MAX_REMOTE, PAUSE};
use super::{Context, connection};
use crate::role::Peer;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

/// How long, and how many bytes, a client that was refused is still listened to.
const LEAVE: Duration = Duration::from_secs(1);
const MAX_UNREAD: u64 = 64 << 10;
/// Connections that wait in the kernel's queue.
const BACKLOG: i32 = 128;

/// Counts connections by address.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// A connection that is counted, until it is dropped.
#[derive(Debug)]
struct Counted {
    gate: Gate,
    address: IpAddr,
}

impl Gate {
    /// None where there are too many, in all or from this address.
    fn enter(&self, address: IpAddr) -> Option<Counted> {
        // IPv4 comes as IPv6 where both are listened on; an owner of IPv6 addresses has 2^64 of them at least.
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
            v4 @ IpAddr::V4(_) => v4,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= MAX_REMOTE {
            return None;
        }
        let count = counts.entry(address).or_default();
        if *count >= MAX_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Counted { gate: self.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Listens on an address, also where the machine does not have it yet: the server may start before the network.
pub(super) fn open(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv4() {
        sockopt::set_ip_freebind(&socket, true)?;
    } else {
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Serves the Unix socket: who may open it is an admin.
pub(super) async fn local(listener: UnixListener, context: Arc<Context>) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_LOCAL));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            // The semaphore is never closed.
            std::future::pending::<()>().await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let context = context.clone();
                tokio::spawn(async move {
                    connection::serve(stream, Peer::local(), context).await;
                    drop(place);
                });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Serves an address with mutual TLS.
pub(super) async fn remote(listener: TcpListener, acceptor: TlsAcceptor, gate: Gate, context: Arc<Context>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let Some(counted) = gate.enter(from.ip()) else { continue };
                let (acceptor, context) = (acceptor.clone(), context.clone());
                tokio::spawn(async move {
                    shake_hands(stream, &acceptor, from.ip().to_canonical(), context).await;
                    drop(counted);
                });
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn shake_hands(stream: TcpStream, acceptor: &TlsAcceptor, from: IpAddr, context: Arc<Context>) {
    let _ = stream.set_nodelay(true);
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            // Scanners come every minute; certificates that are refused are worth a line.
            if error.get_ref().is_some_and(is_certificate) {
                eprintln!("{from}: refused in the handshake: {error}");
            }
            return take_leave(stream).await;
        }
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let mut peer = Peer::of_certificate(certificate.map(AsRef::as_ref).unwrap_or_default());
    peer.name = format!("{} ({from})", peer.name);
    connection::serve(stream, peer, context).await;
}

/// Closes so that the client reads the alert: to close with bytes unread is to reset, which throws the alert away.
async fn take_leave(mut stream: TcpStream) {
    let _ = stream.shutdown().await;
    let mut rest = stream.take(MAX_UNREAD);
    let _ = timeout(LEAVE, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

fn is_certificate(error: &(dyn std::error::Error + Send + Sync + 'static)) -> bool {
    matches!(
        error.downcast_ref::<rustls::Error>(),
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_there_yet() {
        // Of the networks for documentation (RFC 5737, RFC 3849): no machine has them.
        assert!(open("192.0.2.1:0".parse().unwrap()).is_ok());
        if std::path::Path::new("/proc/net/if_inet6").exists() {
            assert!(open("[2001:db8::1]:0".parse().unwrap()).is_ok());
        }
        let taken = open("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = open(taken.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn one_address_does_not_take_all_places() {
        let gate = Gate::default();
        let address = |n: u32| IpAddr::from(n.to_be_bytes());
        let mut inside: Vec<Counted> =
            (0..MAX_PER_ADDRESS).map(|_| gate.enter(address(1)).unwrap()).collect();
        assert!(gate.enter(address(1)).is_none());
        assert!(gate.enter("::ffff:0.0.0.1".parse().unwrap()).is_none(), "the same address as IPv6");
        for n in 2.. {
            match gate.enter(address(n)) {
                Some(counted) => inside.push(counted),
                None => break,
            }
        }
        assert_eq!(inside.len(), MAX_REMOTE);
        drop(inside);
        assert!(gate.0.lock().unwrap().is_empty());
        let v6: Vec<Option<Counted>> =
            (0..=MAX_PER_ADDRESS).map(|n| gate.enter(format!("2001:db8::{n:x}").parse().unwrap())).collect();
        assert!(v6.last().unwrap().is_none(), "one network of 64 bits counts as one");
    }
}
