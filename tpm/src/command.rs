//! Frames: how a command and its answer are laid out around handles, authorisations and parameters
//! (part 1, section 18; part 2, section 6).

use crate::response::ResponseCode;
use crate::wire::{Reader, WireError, Writer};

/// `TPM_ST_NO_SESSIONS` (part 2, section 6.9).
pub const TAG_NO_SESSIONS: u16 = 0x8001;
/// `TPM_ST_SESSIONS`.
pub const TAG_SESSIONS: u16 = 0x8002;
/// Bytes in the header of a command and of an answer.
pub const HEADER: usize = 10;
/// The largest command or answer in bytes. Every known TPM takes 4096; the kernel's buffer is as large.
pub const MAX_FRAME: usize = 4096;

/// `TPM_RS_PW`: the "session" that is a plain authorisation value (part 2, section 7.4).
const SESSION_PASSWORD: u32 = 0x4000_0009;

/// Command codes (part 2, section 6.5.2) and their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    /// Runs the self-test.
    SelfTest = 0x0143,
    /// Starts the TPM.
    Startup = 0x0144,
    /// Tells the TPM that power may go.
    Shutdown = 0x0145,
    /// Reads properties.
    GetCapability = 0x017a,
    /// Random bytes.
    GetRandom = 0x017b,
    /// Reads PCRs.
    PcrRead = 0x017e,
    /// Extends a PCR.
    PcrExtend = 0x0182,
}

impl Code {
    /// The name in part 3 of the specification.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SelfTest => "TPM2_SelfTest",
            Self::Startup => "TPM2_Startup",
            Self::Shutdown => "TPM2_Shutdown",
            Self::GetCapability => "TPM2_GetCapability",
            Self::GetRandom => "TPM2_GetRandom",
            Self::PcrRead => "TPM2_PCR_Read",
            Self::PcrExtend => "TPM2_PCR_Extend",
        }
    }
}

/// One entry of a command's authorisation area (`TPMS_AUTH_COMMAND`, part 2, section 10.13.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// An authorisation value, in clear; empty for PCRs.
    Password(Vec<u8>),
}

impl Authorization {
    fn write(&self, to: Writer) -> Result<Writer, WireError> {
        match self {
            // Nonce empty, no attributes.
            Self::Password(value) => to.u32(SESSION_PASSWORD).u16(0).u8(0).sized(value),
        }
    }
}

/// A command, ready to be framed.
#[derive(Debug, Clone)]
pub struct Command {
    /// Which.
    pub code: Code,
    /// Handles.
    pub handles: Vec<u32>,
    /// Authorisations, one for each handle that needs one.
    pub authorizations: Vec<Authorization>,
    /// Marshalled parameters.
    pub parameters: Writer,
}

impl Command {
    /// A command without handles.
    pub const fn new(code: Code, parameters: Writer) -> Self {
        Self { code, handles: Vec::new(), authorizations: Vec::new(), parameters }
    }

    /// The frame.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut body = Writer::new();
        for handle in &self.handles {
            body = body.u32(*handle);
        }
        let mut tag = TAG_NO_SESSIONS;
        if !self.authorizations.is_empty() {
            tag = TAG_SESSIONS;
            let mut area = Writer::new();
            for authorization in &self.authorizations {
                area = authorization.write(area)?;
            }
            let area = area.into_bytes();
            body = body.u32(bounded(area.len())?).bytes(&area);
        }
        let body = body.bytes(&self.parameters.clone().into_bytes()).into_bytes();
        let size = bounded(body.len().saturating_add(HEADER))?;
        Ok(Writer::new().u16(tag).u32(size).u32(self.code as u32).bytes(&body).into_bytes())
    }
}

fn bounded(length: usize) -> Result<u32, WireError> {
    u32::try_from(length).ok().filter(|l| *l as usize <= MAX_FRAME).ok_or(WireError::TooLarge {
        field: "the command's size",
        value: length as u64,
        limit: MAX_FRAME as u64,
    })
}

