//! Bytes beside the length and the hashes that were signed.

use crate::error::TufError;
use crate::metadata::TargetFile;
use sha2::{Digest as _, Sha256, Sha512};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// One running hash.
#[derive(Debug, Clone)]
enum Hash {
    Sha256(Box<Sha256>),
    Sha512(Box<Sha512>),
}

/// All hashes of one file. Each of them must fit, and one that is not known fits nothing.
#[derive(Debug, Clone)]
struct Hashes(Vec<(String, Hash, Vec<u8>)>);

impl Hashes {
    fn new(what: &str, hashes: &BTreeMap<String, Vec<u8>>) -> Result<Self, TufError> {
        hashes
            .iter()
            .map(|(name, value)| {
                let hash = match name.as_str() {
                    "sha256" => Hash::Sha256(Box::default()),
                    "sha512" => Hash::Sha512(Box::default()),
                    other => {
                        let reason =
                            format!("its hash `{}` is not one that is known here", other.escape_debug());
                        return Err(TufError::Differs { what: what.to_owned(), reason });
                    }
                };
                Ok((name.clone(), hash, value.clone()))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    fn update(&mut self, bytes: &[u8]) {
        for (_, hash, _) in &mut self.0 {
            match hash {
                Hash::Sha256(hash) => hash.update(bytes),
                Hash::Sha512(hash) => hash.update(bytes),
            }
        }
    }

    fn check(self) -> Result<(), String> {
        for (name, hash, wanted) in self.0 {
            let found = match hash {
                Hash::Sha256(hash) => hash.finalize().to_vec(),
                Hash::Sha512(hash) => hash.finalize().to_vec(),
            };
            if found != wanted {
                return Err(format!("its {name} is {}, not {}", hex::encode(found), hex::encode(wanted)));
            }
        }
        Ok(())
    }
}

/// Checks bytes that are all there.
pub(crate) fn check_bytes(
    what: &str,
    length: Option<u64>,
    hashes: &BTreeMap<String, Vec<u8>>,
    bytes: &[u8],
) -> Result<(), TufError> {
    let differs = |reason| TufError::Differs { what: what.to_owned(), reason };
    if let Some(length) = length
        && length != bytes.len() as u64
    {
        return Err(differs(format!("it has {} bytes, not {length}", bytes.len())));
    }
    let mut running = Hashes::new(what, hashes)?;
    running.update(bytes);
    running.check().map_err(differs)
}

/// A target while it arrives. Its last bytes are given out only when all of it is what was signed: who reads to the end
/// without an error has the target.
pub struct Verified {
    what: String,
    reader: Box<dyn Read + Send>,
    left: u64,
    hashes: Option<Hashes>,
    refused: bool,
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verified").field("what", &self.what).field("left", &self.left).finish_non_exhaustive()
    }
}

impl Verified {
    pub(crate) fn new(
        name: &str,
        target: &TargetFile,
        reader: Box<dyn Read + Send>,
    ) -> Result<Self, TufError> {
        let what = format!("the target `{}`", name.escape_debug());
        let hashes = Hashes::new(&what, &target.hashes)?;
        Ok(Self { what, reader, left: target.length, hashes: Some(hashes), refused: false })
    }

    fn refuse(&mut self, reason: impl std::fmt::Display) -> io::Error {
        self.refused = true;
        io::Error::new(io::ErrorKind::InvalidData, format!("{} is not what was signed: {reason}", self.what))
    }

    /// Judges the whole, when all of it is there.
    fn judge(&mut self) -> io::Result<()> {
        if self.reader.read(&mut [0])? > 0 {
            return Err(self.refuse("it is longer"));
        }
        match self.hashes.take().map(Hashes::check) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(reason)) => Err(self.refuse(reason)),
        }
    }
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.refused {
            return Err(self.refuse("it was refused before"));
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            // An empty target is judged here, any other with its last byte.
            return self.judge().map(|()| 0);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..most).unwrap_or_default();
        let read = self.reader.read(part)?;
        if read == 0 {
            let left = self.left;
            return Err(self.refuse(format_args!("{left} bytes are missing")));
        }
        if let Some(hashes) = &mut self.hashes {
            hashes.update(part.get(..read).unwrap_or_default());
        }
        self.left = self.left.saturating_sub(read as u64);
        if self.left == 0 {
            self.judge()?;
        }
        Ok(read)
    }
}
