//! The owner's key folder.
//!
//! | file | what it is |
//! |---|---|
//! | `PK.crt` `KEK.crt` `db.crt` | certificates of the Secure Boot hierarchy, RSA-2048 |
//! | `pcr.pub` | RSA-2048: signs PCR policies |
//! | `channel.pub` | Ed25519: signs releases of the update channel |
//! | `configuration.pub` | Ed25519: signs machine configurations |
//! | `recovery.pub` | RSA-2048: machines encrypt the recovery keys of their state volumes to it; older folders have none |
//! | `db-NAME.crt` | more certificates that db holds: old ones, until every machine has a newer image |
//! | `owner.guid` | the owner of the entries in KEK, db and PK |
//! | `PK.esl` `KEK.esl` `db.esl` | the variables' content, for a firmware's own menu |
//! | `PK.auth` `KEK.auth` `db.auth` | the same, signed, for a machine in setup mode |
//! | `ROLE.key` | the private half, unless `keys.toml` names another place |
//! | `recovery.key` | the private half of `recovery.pub`: only for decrypting; may lie elsewhere |
//! | `keys.toml` | where private halves live: see [`crate::places`] |
//!
//! What is public is read when the folder is opened. A private half is opened when it is to sign, so that PK
//! and KEK need not be there for a build. Key files are PKCS#8 in PEM, mode 0600; the folder has mode 0700.

use crate::access::Access;
use crate::deferred::{Deferred, Opener};
use crate::places::{PLACES_FILE, Place, Places};
use crate::signer::{CertifiedKey, Ed25519PublicKey, Ed25519Signer, RsaPublicKey, Signer};
use crate::{KeyError, Role, auth, files};
use ashlar_image::digest::Digest;
use ashlar_measured_boot::efi::{Guid, SecureBootVariables, signature_data, x509_signature_list};
use der::Decode as _;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_cert::Certificate;
use zeroize::Zeroizing;

/// The public half of the key that recovery keys are encrypted to.
pub const RECOVERY_PUBLIC: &str = "recovery.pub";
/// Its private half.
pub const RECOVERY_KEY: &str = "recovery.key";

const CERTIFICATE: &str = "an X.509 certificate of an RSA key in PEM";
const PUBLIC: &str = "a public key in PEM";

/// A key folder whose public half was read.
pub struct KeyFolder {
    path: PathBuf,
    owner: Guid,
    places: Places,
    access: Access,
    pub(crate) pk: CertifiedKey,
    pub(crate) kek: CertifiedKey,
    pub(crate) db: CertifiedKey,
    /// Further certificates in db, in DER.
    more_db: Vec<Vec<u8>>,
    pub(crate) pcr: Arc<dyn Signer>,
    pub(crate) channel: Arc<dyn Ed25519Signer>,
    pub(crate) configuration: Arc<dyn Ed25519Signer>,
}

