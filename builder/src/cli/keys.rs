//! `ashlar keys`, and how every command finds its keys.

use super::{print, print_json};
use crate::error::BuildError;
use ashlar_image::digest::Digest;
use ashlar_keys::access::Secret;
use ashlar_keys::places::TokenPlace;
use ashlar_keys::{Access, Home, Homes, KeyFolder, NewKeys, Role, SecretSource};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest content of dbx in bytes.
const MAX_DBX: u64 = 1 << 20;

/// Where the keys are.
#[derive(Debug, Args)]
pub(super) struct Where {
    /// Folder of keys, as `ashlar keys new` makes it; `keys.toml` in it tells of keys on tokens and in TPMs
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
}

/// A file that is named on the command line, for `keys.toml`, whose paths are relative to the key folder and not to
/// where the command ran.
fn absolute(path: Option<PathBuf>) -> Result<Option<PathBuf>, BuildError> {
    path.map(|path| std::path::absolute(&path).map_err(|e| BuildError::input("find", &path, e))).transpose()
}

/// Asks on the terminal; off one, nobody is asked.
fn access() -> Access {
    if !std::io::stdin().is_terminal() {
        return Access::unattended();
    }
    Access::asking(|question| rpassword::prompt_password(format!("{question}: ")).map(Secret::new))
}

impl Where {
    /// Reads the public halves; a private one is opened when it signs.
    pub(super) fn open(&self) -> Result<KeyFolder, BuildError> {
        open(&self.keys)
    }
}

/// Reads the public halves of a folder of keys; a private one is opened when it signs.
pub(super) fn open(folder: &Path) -> Result<KeyFolder, BuildError> {
    Ok(KeyFolder::open_with(folder, &access())?)
}

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a folder with all keys of an owner: firmware (PK, KEK, db), PCR policy, channel, configuration
    New(New),
    /// Tell whose keys a folder holds and where their private halves are
    Show(Show),
    /// Put the private half of a key from its file on a token
    Import(Import),
    /// Tell the recovery key of a machine's state volume, with the owner's private `recovery.key`
    RecoveryKey(RecoveryKey),
    /// Tell what PCR 7 is on a machine with these keys, now or after a change of dbx
    Pcr7(Pcr7),
}

