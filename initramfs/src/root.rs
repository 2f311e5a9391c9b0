//! The second stage: the machine is set up, then everything that the image asks for runs until the end.

mod builtin;
mod care;
mod machine;
mod requests;
mod status;

use crate::boot::{Boot, read_json};
use crate::configuration::{self, Configuration};
use crate::control::Control;
use crate::error::Error;
use crate::etc;
use crate::journal::Journal;
use crate::measure::{self, Phase};
use crate::mounts::{self, OPTIONAL, ROOT};
use crate::network::Network;
use crate::oci::bundle;
use crate::state::volume;
use crate::supervision::Supervisor;
use crate::time::{self, Time};
use crate::uevent::Uevents;
use crate::{cgroup, console, modules, sysctl, trial};
use ashlar_image::control::{INIT_SOCKET, LOG_FOLDER};
use ashlar_image::hardening;
use ashlar_image::machine::{Log, Watchdog};
use ashlar_image::manifest::{MANIFEST_PATH, Manifest};
use ashlar_image::state::CONFIGURATION_PCR;
use care::Care;
use machine::{Machine, Progress};
use rustix::system::RebootCommand;
use rustix::time::ClockId;
use std::convert::Infallible;
use std::path::Path;
use std::time::Duration;

/// Bytes of the log that wait in memory for the disk.
const LOG_MEMORY: usize = 1 << 20;

/// Time since the kernel's start. It goes on while the machine sleeps, as leases do.
pub(crate) fn now() -> Duration {
    Duration::try_from(rustix::time::clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// Runs the second stage. Comes back only with an error.
pub fn run() -> Result<Infallible, Error> {
    let mut manifest: Manifest = read_json(Path::new(MANIFEST_PATH))?;
    let mut boot = Boot::read()?;
    console::info(format_args!("image {} {}", manifest.image_id, manifest.image_version));
    // From here on an end of init must be an orderly one.
    let signals = machine::Signals::new().map_err(Error::io("receive", "signals"))?;
    if let Err(error) = rustix::system::reboot(RebootCommand::CadOff) {
        console::warning(format_args!("Ctrl-Alt-Del restarts without an orderly end: {error}"));
    }

    for mount in ROOT {
        mount.mount()?;
    }
    if mounts::is_mounted(Path::new(crate::efi::MOUNT))
        && let Err(error) = mounts::lock_variables(true)
    {
        console::error(format_args!("the firmware's variables stay writable: {error}"));
    }
    mounts::link_standard_files()?;
    volume::mount(&boot.state)?;
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
    let mut journal = Journal::new(LOG_MEMORY);
    sysctl::apply();
    crate::hardening::protect();
    let floor = time::floor::raise(manifest.build_time);

    let mut measurer = measure::reopen(std::mem::take(&mut boot.measured))?;
    let configuration = configure(&boot)?;
    if let Some(digest) = configuration.digest() {
        measurer.extend(CONFIGURATION_PCR, "machine configuration", digest)?;
    }
    let log = configuration.config().map_or_else(Log::default, |config| config.log.clone());
    if let Err(error) = journal.persist(Path::new(LOG_FOLDER), log.size.0) {
        console::error(format_args!("the log stays in memory: {error}"));
    }
    let config = configuration.config();
    let etc = etc::set_up(&manifest, config, Some(&boot.state.machine_id))?;
    name_machine(etc::host_name(&manifest, config));
    let network = Network::start(config, now()).map_err(Error::io("start", "the network"))?;
    let time = Time::new(config.map_or(&[][..], |config| &config.time.servers), floor);
    let control = Control::open(Path::new(INIT_SOCKET)).map_err(Error::io("make", INIT_SOCKET))?;

    measurer.phase(Phase::Sysinit)?;
    // The list is that of the image and of the release; what init adds itself is in it.
    let expectations = hardening::expectations(&manifest);
    let timeout =
        configuration.config().map_or_else(Watchdog::default, |config| config.watchdog.clone()).timeout;
    let care = Care::new(&manifest, expectations, timeout, &mut measurer, &mut journal);
    manifest.services.insert(builtin::CONTROL.to_owned(), builtin::control(configuration.config())?);
    match builtin::update(Path::new(builtin::UPDATE_PATH))? {
        Some(engine) => {
            manifest.services.insert(builtin::UPDATE.to_owned(), engine);
        }
        None => console::info("this image has no update engine"),
    }
    let limit =
        configuration.config().map_or(trial::LIMIT, |config| trial::limit(config.update.trial_deadline));
    let trial = trial::Trials::begin(now().saturating_add(limit));
    let mut supervisor = Supervisor::new(&manifest, now());
    supervisor.apply(configuration.config(), now());
    let machine = Machine {
        manifest,
        boot,
        measurer,
        configuration,
        network,
        etc,
        time,
        control,
        uevents,
        signals,
        supervisor,
        journal,
        care,
        trial,
        progress: Progress::default(),
    };
    machine.run()
}

/// The machine configuration in force, which is on the state volume when this is back.
fn configure(boot: &Boot) -> Result<Configuration, Error> {
    let folder = Path::new(configuration::FOLDER);
    let configuration =
        Configuration::load(folder, &boot.owner.configuration_key, boot.state.seed.as_deref())?;
    match configuration.store() {
        Ok(()) => volume::forget_seed(&boot.state),
        Err(error) => console::error(format_args!("the machine configuration cannot be kept: {error}")),
    }
    match (configuration.serial(), configuration.refused()) {
        (Some(serial), _) => console::info(format_args!("machine configuration {serial} is in force")),
        (None, None) => console::info("there is no machine configuration"),
        (None, Some(_)) => {}
    }
    if let Some(why) = configuration.refused() {
        console::error(format_args!("a machine configuration was refused: {why}"));
    }
    Ok(configuration)
}

/// Gives the machine its name.
fn name_machine(name: &str) {
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        console::warning(format_args!("cannot set the host name `{name}`: {error}"));
    }
}