/// A frame taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response<'a> {
    /// Success, with the parameters.
    Success(&'a [u8]),
    /// A code other than `TPM_RC_SUCCESS`.
    Failure(ResponseCode),
}

/// The size that a header of an answer announces, checked against [`HEADER`] and [`MAX_FRAME`].
pub fn announced_size(header: [u8; HEADER]) -> Result<usize, WireError> {
    let size = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
    match usize::try_from(size) {
        Ok(size) if (HEADER..=MAX_FRAME).contains(&size) => Ok(size),
        _ => Err(WireError::TooLarge {
            field: "the answer's size",
            value: size.into(),
            limit: MAX_FRAME as u64,
        }),
    }
}

/// Takes the answer to `command` apart.
pub fn decode<'a>(command: &Command, frame: &'a [u8]) -> Result<Response<'a>, WireError> {
    let mut reader = Reader::new(frame);
    let tag = reader.u16("the tag")?;
    let size = reader.u32("the size")?;
    let code = reader.u32("the response code")?;
    if usize::try_from(size) != Ok(frame.len()) {
        return Err(WireError::Unexpected("the size"));
    }
    if code != 0 {
        return Ok(Response::Failure(ResponseCode(code)));
    }
    let sessions = !command.authorizations.is_empty();
    if tag != if sessions { TAG_SESSIONS } else { TAG_NO_SESSIONS } {
        return Err(WireError::Unexpected("the tag"));
    }
    // No command so far has a handle in its answer, so the parameters follow at once.
    if !sessions {
        return Ok(Response::Success(reader.rest()));
    }
    let length = reader.count(MAX_FRAME as u32, "the size of the parameters")?;
    let parameters = reader.take(length as usize, "the parameters")?;
    for Authorization::Password(_) in &command.authorizations {
        // The answer to a password has an empty nonce, one byte of attributes and an empty HMAC.
        if !reader.sized(64, "the nonce")?.is_empty() {
            return Err(WireError::Unexpected("the nonce"));
        }
        reader.u8("the session attributes")?;
        if !reader.sized(64, "the HMAC")?.is_empty() {
            return Err(WireError::Unexpected("the HMAC"));
        }
    }
    reader.end()?;
    Ok(Response::Success(parameters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_extend_is_laid_out_as_in_the_specification() {
        let command = Command {
            code: Code::PcrExtend,
            handles: vec![11],
            authorizations: vec![Authorization::Password(Vec::new())],
            parameters: Writer::new().u32(1).u16(0x000b).bytes(&[0xaa; 32]),
        };
        let wanted = format!(
            "8002 00000041 00000182 0000000b 00000009 40000009 0000 00 0000 00000001 000b {}",
            "aa".repeat(32)
        );
        assert_eq!(hex::encode(command.encode().unwrap()), wanted.replace(' ', ""));
    }

    #[test]
    fn an_oversized_command_is_refused() {
        let command = Command::new(Code::GetRandom, Writer::new().bytes(&[0; MAX_FRAME]));
        assert!(matches!(command.encode(), Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn sizes_in_a_header_are_bounded() {
        let header = |size: u32| {
            let mut header = [0; HEADER];
            header[2..6].copy_from_slice(&size.to_be_bytes());
            header
        };
        assert_eq!(announced_size(header(10)), Ok(10));
        assert_eq!(announced_size(header(4096)), Ok(4096));
        assert!(announced_size(header(9)).is_err());
        assert!(announced_size(header(u32::MAX)).is_err());
    }

    proptest! {
        #[test]
        fn no_answer_makes_decoding_fail_badly(frame: Vec<u8>, sessions: bool) {
            let mut command = Command::new(Code::PcrExtend, Writer::new());
            if sessions {
                command.authorizations.push(Authorization::Password(Vec::new()));
            }
            let _ = decode(&command, &frame);
        }
    }
}
