//! What a machine is to be.

use crate::accelerator::Accelerator;
use crate::firmware::Firmware;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What starts the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Boot {
    /// The UEFI firmware that [`Firmware::find`] finds, with secure flash. Whether Secure Boot is enforced
    /// lies in the variable store.
    #[default]
    Uefi,
    /// This UEFI firmware.
    Firmware(Firmware),
    /// QEMU's BIOS, without variables: starts a boot sector in a tenth of a second.
    Bios,
}

/// What the machine's one network card is connected to. The guest gets 10.0.2.15 by DHCP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// There is no card.
    Off,
    /// Only port forwards reach the guest; the guest reaches nobody.
    #[default]
    Isolated,
    /// The guest reaches what the host reaches.
    Open,
}

/// A TCP port of the guest, reachable on the host's 127.0.0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Port on the host; 0 takes a free one, which [`crate::Machine::forwards`] tells.
    pub host: u16,
    /// Port in the guest.
    pub guest: u16,
}

/// What a machine writes to instead of a disk image that it was given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DiskFormat {
    /// A qcow2 overlay over the image: made at once, small.
    #[default]
    Overlay,
    /// A raw copy with the image's holes (a clone of its blocks where the file system can): whoever has the
    /// machine's folder can read and write it while the machine is off, see [`crate::Stopped::disk`].
    Copy,
}

type Sink = dyn Fn(&[u8]) + Send + Sync;

/// Gets every byte of the serial console as it comes, unfiltered. The guest chooses these bytes: pass them
/// through [`crate::Plain`] before they reach a terminal.
#[derive(Clone)]
pub struct ConsoleCopy(pub(crate) Arc<Sink>);

impl ConsoleCopy {
    /// Copies to `sink`, which is called on the thread that reads the console.
    pub fn new(sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }
}

impl fmt::Debug for ConsoleCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsoleCopy")
    }
}

/// A machine. All fields have useful defaults but the disk.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// Raw disk images; the machine boots from the first and tries nothing else. They are never written:
    /// each gets an overlay or a copy in the machine's folder. Those after the first are for data.
    pub disks: Vec<PathBuf>,
    /// What the machine writes to instead. A machine that is started again must be given the same.
    pub disk_format: DiskFormat,
    /// Where the machine's overlays, variables and TPM state lie. None makes a folder for this run only;
    /// with a folder the machine goes on from where it was when it is started again.
    pub folder: Option<PathBuf>,
    /// Firmware.
    pub boot: Boot,
    /// Content of the variable store, for example with keys enrolled. It is used when the machine's folder
    /// is new; a machine that is started again has its own. None is the firmware's empty store.
    pub variables: Option<Vec<u8>>,
    /// Whether the machine has a TPM 2.0, provided by swtpm.
    pub tpm: bool,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Number of processors; None is what [`Engine::cpus`] says.
    ///
    /// [`Engine::cpus`]: crate::Engine::cpus
    pub cpus: Option<u32>,
    /// How the guest's instructions are executed.
    pub accelerator: Accelerator,
    /// Network.
    pub network: Network,
    /// Port forwards; they need a network.
    pub forwards: Vec<Forward>,
    /// Whether the machine has the virtio port that init writes its report to.
    pub report: bool,
    /// Gets a copy of the serial console.
    pub console: Option<ConsoleCopy>,
    /// Whether the chipset's watchdog (the TCO timer of ICH9, Linux `iTCO_wdt`) resets the machine when the
    /// guest has started it and does not feed it. Without this it does nothing, as on a board that has it
    /// strapped off.
    pub watchdog: bool,
    /// Whether a guest that resets ends the machine instead of starting it again.
    pub no_reboot: bool,
    /// The machine is killed when it runs longer than this. None: only [`crate::Machine::kill`] and drop end it.
    pub lifetime: Option<Duration>,
}

impl MachineConfig {
    /// A machine with 1 GiB of memory, TPM, UEFI, an isolated network and a report port,
    /// that lives for at most an hour.
    pub fn new(disk: impl Into<PathBuf>) -> Self {
        Self {
            disks: vec![disk.into()],
            disk_format: DiskFormat::default(),
            folder: None,
            boot: Boot::default(),
            variables: None,
            tpm: true,
            memory_mib: 1024,
            cpus: None,
            accelerator: Accelerator::default(),
            network: Network::default(),
            forwards: Vec::new(),
            report: true,
            console: None,
            watchdog: false,
            no_reboot: false,
            lifetime: Some(Duration::from_secs(3600)),
        }
    }
}
