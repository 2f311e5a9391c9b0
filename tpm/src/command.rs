//! Frames: how a command and its answer are laid out around handles, authorisations and parameters
//! (part 1, section 18; part 2, section 6).

use crate::public::Name;
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

/// Declares [`Code`] with the names of part 3.
macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// Command codes (part 2, section 6.5.2) and their names.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Code { $($(#[$doc])* $variant = $code,)* }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in part 3 of the specification.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

codes! {
    /// Makes an object persistent, or removes it.
    EvictControl = 0x0120, "TPM2_EvictControl";
    /// Removes an NV index.
    NvUndefineSpace = 0x0122, "TPM2_NV_UndefineSpace";
    /// Clears the owner's hierarchy.
    Clear = 0x0126, "TPM2_Clear";
    /// Changes the authorisation of a hierarchy.
    HierarchyChangeAuth = 0x0129, "TPM2_HierarchyChangeAuth";
    /// Defines an NV index.
    NvDefineSpace = 0x012a, "TPM2_NV_DefineSpace";
    /// Makes a primary object.
    CreatePrimary = 0x0131, "TPM2_CreatePrimary";
    /// Increments an NV counter.
    NvIncrement = 0x0134, "TPM2_NV_Increment";
    /// Runs the self-test.
    SelfTest = 0x0143, "TPM2_SelfTest";
    /// Starts the TPM.
    Startup = 0x0144, "TPM2_Startup";
    /// Tells the TPM that power may go.
    Shutdown = 0x0145, "TPM2_Shutdown";
    /// A policy on the contents of an NV index.
    PolicyNv = 0x0149, "TPM2_PolicyNV";
    /// Reads an NV index.
    NvRead = 0x014e, "TPM2_NV_Read";
    /// Makes an object under a parent.
    Create = 0x0153, "TPM2_Create";
    /// Loads an object under its parent.
    Load = 0x0157, "TPM2_Load";
    /// Gives a sealed secret.
    Unseal = 0x015e, "TPM2_Unseal";
    /// Removes an object or session.
    FlushContext = 0x0165, "TPM2_FlushContext";
    /// Loads a public key from outside.
    LoadExternal = 0x0167, "TPM2_LoadExternal";
    /// Reads what an NV index is.
    NvReadPublic = 0x0169, "TPM2_NV_ReadPublic";
    /// A policy that a key signed.
    PolicyAuthorize = 0x016a, "TPM2_PolicyAuthorize";
    /// Reads the public area of an object.
    ReadPublic = 0x0173, "TPM2_ReadPublic";
    /// Starts a session.
    StartAuthSession = 0x0176, "TPM2_StartAuthSession";
    /// Verifies a signature.
    VerifySignature = 0x0177, "TPM2_VerifySignature";
    /// Reads properties.
    GetCapability = 0x017a, "TPM2_GetCapability";
    /// Random bytes.
    GetRandom = 0x017b, "TPM2_GetRandom";
    /// Reads PCRs.
    PcrRead = 0x017e, "TPM2_PCR_Read";
    /// A policy on PCRs.
    PolicyPcr = 0x017f, "TPM2_PolicyPCR";
    /// Reads the clock and the counts of resets.
    ReadClock = 0x0181, "TPM2_ReadClock";
    /// Extends a PCR.
    PcrExtend = 0x0182, "TPM2_PCR_Extend";
    /// Reads the digest of a policy session.
    PolicyGetDigest = 0x0189, "TPM2_PolicyGetDigest";
}

impl Code {
    /// Whether the answer has a handle in front of its parameters (part 3, the tables of responses).
    pub const fn answers_with_handle(self) -> bool {
        matches!(self, Self::CreatePrimary | Self::Load | Self::LoadExternal | Self::StartAuthSession)
    }
}

/// Session attributes (`TPMA_SESSION`, part 2, section 8.4).
pub mod attribute {
    /// The session goes on after the command.
    pub const CONTINUE: u8 = 0x01;
    /// The first parameter of the command is encrypted.
    pub const DECRYPT: u8 = 0x20;
    /// The first parameter of the answer is to be encrypted.
    pub const ENCRYPT: u8 = 0x40;
}

/// What a command is about: its handle, and the name that an HMAC covers in place of the handle (part 1, section 16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// The handle.
    pub handle: u32,
    name: Vec<u8>,
}

impl Entity {
    /// An object or NV index.
    pub fn named(handle: u32, name: &Name) -> Self {
        Self { handle, name: name.as_bytes().to_vec() }
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }
}

impl From<u32> for Entity {
    /// A PCR, hierarchy or session, whose handle is its name; or an object where no HMAC is made.
    fn from(handle: u32) -> Self {
        Self { handle, name: handle.to_be_bytes().to_vec() }
    }
}

/// One entry of a command's authorisation area (`TPMS_AUTH_COMMAND`, part 2, section 10.13.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorization {
    /// An authorisation value, in clear; empty for PCRs.
    Password(Vec<u8>),
    /// What a session says.
    Session {
        /// The session's handle.
        handle: u32,
        /// The nonce made for this command.
        nonce: Vec<u8>,
        /// [`attribute`]s.
        attributes: u8,
        /// The HMAC of the command.
        hmac: Vec<u8>,
    },
}

