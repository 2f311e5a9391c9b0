//! Settings of the kernel are written here; the list is [`ashlar_image::hardening::settings`], and what it says is
//! read back by [`crate::hardening`].

use crate::console;
use ashlar_image::hardening::settings::{SETTINGS, Setting};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Where the kernel has them.
pub const ROOT: &str = "/proc/sys";
/// Enforces signatures of modules; once on, it stays on.
const SIGNATURES: &str = "/sys/module/module/parameters/sig_enforce";
/// Longest value that is read, in bytes.
const MAX_VALUE: u64 = 4096;
/// Most interfaces that a `*` stands for.
const MAX_ENTRIES: usize = 4096;

/// The files of `setting` below `root` with their names; what a `*` stands for is looked up. Without a `*` one file,
/// which may be missing.
fn files(root: &Path, setting: &Setting) -> Vec<(String, PathBuf)> {
    let Some((before, after)) = setting.name.split_once(".*.") else {
        return vec![(setting.name.to_owned(), root.join(setting.name.replace('.', "/")))];
    };
    let folder = root.join(before.replace('.', "/"));
    fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .take(MAX_ENTRIES)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|entry| (format!("{before}.{entry}.{after}"), folder.join(&entry).join(after.replace('.', "/"))))
        .collect()
}

/// Writes the settings and enforces signatures of modules. All modules must be loaded before: the last of the settings
/// ends that.
pub fn apply() {
    if Path::new(SIGNATURES).exists()
        && let Err(error) = fs::write(SIGNATURES, "1\n")
    {
        console::warning(format_args!("cannot enforce signatures of kernel modules: {error}"));
    }
    for setting in SETTINGS {
        for (name, path) in files(Path::new(ROOT), setting) {
            // The end of the line makes an empty value one that is written.
            match fs::write(path, format!("{}\n", setting.value)) {
                Err(error) if setting.optional && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    console::warning(format_args!("cannot set {name} to `{}`: {error}", setting.value));
                }
                Ok(()) => {}
            }
        }
    }
}

/// The settings of the list that are there, with their values.
pub fn read() -> BTreeMap<String, String> {
    SETTINGS
        .iter()
        .flat_map(|setting| files(Path::new(ROOT), setting))
        .filter_map(|(name, path)| {
            let mut text = String::new();
            fs::File::open(path).ok()?.take(MAX_VALUE).read_to_string(&mut text).ok()?;
            Some((name, text.trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_image::hardening::settings;

    #[test]
    fn names_are_paths_and_stars_are_looked_up() {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("net/ipv4/conf");
        for name in ["all", "eth0.7"] {
            fs::create_dir_all(conf.join(name)).unwrap();
        }
        let setting = |name| Setting { name, value: "0", optional: true };
        assert_eq!(
            files(folder.path(), &setting("kernel.sysrq")),
            [("kernel.sysrq".to_owned(), folder.path().join("kernel/sysrq"))]
        );
        let mut found = files(folder.path(), &setting("net.ipv4.conf.*.rp_filter"));
        found.sort();
        assert_eq!(
            found,
            [
                ("net.ipv4.conf.all.rp_filter".to_owned(), conf.join("all/rp_filter")),
                ("net.ipv4.conf.eth0.7.rp_filter".to_owned(), conf.join("eth0.7/rp_filter")),
            ]
        );
        assert!(files(folder.path(), &setting("net.ipv6.conf.*.accept_redirects")).is_empty());
    }

    /// The kernel that runs the tests has most of them, so the names are spelt as kernels spell them.
    #[test]
    fn this_kernel_has_the_settings() {
        let read = read();
        let missing: Vec<&str> = SETTINGS
            .iter()
            .filter(|setting| !read.keys().any(|name| settings::matches(setting.name, name)))
            .map(|setting| setting.name)
            .collect();
        println!("{} read, not in this kernel: {missing:?}", read.len());
        // A container's /proc shows few of them; those of its own network are always there.
        assert!(read.contains_key("net.ipv4.conf.all.rp_filter"), "{read:?}");
        assert!(missing.len() < SETTINGS.len() / 2, "{missing:?}");
    }
}