impl KeyFolder {
    /// Reads the public half of a key folder; private halves are opened without asking anybody.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        Self::open_with(dir, &Access::unattended())
    }

    /// Reads the public half of a key folder: every certificate and public key must be there. Private halves
    /// are opened when they are to sign, by way of `access`.
    pub fn open_with(dir: &Path, access: &Access) -> Result<Self, KeyError> {
        let guid = dir.join("owner.guid");
        let owner = String::from_utf8(files::read(&guid, false)?.to_vec())
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or(KeyError::Malformed { path: guid, wanted: "a GUID" })?;
        let places = Places::read(dir)?;
        let opener = |role| opener(dir, &places, access, role);
        Ok(Self {
            path: dir.to_owned(),
            owner,
            pk: certified(opener(Role::Pk))?,
            kek: certified(opener(Role::Kek))?,
            db: certified(opener(Role::Db))?,
            more_db: more_db(dir)?,
            pcr: pcr(opener(Role::Pcr))?,
            channel: ed25519(opener(Role::Channel))?,
            configuration: ed25519(opener(Role::Configuration))?,
            places,
            access: access.clone(),
        })
    }

    /// Makes sure that these roles can sign: opens their private halves now, rather than when the first
    /// signature is due.
    pub fn require(&self, roles: &[Role]) -> Result<(), KeyError> {
        roles.iter().try_for_each(|role| match self.key(*role) {
            Key::Rsa(signer) => signer.ready(),
            Key::Ed25519(signer) => signer.ready(),
        })
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the private half of a role is said to be; it is not looked at.
    pub fn place(&self, role: Role) -> Place {
        self.places.get(role, &self.path)
    }

    /// The private half of a role in PKCS#8, if it is in a file: to put it on a token.
    pub fn pkcs8(&self, role: Role) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        opener(&self.path, &self.places, &self.access, role).pkcs8()
    }

    /// The owner of the entries in PK, KEK and db.
    pub const fn owner(&self) -> Guid {
        self.owner
    }

    /// The platform key: signs PK and KEK.
    pub const fn pk(&self) -> &CertifiedKey {
        &self.pk
    }

    /// The key exchange key: signs db and dbx.
    pub const fn kek(&self) -> &CertifiedKey {
        &self.kek
    }

    /// The key that signs EFI programs.
    pub const fn db(&self) -> &CertifiedKey {
        &self.db
    }

    /// The key that signs PCR policies.
    pub fn pcr(&self) -> &dyn Signer {
        self.pcr.as_ref()
    }

    /// The key that signs releases of the update channel.
    pub fn channel(&self) -> &dyn Ed25519Signer {
        self.channel.as_ref()
    }

    /// The key that signs machine configurations.
    pub fn configuration(&self) -> &dyn Ed25519Signer {
        self.configuration.as_ref()
    }

    /// The public key that machines encrypt their recovery keys to, in PEM; none in folders that were made before
    /// there was one.
    pub fn recovery_public(&self) -> Result<Option<String>, KeyError> {
        let path = self.path.join(RECOVERY_PUBLIC);
        if !path.exists() {
            return Ok(None);
        }
        let der = files::read_public(&path, "PUBLIC KEY", PUBLIC)?;
        let wrong = || KeyError::Malformed { path: path.clone(), wanted: "a public RSA key in PEM" };
        RsaPublicKey::from_spki_der(der.as_bytes()).map_err(|_| wrong())?.spki_pem().map(Some)
    }

    /// The key of a role.
    pub(crate) fn key(&self, role: Role) -> Key<'_> {
        match role {
            Role::Pk => Key::Rsa(self.pk.signer()),
            Role::Kek => Key::Rsa(self.kek.signer()),
            Role::Db => Key::Rsa(self.db.signer()),
            Role::Pcr => Key::Rsa(self.pcr.as_ref()),
            Role::Channel => Key::Ed25519(self.channel.as_ref()),
            Role::Configuration => Key::Ed25519(self.configuration.as_ref()),
        }
    }

    /// SHA-256 of the `SubjectPublicKeyInfo` of a role's key.
    pub fn fingerprint(&self, role: Role) -> Result<Digest, KeyError> {
        self.key(role).fingerprint()
    }

    /// The same folder with its signers replaced; certificates and places stay.
    pub(crate) fn with_signers(
        &self,
        rsa: impl Fn(Role, Arc<dyn Signer>) -> Result<Arc<dyn Signer>, KeyError>,
        ed25519: impl Fn(Role, Arc<dyn Ed25519Signer>) -> Result<Arc<dyn Ed25519Signer>, KeyError>,
    ) -> Result<Self, KeyError> {
        let certified = |role, key: &CertifiedKey| -> Result<CertifiedKey, KeyError> {
            Ok(key.with_signer(rsa(role, key.shared_signer())?))
        };
        Ok(Self {
            path: self.path.clone(),
            owner: self.owner,
            places: self.places.clone(),
            access: self.access.clone(),
            pk: certified(Role::Pk, &self.pk)?,
            kek: certified(Role::Kek, &self.kek)?,
            db: certified(Role::Db, &self.db)?,
            more_db: self.more_db.clone(),
            pcr: rsa(Role::Pcr, Arc::clone(&self.pcr))?,
            channel: ed25519(Role::Channel, Arc::clone(&self.channel))?,
            configuration: ed25519(Role::Configuration, Arc::clone(&self.configuration))?,
        })
    }

    /// The payloads of the Secure Boot variables: one certificate in each of PK and KEK; in db that of the
    /// db key, and behind it those of `db-NAME.crt` in the order of the alphabet; no dbx.
    pub fn secure_boot(&self) -> SecureBootVariables {
        let list = |key: &CertifiedKey| x509_signature_list(self.owner, key.certificate_der());
        let mut db = list(&self.db);
        db.extend(self.more_db.iter().flat_map(|der| x509_signature_list(self.owner, der)));
        SecureBootVariables { pk: list(&self.pk), kek: list(&self.kek), db, dbx: Vec::new() }
    }

    /// The `EFI_SIGNATURE_DATA` in db that allows what the db key signed: firmware measures it as the
    /// authority of an image.
    pub fn db_authority(&self) -> Vec<u8> {
        signature_data(self.owner, self.db.certificate_der())
    }

    /// The variable db with all its certificates, signed by KEK: the new `db.auth` after certificates were
    /// added or removed. `time`, in seconds since 1970, must be later than that of the one before.
    pub fn renewed_db(&self, time: i64) -> Result<Vec<u8>, KeyError> {
        auth::variable("db", &self.secure_boot().db, time, &self.kek)
    }

    /// The signed variable of PK, KEK or db, as `NAME.auth` holds it.
    pub fn signed_variable(&self, role: Role) -> Result<Vec<u8>, KeyError> {
        Ok(files::read(&self.path.join(format!("{role}.auth")), false)?.to_vec())
    }
}

