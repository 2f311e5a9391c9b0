//! `/etc/ld.so.cache` and the SONAME links, as `ldconfig` of the GNU C library makes them.
//!
//! The cache is in the new format, which `ldconfig` writes by default since glibc 2.32. Left out: the
//! directories for hardware capabilities of before 2.33 (`tls/`, `haswell/`), which glibc 2.37 dropped and
//! no package of Debian 12 or 13 fills, and the auxiliary cache, which only makes the next run faster.

mod cache;
mod conf;
mod elf;

use crate::report::Log;
use crate::{ConfigureError, Step, view};
use ashlar_tree::{Kind, Metadata, Node, Tree};
use cache::Entry;
use rayon::prelude::*;
use std::cmp::Ordering;
use std::collections::BTreeMap;

pub use cache::compare_names;
pub use elf::{Library, read_library};

/// Greatest size of a shared library that is read, in bytes.
const LIBRARY_MAX: u64 = 1 << 30;
/// Where the dynamic linker looks for its cache.
const CACHE: &str = "/etc/ld.so.cache";
/// Names of dynamic linkers; Debian's `ldconfig` never repoints such a link, for the sake of multiarch.
const DYNAMIC_LINKERS: [&str; 13] = [
    "ld-linux-aarch64.so.1",
    "ld-linux-aarch64_be.so.1",
    "ld-linux-armhf.so.3",
    "ld-linux-riscv64-lp64.so.1",
    "ld-linux-riscv64-lp64d.so.1",
    "ld-linux-x32.so.2",
    "ld-linux-x86-64.so.2",
    "ld-linux.so.2",
    "ld-linux.so.3",
    "ld.so.1",
    "ld64.so.1",
    "ld64.so.2",
    "ld-linux-mipsn8.so.1",
];

/// A directory to search.
#[derive(Debug, Clone)]
struct Directory {
    /// As the configuration names it.
    path: String,
    /// The sub-directory of `glibc-hwcaps` that it is.
    hwcaps: Option<String>,
}

/// A file that carries a SONAME, the best of its directory.
#[derive(Debug, Clone)]
struct Candidate {
    name: String,
    flags: u32,
    isa_level: u32,
    is_link: bool,
}

/// Writes the cache and missing SONAME links. Does nothing where the tree has no dynamic linker's libraries.
pub(crate) fn configure(tree: &mut Tree, time: i64, log: &mut Log) -> Result<(), ConfigureError> {
    let Some((machine, generator)) = c_library(tree)? else { return Ok(()) };
    let directories = directories(tree, machine)?;
    let mut entries = Vec::new();
    let mut links = Vec::new();
    for directory in &directories {
        for path in stale_links(tree, directory) {
            tree.remove(path.as_bytes());
            log.done(Step::LibraryLink, &path, &[], "removed: it led nowhere");
        }
        let found = search(tree, directory)?;
        for (soname, candidate) in found {
            let file = if directory.hwcaps.is_some() {
                candidate.name.clone()
            } else {
                if !candidate.is_link {
                    links.extend(link(tree, &directory.path, &candidate.name, &soname));
                }
                soname.clone()
            };
            entries.push(Entry {
                soname,
                path: format!("{}/{file}", directory.path),
                flags: candidate.flags,
                isa_level: candidate.isa_level,
                hwcaps: directory.hwcaps.clone(),
            });
        }
    }
    for (path, target) in links {
        tree.insert(path.as_bytes(), Node::symlink(Metadata::root(0o777, time), target.clone()))?;
        log.done(Step::LibraryLink, &path, &[], format!("to {target}"));
    }
    if entries.is_empty() {
        return Ok(());
    }
    let count = entries.len();
    let all: Vec<String> = directories.iter().filter_map(|d| d.hwcaps.clone()).collect();
    let bytes = cache::write(entries, &all, &generator)?;
    view::write(tree, CACHE, 0o644, time, bytes)?;
    log.done(Step::LibraryCache, CACHE, &[], format!("{count} libraries"));
    Ok(())
}

/// The machine of the C library in the tree and the text by which its `ldconfig` signs a cache.
///
/// The library carries its banner (`GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.`);
/// `ldconfig` is built with the same words.
fn c_library(tree: &Tree) -> Result<Option<(u16, String)>, ConfigureError> {
    const BANNER: &[u8] = b"GNU C Library ";
    for directory in [
        "x86_64-linux-gnu",
        "aarch64-linux-gnu",
        "i386-linux-gnu",
        "arm-linux-gnueabihf",
        "riscv64-linux-gnu",
        "",
    ] {
        let path = format!("/usr/lib/{directory}/libc.so.6");
        let Some(bytes) = view::read(tree, &path, LIBRARY_MAX)? else { continue };
        let Some(library) = read_library(&bytes, "libc.so.6") else { continue };
        let generator = bytes
            .windows(BANNER.len())
            .position(|window| window == BANNER)
            .and_then(|at| {
                let rest = &bytes[at + BANNER.len()..];
                let end = rest.iter().take(200).position(|&b| b == b'\n' || b == 0)?;
                let line = std::str::from_utf8(&rest[..end]).ok()?;
                Some(format!("ldconfig {}", line.strip_suffix('.').unwrap_or(line)))
            })
            .unwrap_or_else(|| "ldconfig".to_owned());
        return Ok(Some((library.machine, generator)));
    }
    Ok(None)
}

