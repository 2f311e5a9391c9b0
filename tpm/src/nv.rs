//! NV indices: their public areas and the commands on them (part 2, section 13; part 3, section 31).

use crate::Error;
use crate::command::{Code, Command, Entity};
use crate::hierarchy::Hierarchy;
use crate::public::{Name, algorithm, read_name};
use crate::session::{Session, Use};
use crate::tpm::Tpm;
use crate::transport::Transport;
use crate::wire::{Reader, WireError, Writer};

/// `TPMA_NV` (part 2, section 13.4).
pub mod attribute {
    /// The owner writes.
    pub const OWNER_WRITE: u32 = 1 << 1;
    /// The index's authorisation value allows writing.
    pub const AUTH_WRITE: u32 = 1 << 2;
    /// `TPM_NT_COUNTER` in bits 4 to 7.
    pub const COUNTER: u32 = 1 << 4;
    /// The owner reads.
    pub const OWNER_READ: u32 = 1 << 17;
    /// The index's authorisation value allows reading.
    pub const AUTH_READ: u32 = 1 << 18;
    /// Wrong authorisations do not count for the dictionary lockout, and the lockout does not touch it.
    pub const NO_DA: u32 = 1 << 25;
    /// It was written.
    pub const WRITTEN: u32 = 1 << 29;
}

/// Bytes of a counter.
pub const COUNTER_SIZE: u16 = 8;

/// The public area of an NV index whose name is made with SHA-256 (`TPMS_NV_PUBLIC`, part 2, section 13.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvPublic {
    /// The index's handle.
    pub index: u32,
    /// `TPMA_NV`.
    pub attributes: u32,
    /// The policy's digest; empty for none.
    pub policy: Vec<u8>,
    /// Bytes of data.
    pub size: u16,
}

impl NvPublic {
    /// Reads a whole public area.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let index = reader.u32("the index")?;
        if reader.u16("the algorithm of the name")? != algorithm::SHA256 {
            return Err(WireError::Unexpected("the algorithm of the name"));
        }
        let public = Self {
            index,
            attributes: reader.u32("the index's attributes")?,
            policy: reader.sized(64, "the index's policy")?.to_vec(),
            size: reader.u16("the size of the data")?,
        };
        reader.end()?;
        Ok(public)
    }

    /// The bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, WireError> {
        let to = Writer::new().u32(self.index).u16(algorithm::SHA256).u32(self.attributes);
        Ok(to.sized(&self.policy)?.u16(self.size).into_bytes())
    }
}

impl<T: Transport> Tpm<T> {
    /// `TPM2_NV_ReadPublic` (part 3, section 31.6). None when there is no such index.
    pub fn nv_read_public(&mut self, index: u32) -> Result<Option<NvPublic>, Error> {
        let command = Command::new(Code::NvReadPublic, Writer::new()).on(index);
        let result = self.run(&command, |reader| {
            let bytes = reader.sized(140, "the public area")?;
            let public = NvPublic::parse(bytes)?;
            if read_name(reader)? != Name::of(bytes) || public.index != index {
                return Err(WireError::Unexpected("the name"));
            }
            Ok(public)
        });
        self.or_absent(index, result)
    }

    /// `TPM2_NV_DefineSpace` (part 3, section 31.3) by the owner, with an empty authorisation value.
    pub(crate) fn nv_define(&mut self, public: &NvPublic) -> Result<(), Error> {
        let code = Code::NvDefineSpace;
        let parameters = public.to_bytes().and_then(|public| Writer::new().u16(0).sized(&public));
        let parameters = parameters.map_err(|what| Error::Malformed { command: code.name(), what })?;
        let command = Command::new(code, parameters).on(Hierarchy::Owner as u32).password(&[]);
        self.run(&command, |_| Ok(()))
    }

    /// `TPM2_NV_UndefineSpace` (part 3, section 31.4) by the owner.
    pub fn nv_undefine(&mut self, index: u32) -> Result<(), Error> {
        let command = Command::new(Code::NvUndefineSpace, Writer::new())
            .on(Hierarchy::Owner as u32)
            .on(index)
            .password(&[]);
        self.run(&command, |_| Ok(()))
    }

    /// `TPM2_NV_Increment` (part 3, section 31.8) with the index's empty authorisation: in a session, or in clear.
    pub(crate) fn nv_increment(
        &mut self,
        session: Option<&mut Session>,
        index: &Entity,
    ) -> Result<(), Error> {
        let command = Command::new(Code::NvIncrement, Writer::new()).on(index.clone()).on(index.clone());
        match session {
            Some(session) => self.run_in(session, command, Use::PLAIN, |_| Ok(())),
            None => self.run(&command.password(&[]), |_| Ok(())),
        }
    }

    /// `TPM2_NV_Read` (part 3, section 31.13) of a counter, with the index's empty authorisation: in a session, which
    /// ends with it, or in clear.
    pub(crate) fn nv_read_counter(
        &mut self,
        session: Option<&mut Session>,
        index: &Entity,
    ) -> Result<u64, Error> {
        let command = Command::new(Code::NvRead, Writer::new().u16(COUNTER_SIZE).u16(0))
            .on(index.clone())
            .on(index.clone());
        let read = |reader: &mut Reader<'_>| {
            let data = reader.sized(COUNTER_SIZE, "the counter")?;
            data.try_into().map(u64::from_be_bytes).map_err(|_| WireError::Unexpected("the counter"))
        };
        match session {
            Some(session) => self.run_in(session, command, Use { last: true, ..Use::PLAIN }, read),
            None => self.run(&command.password(&[]), read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            index: u32, attributes: u32, size: u16, policy in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let public = NvPublic { index, attributes, policy, size };
            let written = public.to_bytes().unwrap();
            prop_assert_eq!(NvPublic::parse(&written), Ok(public));
            prop_assert!(NvPublic::parse(&written[..written.len() - 1]).is_err());
        }
    }
}