impl fmt::Debug for KeyFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFolder")
            .field("path", &self.path)
            .field("owner", &self.owner)
            .field("places", &self.places)
            .field("db", &self.db)
            .field("pcr", self.pcr.public_key())
            .field("channel", self.channel.public_key())
            .finish_non_exhaustive()
    }
}

/// A key of either kind.
pub(crate) enum Key<'a> {
    /// RSA.
    Rsa(&'a dyn Signer),
    /// Ed25519.
    Ed25519(&'a dyn Ed25519Signer),
}

impl Key<'_> {
    pub fn fingerprint(&self) -> Result<Digest, KeyError> {
        Ok(Digest::of(match self {
            Self::Rsa(signer) => signer.public_key().spki_der()?,
            Self::Ed25519(signer) => signer.public_key().spki_der()?,
        }))
    }

    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::Rsa(signer) => signer.sign(message),
            Self::Ed25519(signer) => signer.sign(message),
        }
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        match self {
            Self::Rsa(signer) => signer.public_key().verify(message, signature),
            Self::Ed25519(signer) => signer.public_key().verify(message, signature),
        }
    }
}

fn opener(dir: &Path, places: &Places, access: &Access, role: Role) -> Opener {
    Opener {
        role,
        place: places.get(role, dir),
        access: access.clone(),
        public_file: dir.join(role.public_file()),
        places_file: dir.join(PLACES_FILE),
    }
}

fn certified(opener: Opener) -> Result<CertifiedKey, KeyError> {
    let path = opener.public_file.clone();
    let der = files::read_public(&path, "CERTIFICATE", CERTIFICATE)?;
    let wrong = || KeyError::Malformed { path: path.clone(), wanted: CERTIFICATE };
    let certificate = Certificate::from_der(der.as_bytes()).map_err(|_| wrong())?;
    let public = RsaPublicKey::from_spki(certificate.tbs_certificate().subject_public_key_info())
        .map_err(|_| wrong())?;
    CertifiedKey::new(Arc::new(Deferred::<_, dyn Signer>::new(public, opener)), der.as_bytes())
}

/// The certificates in `db-NAME.crt`.
fn more_db(dir: &Path) -> Result<Vec<Vec<u8>>, KeyError> {
    let entries = fs::read_dir(dir).map_err(files::io_error("read", dir))?;
    let names: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.file_name())).collect();
    let mut names = names.map_err(files::io_error("read", dir))?;
    names.retain(|name| {
        name.to_str().is_some_and(|name| name.starts_with("db-") && name.strip_suffix(".crt").is_some())
    });
    names.sort();
    names
        .into_iter()
        .map(|name| {
            let path = dir.join(name);
            let der = files::read_public(&path, "CERTIFICATE", CERTIFICATE)?;
            Certificate::from_der(der.as_bytes())
                .map_err(|_| KeyError::Malformed { path, wanted: CERTIFICATE })?;
            Ok(der.as_bytes().to_vec())
        })
        .collect()
}

fn pcr(opener: Opener) -> Result<Arc<dyn Signer>, KeyError> {
    let path = opener.public_file.clone();
    let der = files::read_public(&path, "PUBLIC KEY", PUBLIC)?;
    let public = RsaPublicKey::from_spki_der(der.as_bytes())
        .map_err(|_| KeyError::Malformed { path, wanted: "a public RSA key in PEM" })?;
    Ok(Arc::new(Deferred::<_, dyn Signer>::new(public, opener)))
}

fn ed25519(opener: Opener) -> Result<Arc<dyn Ed25519Signer>, KeyError> {
    let path = opener.public_file.clone();
    let der = files::read_public(&path, "PUBLIC KEY", PUBLIC)?;
    let public = Ed25519PublicKey::from_spki_der(der.as_bytes())
        .map_err(|_| KeyError::Malformed { path, wanted: "a public Ed25519 key in PEM" })?;
    Ok(Arc::new(Deferred::<_, dyn Ed25519Signer>::new(public, opener)))
}
