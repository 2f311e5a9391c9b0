//! `keys.toml`: where the private half of each role lives.
//!
//! ```toml
//! PK = "offline"
//! KEK = { file = "/media/safe/KEK.key" }
//! db = { pkcs11 = "pkcs11:token=ashlar;object=db;type=private", module = "/usr/lib/softhsm/libsofthsm2.so", pin-file = "pin" }
//! pcr = { tpm = "0x81010001", tcti = "device:/dev/tpmrm0" }
//! channel = { file = "channel.key", passphrase-env = "CHANNEL_PASSPHRASE" }
//! ```
//!
//! A role that is not named has its private half in `ROLE.key`. Paths are relative to the folder. Without a
//! `-file` or `-env` for a passphrase or PIN, a person is asked.

use crate::access::SecretSource;
use crate::files;
use crate::uri::{ObjectType, Pkcs11Uri};
use crate::{KeyError, Role};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Name of the file in a key folder.
pub const PLACES_FILE: &str = "keys.toml";

/// Where a private half lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Not here: it signs on another machine.
    Offline,
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The passphrase, if the file is encrypted.
        passphrase: SecretSource,
    },
    /// On a token.
    Pkcs11(Box<TokenPlace>),
    /// In a TPM.
    Tpm(TpmPlace),
}

/// A private key on a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPlace {
    /// Which object on which token.
    pub uri: Pkcs11Uri,
    /// The PKCS#11 module; the URI names it otherwise.
    pub module: Option<PathBuf>,
    /// The user's PIN.
    pub pin: SecretSource,
}

/// A private key in a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmPlace {
    /// The key.
    pub key: TpmKey,
    /// The way to the TPM (tss2-tcti(7)).
    pub tcti: String,
    /// The key's authorization value; empty otherwise.
    pub authorization: Option<SecretSource>,
}

/// A key of a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmKey {
    /// A persistent handle.
    Handle(u32),
    /// A file `TSS2 PRIVATE KEY`: the key wrapped by the TPM's storage root key.
    File(PathBuf),
}

/// The way to the TPM where none is named: the kernel's resource manager.
const DEFAULT_TCTI: &str = "device:/dev/tpmrm0";
/// Persistent handles of a TPM (TPM 2.0 Library Specification, part 2, section 7.5).
const PERSISTENT_HANDLES: std::ops::RangeInclusive<u32> = 0x8100_0000..=0x81ff_ffff;

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offline => f.write_str("offline"),
            Self::File { path, .. } => write!(f, "{}", path.display()),
            Self::Pkcs11(place) => write!(f, "{}", place.uri),
            Self::Tpm(place) => match &place.key {
                TpmKey::Handle(handle) => write!(f, "TPM key {handle:#010x}"),
                TpmKey::File(path) => write!(f, "TPM key {}", path.display()),
            },
        }
    }
}

/// The places of all roles that a file names.
#[derive(Debug, Clone, Default)]
pub struct Places(BTreeMap<Role, Place>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(rename = "PK")]
    pk: Option<Raw>,
    #[serde(rename = "KEK")]
    kek: Option<Raw>,
    db: Option<Raw>,
    pcr: Option<Raw>,
    channel: Option<Raw>,
    configuration: Option<Raw>,
}

