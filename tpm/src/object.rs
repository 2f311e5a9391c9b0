//! Commands on objects (part 3, sections 12, 20.1, 24.1, 28).

use crate::Error;
use crate::command::{Code, Command, Entity};
use crate::hierarchy::Hierarchy;
use crate::public::{Name, algorithm, read_name, read_public};
use crate::session::{Session, Use};
use crate::srk::Srk;
use crate::tpm::Tpm;
use crate::transport::Transport;
use crate::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

/// The largest private area in bytes: that of a sealed object has about 240.
pub const MAX_PRIVATE: u16 = 1024;

/// That a key signed a digest, said by the TPM to itself (`TPMT_TK_VERIFIED`, part 2, section 10.7.4). Its bytes.
pub struct Ticket(Vec<u8>);

impl Ticket {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What `TPM2_Create` gives.
pub struct Created {
    /// The public area.
    pub public: Vec<u8>,
    /// The private area, encrypted by the parent.
    pub private: Vec<u8>,
}

/// Turns errors of building parameters into those of the command.
fn built(code: Code) -> impl Fn(WireError) -> Error {
    move |what| Error::Malformed { command: code.name(), what }
}

/// `TPMS_SENSITIVE_CREATE` in its buffer: an empty authorisation value, and data.
fn sensitive(data: &[u8]) -> Result<Writer, WireError> {
    let size = u16::try_from(data.len().saturating_add(4)).map_err(|_| WireError::TooLarge {
        field: "the data to seal",
        value: data.len() as u64,
        limit: u16::MAX.into(),
    })?;
    Writer::new().u16(size).u16(0).sized(data)
}

/// The parts of an answer to a creation that say how it came about; not used.
fn skip_creation(reader: &mut Reader<'_>) -> Result<(), WireError> {
    reader.sized(1024, "the creation data")?;
    reader.sized(64, "the creation's digest")?;
    reader.u16("the ticket's tag")?;
    reader.u32("the ticket's hierarchy")?;
    reader.sized(64, "the ticket")?;
    Ok(())
}

impl<T: Transport> Tpm<T> {
    /// `TPM2_ReadPublic` (part 3, section 12.4): the public area and the name that was made from it here. None when
    /// there is no such object.
    pub fn read_public(&mut self, handle: u32) -> Result<Option<(Vec<u8>, Name)>, Error> {
        let command = Command::new(Code::ReadPublic, Writer::new()).on(handle);
        let result = self.run(&command, |reader| {
            let public = read_public(reader)?;
            let name = read_name(reader)?;
            reader.sized(68, "the qualified name")?;
            if Name::of(public) != name {
                return Err(WireError::Unexpected("the name"));
            }
            Ok((public.to_vec(), name))
        });
        self.or_absent(handle, result)
    }

