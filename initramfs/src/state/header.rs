//! The volume's header in the words of this crate: sealed copies of the key, the escrowed recovery key, whether there is a
//! file system.

use super::choice::Copy;
use super::fill_random;
use super::sealing::SealedCopy;
use crate::error::Error;
use ashlar_image::digest::Digest;
use ashlar_state::luks;
use ashlar_state::{
    Filesystem, Found, Header, Params, RecoveryKey, RecoveryToken, StateToken, Token, Tpm2Token, Uuid,
    VolumeKey,
};
use std::fs::File;

/// Label of the volume.
const LABEL: &str = "ashlar-state";
/// Size in bytes of a unit of encryption: that of the file system's blocks.
const SECTOR_SIZE: u32 = 4096;

/// The sealed copies that can be read; one that cannot is none.
pub fn copies(header: &Header) -> Vec<SealedCopy> {
    header
        .tpm2()
        .filter_map(|token| {
            Some(SealedCopy {
                copy: Copy { generation: token.generation, counter: token.counter },
                srk: token.srk_name.clone(),
                owner: hex::decode(&token.pcr_key).ok()?.try_into().ok()?,
                sealed: joined(&token.public, &token.private)?,
            })
        })
        .collect()
}

/// The object as the TPM crate has it: each area behind its size (`TPM2B`, TPM 2.0 Library Specification, part 2,
/// section 10.4.2).
fn joined(public: &[u8], private: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(public.len() + private.len() + 4);
    for area in [public, private] {
        bytes.extend(u16::try_from(area.len()).ok()?.to_be_bytes());
        bytes.extend(area);
    }
    Some(bytes)
}

/// The two areas of an object; empty ones where it is none.
fn parted(object: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let area = |bytes: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
        let (size, rest) = bytes.split_first_chunk::<2>()?;
        let (area, rest) = rest.split_at_checked(u16::from_be_bytes(*size).into())?;
        Some((area.to_vec(), rest.to_vec()))
    };
    let parts = || {
        let (public, rest) = area(object)?;
        Some((public, area(&rest)?.0))
    };
    parts().unwrap_or_default()
}

fn token(copy: &SealedCopy) -> Token {
    let (public, private) = parted(&copy.sealed);
    Tpm2Token {
        generation: copy.copy.generation,
        counter: copy.copy.counter,
        srk_name: copy.srk.clone(),
        public,
        private,
        pcr_key: hex::encode(copy.owner),
    }
    .into()
}

/// Writes a new volume with one sealed copy. `escrow` is the encrypted recovery key and the key that it is encrypted to.
pub fn format(
    file: &mut File,
    key: &VolumeKey,
    recovery_key: &RecoveryKey,
    copy: &SealedCopy,
    escrow: Option<(&[u8], &str)>,
) -> Result<Header, Error> {
    let mut uuid = [0; 16];
    fill_random(&mut uuid).map_err(Error::io("read", "random numbers"))?;
    let mut tokens = vec![token(copy), StateToken { filesystem: Filesystem::Pending }.into()];
    if let Some((ciphertext, pem)) = escrow {
        let key = Digest::of(pem).to_string();
        tokens.push(RecoveryToken { ciphertext: ciphertext.to_vec(), key }.into());
    }
    let params = Params {
        volume_key: key,
        recovery_key,
        uuid: Uuid::from_random(uuid),
        label: LABEL,
        sector_size: SECTOR_SIZE,
        tokens,
    };
    luks::format(file, &params, &mut fill_random).map_err(Error::StateHeader)
}

/// Writes the header with these sealed copies instead of those that it has.
pub fn replace_copies(file: &mut File, header: &Header, copies: &[SealedCopy]) -> Result<Header, Error> {
    let others = header.tokens().into_iter().filter(|token| !matches!(token, Token::Tpm2(_)));
    write(file, header, others.chain(copies.iter().map(token)).collect())
}

/// Writes down that the volume has its file system.
pub fn file_system_is_ready(file: &mut File) -> Result<(), Error> {
    let Found::Volume(header) = luks::read(file).map_err(Error::StateHeader)? else {
        return Err(Error::StateHeader(ashlar_state::Error::Changed));
    };
    let others = header.tokens().into_iter().filter(|token| !matches!(token, Token::State(_)));
    let ready = Token::from(StateToken { filesystem: Filesystem::Ready });
    write(file, &header, others.chain([ready]).collect()).map(|_| ())
}

/// Writes a header whose copies are not both whole.
pub fn repair(file: &mut File, header: &Header) -> Result<Header, Error> {
    write(file, header, header.tokens())
}

fn write(file: &mut File, header: &Header, tokens: Vec<Token>) -> Result<Header, Error> {
    header
        .with_tokens(tokens)
        .and_then(|header| header.write_update(file, &mut fill_random))
        .map_err(Error::StateHeader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_parted_and_joined() {
        let object = [0, 2, 1, 2, 0, 3, 7, 8, 9];
        let (public, private) = parted(&object);
        assert_eq!((public.as_slice(), private.as_slice()), (&[1, 2][..], &[7, 8, 9][..]));
        assert_eq!(joined(&public, &private).unwrap(), object);
        assert_eq!(parted(&object[..8]), Default::default());
    }
}
