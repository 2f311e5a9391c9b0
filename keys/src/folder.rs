//! The owner's key folder.
//!
//! | file | what it is |
//! |---|---|
//! | `PK.key` `KEK.key` `db.key` | RSA-2048 keys of the Secure Boot hierarchy |
//! | `PK.crt` `KEK.crt` `db.crt` | their certificates |
//! | `pcr.key` `pcr.pub` | RSA-2048: signs PCR policies |
//! | `channel.key` `channel.pub` | Ed25519: signs releases of the update channel |
//! | `configuration.key` `configuration.pub` | Ed25519: signs machine configurations |
//! | `owner.guid` | the owner of the entries in KEK, db and PK |
//! | `PK.esl` `KEK.esl` `db.esl` | the variables' content, for a firmware's own menu |
//! | `PK.auth` `KEK.auth` `db.auth` | the same, signed, for a machine in setup mode |
//!
//! Keys are PKCS#8 in PEM, mode 0600; the folder has mode 0700.

use crate::certificate::{self, Subject};
use crate::signer::{CertifiedKey, Ed25519Key, Ed25519PublicKey, RsaPublicKey, Signer, SigningKey, to_pem};
use crate::{KeyError, auth};
use ashlar_measured_boot::efi::{Guid, SecureBootVariables, signature_data, x509_signature_list};
use der::{Document, SecretDocument};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// No file of the folder is larger than this many bytes.
const FILE_LIMIT: u64 = 64 << 10;

/// What new keys are made from.
#[derive(Debug, Clone)]
pub struct NewKeys {
    /// Whose keys they are: the organization in the certificates, 1 to 64 characters.
    pub owner_name: String,
    /// Start of the certificates' validity, seconds since 1970; also the time of the signed variables.
    pub not_before: i64,
    /// Length of the certificates' validity in years.
    pub years: u32,
}

/// A key folder that was read and whose keys fit their certificates.
#[derive(Debug)]
pub struct KeyFolder {
    path: PathBuf,
    owner: Guid,
    pk: CertifiedKey,
    kek: CertifiedKey,
    db: CertifiedKey,
    pcr: SigningKey,
    channel: Ed25519Key,
    configuration: Ed25519Key,
}

impl KeyFolder {
    /// Makes a set of new keys in a folder that does not exist yet or is empty. The folder appears whole or
    /// not at all: it is written beside its place and renamed. A process that is killed leaves at most a
    /// folder `.new-keys-*` there, which nobody else can read and which may be removed.
    pub fn create(dir: &Path, new: &NewKeys) -> Result<Self, KeyError> {
        refuse_content(dir)?;
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let building = tempfile::Builder::new()
            .prefix(".new-keys-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(io_error("create a folder in", parent))?;
        write_all(building.path(), new)?;
        sync(building.path())?;
        fs::rename(building.path(), dir).map_err(|source| match refuse_content(dir) {
            Err(in_use) => in_use,
            Ok(()) => KeyError::Io { action: "rename the new folder to", path: dir.to_owned(), source },
        })?;
        // It has its place now: nothing is left to remove.
        let _ = building.keep();
        sync(parent)?;
        Self::open(dir)
    }

    /// Reads a key folder: every file must be there, private keys must be private, and each key must fit
    /// its certificate or public key.
    pub fn open(dir: &Path) -> Result<Self, KeyError> {
        let guid = dir.join("owner.guid");
        let owner = String::from_utf8(read(&guid, false)?.to_vec())
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .ok_or(KeyError::Malformed { path: guid, wanted: "a GUID" })?;
        Ok(Self {
            path: dir.to_owned(),
            owner,
            pk: certified(dir, "PK")?,
            kek: certified(dir, "KEK")?,
            db: certified(dir, "db")?,
            pcr: pcr(dir)?,
            channel: ed25519(dir, "channel")?,
            configuration: ed25519(dir, "configuration")?,
        })
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
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
    pub const fn pcr(&self) -> &SigningKey {
        &self.pcr
    }

    /// The key that signs releases of the update channel.
    pub const fn channel(&self) -> &Ed25519Key {
        &self.channel
    }

    /// The key that signs machine configurations.
    pub const fn configuration(&self) -> &Ed25519Key {
        &self.configuration
    }

    /// The payloads of the Secure Boot variables: one certificate in each of PK, KEK and db; no dbx.
    pub fn secure_boot(&self) -> SecureBootVariables {
        let list = |key: &CertifiedKey| x509_signature_list(self.owner, key.certificate_der());
        SecureBootVariables { pk: list(&self.pk), kek: list(&self.kek), db: list(&self.db), dbx: Vec::new() }
    }

    /// The `EFI_SIGNATURE_DATA` in db that allows what the db key signed: firmware measures it as the
    /// authority of an image.
    pub fn db_authority(&self) -> Vec<u8> {
        signature_data(self.owner, self.db.certificate_der())
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError {
    move |source| KeyError::Io { action, path: path.to_owned(), source }
}

/// Refuses a folder that has anything in it, naming the first file in the order of the alphabet.
fn refuse_content(dir: &Path) -> Result<(), KeyError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(io_error("read", dir))?,
    };
    let names: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.file_name())).collect();
    match names.map_err(io_error("read", dir))?.into_iter().min() {
        None => Ok(()),
        Some(entry) => {
            Err(KeyError::FolderInUse { folder: dir.to_owned(), entry: entry.to_string_lossy().into_owned() })
        }
    }
}