/// A role's value: the word `offline` or a table.
enum Raw {
    Offline,
    Table(Box<Table>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    file: Option<PathBuf>,
    passphrase_file: Option<PathBuf>,
    passphrase_env: Option<String>,
    pkcs11: Option<String>,
    module: Option<PathBuf>,
    pin_file: Option<PathBuf>,
    pin_env: Option<String>,
    tpm: Option<String>,
    tcti: Option<String>,
    auth_file: Option<PathBuf>,
    auth_env: Option<String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`\"offline\"` or a table with `file`, `pkcs11` or `tpm`")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Raw, E> {
                if text == "offline" {
                    Ok(Raw::Offline)
                } else {
                    Err(E::custom("the only word here is `offline`"))
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Raw, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map)).map(|table| Raw::Table(Box::new(table)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// Where a secret comes from, of the two that can be said.
fn source(
    what: &str,
    dir: &Path,
    file: Option<PathBuf>,
    environment: Option<String>,
) -> Result<Option<SecretSource>, String> {
    match (file, environment) {
        (None, None) => Ok(None),
        (Some(path), None) => Ok(Some(SecretSource::File(dir.join(path)))),
        (None, Some(name)) => {
            let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            // Not repeated: somebody may have written the secret itself here.
            if fine && !name.as_bytes().first().is_some_and(u8::is_ascii_digit) {
                Ok(Some(SecretSource::Environment(name)))
            } else {
                Err(format!("`{what}-env` is not the name of an environment variable"))
            }
        }
        (Some(_), Some(_)) => Err(format!("`{what}-file` and `{what}-env` exclude each other")),
    }
}

/// The file of a URI's `pin-source`.
fn pin_source(text: &str) -> Result<PathBuf, String> {
    let path = text.strip_prefix("file://").or_else(|| text.strip_prefix("file:")).unwrap_or(text);
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err("`pin-source` of the URI is not `file:` and an absolute path; programs are not run".to_owned())
    }
}

impl Table {
    fn place(self, role: Role, dir: &Path) -> Result<Place, String> {
        let passphrase = source("passphrase", dir, self.passphrase_file, self.passphrase_env)?;
        let pin = source("pin", dir, self.pin_file, self.pin_env)?;
        let authorization = source("auth", dir, self.auth_file, self.auth_env)?;
        // What each kind of place takes besides its own name.
        let beside = |kind: &str, [passphrase_fine, module_fine, tcti_fine]: [bool; 3]| {
            for (name, given, fine) in [
                ("passphrase-file` or `passphrase-env", passphrase.is_some(), passphrase_fine),
                ("module", self.module.is_some(), module_fine),
                ("pin-file` or `pin-env", pin.is_some(), module_fine),
                ("tcti", self.tcti.is_some(), tcti_fine),
                ("auth-file` or `auth-env", authorization.is_some(), tcti_fine),
            ] {
                if given && !fine {
                    return Err(format!("`{name}` has no meaning beside `{kind}`"));
                }
            }
            Ok(())
        };
        match (self.file, self.pkcs11, self.tpm) {
            (Some(file), None, None) => {
                beside("file", [true, false, false])?;
                Ok(Place::File { path: dir.join(file), passphrase: passphrase.unwrap_or_default() })
            }
            (None, Some(uri), None) => {
                beside("pkcs11", [false, true, false])?;
                // It may hold a PIN.
                let uri = Zeroizing::new(uri);
                let mut uri: Pkcs11Uri = uri.parse().map_err(|error: KeyError| error.to_string())?;
                if uri.object_type.is_some_and(|class| class != ObjectType::Private) {
                    return Err("the URI's `type` is not `private`".to_owned());
                }
                if uri.object.is_none() && uri.id.is_none() {
                    return Err("the URI names no key: it has neither `object` nor `id`".to_owned());
                }
                let in_uri = match (uri.pin_source.take(), uri.pin_value.take()) {
                    (Some(source), _) => Some(SecretSource::File(pin_source(&source)?)),
                    (None, value) => value.map(SecretSource::Given),
                };
                let pin = match (pin, in_uri) {
                    (Some(_), Some(_)) => {
                        return Err("the PIN is given twice: in the URI and beside it".to_owned());
                    }
                    (pin, in_uri) => pin.or(in_uri).unwrap_or_default(),
                };
                let module = self.module.map(|path| dir.join(path));
                Ok(Place::Pkcs11(Box::new(TokenPlace { uri, module, pin })))
            }
            (None, None, Some(key)) => {
                beside("tpm", [false, false, true])?;
                if !role.is_rsa() {
                    return Err("TPMs have no Ed25519 keys".to_owned());
                }
                let key = match key.strip_prefix("0x").map(|digits| u32::from_str_radix(digits, 16)) {
                    Some(Ok(handle)) if PERSISTENT_HANDLES.contains(&handle) => TpmKey::Handle(handle),
                    Some(_) => {
                        return Err("`tpm` is no persistent handle from 0x81000000 to 0x81ffffff".to_owned());
                    }
                    None => TpmKey::File(dir.join(key)),
                };
                let tcti = self.tcti.unwrap_or_else(|| DEFAULT_TCTI.to_owned());
                Ok(Place::Tpm(TpmPlace { key, tcti, authorization }))
            }
            _ => Err("exactly one of `file`, `pkcs11` and `tpm` is wanted".to_owned()),
        }
    }
}

impl Places {
    /// Reads the text of a `keys.toml`; `dir` is the folder that paths are relative to, `path` the file's name
    /// for errors. Errors tell line and column but never repeat a line: it may hold a PIN.
    pub fn parse(text: &str, dir: &Path, path: &Path) -> Result<Self, KeyError> {
        let malformed = |at: String, why: String| KeyError::Places { path: path.to_owned(), at, why };
        let document: Document = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
            // A value of the wrong type is not repeated: somebody may have written a PIN there.
            let message = error.message();
            let why = match message.split_once(", expected ") {
                Some((_, expected)) if message.starts_with("invalid ") => format!("expected {expected}"),
                _ => message.to_owned(),
            };
            malformed(format!("line {line}, column {column}"), why)
        })?;
        let mut places = BTreeMap::new();
        for (role, raw) in [
            (Role::Pk, document.pk),
            (Role::Kek, document.kek),
            (Role::Db, document.db),
            (Role::Pcr, document.pcr),
            (Role::Channel, document.channel),
            (Role::Configuration, document.configuration),
        ] {
            let place = match raw {
                None => continue,
                Some(Raw::Offline) => Place::Offline,
                Some(Raw::Table(table)) => {
                    table.place(role, dir).map_err(|why| malformed(format!("`{role}`"), why))?
                }
            };
            places.insert(role, place);
        }
        Ok(Self(places))
    }

