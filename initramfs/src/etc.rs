//! `/etc`: in memory, made of the image's own files and of what the machine configuration says, and read only for all
//! but init.
//!
//! Init keeps a second mount of the same file system, which is part of no directory tree: through it, files are replaced
//! while `/etc` itself is never writable.

use crate::console;
use crate::error::Error;
use crate::mounts;
use crate::oci::bundle::RESOLV_CONF;
use ashlar_image::machine::MachineConfig;
use ashlar_image::manifest::Manifest;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

/// Where it is.
pub const FOLDER: &str = "/etc";
/// Where it is made before it is moved there.
const STAGING: &str = "/run/ashlar/etc";
/// Environment with the proxies, one `NAME=value` a line; only root may read it, for there may be passwords in it.
pub const PROXY: &str = "ashlar/proxy.env";
/// Size of the file system in memory, and most files in it.
const OPTIONS: &CStr = c"mode=0755,size=32m,nr_inodes=16384";
/// What the image's own files may be: bytes, entries, folders within folders.
const MAX_BYTES: u64 = 24 << 20;
const MAX_ENTRIES: usize = 12_000;
const MAX_DEPTH: usize = 32;
/// What can hold data and no programs.
const FLAGS: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

/// A file that is generated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A file with this content, for everybody to read.
    File(String),
    /// A file with this content for root alone.
    Secret(String),
    /// A symbolic link to this.
    Link(&'static str),
    /// A symbolic link where the image has no file of its own.
    LinkUnlessThere(&'static str),
}

/// The machine's name.
pub fn host_name<'a>(manifest: &'a Manifest, config: Option<&'a MachineConfig>) -> &'a str {
    config.and_then(|config| config.hostname.as_deref()).unwrap_or(&manifest.hostname)
}

/// Environment variables for programs that reach the network through a proxy; both spellings are in use.
pub fn proxy_environment(config: Option<&MachineConfig>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let Some(proxy) = config.map(|config| &config.network.proxy) else { return variables };
    let no_proxy = (!proxy.no_proxy.is_empty()).then(|| proxy.no_proxy.join(","));
    let http = proxy.http.as_ref().map(ToString::to_string);
    let https = proxy.https.as_ref().map(ToString::to_string);
    for (name, value) in [("http_proxy", http), ("https_proxy", https), ("no_proxy", no_proxy)] {
        if let Some(value) = value {
            variables.insert(name.to_ascii_uppercase(), value.clone());
            variables.insert(name.to_owned(), value);
        }
    }
    variables
}

/// The generated files, by path below `/etc`. `machine_id` is 32 hexadecimal digits.
pub fn files(
    manifest: &Manifest,
    config: Option<&MachineConfig>,
    machine_id: Option<&str>,
) -> BTreeMap<String, Entry> {
    let name = host_name(manifest, config);
    let short = name.split('.').next().unwrap_or(name);
    let aliases = if short == name { name.to_owned() } else { format!("{name} {short}") };
    let mut files = BTreeMap::from([
        ("hostname".into(), Entry::File(format!("{name}\n"))),
        (
            "hosts".into(),
            Entry::File(format!(
                "127.0.0.1 localhost\n127.0.1.1 {aliases}\n::1 localhost ip6-localhost ip6-loopback\n\
                 ff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n"
            )),
        ),
        ("resolv.conf".into(), Entry::Link(RESOLV_CONF)),
        ("localtime".into(), Entry::LinkUnlessThere("/usr/share/zoneinfo/Etc/UTC")),
    ]);
    if let Some(id) = machine_id {
        files.insert("machine-id".into(), Entry::File(format!("{id}\n")));
    }
    let mut proxy = String::new();
    for (name, value) in proxy_environment(config) {
        let _ = writeln!(proxy, "{name}={value}");
    }
    files.insert(PROXY.into(), Entry::Secret(proxy));
    files
}

/// `/etc` as init has it: the mount that it can write through.
#[derive(Debug)]
pub struct Etc {
    mount: OwnedFd,
    files: BTreeMap<String, Entry>,
}

/// Makes `/etc`. The image's own files are read before it is mounted over them.
///
/// # Errors
/// What cannot be read, made or mounted, and an image whose `/etc` is larger than 24 MiB or 12,000 entries.
pub fn set_up(
    manifest: &Manifest,
    config: Option<&MachineConfig>,
    machine_id: Option<&str>,
) -> Result<Etc, Error> {
    let files = files(manifest, config, machine_id);
    Etc::make(Path::new(FOLDER), Path::new(STAGING), files)
}

/// The machine's own path to a file behind a descriptor.
fn behind(mount: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()))
}

