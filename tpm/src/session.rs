//! Sessions: what is between us and the TPM cannot read a secret, nor change a command or an answer unseen
//! (part 1, sections 17 to 19 and 21).
//!
//! A session is salted with a secret that only the holder of the storage root key can make out, so that its key is
//! known to nobody between. With the name of that key compared (see [`Srk::open`]), it is known that the holder is the
//! TPM that sealed. All objects here have empty authorisation values, so the session's key is the only one.

use crate::Error;
use crate::command::{Answer, Authorization, Code, Command, attribute};
use crate::crypto::{Direction, Secret, cfb, hmac, hmac_is, kdfa, random, sha256};
use crate::public::algorithm;
use crate::srk::Srk;
use crate::tpm::{Tpm, read_all};
use crate::transport::Transport;
use crate::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

/// `TPM_RH_NULL`: the session is bound to no object (part 2, section 7.4).
const RH_NULL: u32 = 0x4000_0007;
/// Bytes of a nonce: as large as the digest, the most that is allowed.
const NONCE: usize = 32;

/// What a session is for (`TPM_SE`, part 2, section 6.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// Authorisation by HMAC.
    Hmac = 0,
    /// Authorisation by a policy. Being salted it has an HMAC as well.
    Policy = 1,
}

/// A session of the TPM. It lives inside [`Tpm::with_session`].
pub struct Session {
    handle: u32,
    key: Secret,
    nonce_tpm: [u8; NONCE],
    /// The TPM flushed it.
    ended: bool,
}

/// What the session does for one command besides its HMACs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Encrypt the first parameter of the command.
    pub encrypt_command: bool,
    /// Have the first parameter of the answer encrypted.
    pub encrypt_answer: bool,
    /// The session ends with the command, which saves flushing it.
    pub last: bool,
}

impl Use {
    /// HMACs only; the session goes on.
    pub const PLAIN: Self = Self { encrypt_command: false, encrypt_answer: false, last: false };

    const fn attributes(self) -> u8 {
        (if self.last { 0 } else { attribute::CONTINUE })
            | (if self.encrypt_command { attribute::DECRYPT } else { 0 })
            | (if self.encrypt_answer { attribute::ENCRYPT } else { 0 })
    }
}

impl Session {
    /// The handle, for the commands of a policy.
    pub const fn handle(&self) -> u32 {
        self.handle
    }

    /// Adds the authorisation to a command, whose first parameter is encrypted if so wanted. Gives our nonce.
    fn protect(&self, command: &mut Command, how: Use) -> Result<[u8; NONCE], Error> {
        let malformed = |what| Error::Malformed { command: command.code.name(), what };
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        if how.encrypt_command {
            let material = kdfa(&self.key, "CFB", &nonce, &self.nonce_tpm);
            let parameters = command.parameters.as_mut_bytes();
            cfb(Direction::Encrypt, &material, first_parameter(parameters).map_err(malformed)?);
        }
        let code = (command.code as u32).to_be_bytes();
        let mut covered: Vec<&[u8]> = vec![&code];
        covered.extend(command.handles.iter().map(crate::command::Entity::name));
        covered.push(command.parameters.as_bytes());
        let digest = sha256(&covered);
        let attributes = how.attributes();
        let hmac = hmac(&self.key, &[&digest, &nonce, &self.nonce_tpm, &[attributes]]);
        command.authorizations.push(Authorization::Session {
            handle: self.handle,
            nonce: nonce.to_vec(),
            attributes,
            hmac: hmac.to_vec(),
        });
        Ok(nonce)
    }

