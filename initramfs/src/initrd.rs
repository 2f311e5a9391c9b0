//! The first stage: from the kernel's start to the switch of root.

use crate::block::{Device, Disk, disks};
use crate::boot::{Boot, read_json};
use crate::error::Error;
use crate::gpt::Partition;
use crate::guid::Guid;
use crate::measure::Phase;
use crate::mounts::{self, BASE, FIRMWARE};
use crate::uevent::Uevents;
use crate::{console, dm, efi, measure, modules, slot, state, switch, trial, verity};
use ashlar_image::cmdline::VerityRoot;
use ashlar_image::layout::{PARTITIONS, Role};
use ashlar_image::manifest::{INIT_PATH, MANIFEST_PATH, Manifest};
use ashlar_image::owner::{OWNER_DIR, OWNER_FILE, Owner};
use rustix::mount::MountFlags;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the boot disk may take to appear, and its partitions after it.
const DISK_DEADLINE: Duration = Duration::from_secs(30);

/// The disk that the firmware started from, its table, and the partition itself.
struct BootDisk {
    disk: Disk,
    table: Vec<Partition>,
    esp: Partition,
}

/// The root's partitions.
struct Root {
    data: Device,
    tree: Device,
    label: String,
}

/// Runs the first stage. Comes back only with an error.
pub fn run() -> Result<Infallible, Error> {
    for mount in BASE {
        mount.mount()?;
    }
    mounts::make_dir(Path::new("/run/ashlar"), 0o755)?;
    // Without this the kernel drops most of our lines: ten in five seconds is its limit for programs. If the
    // command line has fixed another value, that stands. The kernel insists on the end of the line.
    let _ = std::fs::write("/proc/sys/kernel/printk_devkmsg", "on\n");
    console::info(format_args!("init {}", env!("CARGO_PKG_VERSION")));
    let cmdline = std::fs::read_to_string("/proc/cmdline").map_err(Error::io("read", "/proc/cmdline"))?;
    let root = VerityRoot::parse(&cmdline)?;

    let uevents = Uevents::open().map_err(Error::io("listen for", "device events"))?;
    modules::load_all()?;
    let [securityfs, efivarfs] = FIRMWARE;
    securityfs.mount()?;
    // Without UEFI the folder is missing; then the variable below is missing too, and that is the reason to tell.
    if Path::new(efi::MOUNT).exists() {
        efivarfs.mount()?;
    }
    let trial = trial::guard();
    let mut measurer = measure::open(&uevents)?;
    measurer.phase(Phase::EnterInitrd)?;

    let boot = find_disk(efi::loader_partition()?, &uevents)?;
    console::info(format_args!("started from {} on the disk {}", boot.esp.label, boot.disk.name));
    let found = find_root(&boot, &root, &uevents)?;
    console::info(format_args!("root {} on {} ({})", root.root_hash, found.label, found.data.path.display()));
    mount_root(&dm::open(&root, &found.data, &found.tree)?, &uevents)?;

    let owner: Owner = read_json(&Path::new(OWNER_DIR).join(OWNER_FILE))?;
    // The root is mounted and verified, and so is what it says.
    let manifest: Manifest = read_json(Path::new(&format!("{}{MANIFEST_PATH}", switch::SYSROOT)))?;
    let start = state::Start {
        device: &state_device(&boot, &uevents)?,
        secure_boot: efi::secure_boot(),
        security_version: manifest.security_version,
        owner: &owner,
        asks: !trial,
    };
    let state = state::open(&start, &mut measurer)?;

    measurer.phase(Phase::LeaveInitrd)?;
    let measured = measurer.log().to_vec();
    Boot { root_hash: root.root_hash, root_partition: found.label, measured, owner, state }.write()?;
    switch::switch()
}

