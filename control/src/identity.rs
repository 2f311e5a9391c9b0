//! Keys and certificates: the machine's own, the owner's client CA, and what it issues.
//!
//! All are ECDSA with P-256 and SHA-256, which every TLS library and token has. A machine's certificate is signed by
//! itself and known by its fingerprint, so its names and times say nothing; a client's is issued by a CA among the
//! machine's trust roots.

use crate::error::ControlError;
use crate::files;
use crate::fingerprint::Fingerprint;
use crate::role::Role;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use time::{Duration, OffsetDateTime};

/// File of a machine's key and certificate in its folder, mode 0600.
pub const NODE_FILE: &str = "identity.pem";
/// File of a client CA's certificate.
pub const CA_CERTIFICATE: &str = "client-ca.pem";
/// File of a client CA's key, mode 0600.
pub const CA_KEY: &str = "client-ca.key";
/// Longest PEM file in bytes.
pub const MAX_PEM: usize = 256 << 10;
/// Most certificates that one file may have.
const MAX_CERTIFICATES: usize = 64;
/// Validity of a client CA in days.
const CA_DAYS: u32 = 3650;

/// Certificates and the key of the first.
#[derive(Debug)]
pub struct Identity {
    /// The certificate and those that lead to its CA.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl Identity {
    /// From a PEM file with both.
    pub fn read(path: &Path) -> Result<Self, ControlError> {
        let bytes = files::read(path, MAX_PEM)?;
        let chain = certificates(path, &bytes)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| ControlError::File {
            path: path.to_owned(),
            problem: format!("no private key: {error}"),
            advice: "the file must have the certificate and its key in PEM, the key without a passphrase"
                .into(),
        })?;
        Ok(Self { chain, key })
    }

    /// Of the certificate.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.chain.first().map(AsRef::as_ref).unwrap_or_default())
    }

    /// The machine's own in `folder`, made at the first time. One that cannot be read is not replaced: clients know
    /// the machine by it.
    pub fn of_node(folder: &Path) -> Result<Self, ControlError> {
        let path = folder.join(NODE_FILE);
        if !path.try_exists().map_err(ControlError::io("look at", &path))? {
            files::private_folder(folder)?;
            files::write(&path, 0o600, new_node()?.as_bytes(), false)?;
        }
        Self::read(&path).map_err(|error| match error {
            ControlError::File { path, problem, .. } => ControlError::File {
                problem,
                advice: format!(
                    "remove {} to make a new identity; clients must then trust the new fingerprint",
                    path.display()
                ),
                path,
            },
            error => error,
        })
    }
}

/// The certificates of a PEM file, at least one.
pub fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, ControlError> {
    let problem = |problem: String| ControlError::File {
        path: path.to_owned(),
        problem,
        advice: "it must have certificates in PEM: -----BEGIN CERTIFICATE-----".into(),
    };
    let mut all = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        all.push(certificate.map_err(|error| problem(format!("a certificate cannot be read: {error}")))?);
        if all.len() > MAX_CERTIFICATES {
            return Err(problem(format!("more than {MAX_CERTIFICATES} certificates")));
        }
    }
    if all.is_empty() { Err(problem("no certificate".into())) } else { Ok(all) }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: rcgen::Error) -> ControlError {
    ControlError::Certificate(error.to_string())
}

fn key() -> Result<KeyPair, ControlError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)
}

