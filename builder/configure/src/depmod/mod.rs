//! The indexes of kernel modules that `modprobe` and `udev` read, as depmod(8) makes them.
//!
//! Dependencies are found as `depmod` finds them: a module needs those that export the symbols which it leaves
//! undefined. Modules stand in the order of the kernel build (`modules.order`), those that are not in it after
//! them by path.

mod index;
mod module;
mod output;

use crate::{ConfigureError, view};
use ashlar_tree::{Content, Kind, Node, Tree};
use rayon::prelude::*;
use std::collections::BTreeMap;

pub use module::{Module, read_module};

/// Largest list (`modules.builtin.modinfo` and its like) in bytes.
const LIST_MAX: u64 = 16 << 20;
/// How deep folders of modules may lie.
const DEPTH_MAX: usize = 32;

/// A module with its place among the others.
#[derive(Debug)]
struct Entry {
    /// Name with `_` for `-`.
    name: String,
    /// Path below the kernel's folder, as it is packed.
    path: String,
    module: Module,
    /// Modules whose symbols it uses, in the order in which it names them first.
    needs: Vec<usize>,
}

/// The kernels whose modules are in the tree.
pub(crate) fn versions(tree: &Tree) -> Vec<String> {
    const FOLDER: &str = "/usr/lib/modules";
    view::names(tree, FOLDER)
        .into_iter()
        .filter(|version| view::is_directory(tree, &format!("{FOLDER}/{version}/kernel")))
        .collect()
}

/// Writes `modules.dep`, `modules.alias`, `modules.symbols`, `modules.softdep`, `modules.weakdep`,
/// `modules.devname`, and the binary indexes `modules.dep.bin`, `modules.alias.bin`, `modules.symbols.bin`,
/// `modules.builtin.bin` and `modules.builtin.alias.bin` for the kernel `version`; all times become `time`,
/// seconds since 1970.
///
/// # Errors
/// Fails where the tree has no such kernel, a module is no ELF file or cannot be read or unpacked, or modules need
/// each other in a circle.
pub fn depmod(tree: &mut Tree, version: &str, time: i64) -> Result<(), ConfigureError> {
    let folder = format!("/usr/lib/modules/{version}");
    let missing = || ConfigureError::NoSuchKernel(version.to_owned());
    let (_, node) = tree.get_followed(folder.as_bytes()).ok_or_else(missing)?;
    node.entries().ok_or_else(missing)?;
    let mut files = BTreeMap::new();
    collect(node, "", 0, &mut files);
    let order: BTreeMap<String, usize> = view::text(tree, &format!("{folder}/modules.order"))?
        .unwrap_or_default()
        .lines()
        .enumerate()
        .map(|(index, line)| (line.to_owned(), index))
        .collect();
    let mut sorted: Vec<(String, (String, Content))> = files.into_iter().collect();
    // `modules.order` names files as they were before they were packed.
    sorted.sort_by_key(|(_, (path, _))| {
        (order.get(module::unpacked_name(path)).copied().unwrap_or(usize::MAX), path.clone())
    });
    let mut entries = sorted
        .into_par_iter()
        .map(|(name, (path, content))| {
            let shown = format!("{folder}/{path}");
            let module = module::load(&content, &shown)?;
            Ok(Entry { name, path, module, needs: Vec::new() })
        })
        .collect::<Result<Vec<Entry>, ConfigureError>>()?;
    find_needs(&mut entries);
    let ranks = ranks(&entries)?;
    let built_in = view::read(tree, &format!("{folder}/modules.builtin"), LIST_MAX)?;
    let built_in_info = view::read(tree, &format!("{folder}/modules.builtin.modinfo"), LIST_MAX)?;
    let written = output::all(&entries, &ranks, built_in.as_deref(), built_in_info.as_deref());
    for (name, bytes) in written {
        view::write(tree, &format!("{folder}/{name}"), 0o644, time, bytes)?;
    }
    Ok(())
}

/// Modules by name. Of two with one name the one below `updates/` counts, else the first by path (depmod.d(5):
/// the default is `search updates built-in`).
fn collect(folder: &Node, path: &str, depth: usize, files: &mut BTreeMap<String, (String, Content)>) {
    if depth > DEPTH_MAX {
        return;
    }
    for (name, node) in folder.entries().into_iter().flatten() {
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        match &node.kind {
            Kind::Directory(_) if !matches!(name, "build" | "source") => {
                collect(node, &path, depth + 1, files);
            }
            Kind::File(content) => {
                let Some(module) = module::name_of(name) else { continue };
                let wins = files
                    .get(&module)
                    .is_none_or(|(old, _)| path.starts_with("updates/") && !old.starts_with("updates/"));
                if wins {
                    files.insert(module, (path, content.clone()));
                }
            }
            _ => {}
        }
    }
}

fn find_needs(entries: &mut [Entry]) {
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        for symbol in &entry.module.exports {
            owners.insert(symbol.clone(), index);
        }
    }
    for (index, entry) in entries.iter_mut().enumerate() {
        for symbol in &entry.module.imports {
            let symbol = symbol.strip_prefix('.').unwrap_or(symbol);
            if let Some(&owner) = owners.get(symbol)
                && owner != index
                && !entry.needs.contains(&owner)
            {
                entry.needs.push(owner);
            }
        }
    }
}

/// Each module's place in an order in which users come before what they use. `depmod` takes the last module that
/// nobody left uses; `modules.dep` lists dependencies in this order.
fn ranks(entries: &[Entry]) -> Result<Vec<usize>, ConfigureError> {
    let mut users = vec![0_usize; entries.len()];
    for needed in entries.iter().flat_map(|entry| &entry.needs) {
        users[*needed] += 1;
    }
    let mut free: Vec<usize> = (0..entries.len()).filter(|&index| users[index] == 0).collect();
    let mut ranks = vec![usize::MAX; entries.len()];
    let mut next = 0;
    while let Some(index) = free.pop() {
        ranks[index] = next;
        next += 1;
        for &needed in &entries[index].needs {
            users[needed] -= 1;
            if users[needed] == 0 {
                free.push(needed);
            }
        }
    }
    match ranks.iter().position(|&rank| rank == usize::MAX) {
        Some(index) => Err(ConfigureError::ModuleCircle(entries[index].name.clone())),
        None => Ok(ranks),
    }
}