    /// Reads the `keys.toml` of a folder; no such file names no role. One with a PIN in it must be private.
    pub fn read(dir: &Path) -> Result<Self, KeyError> {
        let path = dir.join(PLACES_FILE);
        let content = match files::read(&path, false) {
            Err(KeyError::Missing(_)) => return Ok(Self::default()),
            content => content?,
        };
        let text = std::str::from_utf8(&content)
            .map_err(|_| KeyError::Malformed { path: path.clone(), wanted: "UTF-8 text" })?;
        let places = Self::parse(text, dir, &path)?;
        let has_pin = |place: &Place| match place {
            Place::Pkcs11(token) => matches!(token.pin, SecretSource::Given(_)),
            _ => false,
        };
        if places.0.values().any(has_pin) {
            files::read(&path, true)?;
        }
        Ok(places)
    }

    /// The place of a role: `ROLE.key` in `dir` if none is named.
    pub fn get(&self, role: Role, dir: &Path) -> Place {
        self.0.get(&role).cloned().unwrap_or_else(|| Place::File {
            path: dir.join(format!("{role}.key")),
            passphrase: SecretSource::Ask,
        })
    }
}

/// A basic string of TOML (TOML 1.0, "String").
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        // Writing to a string does not fail.
        let _ = match c {
            '"' | '\\' => write!(quoted, "\\{c}"),
            c if c.is_control() => write!(quoted, "\\u{:04X}", u32::from(c)),
            c => write!(quoted, "{c}"),
        };
    }
    quoted.push('"');
    quoted
}

