//! The key by which etcd knows the machine. It is made on the machine and stays there.

use ashlar_image::update::LockIdentity;
use ashlar_tuf::{FolderStore, Store};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use std::path::Path;

/// File of key and certificate in the engine's folder.
const FILE: &str = "lock-identity.pem";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// Key and certificate in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate that the key has signed itself; its common name is the machine ID.
    pub certificate: String,
    /// The key.
    pub key: String,
    /// A request for a certificate.
    request: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl Identity {
    /// The machine's; its key is made at the first time.
    ///
    /// # Errors
    /// A text for people. A key that cannot be read is not replaced: etcd knows the machine by it.
    pub fn of(folder: &Path, machine_id: &str) -> Result<Self, String> {
        let fail = |error: &dyn std::fmt::Display| format!("the machine's key for the reboot lock: {error}");
        let mut store = FolderStore::open(folder).map_err(|error| fail(&error))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, machine_id);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        // The clock may be wrong while it is made; RFC 5280, section 4.1.2.5, has the end.
        params.not_before = date_time_ymd(1970, 1, 1);
        params.not_after = date_time_ymd(9999, 12, 31);
        let (key, certificate) = match store.read(FILE).map_err(|error| fail(&error))? {
            Some(pem) => {
                let pem = String::from_utf8(pem).map_err(|error| fail(&error))?;
                let (key, certificate) =
                    pem.split_once(BEGIN).ok_or_else(|| fail(&"its certificate is missing"))?;
                (KeyPair::from_pem(key).map_err(|error| fail(&error))?, format!("{BEGIN}{certificate}"))
            }
            None => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| fail(&error))?;
                let certificate = params.self_signed(&key).map_err(|error| fail(&error))?.pem();
                let both = key.serialize_pem() + &certificate;
                store.write(FILE, both.as_bytes()).map_err(|error| fail(&error))?;
                (key, certificate)
            }
        };
        let request =
            params.serialize_request(&key).and_then(|request| request.pem()).map_err(|error| fail(&error))?;
        Ok(Self { certificate, key: key.serialize_pem(), request })
    }

    /// What others may see.
    pub fn shown(&self) -> LockIdentity {
        LockIdentity { certificate: self.certificate.clone(), request: self.request.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let id = "1c09ca98649c4c7abc779cd04c96812e";
        let first = Identity::of(folder.path(), id).unwrap();
        let again = Identity::of(folder.path(), id).unwrap();
        assert_eq!((&again.key, &again.certificate), (&first.key, &first.certificate));
        assert!(!format!("{first:?}").contains("PRIVATE KEY"));
        assert!(first.shown().request.contains("CERTIFICATE REQUEST"));
        std::fs::write(folder.path().join(FILE), "damaged").unwrap();
        assert!(Identity::of(folder.path(), id).unwrap_err().contains("key for the reboot lock"));
    }
}
