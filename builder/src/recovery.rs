//! The recovery key of a machine's state volume, out of its disk, for who has the owner's private key.

use crate::error::BuildError;
use ashlar_formats::disk;
use ashlar_image::layout::TYPE_STATE;
use ashlar_keys::access::Secret;
use ashlar_keys::{KeyError, KeyFolder, folder, recovery};
use ashlar_state::{Found, luks};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Why no recovery key came out.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum RecoveryError {
    /// There is no state volume.
    #[error("`{}` has no state volume: {why}", path.display())]
    #[diagnostic(help("give the machine's disk, an image of it, or an image of its state partition"))]
    NoVolume {
        /// The disk.
        path: PathBuf,
        /// What was found instead.
        why: String,
    },
    /// The volume has no encrypted recovery key.
    #[error("the state volume on `{}` has no recovery key for an owner", .0.display())]
    #[diagnostic(help(
        "its image was built with a key folder without `recovery.pub`: the key was shown on the console at the first start"
    ))]
    NotEscrowed(PathBuf),
}

/// Decrypts the recovery key of the state volume on `path`: a disk, or the state partition alone.
pub fn recovery_key(
    keys: &KeyFolder,
    path: &Path,
    passphrase: impl FnOnce(&Path) -> Result<Secret, KeyError>,
) -> Result<Zeroizing<String>, BuildError> {
    let no_volume = |why: String| BuildError::from(RecoveryError::NoVolume { path: path.to_owned(), why });
    let fail = |error| BuildError::input("read", path, error);
    let mut file = File::open(path).map_err(fail)?;
    let wanted = TYPE_STATE.replace('-', "").to_lowercase();
    let partitions = disk::read(&mut file).unwrap_or_default();
    let found = partitions.into_iter().find(|partition| hex::encode(partition.type_guid) == wanted);
    let (offset, size) = match found {
        Some(partition) => (partition.offset, partition.length),
        None => (0, file.seek(SeekFrom::End(0)).map_err(fail)?),
    };
    let mut start = Vec::new();
    file.seek(SeekFrom::Start(offset)).map_err(fail)?;
    (&file).take(size.min(luks::START_SIZE as u64)).read_to_end(&mut start).map_err(fail)?;
    let header = match luks::parse(&start, size) {
        Ok(Found::Volume(header)) => header,
        Ok(Found::Blank | Found::Seed(_) | Found::Unfinished) => {
            return Err(no_volume("none was made yet".into()));
        }
        Ok(Found::Foreign(what)) => return Err(no_volume(what.into())),
        Err(error) => return Err(no_volume(error.to_string())),
    };
    let escrowed = header.recovery().ok_or_else(|| RecoveryError::NotEscrowed(path.to_owned()))?;
    Ok(recovery::decrypt(&keys.path().join(folder::RECOVERY_KEY), &escrowed.ciphertext, passphrase)?)
}
