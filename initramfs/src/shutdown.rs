//! The end of a machine that runs: what was started has been asked to end, now the rest.

use crate::state::volume;
use crate::{cgroup, console, failure, measure};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::system::RebootCommand;
use std::time::Duration;

/// How long killed processes may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
/// File systems in memory that can go; the others are in use by PID 1 or by the kernel.
const UNMOUNTED: [&str; 4] = ["/dev/mqueue", "/dev/shm", "/sys/fs/bpf", "/tmp"];

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
    close_state();
    measure::shut_down();
    console::info(request.title());
    failure::reboot(match request {
        Request::PowerOff => RebootCommand::PowerOff,
        Request::Reboot => RebootCommand::Restart,
    })
}

/// Takes the state volume out of use, so that its file system is clean: unmounted, or read only where something still
/// holds it.
fn close_state() {
    if rustix::mount::unmount(volume::MOUNT, UnmountFlags::empty()).is_ok() {
        return;
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    if let Err(error) = rustix::mount::mount_remount(volume::MOUNT, flags, c"") {
        console::warning(format_args!("the state volume cannot be closed in order: {error}"));
    }
}
