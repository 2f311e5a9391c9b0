//! Installing what building, testing and measuring need, from the machine's own Debian mirror.

use crate::run::run;
use std::process::Command;

/// Debian packages, by the same names in Debian 12 and 13.
const PACKAGES: &[&str] = &[
    "binutils",
    "bzip2",
    "ca-certificates",
    "casync",
    "chrony",
    "cpio",
    "cryptsetup-bin",
    "curl",
    "debian-archive-keyring",
    "diffutils",
    "dnsmasq-base",
    "docker-registry",
    "dosfstools",
    "e2fsprogs",
    "efitools",
    "erofs-utils",
    "etcd-client",
    "etcd-server",
    "fdisk",
    "gcc",
    "gdisk",
    "gnupg",
    "iproute2",
    "kmod",
    "libc-bin",
    "libc6-dev",
    "libfaketime",
    "libprotobuf-dev",
    "mmdebstrap",
    "mount",
    "mtools",
    "nginx",
    "nix-bin",
    "opensc",
    "openssh-client",
    "openssl",
    "osslsigncode",
    "ovmf",
    "passwd",
    "protobuf-compiler",
    "python3-jsonschema",
    "python3-venv",
    "qemu-system-x86",
    "qemu-utils",
    "sbsigntool",
    "seccomp",
    "skopeo",
    "softhsm2",
    "squashfs-tools",
    "strace",
    "swtpm",
    "swtpm-tools",
    "systemd",
    "systemd-boot-efi",
    "tpm2-tools",
    "user-mode-linux",
    "util-linux",
    "xz-utils",
    "zstd",
];

/// The packages that start a service when they are installed, and the service. The tests start their own.
const SERVICES: &[(&str, &str)] = &[
    ("chrony", "chrony"),
    ("docker-registry", "docker-registry"),
    ("etcd-server", "etcd"),
    ("nginx", "nginx"),
];

/// Whether dpkg knows a package as installed.
fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// Whether a program succeeds silently.
fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Installs the packages that are missing, as root or through `sudo` where it asks for no password; otherwise says
/// what to run.
pub fn packages() -> Result<(), String> {
    let missing: Vec<&str> = PACKAGES.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    let prefix: &[&str] = match (root, succeeds("sudo", &["-n", "true"])) {
        (true, _) => &["env"],
        (false, true) => &["sudo", "-n", "env"],
        (false, false) => {
            return Err(format!(
                "these packages are missing and sudo asks for a password: {list}\nrun: sudo apt-get install --no-install-recommends {list}"
            ));
        }
    };
    let as_root = |arguments: &[&str]| {
        // `prefix` is `env` or `sudo -n env`; its first word is the program.
        run(prefix[0], &[&prefix[1..], &["DEBIAN_FRONTEND=noninteractive"], arguments].concat())
    };
    as_root(&["apt-get", "-q", "update"])?;
    as_root(&[&["apt-get", "-q", "install", "-y", "--no-install-recommends"], missing.as_slice()].concat())?;
    // Only those of packages that were not here: a service that was is somebody's.
    for (_, service) in SERVICES.iter().filter(|(package, _)| missing.contains(package)) {
        // Debian's own ways to services, with systemd and without.
        as_root(&["invoke-rc.d", service, "stop"])?;
        as_root(&["update-rc.d", service, "disable"])?;
    }
    Ok(())
}
