//! Commands on hierarchies and on the TPM as a whole.

use crate::Error;
use crate::command::{Code, Command};
use crate::tpm::Tpm;
use crate::transport::Transport;
use crate::wire::{WireError, Writer};

/// `TPM_CAP_HANDLES` (part 2, section 6.12).
const CAP_HANDLES: u32 = 1;
/// Handles that fit into one answer of 4096 bytes.
const MAX_HANDLES: u32 = 1000;

/// The hierarchies that authorise (`TPM_RH_*`, part 2, section 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Hierarchy {
    /// The owner: storage and NV indices.
    Owner = 0x4000_0001,
    /// The lockout: clearing and the dictionary attack.
    Lockout = 0x4000_000a,
}

/// The clock and the counts of resets (`TPMS_TIME_INFO`, part 2, section 10.11.6). Not authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Milliseconds since power came.
    pub time: u64,
    /// Milliseconds that the TPM had power since it was cleared.
    pub clock: u64,
    /// How often the TPM was reset since it was cleared.
    pub resets: u32,
    /// How often it was resumed or restarted since it was reset.
    pub restarts: u32,
    /// Whether the clock cannot have gone back.
    pub safe: bool,
}

impl<T: Transport> Tpm<T> {
    /// `TPM2_Clear` (part 3, section 24.6) with the lockout's authorisation: a new owner, whose hierarchy is empty.
    /// Everything that was sealed is lost.
    pub fn clear(&mut self, lockout: &[u8]) -> Result<(), Error> {
        let command =
            Command::new(Code::Clear, Writer::new()).on(Hierarchy::Lockout as u32).password(lockout);
        self.run(&command, |_| Ok(()))
    }

    /// `TPM2_HierarchyChangeAuth` (part 3, section 24.8). The new value goes to the TPM in clear.
    pub fn change_authorization(&mut self, of: Hierarchy, old: &[u8], new: &[u8]) -> Result<(), Error> {
        let code = Code::HierarchyChangeAuth;
        let parameters =
            Writer::new().sized(new).map_err(|what| Error::Malformed { command: code.name(), what })?;
        self.run(&Command::new(code, parameters).on(of as u32).password(old), |_| Ok(()))
    }

    /// The handles that there are from `first` on, of the same kind (part 3, section 30.2, `TPM_CAP_HANDLES`):
    /// 0x01000000 NV indices, 0x02000000 loaded and 0x03000000
    /// saved sessions, 0x80000000 loaded objects, 0x81000000 persistent objects.
    pub fn handles(&mut self, first: u32) -> Result<Vec<u32>, Error> {
        self.capability(CAP_HANDLES, first, MAX_HANDLES, |reader| {
            let count = reader.count(MAX_HANDLES, "the number of handles")?;
            let handles = (0..count).map(|_| reader.u32("a handle")).collect::<Result<Vec<_>, _>>()?;
            // The highest byte is the kind (part 2, section 7.2). Asked for loaded sessions the TPM names those of a
            // policy as well, whose own kind is 3.
            let sessions = 2..=3;
            let kind = first >> 24;
            let fits = |handle: &u32| {
                let other = handle >> 24;
                other == kind || sessions.contains(&kind) && sessions.contains(&other)
            };
            if !handles.iter().all(fits) {
                return Err(WireError::Unexpected("a handle"));
            }
            Ok(handles)
        })
    }

    /// `TPM2_ReadClock` (part 3, section 29.1).
    pub fn clock(&mut self) -> Result<Clock, Error> {
        self.run(&Command::new(Code::ReadClock, Writer::new()), |reader| {
            Ok(Clock {
                time: reader.u64("the time")?,
                clock: reader.u64("the clock")?,
                resets: reader.u32("the resets")?,
                restarts: reader.u32("the restarts")?,
                safe: reader.u8("whether the clock is safe")? == 1,
            })
        })
    }
}