    /// Checks the HMAC of an answer and gives its parameters in clear.
    fn open(
        &mut self,
        code: Code,
        answer: &Answer<'_>,
        nonce: [u8; NONCE],
        how: Use,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let malformed = |what| Error::Malformed { command: code.name(), what };
        let forged = || Error::Forged { command: code.name() };
        let [acknowledgement] = answer.authorizations.as_slice() else {
            return Err(malformed(WireError::Unexpected("the number of authorisations")));
        };
        let nonce_tpm: [u8; NONCE] = acknowledgement.nonce.try_into().map_err(|_| forged())?;
        // The HMAC does not cover the handle of an answer, so none is taken from here.
        let digest = sha256(&[&0u32.to_be_bytes(), &(code as u32).to_be_bytes(), answer.parameters]);
        let covered: [&[u8]; 4] = [&digest, &nonce_tpm, &nonce, &[acknowledgement.attributes]];
        if !hmac_is(&self.key, &covered, acknowledgement.hmac)
            || acknowledgement.attributes != how.attributes()
        {
            return Err(forged());
        }
        self.nonce_tpm = nonce_tpm;
        self.ended = how.last;
        let mut parameters = Zeroizing::new(answer.parameters.to_vec());
        if how.encrypt_answer {
            let material = kdfa(&self.key, "CFB", &nonce_tpm, &nonce);
            cfb(Direction::Decrypt, &material, first_parameter(&mut parameters).map_err(malformed)?);
        }
        Ok(parameters)
    }
}

/// The bytes of a first parameter that is a sized buffer, without its size.
fn first_parameter(parameters: &mut [u8]) -> Result<&mut [u8], WireError> {
    let ends = WireError::Ends("the first parameter");
    let (size, rest) = parameters.split_first_chunk_mut::<2>().ok_or(ends)?;
    rest.get_mut(..u16::from_be_bytes(*size).into()).ok_or(ends)
}

impl<T: Transport> Tpm<T> {
    /// Runs `body` with a new session, which is flushed on every path.
    pub(crate) fn with_session<R>(
        &mut self,
        kind: SessionKind,
        srk: &Srk,
        body: impl FnOnce(&mut Self, &mut Session) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let mut session = self.start_session(kind, srk)?;
        let result = body(self, &mut session);
        if !session.ended {
            // What `body` says matters more. A session that stays goes when the device is closed.
            let _ = self.flush(session.handle);
        }
        result
    }

    /// `TPM2_StartAuthSession` (part 3, section 11.1), salted for `srk`, with AES-128 in CFB mode for parameters.
    fn start_session(&mut self, kind: SessionKind, srk: &Srk) -> Result<Session, Error> {
        let code = Code::StartAuthSession;
        let malformed = |what| Error::Malformed { command: code.name(), what };
        let salt = srk.point().salt()?;
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let (x, y) = &salt.point;
        let point = Writer::new().sized(x).and_then(|to| to.sized(y)).map_err(malformed)?;
        let parameters = Writer::new()
            .sized(&nonce)
            .and_then(|to| to.sized(point.as_bytes()))
            .map_err(malformed)?
            .u8(kind as u8)
            .u16(algorithm::AES)
            .u16(128)
            .u16(algorithm::CFB)
            .u16(algorithm::SHA256);
        let command = Command::new(code, parameters).on(srk.handle()).on(RH_NULL);
        let (handle, nonce_tpm) = self.run_for_handle(&command, |reader| {
            let nonce = reader.sized(64, "the TPM's nonce")?;
            <[u8; NONCE]>::try_from(nonce).map_err(|_| WireError::Unexpected("the TPM's nonce"))
        })?;
        let key = kdfa(&salt.secret, "ATH", &nonce_tpm, &nonce);
        Ok(Session { handle, key, nonce_tpm, ended: false })
    }