fn sync(dir: &Path) -> Result<(), KeyError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("write", dir))
}

fn write_new(path: &Path, mode: u32, content: &[u8]) -> Result<(), KeyError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(io_error("create", path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

fn write_private(dir: &Path, name: &str, pkcs8: &[u8]) -> Result<(), KeyError> {
    let pem = Zeroizing::new(to_pem("PRIVATE KEY", pkcs8)?);
    write_new(&dir.join(format!("{name}.key")), 0o600, pem.as_bytes())
}

fn write_public(dir: &Path, name: &str, content: &[u8]) -> Result<(), KeyError> {
    write_new(&dir.join(name), 0o644, content)
}

/// Makes an RSA key and a certificate for it.
fn write_certified(
    dir: &Path,
    name: &str,
    common_name: &str,
    new: &NewKeys,
) -> Result<CertifiedKey, KeyError> {
    let pkcs8 = SigningKey::generate()?;
    let key = SigningKey::from_pkcs8_der(&pkcs8)?;
    let subject = Subject {
        organization: &new.owner_name,
        common_name,
        not_before: new.not_before,
        years: new.years,
        serial: random()?,
    };
    let der = certificate::self_signed(&key, &subject)?;
    write_private(dir, name, &pkcs8)?;
    write_public(dir, &format!("{name}.crt"), certificate::pem(&der)?.as_bytes())?;
    CertifiedKey::new(Box::new(key), &der)
}

fn write_all(dir: &Path, new: &NewKeys) -> Result<(), KeyError> {
    let owner = random_guid()?;
    let pk = write_certified(dir, "PK", "Platform key", new)?;
    let kek = write_certified(dir, "KEK", "Key exchange key", new)?;
    let db = write_certified(dir, "db", "Secure Boot signing key", new)?;
    for (name, key, signed_by) in [("PK", &pk, &pk), ("KEK", &kek, &pk), ("db", &db, &kek)] {
        let list = x509_signature_list(owner, key.certificate_der());
        write_public(dir, &format!("{name}.esl"), &list)?;
        let auth = auth::variable(name, &list, new.not_before, signed_by)?;
        write_public(dir, &format!("{name}.auth"), &auth)?;
    }
    let pkcs8 = SigningKey::generate()?;
    write_private(dir, "pcr", &pkcs8)?;
    let public = SigningKey::from_pkcs8_der(&pkcs8)?.public_key().spki_pem()?;
    write_public(dir, "pcr.pub", public.as_bytes())?;
    for name in ["channel", "configuration"] {
        let pkcs8 = Ed25519Key::generate()?;
        write_private(dir, name, &pkcs8)?;
        let public = Ed25519Key::from_pkcs8_der(&pkcs8)?.public_key().spki_pem()?;
        write_public(dir, &format!("{name}.pub"), public.as_bytes())?;
    }
    write_public(dir, "owner.guid", format!("{owner}\n").as_bytes())
}

fn random() -> Result<[u8; 16], KeyError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
    Ok(bytes)
}

/// A random GUID (RFC 9562, version 4).
fn random_guid() -> Result<Guid, KeyError> {
    let mut bytes = random()?;
    // The third group is stored little-endian, so its upper half comes last.
    bytes[7] = bytes[7] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Guid::from_bytes(bytes))
}

