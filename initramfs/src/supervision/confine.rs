//! What a service may not do: set between fork and exec, in the child.

use crate::error::Error;
use crate::mounts;
use crate::oci::bundle::FILES;
use crate::oci::filter;
use ashlar_image::capability;
use ashlar_image::manifest::{Service, SystemCalls};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::BpfProgram;
use std::io;

/// Everything is looked up and allocated before the fork.
#[derive(Debug)]
pub struct Confinement {
    /// Open files: soft and hard limit.
    files: (u64, u64),
    /// As whom it runs; none leaves everything as PID 1 has it, for the runtime of containers.
    identity: Option<Identity>,
}

#[derive(Debug)]
struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    capabilities: CapabilitySet,
    new_privileges: bool,
    /// Whether it may write the firmware's variables.
    variables: bool,
    filters: Vec<BpfProgram>,
}

fn limit(soft: u64, hard: u64) -> Rlimit {
    Rlimit { current: Some(soft), maximum: Some(hard) }
}

impl Confinement {
    /// For a service: its user, its capabilities and no other, its system calls.
    pub fn of(name: &str, service: &Service) -> Result<Self, Error> {
        let defect = |what: String| Error::io("confine", name)(io::Error::other(what));
        let capabilities = capability::set(service.capabilities.iter().map(String::as_str))
            .map_err(|unknown| defect(format!("there is no capability {unknown}")))?;
        let filters = match service.system_calls {
            SystemCalls::Common => {
                filter::programs(&service.capabilities).map_err(|error| defect(error.to_string()))?
            }
            SystemCalls::All => Vec::new(),
        };
        let identity = Identity {
            uid: Uid::from_raw(service.uid),
            gid: Gid::from_raw(service.gid),
            groups: service.groups.iter().copied().map(Gid::from_raw).collect(),
            capabilities: CapabilitySet::from_bits_retain(capabilities),
            new_privileges: service.new_privileges,
            variables: service.firmware_variables,
            filters,
        };
        let files = service.files_max.map_or(FILES, |limit| (limit.into(), limit.into()));
        Ok(Self { files, identity: Some(identity) })
    }

    /// For the runtime of containers, which confines them itself.
    pub const fn runtime() -> Self {
        Self { files: FILES, identity: None }
    }

    /// Confines the calling thread. It is the only one of a forked process: this makes system calls, allocates nothing
    /// and takes no lock.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // PID 1 is never killed for want of memory; its children may be.
        let score =
            rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        score.and_then(|score| rustix::io::write(score, b"0"))?;
        rustix::process::setrlimit(Resource::Core, limit(0, 0))?;
        let (soft, hard) = self.files;
        match rustix::process::setrlimit(Resource::Nofile, limit(soft, hard)) {
            // Only PID 1 can raise the hard limit; what it has must do elsewhere.
            Err(rustix::io::Errno::PERM) => {
                let ours = rustix::process::getrlimit(Resource::Nofile).maximum.unwrap_or(hard).min(hard);
                rustix::process::setrlimit(Resource::Nofile, limit(soft.min(ours), ours))?;
            }
            other => other?,
        }
        self.identity.as_ref().map_or(Ok(()), Identity::enter)
    }
}

impl Identity {
    fn enter(&self) -> io::Result<()> {
        use rustix::thread as this;
        // First what needs the privileges that go.
        if self.variables {
            crate::sys::own_mounts()?;
            // What is not mounted cannot be written to either, and it will say so itself.
            let _ = mounts::lock_variables(false);
        }
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if self.capabilities.contains(one) {
                continue;
            }
            match this::remove_capability_from_bounding_set(one) {
                // The kernel knows no more.
                Err(rustix::io::Errno::INVAL) => break,
                other => other?,
            }
        }
        this::set_thread_groups(&self.groups)?;
        this::set_thread_res_gid(self.gid, self.gid, self.gid)?;
        // Another user would lose all capabilities.
        this::set_keep_capabilities(true)?;
        this::set_thread_res_uid(self.uid, self.uid, self.uid)?;
        this::set_keep_capabilities(false)?;
        let set = self.capabilities;
        this::set_capabilities(None, CapabilitySets { effective: set, permitted: set, inheritable: set })?;
        // What is executed keeps them, whoever runs it.
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if self.capabilities.contains(one) {
                this::configure_capability_in_ambient_set(one, true)?;
            }
        }
        if !self.new_privileges {
            this::set_no_new_privs(true)?;
        }
        for filter in &self.filters {
            seccompiler::apply_filter(filter).map_err(|error| match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
                _ => io::ErrorKind::InvalidInput.into(),
            })?;
        }
        Ok(())
    }
}
