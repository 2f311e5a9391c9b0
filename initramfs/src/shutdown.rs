//! The end of a machine that runs: what was started has been asked to end, now the rest.

use crate::{cgroup, console, failure, measure};
use rustix::mount::UnmountFlags;
use rustix::system::RebootCommand;
use std::time::Duration;

/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// File systems that can go; the others are in use by PID 1 or by the kernel.
const UNMOUNTED: [&str; 5] = ["/dev/mqueue", "/dev/shm", "/sys/fs/bpf", "/var", "/tmp"];

/// Why and how the machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Switch it off.
    PowerOff,
    /// Start it again.
    Reboot,
}

impl Request {
    /// For people.
    pub const fn title(self) -> &'static str {
        match self {
            Self::PowerOff => "powering off",
            Self::Reboot => "restarting",
        }
    }
}

/// Ends the machine. Nothing is extended into a PCR any more: the release predicts none of it.
pub fn finish(request: Request) -> ! {
    cgroup::kill_payload();
    if !cgroup::wait_until_empty(KILL_DEADLINE) {
        console::warning("some processes could not be killed");
    }
    rustix::fs::sync();
    for target in UNMOUNTED {
        // One that is not mounted or is in use stays: all of them are memory.
        let _ = rustix::mount::unmount(target, UnmountFlags::empty());
    }
    measure::shut_down();
    console::info(request.title());
    failure::reboot(match request {
        Request::PowerOff => RebootCommand::PowerOff,
        Request::Reboot => RebootCommand::Restart,
    })
}