/// Reads a file of the folder. The permissions that are checked are those of the very file that is read.
fn read(path: &Path, private: bool) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let file = File::open(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => KeyError::Missing(path.to_owned()),
        _ => KeyError::Io { action: "read", path: path.to_owned(), source },
    })?;
    let metadata = file.metadata().map_err(io_error("read", path))?;
    if private && metadata.permissions().mode() & 0o077 != 0 {
        return Err(KeyError::Readable(path.to_owned()));
    }
    if metadata.len() > FILE_LIMIT {
        return Err(KeyError::Malformed { path: path.to_owned(), wanted: "smaller than 64 KiB" });
    }
    // The whole size at once: a buffer that grows would leave copies of the key behind.
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_LIMIT as usize + 1));
    file.take(FILE_LIMIT).read_to_end(&mut content).map_err(io_error("read", path))?;
    Ok(content)
}

/// The path of a private key and its PKCS#8.
fn read_private(dir: &Path, name: &str) -> Result<(PathBuf, SecretDocument), KeyError> {
    let path = dir.join(format!("{name}.key"));
    let content = read(&path, true)?;
    match std::str::from_utf8(&content).map(SecretDocument::from_pem) {
        Ok(Ok(("PRIVATE KEY", pkcs8))) => Ok((path, pkcs8)),
        _ => Err(KeyError::Malformed { path, wanted: "an unencrypted private key in PKCS#8 PEM" }),
    }
}

/// The path of a public file and the DER in it.
fn read_public(
    dir: &Path,
    name: &str,
    label: &str,
    wanted: &'static str,
) -> Result<(PathBuf, Document), KeyError> {
    let path = dir.join(name);
    let content = read(&path, false)?;
    match std::str::from_utf8(&content).map(Document::from_pem) {
        Ok(Ok((found, der))) if found == label => Ok((path, der)),
        _ => Err(KeyError::Malformed { path, wanted }),
    }
}

const RSA: &str = "an RSA key of 2048 bits or more";
const CERTIFICATE: &str = "an X.509 certificate of an RSA key in PEM";
const PUBLIC: &str = "a public key in PEM";

fn certified(dir: &Path, name: &str) -> Result<CertifiedKey, KeyError> {
    let (private, pkcs8) = read_private(dir, name)?;
    let (public, der) = read_public(dir, &format!("{name}.crt"), "CERTIFICATE", CERTIFICATE)?;
    let Ok(key) = SigningKey::from_pkcs8_der(pkcs8.as_bytes()) else {
        return Err(KeyError::Malformed { path: private, wanted: RSA });
    };
    CertifiedKey::new(Box::new(key), der.as_bytes()).map_err(|error| match error {
        KeyError::ForeignCertificate => KeyError::Mismatch { private, public },
        _ => KeyError::Malformed { path: public, wanted: CERTIFICATE },
    })
}

fn pcr(dir: &Path) -> Result<SigningKey, KeyError> {
    let (private, pkcs8) = read_private(dir, "pcr")?;
    let (public, der) = read_public(dir, "pcr.pub", "PUBLIC KEY", PUBLIC)?;
    let Ok(key) = SigningKey::from_pkcs8_der(pkcs8.as_bytes()) else {
        return Err(KeyError::Malformed { path: private, wanted: RSA });
    };
    match RsaPublicKey::from_spki_der(der.as_bytes()) {
        Ok(of) if of == *key.public_key() => Ok(key),
        Ok(_) => Err(KeyError::Mismatch { private, public }),
        Err(_) => Err(KeyError::Malformed { path: public, wanted: PUBLIC }),
    }
}

fn ed25519(dir: &Path, name: &str) -> Result<Ed25519Key, KeyError> {
    let (private, pkcs8) = read_private(dir, name)?;
    let (public, der) = read_public(dir, &format!("{name}.pub"), "PUBLIC KEY", PUBLIC)?;
    let Ok(key) = Ed25519Key::from_pkcs8_der(pkcs8.as_bytes()) else {
        return Err(KeyError::Malformed { path: private, wanted: "an Ed25519 key" });
    };
    match Ed25519PublicKey::from_spki_der(der.as_bytes()) {
        Ok(of) if of == *key.public_key() => Ok(key),
        Ok(_) => Err(KeyError::Mismatch { private, public }),
        Err(_) => Err(KeyError::Malformed { path: public, wanted: PUBLIC }),
    }
}
