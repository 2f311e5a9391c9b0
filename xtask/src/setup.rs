//! Installing what building and testing need, from the machine's own Debian mirror.

use crate::run::run;
use std::process::Command;

/// Debian packages, by the same names in Debian 12 and 13.
const PACKAGES: &[&str] = &[
    "binutils",
    "cpio",
    "cryptsetup-bin",
    "debian-archive-keyring",
    "dosfstools",
    "efitools",
    "erofs-utils",
    "gcc",
    "gdisk",
    "libc6-dev",
    "mtools",
    "nix-bin",
    "openssl",
    "osslsigncode",
    "ovmf",
    "qemu-system-x86",
    "qemu-utils",
    "sbsigntool",
    "swtpm",
    "swtpm-tools",
    "systemd-boot-efi",
    "tpm2-tools",
    "zstd",
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

/// Installs what is missing, as root or through `sudo` where it asks for no password; otherwise says what
/// to run.
pub fn setup() -> Result<(), String> {
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
    let apt = |arguments: &[&str]| {
        let words = [&prefix[1..], &["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"], arguments].concat();
        // `prefix` is `env` or `sudo -n env`; its first word is the program.
        run(prefix[0], &words)
    };
    apt(&["update"])?;
    apt(&[&["install", "-y", "--no-install-recommends"], missing.as_slice()].concat())
}
