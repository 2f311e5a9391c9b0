//! The four kinds of metadata (TUF specification, section 4).

use crate::error::{Role, TufError};
use crate::json::{canonical, parse};
use crate::key::{KeyId, PublicKey, malformed};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Most signatures that are looked at.
const MAX_SIGNATURES: usize = 256;
/// Most keys, roles and key ids in one list.
const MAX_KEYS: usize = 1024;

/// A version of metadata: 1 or more.
pub type Version = u64;

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Name of the key.
    pub key: KeyId,
    /// The signature; empty where a key has not signed yet.
    pub value: Vec<u8>,
}

/// Whose signatures a role needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleKeys {
    /// Names of keys.
    pub ids: Vec<KeyId>,
    /// How many different keys must have signed.
    pub threshold: u32,
}

impl RoleKeys {
    /// Counts the keys of this role with a good signature over `message`: a key counts once, whatever its names.
    pub(crate) fn check(
        &self,
        role: &Role,
        keys: &BTreeMap<KeyId, PublicKey>,
        message: &[u8],
        signatures: &[Signature],
    ) -> Result<(), TufError> {
        let mut good = BTreeSet::new();
        for signature in signatures {
            if !self.ids.contains(&signature.key) {
                continue;
            }
            if let Some(key) = keys.get(&signature.key)
                && !good.contains(key)
                && key.verifies(message, &signature.value)
            {
                good.insert(key);
            }
        }
        if good.len() < self.threshold as usize {
            return Err(TufError::Threshold {
                role: role.clone(),
                valid: good.len(),
                threshold: self.threshold,
            });
        }
        Ok(())
    }
}

/// Length, hashes and version of a metadata file; the first two are optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMeta {
    /// Version.
    pub version: Version,
    /// Length in bytes.
    pub length: Option<u64>,
    /// Hashes: algorithm and value.
    pub hashes: BTreeMap<String, Vec<u8>>,
}

/// A target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetFile {
    /// Length in bytes.
    pub length: u64,
    /// Hashes: algorithm and value; one at least.
    pub hashes: BTreeMap<String, Vec<u8>>,
    /// What the repository says more about it.
    pub custom: Option<Value>,
}

/// Root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// Version.
    pub version: Version,
    /// When it expires, seconds since 1970.
    pub expires: i64,
    /// Whether files have their version or hash in front of their names.
    pub consistent_snapshot: bool,
    /// All keys.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Keys of the four roles, by name.
    pub roles: BTreeMap<String, RoleKeys>,
}

/// Timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timestamp {
    /// Version.
    pub version: Version,
    /// When it expires, seconds since 1970.
    pub expires: i64,
    /// The snapshot that is current.
    pub snapshot: FileMeta,
}

/// Snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Version.
    pub version: Version,
    /// When it expires, seconds since 1970.
    pub expires: i64,
    /// Targets roles by file name: `targets.json`.
    pub meta: BTreeMap<String, FileMeta>,
}

/// A role that another delegates to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelegatedRole {
    /// Its name.
    pub name: String,
    /// Whose signatures it needs.
    pub keys: RoleKeys,
    /// Patterns of target names.
    pub paths: Vec<String>,
    /// First digits of the SHA-256 of target names.
    pub path_hash_prefixes: Vec<String>,
    /// Whether the search ends with it.
    pub terminating: bool,
}

/// Delegations of a targets role.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Delegations {
    /// Keys of the delegated roles.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Roles in the order in which they are searched.
    pub roles: Vec<DelegatedRole>,
}

/// Targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Version.
    pub version: Version,
    /// When it expires, seconds since 1970.
    pub expires: i64,
    /// Targets by name.
    pub targets: BTreeMap<String, TargetFile>,
    /// Roles below.
    pub delegations: Delegations,
}

/// Metadata as it came: what was signed, and by whom it says so. Nothing of it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata<T> {
    /// The content.
    pub signed: T,
    /// The canonical form of the content, which is signed.
    pub message: Vec<u8>,
    /// The content as it came, with all that this client does not know.
    pub raw: Value,
    /// Signatures.
    pub signatures: Vec<Signature>,
}

/// A kind of metadata; only those of this crate.
pub trait Kind: Sized + Debug {
    /// `_type`.
    const TYPE: &'static str;

    /// Reads `signed`.
    fn read(signed: &Value) -> Result<Self, String>;
    /// When it expires, seconds since 1970.
    fn expires(&self) -> i64;
}