/// The line of `keys.toml` that says that a role's key is on a token. A PIN that was given is not written.
pub fn token_line(role: Role, place: &TokenPlace) -> String {
    let mut parts = vec![format!("pkcs11 = {}", quoted(&place.uri.to_string()))];
    if let Some(module) = &place.module {
        parts.push(format!("module = {}", quoted(&module.to_string_lossy())));
    }
    match &place.pin {
        SecretSource::File(path) => parts.push(format!("pin-file = {}", quoted(&path.to_string_lossy()))),
        SecretSource::Environment(name) => parts.push(format!("pin-env = {}", quoted(name))),
        SecretSource::Ask | SecretSource::Given(_) => {}
    }
    format!("{role} = {{ {} }}\n", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    const GOOD: &str = r#"
PK = "offline"
KEK = { file = "/media/safe/KEK.key" }
channel = { file = "channel.key", passphrase-env = "CHANNEL_PASSPHRASE" }

[db]
pkcs11 = "pkcs11:token=ashlar;object=db;type=private"
module = "/usr/lib/softhsm/libsofthsm2.so"
pin-file = "pin"

[pcr]
tpm = "0x81010001"
tcti = "swtpm:host=127.0.0.1,port=2321"
auth-env = "PCR_AUTH"
"#;

    fn parse(text: &str) -> Result<Places, KeyError> {
        Places::parse(text, Path::new("/k"), Path::new("/k/keys.toml"))
    }

    #[test]
    fn every_kind_of_place() {
        let places = parse(GOOD).unwrap();
        let get = |role| places.get(role, Path::new("/k"));
        assert_eq!(get(Role::Pk), Place::Offline);
        let file = |path: &str, passphrase| Place::File { path: path.into(), passphrase };
        assert_eq!(get(Role::Kek), file("/media/safe/KEK.key", SecretSource::Ask));
        assert_eq!(
            get(Role::Channel),
            file("/k/channel.key", SecretSource::Environment("CHANNEL_PASSPHRASE".into()))
        );
        assert_eq!(get(Role::Configuration), file("/k/configuration.key", SecretSource::Ask));
        let Place::Pkcs11(token) = get(Role::Db) else { panic!() };
        assert_eq!(token.uri.object.as_deref(), Some("db"));
        assert_eq!(token.pin, SecretSource::File("/k/pin".into()));
        let Place::Tpm(tpm) = get(Role::Pcr) else { panic!() };
        assert_eq!(tpm.key, TpmKey::Handle(0x8101_0001));
        // What is written is read back.
        let line = token_line(Role::Db, &token);
        assert_eq!(parse(&line).unwrap().get(Role::Db, Path::new("/k")), Place::Pkcs11(token));
    }

    #[test]
    fn errors_name_the_place_and_keep_the_pin() {
        for (text, why) in [
            ("db = \"token\"", "line 1, column 6: the only word here is `offline`"),
            ("\ndbx = 1", "line 2, column 1: unknown field `dbx`"),
            ("db = { file = \"a\", colour = 1 }", "unknown field `colour`"),
            ("db = {}", "`db`: exactly one of"),
            ("db = { file = \"a\", tpm = \"0x81000000\" }", "`db`: exactly one of"),
            ("db = { file = \"a\", pin-env = \"A\" }", "no meaning beside `file`"),
            ("db = { tpm = \"0x80000000\" }", "no persistent handle"),
            ("channel = { tpm = \"0x81000000\" }", "no Ed25519 keys"),
            ("db = { pkcs11 = \"pkcs11:token=a\" }", "names no key"),
            ("db = { pkcs11 = \"pkcs11:object=a;type=cert\" }", "not `private`"),
            ("db = { pkcs11 = \"pkcs11:object=a?pin-source=|cat\" }", "programs are not run"),
            ("db = { pkcs11 = \"pkcs11:object=a?pin-value=1\", pin-env = \"A\" }", "given twice"),
            ("db = { pkcs11 = \"pkcs11:object=a\", pin-env = \"1234\" }", "not the name of an environment"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        let error = parse("db = { pkcs11 = \"pkcs11:object=a?pin-value=987654\", x = 1 }").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("987654"), "{error}");
        let error =
            parse("db = { pkcs11 = \"pkcs11:object=a\", pin-file = 987654 }").unwrap_err().to_string();
        assert!(error.contains("expected") && !error.contains("987654"), "{error}");
        let places = parse("db = { pkcs11 = \"pkcs11:object=a?pin-value=987654\" }").unwrap();
        assert!(!format!("{places:?}").contains("987654"));
    }

    /// A file with a PIN in it is as private as a key.
    #[test]
    fn a_file_with_a_pin_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(PLACES_FILE);
        assert!(Places::read(dir.path()).unwrap().0.is_empty());
        std::fs::write(&path, "db = { pkcs11 = \"pkcs11:object=a\" }").unwrap();
        let mode = |mode| std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        Places::read(dir.path()).unwrap();
        std::fs::write(&path, "db = { pkcs11 = \"pkcs11:object=a?pin-value=1\" }").unwrap();
        assert!(matches!(Places::read(dir.path()), Err(KeyError::Readable(_))));
        mode(0o600);
        Places::read(dir.path()).unwrap();
    }

    proptest! {
        #[test]
        fn changed_text_is_survived(at in 0..GOOD.len(), byte in any::<u8>(), cut in 0..GOOD.len()) {
            let mut text = GOOD.as_bytes().to_vec();
            text[at] = byte;
            let _ = parse(&String::from_utf8_lossy(&text));
            let _ = parse(&String::from_utf8_lossy(&text[..cut]));
        }
    }
}
