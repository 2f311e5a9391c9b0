//! Which machine is meant.

use ashlar_image::control::{API_PORT, API_SOCKET};
use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

/// Longest host name in bytes (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The one that this program runs on, by its socket.
    Local(PathBuf),
    /// One that is reached over the network.
    Remote {
        /// Name or address.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl Default for Target {
    fn default() -> Self {
        Self::Local(API_SOCKET.into())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(_) => f.write_str("the machine here"),
            Self::Remote { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Remote { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Text names no machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no HOST, HOST:PORT, IPv6 address or [IPv6]:PORT")]
pub struct NoTarget(String);

impl FromStr for Target {
    type Err = NoTarget;

    fn from_str(text: &str) -> Result<Self, NoTarget> {
        let no = || NoTarget(crate::text::short(text, 80));
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or_else(no)?;
            host.parse::<Ipv6Addr>().map_err(|_| no())?;
            let port = if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or_else(no)?) };
            (host, port)
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)))
        };
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if host.is_empty() || host.len() > MAX_HOST || !host.bytes().all(name) || host.starts_with('-') {
            return Err(no());
        }
        let port = port.map_or(Ok(API_PORT), str::parse).ok().filter(|port| *port > 0).ok_or_else(no)?;
        Ok(Self::Remote { host: host.to_ascii_lowercase(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_them() {
        for (text, shown) in [
            ("Edge-1.example.org", "edge-1.example.org:7443"),
            ("10.0.0.5:99", "10.0.0.5:99"),
            ("2001:db8::1", "[2001:db8::1]:7443"),
            ("[2001:db8::1]", "[2001:db8::1]:7443"),
            ("[::1]:8443", "[::1]:8443"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(shown.parse(), Ok(target));
        }
        for bad in
            ["", ":1", "a:0", "a:65536", "a:b", "[a]:1", "[::1", "[::1]x", "a b", "https://a", "-o", "a/b"]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
