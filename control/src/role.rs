//! Who a client is and what it may do.
//!
//! A client certificate names one role: in an organizational unit of its subject (`OU=operator`), or in a URI of its
//! subject alternative names (`urn:ashlar:role:operator`) where a certification authority gives no units.

use std::fmt;
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Beginning of a role's URI.
pub const ROLE_URI: &str = "urn:ashlar:role:";
/// id-at-organizationalUnitName (X.520, 6.4.2).
const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
/// id-at-commonName (X.520, 6.2.2).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Longest name of a client in characters; more is cut off.
const MAX_NAME: usize = 64;

/// What a client may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Status, services, logs, measurements
    Reader,
    /// Also the configuration's text, services, restart and power
    Operator,
    /// Also a new configuration and sealing anew
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Operator, Self::Admin];

    /// As certificates have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Common name of the certificate, printable; `local` on the Unix socket.
    pub name: String,
    /// What it may do; otherwise why nothing.
    pub role: Result<Role, NoRole>,
    /// When the certificate ends, since 1970; none on the Unix socket.
    pub ends: Option<Duration>,
}

/// Why a certificate gives no role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRole {
    /// It cannot be read.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// It names none.
    #[error("the client certificate names no role: it has neither an organizational unit nor a URI for one")]
    None,
    /// It names two different ones.
    #[error("the client certificate names more than one role")]
    Several,
}

impl Peer {
    /// Who may open the Unix socket.
    pub fn local() -> Self {
        Self { name: "local".into(), role: Ok(Role::Admin), ends: None }
    }

    /// Who has a certificate, in DER. That it was issued by a trust root, and is in force, was verified before.
    pub fn of_certificate(der: &[u8]) -> Self {
        let nobody = Self { name: "?".into(), role: Err(NoRole::Unreadable), ends: Some(Duration::ZERO) };
        let Ok(certificate) = Certificate::from_der(der) else { return nobody };
        let certificate = certificate.tbs_certificate();
        let attributes = |oid: ObjectIdentifier| {
            certificate.subject().iter().filter(move |attribute| attribute.oid == oid)
        };
        let name = attributes(COMMON_NAME).find_map(|attribute| text(&attribute.value));
        let mut roles: Vec<Role> = attributes(ORGANIZATIONAL_UNIT)
            .filter_map(|attribute| Role::from_name(text(&attribute.value)?))
            .collect();
        match certificate.get_extension::<SubjectAltName>() {
            Ok(names) => roles.extend(names.iter().flat_map(|(_, names)| &names.0).filter_map(|name| {
                let GeneralName::UniformResourceIdentifier(uri) = name else { return None };
                Role::from_name(uri.as_str().strip_prefix(ROLE_URI)?)
            })),
            Err(_) => return nobody,
        }
        roles.dedup();
        let role = match roles[..] {
            [] => Err(NoRole::None),
            [role] => Ok(role),
            _ => Err(NoRole::Several),
        };
        Self {
            name: crate::text::short(name.unwrap_or("?"), MAX_NAME),
            role,
            ends: Some(certificate.validity().not_after.to_unix_duration()),
        }
    }
}

/// The text of a DirectoryString (X.520, 2.6), but for the two kinds of wide characters.
fn text(value: &x509_cert::der::Any) -> Option<&str> {
    match value.tag() {
        Tag::Utf8String => Utf8StringRef::try_from(value).ok().map(|text| text.as_str()),
        Tag::PrintableString => PrintableStringRef::try_from(value).ok().map(|text| text.as_str()),
        Tag::Ia5String => Ia5StringRef::try_from(value).ok().map(|text| text.as_str()),
        Tag::TeletexString => TeletexStringRef::try_from(value).ok().map(|text| text.as_str()),
        _ => None,
    }
}
