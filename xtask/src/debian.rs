//! A machine of Debian packages, for measuring beside it and as a judge that shares no code with ours: a tree by
//! mmdebstrap, the initrd by initramfs-tools, an unified kernel image in an EFI system partition, the root on ext4.

use crate::bench::measure::measure;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What every such machine is made of beside Debian's minimal tree.
const ALWAYS: &[&str] = &["busybox-static", "initramfs-tools", "kmod", "linux-image-amd64", "udev", "zstd"];
/// The release of Debian that the example has.
const SUITE: &str = "trixie";
/// The systemd stub that makes a kernel, an initrd and a command line one program.
const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// The root's identity in the partition table, which the command line names.
const ROOT_GUID: &str = "6f1d8c1e-53a4-4f0a-9d5e-0a4c9c1e7b11";
/// Sizes of the partitions, in MiB; the first begins after one.
const ESP_MIB: u64 = 256;
const ROOT_MIB: u64 = 2048;

/// An unpacked and configured tree.
pub struct Debian {
    tree: PathBuf,
}

fn io<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> String + 'a {
    move |error| format!("cannot {what} `{}`: {error}", path.display())
}

fn text(path: &Path) -> Result<&str, String> {
    path.to_str().ok_or_else(|| format!("`{}` is no UTF-8", path.display()))
}

/// The Debian mirror of the machine's own apt sources.
fn mirror() -> Result<String, String> {
    let filter = [
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Origin: Debian",
        "Label: Debian",
    ];
    let (_, list) = measure("apt-get", &filter)?;
    let list = String::from_utf8_lossy(&list);
    list.lines().next().map(str::to_owned).ok_or_else(|| {
        "apt knows no Debian mirror; add one to its sources and run `apt-get update`".to_owned()
    })
}

/// Whether this process is root's, which unpacking a tree with its owners takes.
pub fn is_root() -> Result<bool, String> {
    Ok(measure("id", &["-u"])?.1.trim_ascii() == b"0")
}

impl Debian {
    /// A tree in `folder` with these packages and, if one is named, this kernel. It is kept for the next time; only the
    /// first takes minutes and the network.
    pub fn tree(folder: &Path, packages: &[&str], kernel: Option<&str>) -> Result<Self, String> {
        let debian = Self { tree: folder.join("tree") };
        let marker = folder.join("packages");
        let wanted = [ALWAYS, packages].concat().join(",");
        let fits = |debian: &Self| {
            let found = debian.kernel();
            found.is_ok_and(|found| kernel.is_none_or(|kernel| kernel == found))
        };
        if std::fs::read_to_string(&marker).is_ok_and(|text| text == wanted) && fits(&debian) {
            return Ok(debian);
        }
        eprintln!("xtask: making a Debian tree in `{}`; this takes some minutes", folder.display());
        let _ = std::fs::remove_file(&marker);
        if debian.tree.exists() {
            std::fs::remove_dir_all(&debian.tree).map_err(io("remove", &debian.tree))?;
        }
        std::fs::create_dir_all(folder).map_err(io("make", folder))?;
        let include = format!("--include={wanted}");
        let keyring = "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg";
        let options = ["--mode=root", "--variant=minbase", "--components=main", keyring, &include];
        measure("mmdebstrap", &[&options[..], &[SUITE, text(&debian.tree)?, &mirror()?]].concat())?;
        std::fs::write(&marker, &wanted).map_err(io("write", &marker))?;
        if fits(&debian) {
            return Ok(debian);
        }
        Err(format!(
            "the mirror has kernel {}, the image {}; build it again without its lock file",
            debian.kernel()?,
            kernel.unwrap_or_default()
        ))
    }

    /// The release of its kernel, as `uname -r` gives it.
    pub fn kernel(&self) -> Result<String, String> {
        let boot = self.path("boot");
        let names = std::fs::read_dir(&boot).map_err(io("read", &boot))?;
        names
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .max()
            .ok_or_else(|| format!("no kernel in `{}`", boot.display()))
    }

    /// A path in the tree.
    pub fn path(&self, name: &str) -> PathBuf {
        self.tree.join(name.trim_start_matches('/'))
    }