impl Etc {
    /// Makes a file system of `target`'s own files and of `files`, by way of the folder `staging`, and mounts it over
    /// `target`.
    pub fn make(target: &Path, staging: &Path, files: BTreeMap<String, Entry>) -> Result<Self, Error> {
        mounts::make_dir(staging, 0o700)?;
        let failed = |source: rustix::io::Errno| Error::Mount {
            kind: "tmpfs".into(),
            target: target.into(),
            source: source.into(),
        };
        rustix::mount::mount("tmpfs", staging, "tmpfs", FLAGS, OPTIONS).map_err(failed)?;
        let result = Self::fill(target, staging, files, &failed);
        if result.is_err() {
            let _ = rustix::mount::unmount(staging, UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir(staging);
        result
    }

    fn fill(
        target: &Path,
        staging: &Path,
        files: BTreeMap<String, Entry>,
        failed: &dyn Fn(rustix::io::Errno) -> Error,
    ) -> Result<Self, Error> {
        let mut budget = Budget { bytes: MAX_BYTES, entries: MAX_ENTRIES };
        copy(target, staging, &mut budget, MAX_DEPTH)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = rustix::mount::open_tree(rustix::fs::CWD, staging, flags).map_err(failed)?;
        let etc = Self { mount, files };
        for (path, entry) in &etc.files {
            etc.write(path, entry)?;
        }
        // Only this mount becomes read only, not the file system.
        let read_only = FLAGS | MountFlags::RDONLY | MountFlags::BIND;
        rustix::mount::mount_remount(staging, read_only, c"").map_err(failed)?;
        rustix::mount::mount_move(staging, target).map_err(failed)?;
        Ok(etc)
    }

    /// Replaces what differs with a new configuration; tells the paths that changed. Each file is the old one or the new
    /// one at any time.
    ///
    /// # Errors
    /// What cannot be written. All before it, in the order of the paths, are new then.
    pub fn update(
        &mut self,
        manifest: &Manifest,
        config: Option<&MachineConfig>,
        machine_id: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        self.replace(files(manifest, config, machine_id))
    }

    /// [`Etc::update`] with these files.
    pub fn replace(&mut self, files: BTreeMap<String, Entry>) -> Result<Vec<String>, Error> {
        let mut changed = Vec::new();
        for (path, entry) in files {
            if self.files.get(&path) != Some(&entry) {
                self.write(&path, &entry)?;
                changed.push(path.clone());
                self.files.insert(path, entry);
            }
        }
        Ok(changed)
    }

    fn write(&self, path: &str, entry: &Entry) -> Result<(), Error> {
        let target = behind(&self.mount).join(path);
        let failed = || Error::io("write", Path::new(FOLDER).join(path));
        if let Some(folder) = target.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(folder).map_err(failed())?;
        }
        let mut name = target.file_name().unwrap_or_default().to_os_string();
        name.push(".new");
        let new = target.with_file_name(name);
        // What a power cut left would be gone with the memory; what a failure left is in the way.
        let _ = fs::remove_file(&new);
        let (content, mode) = match entry {
            Entry::File(content) => (content, 0o644),
            Entry::Secret(content) => (content, 0o600),
            Entry::LinkUnlessThere(_) if target.symlink_metadata().is_ok() => return Ok(()),
            Entry::Link(to) | Entry::LinkUnlessThere(to) => {
                symlink(to, &new).map_err(failed())?;
                return fs::rename(&new, &target).map_err(failed());
            }
        };
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&new).map_err(failed())?;
        file.write_all(content.as_bytes()).map_err(failed())?;
        fs::rename(&new, &target).map_err(failed())
    }
}

struct Budget {
    bytes: u64,
    entries: usize,
}

/// The image's `/etc` is too large for the memory that it gets.
fn too_large(path: &Path) -> Error {
    let message = "the image's /etc is larger than 24 MiB or 12,000 files; put large files elsewhere";
    Error::io("copy", path)(io::Error::new(io::ErrorKind::FileTooLarge, message))
}