    /// Tells that something is not there from other reasons why it could not be read.
    pub(crate) fn or_absent<R>(&mut self, handle: u32, result: Result<R, Error>) -> Result<Option<R>, Error> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is("TPM_RC_HANDLE") => Ok(None),
            // TPMs are not of one mind about the code; the list of handles is clear.
            Err(error @ Error::Refused { .. }) => {
                if self.handles(handle)?.contains(&handle) {
                    Err(error)
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// `TPM2_CreatePrimary` (part 3, section 24.1) in the owner's hierarchy, whose authorisation is empty.
    pub(crate) fn create_primary(&mut self, template: &[u8]) -> Result<u32, Error> {
        let code = Code::CreatePrimary;
        // No data, no outside information, no PCRs noted.
        let parameters = sensitive(&[]).and_then(|to| to.sized(template)).map_err(built(code))?.u16(0).u32(0);
        let command = Command::new(code, parameters).on(Hierarchy::Owner as u32).password(&[]);
        let (handle, ()) = self.run_for_handle(&command, |reader| {
            read_public(reader)?;
            skip_creation(reader)?;
            read_name(reader).map(|_| ())
        })?;
        Ok(handle)
    }

    /// `TPM2_EvictControl` (part 3, section 28.5): makes `object` persistent at `at`, or removes it when it is there.
    pub fn evict_control(&mut self, object: u32, at: u32) -> Result<(), Error> {
        let command = Command::new(Code::EvictControl, Writer::new().u32(at))
            .on(Hierarchy::Owner as u32)
            .on(object)
            .password(&[]);
        self.run(&command, |_| Ok(()))
    }

    /// `TPM2_Create` (part 3, section 12.1) of an object that holds `data`, which goes to the TPM encrypted.
    pub(crate) fn create(
        &mut self,
        session: &mut Session,
        srk: &Srk,
        data: &[u8],
        template: &[u8],
    ) -> Result<Created, Error> {
        let code = Code::Create;
        let parameters =
            sensitive(data).and_then(|to| to.sized(template)).map_err(built(code))?.u16(0).u32(0);
        let command = Command::new(code, parameters).on(srk.entity());
        let how = Use { encrypt_command: true, encrypt_answer: false, last: true };
        self.run_in(session, command, how, |reader| {
            let private = reader.sized(MAX_PRIVATE, "the private area")?.to_vec();
            let public = read_public(reader)?.to_vec();
            skip_creation(reader)?;
            Ok(Created { public, private })
        })
    }

    /// `TPM2_Load` (part 3, section 12.2) for the time of `body`.
    pub(crate) fn with_loaded<R>(
        &mut self,
        srk: &Srk,
        private: &[u8],
        public: &[u8],
        body: impl FnOnce(&mut Self, &Entity) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let code = Code::Load;
        let parameters = Writer::new().sized(private).and_then(|to| to.sized(public)).map_err(built(code))?;
        let command = Command::new(code, parameters).on(srk.entity()).password(&[]);
        // The name that counts is ours: what the TPM loaded instead cannot be used with it in the HMAC.
        let (handle, _) = self.run_for_handle(&command, read_name)?;
        let result = body(self, &Entity::named(handle, &Name::of(public)));
        // See `with_session`.
        let _ = self.flush(handle);
        result
    }

    /// `TPM2_LoadExternal` (part 3, section 12.3) of a public key and `TPM2_VerifySignature` (section 20.1) with it:
    /// that `signature` (RSASSA-PKCS1-v1_5 with SHA-256) is over `digest`. The key is flushed on every path.
    pub(crate) fn verify_signature(
        &mut self,
        public: &[u8],
        digest: &[u8; 32],
        signature: &[u8],
    ) -> Result<Ticket, Error> {
        let code = Code::LoadExternal;
        // No private part. Only in the owner's hierarchy is a ticket worth something.
        let parameters =
            Writer::new().u16(0).sized(public).map_err(built(code))?.u32(Hierarchy::Owner as u32);
        let (key, _) = self.run_for_handle(&Command::new(code, parameters), read_name)?;
        let result = self.verify_with(key, digest, signature);
        // See `with_session`.
        let _ = self.flush(key);
        result
    }

    fn verify_with(&mut self, key: u32, digest: &[u8; 32], signature: &[u8]) -> Result<Ticket, Error> {
        let code = Code::VerifySignature;
        let parameters = Writer::new()
            .sized(digest)
            .and_then(|to| to.u16(algorithm::RSASSA).u16(algorithm::SHA256).sized(signature))
            .map_err(built(code))?;
        self.run(&Command::new(code, parameters).on(key), |reader| {
            let ticket = reader.rest();
            // TPM_ST_VERIFIED (part 2, section 6.9).
            if reader.u16("the ticket's tag")? != 0x8022 {
                return Err(WireError::Unexpected("the ticket's tag"));
            }
            reader.u32("the ticket's hierarchy")?;
            reader.sized(64, "the ticket")?;
            Ok(Ticket(ticket.to_vec()))
        })
    }

    /// `TPM2_Unseal` (part 3, section 12.7) in a policy session, which ends with it. The answer comes encrypted.
    pub(crate) fn unseal(
        &mut self,
        session: &mut Session,
        object: &Entity,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let command = Command::new(Code::Unseal, Writer::new()).on(object.clone());
        let how = Use { encrypt_command: false, encrypt_answer: true, last: true };
        self.run_in(session, command, how, |reader| {
            Ok(Zeroizing::new(reader.sized(256, "the sealed data")?.to_vec()))
        })
    }

    /// `TPM2_FlushContext` (part 3, section 28.4) of a loaded object or a session.
    pub fn flush(&mut self, handle: u32) -> Result<(), Error> {
        self.run(&Command::new(Code::FlushContext, Writer::new().u32(handle)), |_| Ok(()))
    }
}