#[derive(Debug, Args)]
pub(super) struct Pcr7 {
    /// The folder
    directory: PathBuf,
    /// Content of dbx after the change: signature lists, as efivarfs has them behind four bytes of attributes
    #[arg(long, value_name = "FILE")]
    dbx: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RecoveryKey {
    /// The folder
    directory: PathBuf,
    /// The machine's disk, an image of it, or of its state partition alone
    disk: PathBuf,
    /// File with the passphrase of `recovery.key`, which is asked for otherwise
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl RecoveryKey {
    fn run(self) -> Result<ExitCode, BuildError> {
        let keys = KeyFolder::open(&self.directory)?;
        let passphrase = |path: &Path| match &self.passphrase_file {
            Some(file) => Secret::read(file),
            None => rpassword::prompt_password(format!("passphrase of `{}`: ", path.display()))
                .map(Secret::new)
                .map_err(|source| ashlar_keys::KeyError::Io {
                    action: "ask on",
                    path: "the terminal".into(),
                    source,
                }),
        };
        let key = crate::recovery::recovery_key(&keys, &self.disk, passphrase)?;
        print(&format!("{}\n", *key));
        Ok(ExitCode::SUCCESS)
    }
}

impl Pcr7 {
    fn run(self) -> Result<ExitCode, BuildError> {
        let keys = KeyFolder::open(&self.directory)?;
        let mut variables = keys.secure_boot();
        if let Some(file) = &self.dbx {
            variables.dbx = crate::inspect::read_whole(file, MAX_DBX, "signature lists")?;
            ashlar_measured_boot::efi::parse_signature_lists(&variables.dbx)
                .map_err(ashlar_measured_boot::predict::PredictError::from)?;
        }
        let authority = keys.db_authority();
        let site = ashlar_measured_boot::predict::Site { variables: &variables, authority: &authority };
        for variant in ashlar_measured_boot::predict::pcr7(&site)? {
            print(&format!("{}\n", variant.value));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The folder
    directory: PathBuf,
    /// The key: PK, KEK, db, pcr, channel or configuration
    role: Role,
    /// The token
    #[arg(long, value_name = "URI")]
    pkcs11: String,
    /// PKCS#11 module of the token
    #[arg(long, value_name = "FILE")]
    module: Option<PathBuf>,
    /// File with the token's PIN, which is asked for otherwise
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
}

impl Import {
    fn run(self) -> Result<ExitCode, BuildError> {
        let access = access();
        let keys = KeyFolder::open_with(&self.directory, &access)?;
        let place = TokenPlace {
            uri: self.pkcs11.parse()?,
            module: absolute(self.module)?,
            pin: absolute(self.pin_file)?.map_or(SecretSource::Ask, SecretSource::File),
        };
        let place = ashlar_keys::pkcs11::import(&place, self.role, &keys.pkcs8(self.role)?, &access)?;
        print(&format!(
            "the key is on the token\nnext: add this line to `{d}/keys.toml`, try `ashlar keys show {d}`, and take \
             `{d}/{role}.key` away\n{line}\n",
            d = self.directory.display(),
            role = self.role,
            line = ashlar_keys::places::token_line(self.role, &place).trim_end()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Args)]
pub(super) struct New {
    /// The folder; none of its keys may exist
    directory: PathBuf,
    /// Name of the owner in the certificates
    #[arg(long, default_value = "Ashlar owner")]
    name: String,
    /// Years until the certificates expire; firmware does not look at it, other tools do
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100))]
    years: u32,
    /// Encrypt the private halves with a passphrase, which is asked for
    #[arg(long)]
    encrypt: bool,
    /// Encrypt them with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE", conflicts_with = "encrypt")]
    passphrase_file: Option<PathBuf>,
    /// Make the keys on the token that this PKCS#11 URI names
    #[arg(long, value_name = "URI", conflicts_with_all = ["encrypt", "passphrase_file"])]
    pkcs11: Option<String>,
    /// PKCS#11 module of the token
    #[arg(long, value_name = "FILE", requires = "pkcs11")]
    module: Option<PathBuf>,
    /// File with the token's PIN, which is asked for otherwise
    #[arg(long, value_name = "FILE", requires = "pkcs11")]
    pin_file: Option<PathBuf>,
    /// Only these keys on the token, the others in files; may be given more than once
    #[arg(long, value_name = "ROLE", requires = "pkcs11")]
    on_token: Vec<Role>,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The folder
    directory: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One key of a folder.
#[derive(Serialize)]
struct ShownKey {
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    key_sha256: Digest,
    /// SHA-256 of its certificate.
    certificate_sha256: Option<Digest>,
    private: String,
}

/// What is public of a key folder.
#[derive(Serialize)]
struct Shown {
    owner_guid: String,
    keys: BTreeMap<&'static str, ShownKey>,
}

impl New {
    /// Where the private halves go.
    fn homes(&self) -> Result<Homes, BuildError> {
        if let Some(uri) = &self.pkcs11 {
            let roles = if self.on_token.is_empty() { Role::ALL.to_vec() } else { self.on_token.clone() };
            let place = TokenPlace {
                uri: uri.parse()?,
                module: absolute(self.module.clone())?,
                pin: absolute(self.pin_file.clone())?.map_or(SecretSource::Ask, SecretSource::File),
            };
            return Ok(roles.into_iter().map(|role| (role, Home::Token(Box::new(place.clone())))).collect());
        }
        let passphrase = match &self.passphrase_file {
            Some(file) => Some(Secret::read(file)?),
            None if self.encrypt => Some(ask_twice()?),
            None => None,
        };
        let home = Home::File { passphrase };
        Ok(Role::ALL.into_iter().map(|role| (role, home.clone())).collect())
    }

    fn run(self) -> Result<ExitCode, BuildError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let not_before = i64::try_from(now).unwrap_or(0);
        let homes = self.homes()?;
        let new = NewKeys { owner_name: self.name, not_before, years: self.years };
        KeyFolder::create_in(&self.directory, &new, &homes, &access())?;
        print(&format!(
            "made keys in `{d}`\nKeep `PK.key` and `KEK.key` off line: they are needed only to change the \
             keys in the firmware. So keep `recovery.key`, which is always a file: it opens the recovery keys of machines.\nnext: ashlar build RECIPE --keys {d} -o out\n",
            d = self.directory.display()
        ));
        Ok(ExitCode::SUCCESS)
    }
}

/// A new passphrase, asked for twice so that a slip of the fingers is noticed.
fn ask_twice() -> Result<Secret, BuildError> {
    let ask = |text: &str| rpassword::prompt_password(text).map_err(BuildError::Terminal);
    let (one, two) = (ask("new passphrase: ")?, ask("the same again: ")?);
    if one != two || one.is_empty() {
        return Err(BuildError::Terminal(std::io::Error::other("the two are not the same, or empty")));
    }
    Ok(Secret::new(one))
}

impl Show {
    fn run(self) -> Result<ExitCode, BuildError> {
        let keys = KeyFolder::open_with(&self.directory, &access())?;
        let mut shown = Shown { owner_guid: keys.owner().to_string(), keys: BTreeMap::new() };
        for role in Role::ALL {
            let certificate = match role {
                Role::Pk => Some(keys.pk()),
                Role::Kek => Some(keys.kek()),
                Role::Db => Some(keys.db()),
                _ => None,
            };
            let key = ShownKey {
                key_sha256: keys.fingerprint(role)?,
                certificate_sha256: certificate.map(|key| Digest::of(key.certificate_der())),
                private: keys.place(role).to_string(),
            };
            shown.keys.insert(role.name(), key);
        }
        if self.json {
            print_json(&shown)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut text = format!("owner          {}\n", shown.owner_guid);
        for (name, key) in &shown.keys {
            let _ = writeln!(text, "{name:<14} {}  {}", key.key_sha256, key.private);
        }
        print(&text);
        Ok(ExitCode::SUCCESS)
    }
}

impl Keys {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        match self {
            Self::New(new) => new.run(),
            Self::Show(show) => show.run(),
            Self::Import(import) => import.run(),
            Self::Pcr7(pcr7) => pcr7.run(),
            Self::RecoveryKey(recovery) => recovery.run(),
        }
    }
}
