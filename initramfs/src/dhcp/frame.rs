//! IPv4 and UDP headers around DHCP messages (RFC 791, RFC 768), for a packet socket.

use crate::sys::Instruction;
use std::net::Ipv4Addr;

/// UDP port of servers and relays.
pub const SERVER_PORT: u16 = 67;
/// UDP port of clients.
pub const CLIENT_PORT: u16 = 68;
/// Protocol number of UDP.
const UDP: u8 = 17;

/// A classic BPF program that lets through UDP packets to the client's port, so that PID 1 does not wake up
/// for everything else. The first byte is that of the IPv4 header.
pub const FILTER: [Instruction; 9] = [
    (0x30, 0, 0, 9),      // protocol
    (0x15, 0, 6, 17),     // UDP, else drop
    (0x28, 0, 0, 6),      // flags and fragment offset
    (0x45, 4, 0, 0x1fff), // a later fragment: drop
    (0xb1, 0, 0, 0),      // length of the IPv4 header
    (0x48, 0, 0, 2),      // destination port
    (0x15, 0, 1, CLIENT_PORT as u32),
    (0x06, 0, 0, 0xffff), // take
    (0x06, 0, 0, 0),      // drop
];

/// The Internet checksum (RFC 1071) of the concatenation of `parts`, of which all but the last must have an even
/// length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Puts `message` into a packet from nobody to everybody on the link.
pub fn broadcast(message: &[u8]) -> Vec<u8> {
    let source = Ipv4Addr::UNSPECIFIED.octets();
    let destination = Ipv4Addr::BROADCAST.octets();
    let udp_length = (8 + message.len()) as u16;

    let mut header = [0; 20];
    header[0] = 0x45;
    header[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
    header[8] = 64;
    header[9] = UDP;
    header[12..16].copy_from_slice(&source);
    header[16..20].copy_from_slice(&destination);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut udp = [0; 8];
    udp[0..2].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    udp[2..4].copy_from_slice(&SERVER_PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
    let pseudo = [&source[..], &destination, &[0, UDP], &udp_length.to_be_bytes()].concat();
    // Zero would mean "no checksum".
    let sum = match checksum(&[&pseudo, &udp, message]) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    [&header[..], &udp, message].concat()
}

/// The DHCP message in a packet from a server's port to the client's port; none for other packets.
///
/// The UDP checksum is not looked at: between machines of one host it is often left to a network card that the
/// packet never passes (`VIRTIO_NET_F_CSUM`), and the message has its own transaction number.
pub fn parse(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header_length = usize::from(first & 0xf) * 4;
    let header = packet.get(..header_length).filter(|header| first >> 4 == 4 && header.len() >= 20)?;
    let field = |bytes: &[u8], at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
    let total = usize::from(field(header, 2)?);
    // No fragments: DHCP messages fit into one packet.
    if checksum(&[header]) != 0 || *header.get(9)? != UDP || field(header, 6)? & 0x3fff != 0 {
        return None;
    }
    let udp = packet.get(header_length..total)?;
    if field(udp, 0)? != SERVER_PORT || field(udp, 2)? != CLIENT_PORT {
        return None;
    }
    udp.get(8..usize::from(field(udp, 4)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same packet as a server would send it.
    fn from_server(message: &[u8]) -> Vec<u8> {
        let mut packet = broadcast(message);
        packet[20..22].copy_from_slice(&SERVER_PORT.to_be_bytes());
        packet[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes());
        packet
    }

    #[test]
    fn checksums_are_right() {
        // The example of RFC 1071, section 3.
        assert_eq!(checksum(&[&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        for message in [&b"odd"[..], b"even"] {
            let packet = broadcast(message);
            assert_eq!(checksum(&[&packet[..20]]), 0);
            let pseudo = [&packet[12..20], &[0, UDP], &packet[24..26]].concat();
            assert_eq!(checksum(&[&pseudo, &packet[20..]]), 0);
        }
    }

    #[test]
    fn only_a_servers_packet_is_taken() {
        let good = from_server(b"message");
        // Behind the packet there may be padding of the link.
        assert_eq!(parse(&[&good[..], &[0; 20]].concat()), Some(&b"message"[..]));
        assert_eq!(parse(&broadcast(b"message")), None, "a client's");
        for length in 0..good.len() {
            assert_eq!(parse(&good[..length]), None, "cut to {length}");
        }
        for at in 0..20 {
            let mut bad = good.clone();
            bad[at] ^= 0x20;
            assert_eq!(parse(&bad), None, "byte {at}");
        }
    }

    proptest! {
        #[test]
        fn any_packet(packet in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&packet);
        }
    }

    /// Runs the filter as the kernel does, for the instructions that it has.
    fn runs(packet: &[u8]) -> bool {
        let (mut at, mut a, mut x) = (0, 0u32, 0u32);
        let byte = |at: u32| packet.get(at as usize).copied().map(u32::from);
        let half = |at: u32| Some(byte(at)? << 8 | byte(at + 1)?);
        loop {
            let (code, yes, no, k) = FILTER[at];
            at += 1;
            let mut jump = |condition: bool| at += usize::from(if condition { yes } else { no });
            let loaded = match code {
                0x30 => byte(k),
                0x28 => half(k),
                0x48 => half(x + k),
                0xb1 => byte(k).map(|byte| 4 * (byte & 0xf)),
                0x15 => {
                    jump(a == k);
                    continue;
                }
                0x45 => {
                    jump(a & k != 0);
                    continue;
                }
                _ => return k != 0,
            };
            match loaded {
                None => return false,
                Some(value) if code == 0xb1 => x = value,
                Some(value) => a = value,
            }
        }
    }

    #[test]
    fn the_filter_takes_packets_to_the_client() {
        let good = from_server(b"message");
        assert!(runs(&good));
        assert!(!runs(&broadcast(b"message")));
        for (at, value) in [(9, 6), (7, 1), (23, 69)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(!runs(&bad), "byte {at}");
        }
    }
}
