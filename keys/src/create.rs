//! New keys: in files, encrypted files, or on a token that makes them itself.

use crate::access::{Access, Secret};
use crate::certificate::{self, Subject};
use crate::files::{io_error, refuse_content, sync, write_new};
use crate::folder::{KeyFolder, RECOVERY_KEY, RECOVERY_PUBLIC};
use crate::pkcs11::{self, AnyTokenKey};
use crate::places::{PLACES_FILE, TokenPlace, token_line};
use crate::signer::{CertifiedKey, Ed25519Key, Ed25519Signer, Signer, SigningKey};
use crate::{KeyError, Role, auth, keyfile};
use ashlar_measured_boot::efi::{Guid, x509_signature_list};
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

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

/// Where a new private half goes.
#[derive(Debug, Clone)]
pub enum Home {
    /// Into `ROLE.key`; encrypted, if there is a passphrase.
    File {
        /// The passphrase.
        passphrase: Option<Secret>,
    },
    /// It is made on a token. The URI names the token; the key's label is the role's name.
    Token(Box<TokenPlace>),
}

/// Where new private halves go; those of roles that are not named go into plain files.
pub type Homes = BTreeMap<Role, Home>;

impl KeyFolder {
    /// As [`KeyFolder::create_in`], with all private halves in plain files.
    pub fn create(dir: &Path, new: &NewKeys) -> Result<Self, KeyError> {
        Self::create_in(dir, new, &Homes::new(), &Access::unattended())
    }

    /// Makes a set of new keys in a folder that does not exist yet or is empty. The folder appears whole or
    /// not at all: it is written beside its place and renamed. A process that is killed leaves at most a
    /// folder `.new-keys-*` there, which nobody else can read and which may be removed, and keys on the token.
    pub fn create_in(dir: &Path, new: &NewKeys, homes: &Homes, access: &Access) -> Result<Self, KeyError> {
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
        let mut maker =
            Maker { dir: building.path(), new, homes, access, places: String::new(), on_tokens: Vec::new() };
        let made = maker.write_all().and_then(|()| sync(building.path())).and_then(|()| {
            fs::rename(building.path(), dir).map_err(|source| match refuse_content(dir) {
                Err(in_use) => in_use,
                Ok(()) => KeyError::Io { action: "rename the new folder to", path: dir.to_owned(), source },
            })
        });
        if let Err(error) = made {
            maker.on_tokens.iter().for_each(pkcs11::Made::remove);
            return Err(error);
        }
        // It has its place now: nothing is left to remove.
        drop(maker);
        let _ = building.keep();
        sync(parent)?;
        Self::open_with(dir, access)
    }
}

/// Makes one set of keys.
struct Maker<'a> {
    dir: &'a Path,
    new: &'a NewKeys,
    homes: &'a Homes,
    access: &'a Access,
    /// The text of `keys.toml`.
    places: String,
    /// What must be undone on tokens if the rest fails.
    on_tokens: Vec<pkcs11::Made>,
}

impl Maker<'_> {
    fn write_public(&self, name: &str, content: &[u8]) -> Result<(), KeyError> {
        write_new(&self.dir.join(name), 0o644, content)
    }

    fn write_private(&self, role: Role, pkcs8: &[u8]) -> Result<(), KeyError> {
        let passphrase = match self.homes.get(&role) {
            Some(Home::File { passphrase }) => passphrase.as_ref(),
            _ => None,
        };
        let pem = keyfile::write(pkcs8, passphrase)?;
        write_new(&self.dir.join(format!("{role}.key")), 0o600, pem.as_bytes())
    }

    /// The key made on a token, if that is the role's home.
    fn on_token(&mut self, role: Role) -> Result<Option<AnyTokenKey>, KeyError> {
        let Some(Home::Token(place)) = self.homes.get(&role) else { return Ok(None) };
        let (made, undo) = pkcs11::generate_removable(place, role, self.access)?;
        self.on_tokens.push(undo);
        self.places.push_str(&token_line(role, &made.place));
        Ok(Some(made.key))
    }

    fn rsa(&mut self, role: Role) -> Result<Arc<dyn Signer>, KeyError> {
        if let Some(AnyTokenKey::Rsa(key)) = self.on_token(role)? {
            return Ok(Arc::new(key));
        }
        let pkcs8 = SigningKey::generate()?;
        self.write_private(role, &pkcs8)?;
        Ok(Arc::new(SigningKey::from_pkcs8_der(&pkcs8)?))
    }

    fn ed25519(&mut self, role: Role) -> Result<Arc<dyn Ed25519Signer>, KeyError> {
        if let Some(AnyTokenKey::Ed25519(key)) = self.on_token(role)? {
            return Ok(Arc::new(key));
        }
        let pkcs8 = Ed25519Key::generate()?;
        self.write_private(role, &pkcs8)?;
        Ok(Arc::new(Ed25519Key::from_pkcs8_der(&pkcs8)?))
    }

    /// Makes an RSA key and a certificate for it.
    fn certified(&mut self, role: Role, common_name: &str) -> Result<CertifiedKey, KeyError> {
        let key = self.rsa(role)?;
        let subject = Subject {
            organization: &self.new.owner_name,
            common_name,
            not_before: self.new.not_before,
            years: self.new.years,
            serial: random()?,
        };
        let der = certificate::self_signed(key.as_ref(), &subject)?;
        self.write_public(role.public_file(), certificate::pem(&der)?.as_bytes())?;
        CertifiedKey::new(key, &der)
    }

    /// Makes the key pair that recovery keys are encrypted to. It never signs, and a token need not be able to decrypt:
    /// it is always a file, with the passphrase of the other files.
    fn recovery(&self) -> Result<(), KeyError> {
        let pkcs8 = SigningKey::generate()?;
        let public = SigningKey::from_pkcs8_der(&pkcs8)?.public_key().spki_pem()?;
        let passphrase = self.homes.values().find_map(|home| match home {
            Home::File { passphrase } => passphrase.as_ref(),
            Home::Token(_) => None,
        });
        let pem = keyfile::write(&pkcs8, passphrase)?;
        write_new(&self.dir.join(RECOVERY_KEY), 0o600, pem.as_bytes())?;
        self.write_public(RECOVERY_PUBLIC, public.as_bytes())
    }

    fn write_all(&mut self) -> Result<(), KeyError> {
        let owner = random_guid()?;
        let pk = self.certified(Role::Pk, "Platform key")?;
        let kek = self.certified(Role::Kek, "Key exchange key")?;
        let db = self.certified(Role::Db, "Secure Boot signing key")?;
        for (name, key, signed_by) in [("PK", &pk, &pk), ("KEK", &kek, &pk), ("db", &db, &kek)] {
            let list = x509_signature_list(owner, key.certificate_der());
            self.write_public(&format!("{name}.esl"), &list)?;
            let auth = auth::variable(name, &list, self.new.not_before, signed_by)?;
            self.write_public(&format!("{name}.auth"), &auth)?;
        }
        let public = self.rsa(Role::Pcr)?.public_key().spki_pem()?;
        self.write_public(Role::Pcr.public_file(), public.as_bytes())?;
        for role in [Role::Channel, Role::Configuration] {
            let public = self.ed25519(role)?.public_key().spki_pem()?;
            self.write_public(role.public_file(), public.as_bytes())?;
        }
        self.recovery()?;
        if !self.places.is_empty() {
            self.write_public(PLACES_FILE, self.places.as_bytes())?;
        }
        self.write_public("owner.guid", format!("{owner}\n").as_bytes())
    }
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