impl<T: Kind> Metadata<T> {
    /// Reads metadata of `role`.
    pub(crate) fn parse(role: &Role, bytes: &[u8]) -> Result<Self, TufError> {
        let fail = malformed(role);
        let value = parse(bytes).map_err(&fail)?;
        let signed = value.get("signed").ok_or_else(|| fail("it has no `signed`".into()))?;
        let kind = text(signed, "_type").map_err(&fail)?;
        if kind != T::TYPE {
            return Err(TufError::WrongType { role: role.clone(), found: kind.escape_debug().to_string() });
        }
        let spec = text(signed, "spec_version").map_err(&fail)?;
        if spec.split('.').next() != Some("1") || !spec.contains('.') {
            return Err(fail(format!(
                "it follows version `{}` of the specification, not 1",
                spec.escape_debug()
            )));
        }
        let signatures = signatures(&value).map_err(&fail)?;
        let message = canonical(signed).map_err(&fail)?;
        Ok(Self { signed: T::read(signed).map_err(&fail)?, message, raw: signed.clone(), signatures })
    }
}

fn signatures(value: &Value) -> Result<Vec<Signature>, String> {
    let list = value.get("signatures").and_then(Value::as_array).ok_or("it has no `signatures`")?;
    if list.len() > MAX_SIGNATURES {
        return Err(format!("it has more than {MAX_SIGNATURES} signatures"));
    }
    let mut signatures: Vec<Signature> = Vec::new();
    for entry in list {
        let key = text(entry, "keyid")?.to_owned();
        if signatures.iter().any(|other| other.key == key) {
            return Err(format!("it has two signatures of the key `{}`", key.escape_debug()));
        }
        let value = hex::decode(text(entry, "sig")?).map_err(|_| "a signature is not hexadecimal")?;
        signatures.push(Signature { key, value });
    }
    Ok(signatures)
}

fn text<'a>(value: &'a Value, name: &str) -> Result<&'a str, String> {
    value.get(name).and_then(Value::as_str).ok_or_else(|| format!("it has no text `{name}`"))
}

fn number(value: &Value, name: &str) -> Result<u64, String> {
    value.get(name).and_then(Value::as_u64).ok_or_else(|| format!("it has no whole number `{name}`"))
}

fn version(value: &Value) -> Result<Version, String> {
    match number(value, "version")? {
        0 => Err("its version is 0".into()),
        version => Ok(version),
    }
}

fn object<'a>(value: &'a Value, name: &str) -> Result<&'a serde_json::Map<String, Value>, String> {
    value.get(name).and_then(Value::as_object).ok_or_else(|| format!("it has no table `{name}`"))
}

fn texts(value: &Value, name: &str) -> Result<Vec<String>, String> {
    let list = value.get(name).and_then(Value::as_array).ok_or_else(|| format!("it has no list `{name}`"))?;
    list.iter()
        .map(|entry| {
            entry.as_str().map(str::to_owned).ok_or_else(|| format!("`{name}` holds what is no text"))
        })
        .collect()
}

fn expires(value: &Value) -> Result<i64, String> {
    let text = text(value, "expires")?;
    if !text.ends_with('Z') {
        return Err(format!("`{}` is no time in UTC", text.escape_debug()));
    }
    let time = OffsetDateTime::parse(text, &Rfc3339);
    time.map(OffsetDateTime::unix_timestamp).map_err(|_| format!("`{}` is no time", text.escape_debug()))
}

/// Seconds since 1970 as RFC 3339.
pub(crate) fn show_time(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{seconds} s after 1970"))
}

fn role_keys(value: &Value) -> Result<RoleKeys, String> {
    let ids = texts(value, "keyids")?;
    let threshold = u32::try_from(number(value, "threshold")?).map_err(|_| "a threshold is too large")?;
    if threshold == 0 {
        return Err("a threshold is 0".into());
    }
    if ids.len() > MAX_KEYS {
        return Err(format!("a role has more than {MAX_KEYS} keys"));
    }
    if ids.iter().collect::<BTreeSet<_>>().len() != ids.len() {
        return Err("a role names a key twice".into());
    }
    Ok(RoleKeys { ids, threshold })
}

fn keys(value: &Value) -> Result<BTreeMap<KeyId, PublicKey>, String> {
    let map = object(value, "keys")?;
    if map.len() > MAX_KEYS {
        return Err(format!("there are more than {MAX_KEYS} keys"));
    }
    map.iter().map(|(id, key)| Ok((id.clone(), PublicKey::from_json(key)?))).collect()
}

fn hashes(value: &Value) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let map = value.as_object().filter(|map| !map.is_empty()).ok_or("`hashes` is no table or is empty")?;
    map.iter()
        .map(|(name, value)| {
            let value =
                value.as_str().and_then(|text| hex::decode(text).ok()).ok_or("a hash is not hexadecimal")?;
            Ok((name.clone(), value))
        })
        .collect()
}