/// The directories to search, each once, in the order of the configuration and then the trusted ones.
fn directories(tree: &Tree, machine: u16) -> Result<Vec<Directory>, ConfigureError> {
    let mut named = conf::read(tree)?;
    let triplet = match machine {
        elf::EM_X86_64 => "x86_64-linux-gnu",
        elf::EM_AARCH64 => "aarch64-linux-gnu",
        elf::EM_386 => "i386-linux-gnu",
        elf::EM_ARM => "arm-linux-gnueabihf",
        _ => "riscv64-linux-gnu",
    };
    named.extend([
        format!("/lib/{triplet}"),
        format!("/usr/lib/{triplet}"),
        "/lib".into(),
        "/usr/lib".into(),
    ]);
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut directories = Vec::new();
    let mut add = |path: String, hwcaps: Option<String>| {
        let Some((real, node)) = tree.get_followed(path.as_bytes()) else { return false };
        if node.entries().is_none() || seen.contains(&real) {
            return false;
        }
        seen.push(real);
        directories.push(Directory { path, hwcaps });
        true
    };
    for path in named {
        let path = path.trim_end_matches('/').to_owned();
        if path.is_empty() || !add(path.clone(), None) {
            continue;
        }
        let hwcaps = format!("{path}/glibc-hwcaps");
        for name in view::names(tree, &hwcaps) {
            if !name.starts_with('.') && !name.contains(':') {
                add(format!("{hwcaps}/{name}"), Some(name));
            }
        }
    }
    Ok(directories)
}

/// Whether a file of that name may be a shared library or the dynamic linker.
fn is_library_name(name: &str) -> bool {
    let temporary = name.ends_with(".#prelink#")
        || name.ends_with(".dpkg-new")
        || name.ends_with(".dpkg-tmp")
        || name.get(name.len().saturating_sub(17)..).is_some_and(|end| end.starts_with(".#prelink#."));
    !temporary
        && (name.starts_with("ld.so.") || name.starts_with("lib") || name.starts_with("ld-"))
        && name.contains(".so")
}

/// Links with a version (`libz.so.1`) whose file is not there.
fn stale_links(tree: &Tree, directory: &Directory) -> Vec<String> {
    view::names(tree, &directory.path)
        .into_iter()
        .filter(|name| is_library_name(name) && name.contains(".so."))
        .map(|name| format!("{}/{name}", directory.path))
        .filter(|path| view::target(tree, path).is_some() && !view::exists(tree, path))
        .collect()
}

/// The libraries of a directory by SONAME.
fn search(tree: &Tree, directory: &Directory) -> Result<BTreeMap<String, Candidate>, ConfigureError> {
    let names: Vec<String> =
        view::names(tree, &directory.path).into_iter().filter(|name| is_library_name(name)).collect();
    let read: Vec<Option<(Library, bool)>> = names
        .par_iter()
        .map(|name| {
            let path = format!("{}/{name}", directory.path);
            let is_link = view::target(tree, &path).is_some();
            let library = match view::read(tree, &path, LIBRARY_MAX) {
                Ok(bytes) => bytes.and_then(|bytes| read_library(&bytes, name)),
                Err(error) => return Err(error),
            };
            Ok(library.map(|library| (library, is_link)))
        })
        .collect::<Result<_, ConfigureError>>()?;
    let mut found: BTreeMap<String, Candidate> = BTreeMap::new();
    for (name, read) in names.into_iter().zip(read) {
        let Some((library, mut is_link)) = read else { continue };
        // A link counts as a link where it is the SONAME's or the linker's (`libz.so`); all others are taken
        // for files, so that no SONAME link ever depends on a file of a development package.
        is_link =
            is_link && (name == library.soname || name.ends_with(".so") && library.soname.starts_with(&name));
        let soname = if is_link { name.clone() } else { library.soname };
        let candidate = Candidate { name, flags: library.flags, isa_level: library.isa_level, is_link };
        match found.get_mut(&soname) {
            Some(old) => {
                let better = !candidate.is_link && old.is_link
                    || candidate.is_link == old.is_link
                        && compare_names(&old.name, &candidate.name) == Ordering::Less;
                if better {
                    // The flags of the first stay, as in `ldconfig`, unless it had none of a known libc.
                    let flags = if old.flags == 1 { candidate.flags } else { old.flags };
                    *old = Candidate { flags, ..candidate };
                }
            }
            None => {
                found.insert(soname, candidate);
            }
        }
    }
    Ok(found)
}

/// The link that must be made so that `soname` leads to `name`, if any.
fn link(tree: &Tree, directory: &str, name: &str, soname: &str) -> Option<(String, String)> {
    if soname.contains('/') {
        return None;
    }
    let path = format!("{directory}/{soname}");
    if let Some((real, _)) = tree.get_followed(path.as_bytes()) {
        let (wanted, _) = tree.get_followed(format!("{directory}/{name}").as_bytes())?;
        let is_link = view::target(tree, &path).is_some();
        if real == wanted || !is_link || DYNAMIC_LINKERS.contains(&soname) {
            return None;
        }
    } else if !matches!(tree.get(path.as_bytes()).map(|node| &node.kind), None | Some(Kind::Symlink(_))) {
        return None;
    }
    Some((path, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_libraries() {
        for name in ["libz.so.1", "ld-linux-x86-64.so.2", "ld.so.1", "libfoo-1.2.so"] {
            assert!(is_library_name(name), "{name}");
        }
        for name in
            ["libz.a", "foo.so", "libz.so.1.dpkg-new", "libz.so.#prelink#", "libz.so.#prelink#.abcdef"]
        {
            assert!(!is_library_name(name), "{name}");
        }
    }
}