/// The state partition of the boot disk. There is one, and it is where the image's table has it: the place of the type
/// in the table, never a label alone.
fn state_device(boot: &BootDisk, uevents: &Uevents) -> Result<Device, Error> {
    let entry = PARTITIONS.iter().find(|entry| entry.role == Role::State);
    let wanted = entry.and_then(|entry| {
        let type_guid: Guid = entry.type_guid.parse().ok()?;
        boot.table.iter().find(|found| found.number == entry.number && found.type_guid == type_guid)
    });
    let missing = || Error::NoStatePartition(boot.disk.name.clone());
    let wanted = wanted.ok_or_else(missing)?;
    let device = || boot.disk.device(wanted).filter(|device| device.path.exists());
    uevents.wait(DISK_DEADLINE, device).ok_or_else(missing)
}

/// Looks at all disks for the partition `guid`.
fn look_for_disk(guid: Guid) -> (Vec<BootDisk>, Vec<String>) {
    let mut found = Vec::new();
    let mut others = Vec::new();
    for disk in disks() {
        match disk.table() {
            Ok(table) => match table.iter().find(|partition| partition.guid == guid).cloned() {
                Some(esp) => found.push(BootDisk { disk, table, esp }),
                None => others.push(format!("{} is another disk", disk.name)),
            },
            Err(error) => others.push(format!("{}: {error}", disk.name)),
        }
    }
    (found, others)
}

/// Waits for the disk with the partition `guid`.
fn find_disk(guid: Guid, uevents: &Uevents) -> Result<BootDisk, Error> {
    let mut seen = Vec::new();
    let found = uevents.wait(DISK_DEADLINE, || {
        let (found, others) = look_for_disk(guid);
        seen = others;
        (!found.is_empty()).then_some(found)
    });
    let mut found = found.unwrap_or_default();
    match (found.pop(), found.pop()) {
        (Some(disk), None) => Ok(disk),
        (Some(one), Some(other)) => {
            Err(Error::TwoBootDisks(format!("{} and {}", other.disk.name, one.disk.name)))
        }
        (None, _) => Err(Error::NoBootDisk {
            guid,
            seconds: DISK_DEADLINE.as_secs(),
            disks: if seen.is_empty() { "none".into() } else { seen.join(", ") },
        }),
    }
}

/// Finds the partitions that hold `root`. Both slots may: then the booted one wins.
fn find_root(boot: &BootDisk, root: &VerityRoot, uevents: &Uevents) -> Result<Root, Error> {
    // The kernel makes the partitions' devices a moment after the disk's.
    let device = |partition: &Partition| {
        uevents.wait(DISK_DEADLINE, || boot.disk.device(partition).filter(|device| device.path.exists()))
    };
    let mut tried = Vec::new();
    for candidate in slot::candidates(&boot.table, &boot.esp) {
        let name = &candidate.tree.label;
        let Some(tree) = device(candidate.tree) else {
            tried.push(format!("{name} has no device"));
            continue;
        };
        let opened = tree.open()?;
        if let Err(error) = verity::check_tree(root, &opened) {
            tried.push(format!("{name}: {error}"));
            continue;
        }
        for partition in candidate.data {
            let name = &partition.label;
            let Some(data) = device(partition) else {
                tried.push(format!("{name} has no device"));
                continue;
            };
            match verity::check_data(root, &opened, &data.open()?) {
                Ok(()) => return Ok(Root { data, tree, label: name.clone() }),
                Err(error) => tried.push(format!("{name}: {error}")),
            }
        }
    }
    Err(Error::NoRoot {
        disk: boot.disk.name.clone(),
        hash: root.root_hash,
        tried: if tried.is_empty() { "it has no verity partition".into() } else { tried.join("; ") },
    })
}

/// Mounts the root and looks whether it has an init.
fn mount_root(device: &PathBuf, uevents: &Uevents) -> Result<(), Error> {
    let failed = |source| Error::Mount { kind: "erofs".into(), target: switch::SYSROOT.into(), source };
    uevents
        .wait(DISK_DEADLINE, || device.exists().then_some(()))
        .ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    mounts::make_dir(Path::new(switch::SYSROOT), 0o755)?;
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount(device, switch::SYSROOT, "erofs", flags, None)
        .map_err(|error| failed(error.into()))?;
    let init = format!("{}{INIT_PATH}", switch::SYSROOT);
    std::fs::metadata(&init).map_err(Error::io("find", init))?;
    Ok(())
}