    /// Writes a file of the tree.
    pub fn write(&self, name: &str, mode: u32, content: &str) -> Result<(), String> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io("make", folder))?;
        }
        std::fs::write(&path, content).map_err(io("write", &path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).map_err(io("write", &path))
    }

    /// Makes a unit of systemd start with the machine.
    pub fn enable(&self, unit: &str, folder: &str) -> Result<(), String> {
        let link = self.path("/etc/systemd/system/multi-user.target.wants").join(unit);
        let wants = link.parent().unwrap_or(&self.tree);
        std::fs::create_dir_all(wants).map_err(io("make", wants))?;
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(format!("{folder}/{unit}"), &link).map_err(io("write", &link))
    }

    /// Replaces a folder of the tree by a copy of another one, with its owners.
    pub fn copy(&self, from: &Path, name: &str) -> Result<(), String> {
        let to = self.path(name);
        if to.exists() {
            std::fs::remove_dir_all(&to).map_err(io("remove", &to))?;
        }
        let parent = to.parent().unwrap_or(&self.tree);
        std::fs::create_dir_all(parent).map_err(io("make", parent))?;
        measure("cp", &["-a", "--", text(from)?, text(&to)?]).map(drop)
    }

    /// Makes a disk that UEFI firmware boots: `keys` is a folder with `db.key` and `db.crt` to sign the kernel image with.
    pub fn disk(&self, disk: &Path, cmdline: &str, keys: Option<&Path>) -> Result<(), String> {
        let uki = disk.with_extension("efi");
        self.uki(&uki, &format!("root=PARTUUID={ROOT_GUID} rw {cmdline}"), keys)?;
        let file = std::fs::File::create(disk).map_err(io("write", disk))?;
        file.set_len((1 + ESP_MIB + ROOT_MIB + 1) << 20).map_err(io("write", disk))?;
        let name = text(disk)?;
        let (esp, root) = (format!("1:1M:+{ESP_MIB}M"), format!("2:0:+{ROOT_MIB}M"));
        let guid = format!("2:{ROOT_GUID}");
        measure("sgdisk", &["-n", &esp, "-t", "1:ef00", "-n", &root, "-t", "2:8304", "-u", &guid, name])?;
        let esp = format!("{name}@@1M");
        measure("mformat", &["-i", &esp, "-F", "-T", &(ESP_MIB << 11).to_string(), "::"])?;
        measure("mmd", &["-i", &esp, "::/EFI", "::/EFI/BOOT"])?;
        measure("mcopy", &["-i", &esp, text(&uki)?, "::/EFI/BOOT/BOOTX64.EFI"])?;
        // What ext4 would otherwise do in the background of the first starts is done now.
        let options =
            format!("offset={},lazy_itable_init=0,lazy_journal_init=0,nodiscard", (1 + ESP_MIB) << 20);
        let size = format!("{}k", ROOT_MIB << 10);
        measure("mkfs.ext4", &["-q", "-F", "-d", text(&self.tree)?, "-E", &options, name, &size]).map(drop)
    }

    /// One program of kernel, initrd and command line (UAPI.5).
    fn uki(&self, uki: &Path, cmdline: &str, keys: Option<&Path>) -> Result<(), String> {
        let kernel = self.kernel()?;
        let line = uki.with_extension("cmdline");
        std::fs::write(&line, cmdline).map_err(io("write", &line))?;
        let sections = [
            (".osrel", self.path("usr/lib/os-release")),
            (".cmdline", line),
            (".linux", self.path(&format!("boot/vmlinuz-{kernel}"))),
            (".initrd", self.path(&format!("boot/initrd.img-{kernel}"))),
        ];
        let mut at = end_of_sections(STUB)?;
        let mut arguments = Vec::new();
        for (name, file) in sections {
            let length = std::fs::metadata(&file).map_err(io("read", &file))?.len();
            at = at.next_multiple_of(4096);
            arguments.push(format!("--add-section={name}={}", text(&file)?));
            arguments.push(format!("--change-section-vma={name}={at:#x}"));
            at += length;
        }
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.extend([STUB, text(uki)?]);
        measure("objcopy", &arguments)?;
        let Some(keys) = keys else { return Ok(()) };
        let (key, certificate) = (keys.join("db.key"), keys.join("db.crt"));
        let name = text(uki)?;
        let arguments = ["--key", text(&key)?, "--cert", text(&certificate)?, "--output", name, name];
        measure("sbsign", &arguments).map(drop)
    }
}

/// Where the last section of a program ends in memory.
fn end_of_sections(program: &str) -> Result<u64, String> {
    let (_, table) = measure("objdump", &["-h", "-w", program])?;
    let number = |word: &str| u64::from_str_radix(word, 16).ok();
    // Index, name, size, address, and more.
    let end = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.first()?.parse::<u32>().ok()?;
        Some(number(words.get(3)?)? + number(words.get(2)?)?)
    };
    let table = String::from_utf8_lossy(&table);
    table.lines().filter_map(end).max().ok_or_else(|| format!("`{program}` has no sections"))
}
