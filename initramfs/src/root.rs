//! The second stage: the machine is set up, then everything that the image asks for runs until the end.

mod machine;

use crate::boot::{Boot, read_json};
use crate::error::Error;
use crate::measure::{self, Phase};
use crate::mounts::{self, OPTIONAL, ROOT};
use crate::network::Network;
use crate::oci::bundle;
use crate::supervision::Supervisor;
use crate::uevent::Uevents;
use crate::{cgroup, console, modules, sysctl};
use ashlar_image::manifest::{MANIFEST_PATH, Manifest};
use machine::Machine;
use rustix::system::RebootCommand;
use rustix::time::{ClockId, Timespec};
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

/// Time since the kernel's start. It goes on while the machine sleeps, as leases do.
pub(crate) fn now() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Runs the second stage. Comes back only with an error.
pub fn run() -> Result<Infallible, Error> {
    let manifest: Manifest = read_json(Path::new(MANIFEST_PATH))?;
    let boot = Boot::read()?;
    console::info(format_args!("image {} {}", manifest.image_id, manifest.image_version));
    // From here on an end of init must be an orderly one.
    let signals = machine::Signals::new().map_err(Error::io("receive", "signals"))?;
    if let Err(error) = rustix::system::reboot(RebootCommand::CadOff) {
        console::warning(format_args!("Ctrl-Alt-Del restarts without an orderly end: {error}"));
    }

    for mount in ROOT {
        mount.mount()?;
    }
    mounts::link_standard_files()?;
    mounts::populate_var()?;
    mounts::make_dir(Path::new(bundle::FOLDER), 0o755)?;
    cgroup::set_up()?;
    let uevents = Uevents::open().map_err(Error::io("listen for", "device events"))?;
    modules::load_all()?;
    for mount in OPTIONAL {
        if Path::new(mount.target).exists()
            && let Err(error) = mount.mount()
        {
            console::warning(error);
        }
    }
    sysctl::apply();
    set_clock(manifest.build_time);
    if let Err(error) = rustix::system::sethostname(manifest.hostname.as_bytes()) {
        console::warning(format_args!("cannot set the host name `{}`: {error}", manifest.hostname));
    }
    let network = Network::start().map_err(Error::io("start", "the network"))?;
    network.write_resolv_conf().map_err(Error::io("write", bundle::RESOLV_CONF))?;

    let mut measurer = measure::reopen(boot.measured.clone())?;
    measurer.phase(Phase::Sysinit)?;
    let supervisor = Supervisor::new(&manifest, now());
    Machine::new(manifest, boot, measurer, network, uevents, signals, supervisor).run()
}

/// Moves a clock that is before the image's build to it: a machine with an empty battery must still tell
/// certificates that have ended from those that have not begun.
fn set_clock(build_time: i64) {
    if rustix::time::clock_gettime(ClockId::Realtime).tv_sec >= build_time {
        return;
    }
    match rustix::time::clock_settime(ClockId::Realtime, Timespec { tv_sec: build_time, tv_nsec: 0 }) {
        Ok(()) => console::warning("the clock was before the image's build time and was moved to it"),
        Err(error) => console::warning(format_args!("cannot set the clock: {error}")),
    }
}