fn subject(common_name: &str, unit: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(unit) = unit {
        name.push(DnType::OrganizationalUnitName, unit);
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// A machine's certificate and key in PEM. It does not end: RFC 5280, section 4.1.2.5, has this date for that.
fn new_node() -> Result<String, ControlError> {
    let key = key()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("Ashlar machine", None);
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(9999, 12, 31).saturating_add(Duration::seconds(86_399));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

/// From five minutes ago, for clocks that are behind, for so many days.
fn validity(params: &mut CertificateParams, days: u32) {
    let now = OffsetDateTime::now_utc();
    params.not_before = now.saturating_sub(Duration::minutes(5));
    params.not_after = now.saturating_add(Duration::days(i64::from(days)));
}

/// Makes a client CA: [`CA_CERTIFICATE`] and [`CA_KEY`] in `folder`. Gives the certificate's path.
pub fn new_ca(folder: &Path, name: &str) -> Result<PathBuf, ControlError> {
    check_name(name)?;
    let key = key()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name, None);
    validity(&mut params, CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).map_err(failed)?;
    files::private_folder(folder)?;
    // The key first: a certificate without its key would be in the way of the next try.
    files::write(&folder.join(CA_KEY), 0o600, key.serialize_pem().as_bytes(), false)?;
    let path = folder.join(CA_CERTIFICATE);
    files::write(&path, 0o644, certificate.pem().as_bytes(), false)?;
    Ok(path)
}

/// Issues a client certificate by the CA in `folder`. Gives certificate and key in PEM.
pub fn new_client(folder: &Path, name: &str, role: Role, days: u32) -> Result<String, ControlError> {
    check_name(name)?;
    let text = |file: &str| {
        let path = folder.join(file);
        let bytes = files::read(&path, MAX_PEM)?;
        String::from_utf8(bytes).map(|text| (path.clone(), text)).map_err(|_| ControlError::File {
            path,
            problem: "not PEM".into(),
            advice: String::new(),
        })
    };
    let wrong = |path: PathBuf, error: rcgen::Error| ControlError::File {
        path,
        problem: error.to_string(),
        advice: "make a client CA with `ashlarctl identity new-ca`".into(),
    };
    let (key_path, ca_key) = text(CA_KEY)?;
    let (ca_path, ca) = text(CA_CERTIFICATE)?;
    let ca_key = KeyPair::from_pem(&ca_key).map_err(|error| wrong(key_path, error))?;
    let issuer = Issuer::from_ca_cert_pem(&ca, ca_key).map_err(|error| wrong(ca_path, error))?;
    let key = key()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name, Some(role.name()));
    validity(&mut params, days);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer).map_err(failed)?;
    Ok(certificate.pem() + &key.serialize_pem())
}

/// A common name has at most 64 characters (RFC 5280, ub-common-name).
fn check_name(name: &str) -> Result<(), ControlError> {
    if (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ControlError::Usage("a name has 1 to 64 characters and no control characters".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::{NoRole, Peer};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_machines_identity_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("api");
        let first = Identity::of_node(&folder).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&folder.join(NODE_FILE))), (0o700, 0o600));
        assert_eq!(Identity::of_node(&folder).unwrap().fingerprint(), first.fingerprint());
        std::fs::write(folder.join(NODE_FILE), "").unwrap();
        let error = Identity::of_node(&folder).unwrap_err();
        assert!(error.advice().contains("new fingerprint"), "{error}");
    }

    #[test]
    fn roles_of_certificates() {
        let folder = tempfile::tempdir().unwrap();
        new_ca(folder.path(), "Owner's clients").unwrap();
        assert!(new_ca(folder.path(), "Another").is_err(), "a CA is never overwritten");
        for role in Role::ALL {
            let pem = new_client(folder.path(), "alice\u{e4}", role, 30).unwrap();
            let chain = certificates(Path::new("x"), pem.as_bytes()).unwrap();
            let peer = Peer::of_certificate(&chain[0]);
            assert_eq!((peer.name.as_str(), peer.role), ("alice\u{e4}", Ok(role)));
            let left = peer.ends.unwrap().as_secs() - crate::clock::now() / 1_000_000;
            assert!((29 * 86_400..=30 * 86_400).contains(&left), "{left}");
        }
        let named = |units: &[&str], uris: &[&str]| {
            let mut params = CertificateParams::default();
            let mut name = subject("bob\u{1b}[2J", None);
            // rcgen has one unit a name; several come as their URIs.
            for unit in units {
                name.push(DnType::OrganizationalUnitName, *unit);
            }
            params.distinguished_name = name;
            params.subject_alt_names =
                uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
            let certificate = params.self_signed(&key().unwrap()).unwrap();
            Peer::of_certificate(certificate.der())
        };
        assert_eq!(named(&[], &["urn:ashlar:role:operator"]).role, Ok(Role::Operator));
        assert_eq!(named(&["operator"], &["urn:ashlar:role:operator"]).role, Ok(Role::Operator));
        assert_eq!(
            named(&["Sales"], &["https://example.org/", "urn:ashlar:role:reader"]).role,
            Ok(Role::Reader)
        );
        assert_eq!(named(&["reader"], &["urn:ashlar:role:admin"]).role, Err(NoRole::Several));
        assert_eq!(named(&["Admin", "root"], &["urn:ashlar:role:"]).role, Err(NoRole::None));
        assert_eq!(named(&[], &[]).name, "bob\u{fffd}[2J");
        assert_eq!(Peer::of_certificate(b"").role, Err(NoRole::Unreadable));
    }

    #[test]
    fn names_that_are_none() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "a\nb", &"x".repeat(65)] {
            assert!(new_ca(folder.path(), name).is_err());
        }
        let error = new_client(folder.path(), "alice", Role::Admin, 1).unwrap_err();
        assert_eq!(error.exit_code(), crate::error::exit::FILES);
    }
}
