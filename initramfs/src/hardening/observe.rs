//! Reading the machine back. Only files are read, none of them large, and nothing waits.

use super::{mountinfo, processes};
use crate::{cgroup, sysctl};
use ashlar_image::hardening::{Expectation, Observed, PrivilegedFile, Swap, Unit};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const SIGNATURES: &str = "/sys/module/module/parameters/sig_enforce";
/// Whether a kernel is loaded to be started in place of this one, or when this one panics.
const KEXEC: [&str; 2] = ["/sys/kernel/kexec_loaded", "/sys/kernel/kexec_crash_loaded"];
/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

fn text(path: &str) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
    Some(text)
}

/// A parameter of a module: `Y` or `N`.
fn is_on(text: &str) -> Option<bool> {
    match text.trim() {
        "Y" | "1" => Some(true),
        "N" | "0" => Some(false),
        _ => None,
    }
}

/// The swap areas of `/proc/swaps`: a line of titles, then `FILE TYPE SIZE USED PRIORITY`. `is_safe` tells of a file
/// whether what is written to it is encrypted.
pub fn swaps(text: &str, is_safe: impl Fn(&str) -> bool) -> Vec<Swap> {
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next())
        .map(|path| Swap { path: path.to_owned(), safe: is_safe(path) })
        .collect()
}

/// Whether a block device encrypts, by what it is in `class` (`/sys/class/block`): the device mapper's `crypt`, or
/// zram, which is memory.
fn encrypts(path: &str, class: &Path) -> bool {
    let Some(name) = Path::new(path).file_name().and_then(|name| name.to_str()) else { return false };
    let uuid = fs::read_to_string(class.join(name).join("dm/uuid")).unwrap_or_default();
    path.starts_with("/dev/") && (name.starts_with("zram") || uuid.starts_with("CRYPT-"))
}

/// The control group of what a service or container runs; none for a name that is a path.
fn group(unit: &Unit) -> Option<PathBuf> {
    let plain = |name: &str| !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    match unit {
        Unit::Service(name) if plain(name) => Some(cgroup::service(name)),
        // The runtime is the machine's own and lies beside it.
        Unit::Container(name) if plain(name) => Some(cgroup::container(name).join("payload")),
        _ => None,
    }
}

/// Reads what `expectations` are about, `files` excepted: that is what a [`super::files::Walk`] has found.
pub fn read(expectations: &[Expectation], files: Option<Vec<PrivilegedFile>>) -> Observed {
    let units = expectations.iter().filter_map(|expectation| match expectation {
        Expectation::Confined { unit, .. } => Some(unit),
        _ => None,
    });
    let kexec: Vec<Option<bool>> = KEXEC.iter().map(|path| is_on(&text(path)?)).collect();
    Observed {
        sysctls: sysctl::read(),
        lockdown: text(LOCKDOWN),
        signatures_enforced: text(SIGNATURES).and_then(|text| is_on(&text)),
        kexec_loaded: match kexec.as_slice() {
            [Some(one), Some(other)] => Some(*one || *other),
            // A kernel without kexec has neither file.
            [None, None] => Some(false),
            [Some(one), None] | [None, Some(one)] => Some(*one),
            _ => None,
        },
        mounts: text("/proc/self/mountinfo").and_then(|text| mountinfo::parse(&text)),
        privileged_files: files,
        // Without the file the kernel has no swap.
        swaps: Some(swaps(&text("/proc/swaps").unwrap_or_default(), |path| {
            encrypts(path, Path::new("/sys/class/block"))
        })),
        processes: units
            .filter_map(|unit| Some((unit.clone(), processes::of_group(&group(unit)?))))
            .filter(|(_, processes)| !processes.is_empty())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::hardening::{check, defaults};

    #[test]
    fn swap_areas() {
        let folder = tempfile::tempdir().unwrap();
        for (name, uuid) in [("dm-1", "CRYPT-PLAIN-swap"), ("dm-2", "LVM-abc")] {
            fs::create_dir_all(folder.path().join(name).join("dm")).unwrap();
            fs::write(folder.path().join(name).join("dm/uuid"), uuid).unwrap();
        }
        let text = "Filename\tType\tSize\tUsed\tPriority\n/dev/dm-1 partition 1 0 -2\n/dev/dm-2 partition 1 0 -3\n\
                    /dev/zram0 partition 1 0 100\n/var/zram1 file 1 0 -4\n/dev/vda9 partition 1 0 -5\n";
        let safe: Vec<bool> =
            swaps(text, |path| encrypts(path, folder.path())).iter().map(|swap| swap.safe).collect();
        assert_eq!(safe, [true, false, true, false, false]);
        assert!(swaps("", |_| false).is_empty());
    }

    #[test]
    fn groups_of_units() {
        assert!(group(&Unit::Container("web".into())).unwrap().ends_with("containers/web/payload"));
        assert!(group(&Unit::Service("web".into())).unwrap().ends_with("services/web"));
        for bad in ["", "..", "a/b", "/etc"] {
            assert_eq!(group(&Unit::Service(bad.into())), None, "{bad}");
        }
    }

    #[test]
    fn this_machine_can_be_read_and_is_no_ashlar() {
        let observed = read(&defaults(), Some(Vec::new()));
        assert!(observed.mounts.as_ref().is_some_and(|mounts| !mounts.is_empty()));
        let differences = check(&defaults(), &observed);
        assert!(differences.iter().any(|one| one.subject == "mount /"), "{differences:?}");
        assert!(differences.iter().all(|one| !one.of_process));
    }
}
