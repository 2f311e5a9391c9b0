//! What is linted: values that the builder has at hand before it signs.

use ashlar_tree::Tree;

/// A container in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Container<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where its root lies in the tree (`/usr/lib/ashlar/containers/NAME/rootfs`).
    pub prefix: &'a str,
}

/// A kernel module that the image loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Name; `-` and `_` are the same.
    pub name: String,
    /// Names of the modules whose symbols it uses (`depends=` of its `.modinfo`).
    pub depends: Vec<String>,
}

impl Module {
    /// Reads what a module needs from its uncompressed ELF file: `depends=` in the section `.modinfo`. `None` if it is
    /// no ELF file of 64 bits with that section.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Option<Self> {
        use object::read::elf::ElfFile64;
        use object::{Object, ObjectSection};
        let file = ElfFile64::<object::LittleEndian>::parse(bytes).ok()?;
        let section = file.section_by_name(".modinfo")?;
        let depends = section
            .data()
            .ok()?
            .split(|&b| b == 0)
            .filter_map(|line| std::str::from_utf8(line).ok()?.strip_prefix("depends="))
            .flat_map(|names| names.split(','))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        Some(Self { name: name.to_owned(), depends })
    }
}

/// The modules of an image, each list in the order in which init loads it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Modules<'a> {
    /// Loaded from the initramfs.
    pub initramfs: &'a [Module],
    /// Loaded from the root.
    pub root: &'a [Module],
    /// Names of what is built into the kernel (`modules.builtin`): `dm_mod` or `kernel/drivers/md/dm-mod.ko`.
    pub built_in: &'a [String],
}

/// How the root is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// Sizes of the three partitions of a slot, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionBytes {
    /// EFI system partition.
    pub esp: u64,
    /// Root.
    pub root: u64,
    /// Verity tree.
    pub verity: u64,
}

impl From<&ashlar_image::layout::Sizes> for PartitionBytes {
    fn from(sizes: &ashlar_image::layout::Sizes) -> Self {
        Self { esp: sizes.esp, root: sizes.root, verity: sizes.verity }
    }
}

/// What the image needs and what there is for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// What the slot's three images take.
    pub needed: PartitionBytes,
    /// The partitions of the recipe.
    pub partitions: PartitionBytes,
    /// The smallest partitions of machines that are already installed; the recipe names them.
    pub smallest_in_field: Option<PartitionBytes>,
}

/// A certificate of the owner.
#[derive(Debug, Clone, Copy)]
pub struct Certificate<'a> {
    /// How the owner calls it (`db`).
    pub name: &'a str,
    /// DER.
    pub der: &'a [u8],
}

/// Facts of the build host that have no business in an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Host name.
    pub host_name: Option<String>,
    /// Name of the user who builds.
    pub user_name: Option<String>,
    /// Home directory of the user who builds.
    pub home: Option<String>,
    /// Absolute paths: the folder of the recipe, of the keys, of the cache, of the output.
    pub paths: Vec<String>,
}

impl HostFacts {
    /// The facts of this machine and user, with these folders.
    pub fn of_this_machine(folders: &[&std::path::Path]) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            host_name: rustix::system::uname().nodename().to_str().ok().map(str::to_owned),
            user_name: variable("USER").or_else(|| variable("LOGNAME")),
            home: variable("HOME"),
            paths: folders
                .iter()
                .filter_map(|folder| std::path::absolute(folder).ok())
                .filter_map(|folder| folder.to_str().map(str::to_owned))
                .collect(),
        }
    }
}

/// What is linted.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The whole root, containers under their prefixes.
    pub tree: &'a Tree,
    /// The containers.
    pub containers: &'a [Container<'a>],
    /// The text of os-release that goes into the root and the UKI.
    pub os_release: &'a str,
    /// The kernel's configuration (Debian's `/boot/config-VERSION`), if the package has one.
    pub kernel_config: Option<&'a str>,
    /// The kernel's version, as `uname -r` says it.
    pub kernel_version: &'a str,
    /// The kernel modules.
    pub modules: Modules<'a>,
    /// The kernel's command line.
    pub cmdline: &'a str,
    /// How the root is compressed.
    pub compression: Compression,
    /// Sizes, once they are known.
    pub sizes: Option<Sizes>,
    /// What to look for in file contents, beside keys and tokens.
    pub host: HostFacts,
    /// Certificates of the owner.
    pub certificates: &'a [Certificate<'a>],
    /// Files that no package brought (the recipe's files and folders), as paths in the whole tree. Where they are
    /// not known, the rules about them are silent.
    pub own_files: &'a [String],
    /// Time of the build, seconds since 1970.
    pub build_time: i64,
}

#[cfg(test)]
mod tests {
    use super::Module;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// An object file as the assembler makes it, with the section that kernel modules have.
    #[test]
    fn what_a_module_needs() {
        let folder = tempfile::tempdir().unwrap();
        let object = folder.path().join("m.ko");
        let gcc = Command::new("timeout")
            .args(["60", "gcc", "-c", "-x", "assembler", "-o"])
            .arg(&object)
            .arg("-")
            .stdin(Stdio::piped())
            .spawn();
        let source = b".section .modinfo,\"a\"\n.asciz \"name=m\"\n.asciz \"depends=dm-mod,dax\"\n.asciz \"x=depends=y\"\n";
        let made = gcc.ok().and_then(|mut gcc| {
            gcc.stdin.take()?.write_all(source).ok()?;
            gcc.wait().ok().filter(std::process::ExitStatus::success)
        });
        if made.is_none() {
            eprintln!("skipped: gcc is not installed");
            return;
        }
        let bytes = std::fs::read(&object).unwrap();
        assert_eq!(Module::from_bytes("m", &bytes).unwrap().depends, ["dm-mod", "dax"]);
        for cut in 0..bytes.len() {
            Module::from_bytes("m", &bytes[..cut]);
        }
        assert_eq!(Module::from_bytes("m", b"no ELF file"), None);
    }
}