/// Copies what is in `from`: folders, files and links, with their owners and modes. Nothing else belongs there.
fn copy(from: &Path, to: &Path, budget: &mut Budget, depth: usize) -> Result<(), Error> {
    let Some(depth) = depth.checked_sub(1) else { return Err(too_large(from)) };
    for entry in fs::read_dir(from).map_err(Error::io("read", from))? {
        let entry = entry.map_err(Error::io("read", from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        budget.entries = budget.entries.checked_sub(1).ok_or_else(|| too_large(&source))?;
        let status = source.symlink_metadata().map_err(Error::io("look at", &source))?;
        let mode = status.mode() & 0o777;
        let kind = status.file_type();
        if kind.is_symlink() {
            let link = fs::read_link(&source).map_err(Error::io("read", &source))?;
            symlink(link, &target).map_err(Error::io("make", &target))?;
        } else if kind.is_dir() {
            DirBuilder::new().mode(0o700).create(&target).map_err(Error::io("make", &target))?;
            copy(&source, &target, budget, depth)?;
        } else if kind.is_file() {
            budget.bytes = budget.bytes.checked_sub(status.len()).ok_or_else(|| too_large(&source))?;
            let mut input = fs::File::open(&source).map_err(Error::io("open", &source))?.take(status.len());
            let mut output = fs::File::create_new(&target).map_err(Error::io("make", &target))?;
            io::copy(&mut input, &mut output).map_err(Error::io("write", &target))?;
        } else {
            console::warning(format_args!(
                "{} is neither a file nor a folder nor a link: left out",
                source.display()
            ));
            continue;
        }
        lchown(&target, Some(status.uid()), Some(status.gid())).map_err(Error::io("give away", &target))?;
        if !kind.is_symlink() {
            fs::set_permissions(&target, Permissions::from_mode(mode))
                .map_err(Error::io("set up", &target))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        serde_json::from_str(
            r#"{"image_id":"a","image_version":"1","security_version":1,"hostname":"plain","build_time":0}"#,
        )
        .unwrap()
    }

    fn config(text: &str) -> MachineConfig {
        MachineConfig::parse(&format!("serial = 1\n{text}")).unwrap()
    }

    #[test]
    fn without_a_configuration() {
        let files = files(&manifest(), None, None);
        assert_eq!(files["hostname"], Entry::File("plain\n".into()));
        assert!(matches!(&files["hosts"], Entry::File(text) if text.contains("127.0.1.1 plain\n")));
        assert_eq!(files["resolv.conf"], Entry::Link("/run/ashlar/resolv.conf"));
        assert_eq!(files[PROXY], Entry::Secret(String::new()));
        assert!(!files.contains_key("machine-id"));
    }

    #[test]
    fn what_the_configuration_says() {
        let config = config(
            "hostname = 'web-1.example.com'\n[network.proxy]\nhttps = 'http://user:word@proxy.example:3128'\n\
             no-proxy = ['localhost', '.example.com']\n",
        );
        let files = files(&manifest(), Some(&config), Some("0123456789abcdef0123456789abcdef"));
        assert_eq!(files["hostname"], Entry::File("web-1.example.com\n".into()));
        let Entry::File(hosts) = &files["hosts"] else { panic!() };
        assert!(hosts.contains("127.0.1.1 web-1.example.com web-1\n"), "{hosts}");
        assert_eq!(files["machine-id"], Entry::File("0123456789abcdef0123456789abcdef\n".into()));
        let url = "http://user:word@proxy.example:3128";
        assert_eq!(
            files[PROXY],
            Entry::Secret(format!(
                "HTTPS_PROXY={url}\nNO_PROXY=localhost,.example.com\nhttps_proxy={url}\nno_proxy=localhost,.example.com\n"
            ))
        );
    }

    #[test]
    fn a_copy_is_the_same_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(from.join("a/b/file"), "content").unwrap();
        fs::set_permissions(from.join("a/b/file"), Permissions::from_mode(0o4640)).unwrap();
        symlink("../x", from.join("a/link")).unwrap();
        let mut budget = Budget { bytes: 7, entries: 4 };
        copy(&from, &to, &mut budget, 3).unwrap();
        assert_eq!((budget.bytes, budget.entries), (0, 0));
        assert_eq!(fs::read_to_string(to.join("a/b/file")).unwrap(), "content");
        assert_eq!(fs::metadata(to.join("a/b/file")).unwrap().mode() & 0o7777, 0o640, "no setuid");
        assert_eq!(fs::read_link(to.join("a/link")).unwrap(), Path::new("../x"));
        for (bytes, entries, depth) in [(6, 4, 3), (7, 3, 3), (7, 4, 2)] {
            let to = tempfile::tempdir().unwrap();
            let error = copy(&from, to.path(), &mut Budget { bytes, entries }, depth).unwrap_err();
            assert!(error.to_string().contains("larger"), "{error}");
        }
    }
}
