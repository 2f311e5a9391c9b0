//! A DHCPv4 client for wired interfaces (RFC 2131, RFC 2132, RFC 3396, RFC 3442).
//!
//! [`message`] reads and writes DHCP messages, [`frame`] the IPv4 and UDP headers around them, [`lease`] takes out
//! of a message what a machine is configured with, and [`client`] is the state machine. All of it is pure.

pub mod client;
pub mod frame;
pub mod lease;
pub mod message;
