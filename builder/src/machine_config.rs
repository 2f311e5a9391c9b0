//! Machine configurations on the owner's side: files read and written, errors with excerpts. What a configuration may
//! say is decided in `ashlar_image::machine`.

use crate::error::{BuildError, exit};
use crate::inspect::read_whole;
use ashlar_formats::disk::{self, PartitionInfo};
use ashlar_image::digest::Digest;
use ashlar_image::dsse;
use ashlar_image::layout::TYPE_STATE;
use ashlar_image::machine::seed::{self, SeedError};
use ashlar_image::machine::{
    self, ConfigError, MAX_ENVELOPE, MAX_TEXT, MachineConfig, PAYLOAD_TYPE, PublicKey, Verified,
};
use ashlar_keys::KeyFolder;
use miette::{Diagnostic, NamedSource, SourceSpan};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a machine configuration was refused.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum MachineConfigError {
    /// The text is wrong.
    #[error("`{}` is no good machine configuration: {} error(s)", file.display(), problems.len())]
    #[diagnostic(help(
        "docs/how-to/machine-configuration.md tells of every key; `ashlar schema machine` is for editors"
    ))]
    Wrong {
        /// The file.
        file: PathBuf,
        /// What is wrong, in the order of the text.
        #[related]
        problems: Vec<Problem>,
    },
    /// The envelope cannot be opened, or somebody else has signed it.
    #[error("`{}`: {why}", file.display())]
    Signed {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: ConfigError,
    },
    /// A file with a public key holds something else.
    #[error("`{}` holds no Ed25519 public key in PEM", .0.display())]
    #[diagnostic(help("give `configuration.pub` of the key folder"))]
    PublicKey(PathBuf),
    /// A configuration that was to replace another does not.
    #[error("`{}`: serial: {new} is not above {old}, the serial of `{}`", file.display(), against.display())]
    #[diagnostic(help(
        "raise `serial`: machines refuse an older configuration, and another one of the same serial"
    ))]
    Serial {
        /// The new configuration.
        file: PathBuf,
        /// The old one.
        against: PathBuf,
        /// Serial of the new one.
        new: u64,
        /// Serial of the old one.
        old: u64,
    },
    /// The disk has no state partition, or one that is too small.
    #[error("`{}` has no state partition of 1 MiB at least", .0.display())]
    #[diagnostic(help("give the raw disk image of a release, `disk.raw`, or the disk of a machine"))]
    NoState(PathBuf),
    /// There is something on the state partition.
    #[error("`{}`: {why}", disk.display())]
    #[diagnostic(help(
        "a seed is for a machine that has never started; give a running one its configuration with `ashlarctl`"
    ))]
    InUse {
        /// The disk.
        disk: PathBuf,
        /// What is there.
        why: SeedError,
    },
}

/// One error of a text, with the place.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("{message}")]
pub struct Problem {
    /// The key; empty for none.
    pub key: String,
    /// Line, from 1; 0 for none.
    pub line: usize,
    /// Column, from 1; 0 for none.
    pub column: usize,
    /// File, place, key and what is wrong.
    message: String,
    /// What is wrong.
    pub what: String,
    /// What was perhaps meant.
    #[help]
    pub help: Option<String>,
    #[source_code]
    text: NamedSource<Arc<String>>,
    #[label("here")]
    span: Option<SourceSpan>,
}

impl Problem {
    fn new(file: &Path, text: &Arc<String>, error: ConfigError) -> Self {
        let name = file.display().to_string();
        let source = NamedSource::new(&name, Arc::clone(text));
        let ConfigError::Text(error) = error else {
            let what = error.to_string();
            let message = format!("{name}: {what}");
            return Self {
                key: error.key().into(),
                line: 0,
                column: 0,
                message,
                what,
                help: None,
                text: source,
                span: None,
            };
        };
        let key = if error.key.is_empty() { String::new() } else { format!("{}: ", error.key) };
        let length = error.span.len().max(1).min(text.len().saturating_sub(error.span.start));
        Self {
            message: format!("{name}, line {}, column {}: {key}{}", error.line, error.column, error.message),
            key: error.key,
            line: error.line,
            column: error.column,
            what: error.message,
            help: error.help,
            text: source,
            span: Some((error.span.start, length).into()),
        }
    }
}

impl MachineConfigError {
    fn wrong(file: &Path, text: &str, errors: Vec<ConfigError>) -> Self {
        let text = Arc::new(text.to_owned());
        let problems = errors.into_iter().map(|error| Problem::new(file, &text, error)).collect();
        Self::Wrong { file: file.to_owned(), problems }
    }

    /// The exit code of the `ashlar` program.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Signed { why: ConfigError::Signature { .. }, .. } | Self::PublicKey(_) => exit::KEYS,
            Self::Wrong { .. } | Self::Signed { .. } | Self::Serial { .. } | Self::NoState(_) => exit::INPUT,
            Self::InUse { .. } => exit::OUTPUT,
        }
    }
}

/// A configuration and where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// The text.
    pub text: String,
    /// What it says.
    pub config: MachineConfig,
    /// Whether a signature was checked: not for a text.
    pub verified: bool,
    /// The signed form; empty for a text.
    pub envelope: Vec<u8>,
}

impl Loaded {
    /// SHA-256 of the text, as measured into PCR 12.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.text)
    }
}