fn file_meta(value: &Value) -> Result<FileMeta, String> {
    let length = match value.get("length") {
        None => None,
        Some(length) => Some(length.as_u64().ok_or("a length is no whole number")?),
    };
    let hashes = value.get("hashes").map(hashes).transpose()?.unwrap_or_default();
    Ok(FileMeta { version: version(value)?, length, hashes })
}

impl Kind for Root {
    const TYPE: &'static str = "root";

    fn read(signed: &Value) -> Result<Self, String> {
        let table = object(signed, "roles")?;
        let mut roles = BTreeMap::new();
        for name in ["root", "timestamp", "snapshot", "targets"] {
            let role = table.get(name).ok_or_else(|| format!("it names no keys for {name}"))?;
            roles.insert(name.to_owned(), role_keys(role)?);
        }
        let consistent_snapshot = match signed.get("consistent_snapshot") {
            None => false,
            Some(value) => value.as_bool().ok_or("`consistent_snapshot` is not true or false")?,
        };
        Ok(Self {
            version: version(signed)?,
            expires: expires(signed)?,
            consistent_snapshot,
            keys: keys(signed)?,
            roles,
        })
    }

    fn expires(&self) -> i64 {
        self.expires
    }
}

impl Root {
    /// Whose signatures a top role needs.
    pub(crate) fn check(
        &self,
        role: &Role,
        message: &[u8],
        signatures: &[Signature],
    ) -> Result<(), TufError> {
        let keys = self.roles.get(role.name()).ok_or_else(|| TufError::NotListed(role.clone()))?;
        keys.check(role, &self.keys, message, signatures)
    }
}

impl Kind for Timestamp {
    const TYPE: &'static str = "timestamp";

    fn read(signed: &Value) -> Result<Self, String> {
        let meta = object(signed, "meta")?;
        let snapshot = meta.get("snapshot.json").ok_or("it does not list snapshot.json")?;
        Ok(Self { version: version(signed)?, expires: expires(signed)?, snapshot: file_meta(snapshot)? })
    }

    fn expires(&self) -> i64 {
        self.expires
    }
}

impl Kind for Snapshot {
    const TYPE: &'static str = "snapshot";

    fn read(signed: &Value) -> Result<Self, String> {
        let meta = object(signed, "meta")?;
        let meta = meta
            .iter()
            .map(|(name, value)| Ok((name.clone(), file_meta(value)?)))
            .collect::<Result<_, String>>()?;
        Ok(Self { version: version(signed)?, expires: expires(signed)?, meta })
    }

    fn expires(&self) -> i64 {
        self.expires
    }
}

impl Kind for Targets {
    const TYPE: &'static str = "targets";

    fn read(signed: &Value) -> Result<Self, String> {
        let targets = object(signed, "targets")?
            .iter()
            .map(|(name, value)| {
                let hashes = hashes(value.get("hashes").ok_or("a target has no hashes")?)?;
                let custom = value.get("custom").cloned();
                Ok((name.clone(), TargetFile { length: number(value, "length")?, hashes, custom }))
            })
            .collect::<Result<_, String>>()?;
        let delegations = signed.get("delegations").map(delegations).transpose()?.unwrap_or_default();
        Ok(Self { version: version(signed)?, expires: expires(signed)?, targets, delegations })
    }

    fn expires(&self) -> i64 {
        self.expires
    }
}

fn delegations(value: &Value) -> Result<Delegations, String> {
    if value.get("succinct_roles").is_some() {
        return Err("succinct delegations are not supported".into());
    }
    let list = value.get("roles").and_then(Value::as_array).ok_or("delegations have no list `roles`")?;
    if list.len() > MAX_KEYS {
        return Err(format!("there are more than {MAX_KEYS} delegated roles"));
    }
    let mut roles: Vec<DelegatedRole> = Vec::new();
    for entry in list {
        let name = text(entry, "name")?.to_owned();
        if matches!(name.as_str(), "" | "root" | "timestamp" | "snapshot" | "targets")
            || roles.iter().any(|role| role.name == name)
        {
            return Err(format!("`{}` cannot be the name of a delegated role", name.escape_debug()));
        }
        let list = |name: &str| if entry.get(name).is_some() { texts(entry, name) } else { Ok(Vec::new()) };
        let (paths, path_hash_prefixes) = (list("paths")?, list("path_hash_prefixes")?);
        if entry.get("paths").is_some() == entry.get("path_hash_prefixes").is_some() {
            return Err("a delegation has both or none of `paths` and `path_hash_prefixes`".into());
        }
        let terminating =
            entry.get("terminating").and_then(Value::as_bool).ok_or("a delegation has no `terminating`")?;
        roles.push(DelegatedRole { name, keys: role_keys(entry)?, paths, path_hash_prefixes, terminating });
    }
    Ok(Delegations { keys: keys(value)?, roles })
}
