//! Rules for names.

use super::values::{Cidr, is_host_name};
use std::net::{IpAddr, Ipv4Addr};

/// Longest host name of Linux in bytes (`__NEW_UTS_LEN`).
const MAX_HOST_NAME: usize = 64;

/// Stands for a network that could not be read: it takes part in no check.
pub(super) const NO_NETWORK: Cidr = Cidr { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), prefix: 32 };

/// Whether a name is one of a container or a channel; the rule of recipes.
pub(super) fn is_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    (1..=64).contains(&name.len()) && name.bytes().all(good) && !name.starts_with(['.', '-'])
}

/// Whether a machine may have this host name.
pub(super) fn is_own_name(name: &str) -> bool {
    name.len() <= MAX_HOST_NAME && is_host_name(name) && !name.eq_ignore_ascii_case("localhost")
}

/// Whether a name is one of an environment variable (POSIX, Base Definitions, section 8.1).
pub(super) fn is_variable(name: &str) -> bool {
    (1..=256).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// Whether a text is the value of a label (Kubernetes, "Labels and Selectors", syntax and character set).
pub(super) fn is_label_value(value: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let edge = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || (value.len() <= 63 && value.bytes().all(inner) && value.starts_with(edge) && value.ends_with(edge))
}

/// Whether a text is the key of a label: a name, with a domain and `/` before it if need be.
pub(super) fn is_label_key(key: &str) -> bool {
    let is_domain = |domain: &str| is_host_name(domain) && !domain.bytes().any(|b| b.is_ascii_uppercase());
    let (domain_is_good, name) = match key.split_once('/') {
        Some((domain, name)) => (is_domain(domain), name),
        None => (true, key),
    };
    domain_is_good && !name.is_empty() && is_label_value(name)
}