fn parse(path: &Path, bytes: Vec<u8>, verified: bool) -> Result<Loaded, BuildError> {
    let wrong = |text: &str, errors| BuildError::from(MachineConfigError::wrong(path, text, errors));
    let text = String::from_utf8(bytes)
        .map_err(|error| wrong("", vec![ConfigError::NotText(error.utf8_error().valid_up_to())]))?;
    let config = MachineConfig::parse(&text).map_err(|errors| wrong(&text, errors))?;
    Ok(Loaded { text, config, verified, envelope: Vec::new() })
}

/// Reads `machine.toml`.
pub fn read_text(path: &Path) -> Result<Loaded, BuildError> {
    let bytes = read_whole(path, MAX_TEXT as u64, "a machine configuration")?;
    parse(path, bytes, false)
}

/// Reads a signed configuration and verifies it, if there is a key to do that with.
pub fn read_signed(path: &Path, key: Option<&PublicKey>) -> Result<Loaded, BuildError> {
    open_signed(path, &read_whole(path, MAX_ENVELOPE as u64, "a signed machine configuration")?, key)
}

fn open_signed(path: &Path, envelope: &[u8], key: Option<&PublicKey>) -> Result<Loaded, BuildError> {
    let verify = |message: &[u8], signature: &[u8]| key.is_none_or(|key| key.verifies(message, signature));
    let payload = dsse::open(envelope, PAYLOAD_TYPE, MAX_ENVELOPE, &verify).map_err(|error| {
        let why = match (error, key) {
            (dsse::DsseError::Signature, Some(key)) => ConfigError::Signature { key: key.fingerprint() },
            (error, _) => ConfigError::Envelope(error),
        };
        MachineConfigError::Signed { file: path.to_owned(), why }
    })?;
    Ok(Loaded { envelope: envelope.to_vec(), ..parse(path, payload, key.is_some())? })
}

/// Reads either form: what begins with `{` is signed. The signature is not looked at.
pub fn read_either(path: &Path) -> Result<Loaded, BuildError> {
    let bytes = read_whole(path, MAX_ENVELOPE as u64, "a machine configuration")?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        return open_signed(path, &bytes, None);
    }
    parse(path, bytes, false)
}

/// The public half of the owner's configuration key.
pub fn owners_key(keys: &KeyFolder) -> PublicKey {
    PublicKey(keys.configuration().public_key().0)
}

/// Reads a public key in PEM.
pub fn read_key(path: &Path) -> Result<PublicKey, BuildError> {
    let bytes = read_whole(path, 4096, "a public key")?;
    let key = std::str::from_utf8(&bytes).ok().and_then(PublicKey::parse);
    key.ok_or_else(|| MachineConfigError::PublicKey(path.to_owned()).into())
}

/// Signs a text and opens the result as a machine will.
pub fn sign(loaded: &Loaded, path: &Path, keys: &KeyFolder) -> Result<Vec<u8>, BuildError> {
    let key = owners_key(keys);
    let signature = keys.configuration().sign(&machine::payload(&loaded.text))?;
    let envelope = machine::sign(&loaded.text, &key, &signature)?;
    let verified: Result<Verified<_>, _> = machine::verify(&envelope, &key, None);
    verified.map_err(|errors| MachineConfigError::wrong(path, &loaded.text, errors))?;
    Ok(envelope)
}

/// Writes a signed configuration: over an older one, but over nothing else. The file is whole or not there.
pub fn write(path: &Path, envelope: &[u8]) -> Result<(), BuildError> {
    if path.exists() && read_signed(path, None).is_err() {
        return Err(BuildError::Exists(path.to_owned()));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let fail = |error| BuildError::io("write", path, error);
    let mut builder = tempfile::Builder::new();
    // Nothing in it is secret; the umask applies.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let mut file = builder.permissions(permissions).tempfile_in(folder).map_err(fail)?;
    file.write_all(envelope).and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// The state partition of a disk.
fn state_partition(disk: &mut File, path: &Path) -> Result<PartitionInfo, BuildError> {
    let wanted = TYPE_STATE.replace('-', "").to_lowercase();
    let partitions = disk::read(disk)?;
    partitions
        .into_iter()
        .find(|partition| hex::encode(partition.type_guid) == wanted && partition.length >= seed::AREA as u64)
        .ok_or_else(|| MachineConfigError::NoState(path.to_owned()).into())
}

/// Writes a signed configuration to the beginning of a disk's state partition, which has to be blank or to hold an
/// older seed. Returns the byte where it lies on the disk.
pub fn plant(path: &Path, envelope: &[u8]) -> Result<u64, BuildError> {
    let in_use = |why| BuildError::from(MachineConfigError::InUse { disk: path.to_owned(), why });
    let bytes = seed::encode(envelope).map_err(in_use)?;
    let mut disk = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| BuildError::input("open for writing", path, error))?;
    let partition = state_partition(&mut disk, path)?;
    let fail = |error| BuildError::io("write to", path, error);
    let mut area = vec![0; seed::AREA];
    disk.seek(SeekFrom::Start(partition.offset)).and_then(|_| disk.read_exact(&mut area)).map_err(fail)?;
    match seed::decode(&area) {
        // One whose writing was cut off may be written over like a whole one: nothing else begins like that.
        Ok(_) | Err(SeedError::Length(_) | SeedError::Checksum) => {}
        Err(why) => return Err(in_use(why)),
    }
    // Zeros over what the older one had beyond the new one; blank ends stay holes of a sparse file.
    let used = area.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut written = bytes;
    written.resize(written.len().max(used), 0);
    let seeked = disk.seek(SeekFrom::Start(partition.offset));
    seeked.and_then(|_| disk.write_all(&written)).and_then(|()| disk.sync_all()).map_err(fail)?;
    Ok(partition.offset)
}