    /// Sends `command`, whose first handle `session` authorises, and gives the checked parameters of the answer to
    /// `read`, which must take them all.
    pub(crate) fn run_in<R>(
        &mut self,
        session: &mut Session,
        mut command: Command,
        how: Use,
        read: impl FnOnce(&mut Reader<'_>) -> Result<R, WireError>,
    ) -> Result<R, Error> {
        let code = command.code;
        let nonce = session.protect(&mut command, how)?;
        let parameters = self.exchange(&command, |answer| session.open(code, answer, nonce, how))?;
        read_all(code, &parameters, read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Acknowledgement;

    fn session() -> Session {
        Session { handle: 0x0300_0000, key: Zeroizing::new([7; 32]), nonce_tpm: [1; NONCE], ended: false }
    }

    #[test]
    fn an_answer_counts_only_with_its_hmac() {
        let how = Use { encrypt_answer: true, ..Use::PLAIN };
        let (nonce, nonce_tpm) = ([2; NONCE], [3; NONCE]);
        let attributes = how.attributes();
        let mut parameters = vec![0, 3, b'a', b'b', b'c'];
        cfb(Direction::Encrypt, &kdfa(&[7; 32], "CFB", &nonce_tpm, &nonce), &mut parameters[2..]);
        let digest = sha256(&[&[0; 4], &0x15eu32.to_be_bytes(), &parameters]);
        let good = hmac(&[7; 32], &[&digest, &nonce_tpm, &nonce, &[attributes]]);
        let answer = |parameters, nonce, attributes, hmac| Answer {
            handle: None,
            parameters,
            authorizations: vec![Acknowledgement { nonce, attributes, hmac }],
        };
        let mut session = session();
        let mut forged = |answer: &Answer<'_>| {
            matches!(session.open(Code::Unseal, answer, nonce, how), Err(Error::Forged { .. }))
        };
        let mut bad = good;
        bad[31] ^= 1;
        assert!(forged(&answer(&parameters, &nonce_tpm, attributes, &bad)));
        assert!(forged(&answer(&parameters, &nonce_tpm, attributes, &good[..31])));
        assert!(forged(&answer(&parameters, &nonce_tpm, attributes, &[])));
        assert!(forged(&answer(&parameters, &nonce_tpm[..31], attributes, &good)));
        assert!(forged(&answer(&parameters, &nonce_tpm, attributes | 2, &good)));
        assert!(forged(&answer(&parameters[..4], &nonce_tpm, attributes, &good)));
        let good = answer(&parameters, &nonce_tpm, attributes, &good);
        assert_eq!(**session.open(Code::Unseal, &good, nonce, how).unwrap(), [0, 3, b'a', b'b', b'c']);
        // The nonces rolled: the same answer to the next command is none.
        assert_eq!(session.nonce_tpm, nonce_tpm);
        assert!(matches!(session.open(Code::Unseal, &good, [4; NONCE], how), Err(Error::Forged { .. })));
    }

    #[test]
    fn a_command_is_encrypted_and_says_so() {
        let session = session();
        let how = Use { encrypt_command: true, ..Use::PLAIN };
        let parameters = Writer::new().sized(b"secret").unwrap().u16(7);
        let mut command = Command::new(Code::Create, parameters).on(0x8100_0001);
        let nonce = session.protect(&mut command, how).unwrap();
        let mut bytes = command.parameters.as_bytes().to_vec();
        assert_ne!(bytes[2..8], *b"secret");
        assert_eq!(bytes[8..], [0, 7]);
        cfb(Direction::Decrypt, &kdfa(&[7; 32], "CFB", &nonce, &[1; NONCE]), &mut bytes[2..8]);
        assert_eq!(bytes[2..8], *b"secret");
        let Some(Authorization::Session { attributes, .. }) = command.authorizations.first() else {
            panic!()
        };
        assert_eq!(*attributes, attribute::CONTINUE | attribute::DECRYPT);
        // No nonce is used twice.
        assert_ne!(nonce, session.protect(&mut command, Use::PLAIN).unwrap());
    }

    #[test]
    fn a_first_parameter_ends_inside_its_parameters() {
        assert!(first_parameter(&mut [0]).is_err());
        assert!(first_parameter(&mut [0, 2, 1]).is_err());
        assert_eq!(first_parameter(&mut [0, 1, 5, 6]).unwrap(), [5]);
    }
}
