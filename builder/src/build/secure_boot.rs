//! What the firmware must know to start a release.

use super::assemble::SECURE_BOOT_DIR;
use crate::error::BuildError;
use crate::inspect::read_whole;
use ashlar_image::owner::{OWNER_FILE, Owner};
use ashlar_keys::{KeyFolder, Role};
use ashlar_measured_boot::efi::SecureBootVariables;
use std::path::Path;

/// Largest of its files, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Names of its files.
const FILES: [&str; 7] = ["PK.esl", "PK.auth", "KEK.esl", "KEK.auth", "db.esl", "db.auth", "db.crt"];

/// The Secure Boot variables of an owner.
#[derive(Debug, Clone)]
pub struct SecureBoot {
    /// Their content.
    pub variables: SecureBootVariables,
    /// The entry in db that the UKI is allowed by.
    pub db_authority: Vec<u8>,
    /// What lies beside a release, by name.
    pub files: Vec<(String, Vec<u8>)>,
    /// What the image itself knows of its owner.
    pub owner: Owner,
}

impl SecureBoot {
    /// From the owner's keys.
    pub fn from_keys(keys: &KeyFolder) -> Result<Self, BuildError> {
        let variables = keys.secure_boot();
        let mut files = Vec::new();
        for (role, list) in
            [(Role::Pk, &variables.pk), (Role::Kek, &variables.kek), (Role::Db, &variables.db)]
        {
            files.push((format!("{role}.esl"), list.clone()));
            files.push((format!("{role}.auth"), keys.signed_variable(role)?));
        }
        let certificate = ashlar_keys::certificate::pem(keys.db().certificate_der())?;
        files.push(("db.crt".to_owned(), certificate.into_bytes()));
        let owner = Owner {
            configuration_key: hex::encode(keys.configuration().public_key().0),
            recovery_key: keys.recovery_public()?,
        };
        Ok(Self { variables, db_authority: keys.db_authority(), files, owner })
    }

    /// From a release's folder.
    pub fn from_release(folder: &Path) -> Result<Self, BuildError> {
        let mut files = Vec::new();
        for name in FILES {
            let path = folder.join(SECURE_BOOT_DIR).join(name);
            files.push((name.to_owned(), read_whole(&path, MAX_FILE, "a Secure Boot variable")?));
        }
        let file = |name: &str| {
            let found = files.iter().find(|(known, _)| known == name);
            found.map(|(_, bytes)| bytes.clone()).unwrap_or_default()
        };
        let variables = SecureBootVariables {
            pk: file("PK.esl"),
            kek: file("KEK.esl"),
            db: file("db.esl"),
            dbx: Vec::new(),
        };
        // A list with one entry: header of 28 bytes, then owner and certificate (UEFI 2.10, section 32.4.1).
        let db_authority = variables.db.get(28..).unwrap_or_default().to_vec();
        let path = folder.join(OWNER_FILE);
        let owner = serde_json::from_slice(&read_whole(&path, MAX_FILE, "the owner's public keys")?)
            .map_err(|error| BuildError::BadOwner { path, why: error.to_string() })?;
        Ok(Self { variables, db_authority, files, owner })
    }

    /// One of its files.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files.iter().find(|(known, _)| known == name).map(|(_, bytes)| bytes.as_slice())
    }
}