impl Authorization {
    fn write(&self, to: Writer) -> Result<Writer, WireError> {
        match self {
            // Nonce empty, no attributes.
            Self::Password(value) => to.u32(SESSION_PASSWORD).u16(0).u8(0).sized(value),
            Self::Session { handle, nonce, attributes, hmac } => {
                to.u32(*handle).sized(nonce)?.u8(*attributes).sized(hmac)
            }
        }
    }
}

/// A command, ready to be framed.
#[derive(Debug, Clone)]
pub struct Command {
    /// Which.
    pub code: Code,
    /// Handles.
    pub handles: Vec<Entity>,
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

    /// Adds a handle.
    #[must_use]
    pub fn on(mut self, entity: impl Into<Entity>) -> Self {
        self.handles.push(entity.into());
        self
    }

    /// Adds an authorisation value in clear.
    #[must_use]
    pub fn password(mut self, value: &[u8]) -> Self {
        self.authorizations.push(Authorization::Password(value.to_vec()));
        self
    }

    /// The frame.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let mut body = Writer::new();
        for entity in &self.handles {
            body = body.u32(entity.handle);
        }
        let mut tag = TAG_NO_SESSIONS;
        if !self.authorizations.is_empty() {
            tag = TAG_SESSIONS;
            let mut area = Writer::new();
            for authorization in &self.authorizations {
                area = authorization.write(area)?;
            }
            body = body.u32(bounded(area.as_bytes().len())?).bytes(area.as_bytes());
        }
        let body = body.bytes(self.parameters.as_bytes());
        let size = bounded(body.as_bytes().len().saturating_add(HEADER))?;
        Ok(Writer::new().u16(tag).u32(size).u32(self.code as u32).bytes(body.as_bytes()).into_bytes())
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
    /// `TPM_RC_SUCCESS`.
    Success(Answer<'a>),
    /// Another code.
    Failure(ResponseCode),
}

/// The answer to a command that succeeded. Nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The handle, where the command makes one.
    pub handle: Option<u32>,
    /// The parameters.
    pub parameters: &'a [u8],
    /// What each authorisation of the command got back.
    pub authorizations: Vec<Acknowledgement<'a>>,
}

/// One entry of an answer's authorisation area (`TPMS_AUTH_RESPONSE`, part 2, section 10.13.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledgement<'a> {
    /// The TPM's new nonce.
    pub nonce: &'a [u8],
    /// [`attribute`]s.
    pub attributes: u8,
    /// The HMAC of the answer.
    pub hmac: &'a [u8],
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
    let handle = if command.code.answers_with_handle() { Some(reader.u32("the handle")?) } else { None };
    if !sessions {
        return Ok(Response::Success(Answer {
            handle,
            parameters: reader.rest(),
            authorizations: Vec::new(),
        }));
    }
    let length = reader.count(MAX_FRAME as u32, "the size of the parameters")?;
    let parameters = reader.take(length as usize, "the parameters")?;
    let mut authorizations = Vec::with_capacity(command.authorizations.len());
    for authorization in &command.authorizations {
        let nonce = reader.sized(64, "the nonce")?;
        let attributes = reader.u8("the session attributes")?;
        let hmac = reader.sized(64, "the HMAC")?;
        // The answer to a password has nothing to prove.
        if matches!(authorization, Authorization::Password(_)) {
            if !nonce.is_empty() {
                return Err(WireError::Unexpected("the nonce"));
            }
            if !hmac.is_empty() {
                return Err(WireError::Unexpected("the HMAC"));
            }
        }
        authorizations.push(Acknowledgement { nonce, attributes, hmac });
    }
    reader.end()?;
    Ok(Response::Success(Answer { handle, parameters, authorizations }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_extend_is_laid_out_as_in_the_specification() {
        let parameters = Writer::new().u32(1).u16(0x000b).bytes(&[0xaa; 32]);
        let command = Command::new(Code::PcrExtend, parameters).on(11).password(&[]);
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
    fn a_handle_comes_before_the_size_of_the_parameters() {
        let command = Command::new(Code::Load, Writer::new()).on(0x8100_0001).password(&[]);
        let frame = hex::decode("80020000001a0000000080ffffff000000030001aa0000010000").unwrap();
        let Ok(Response::Success(answer)) = decode(&command, &frame) else { panic!("it is an answer") };
        assert_eq!((answer.handle, answer.parameters), (Some(0x80ff_ffff), &[0, 1, 0xaa][..]));
        assert_eq!(answer.authorizations, [Acknowledgement { nonce: &[], attributes: 1, hmac: &[] }]);
        // An HMAC that nobody asked for.
        let mut frame = frame[..frame.len() - 2].to_vec();
        frame.extend([0, 1, 0xbb]);
        frame[5] = frame.len() as u8;
        assert_eq!(decode(&command, &frame), Err(WireError::Unexpected("the HMAC")));
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
        fn no_answer_makes_decoding_fail_badly(frame: Vec<u8>, code in 0..Code::ALL.len(), sessions: bool) {
            let mut command = Command::new(Code::ALL[code], Writer::new());
            if sessions {
                command.authorizations.push(Authorization::Password(Vec::new()));
            }
            let _ = decode(&command, &frame);
        }
    }
}
