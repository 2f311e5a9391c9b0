//! Which kernel modules must be loaded, and in which order, so that the named ones work.
//!
//! Debian's kernel packages hold no `modules.dep`: a maintainer script makes it on the machine. So the
//! dependencies are read out of the modules themselves (`.modinfo`), of no more of them than are needed.
//! `-` and `_` are the same in a module's name, as for `modprobe`.

mod elf;
mod index;

use ashlar_tree::Tree;
use index::{Index, normal};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use elf::{Info, info};

/// A module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Name as the kernel shows it (`dm_mod`).
    pub name: String,
    /// Name of the uncompressed file (`dm-mod.ko`).
    pub file_name: String,
    /// The uncompressed ELF file with the signature that the kernel's builder appended.
    pub bytes: Arc<[u8]>,
}

/// What the named modules need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closure {
    /// The modules in the order to load them, dependencies first.
    pub modules: Vec<Module>,
    /// The named modules that are built into the kernel, as they were named.
    pub built_in: Vec<String>,
}

/// Why the modules could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// A named module is not there.
    #[error("the kernel has no module `{name}`{}", nearest_names(.nearest))]
    Unknown {
        /// The name that was given.
        name: String,
        /// Modules with the most similar names.
        nearest: Vec<String>,
    },
    /// A module needs another that is not there.
    #[error("the kernel module `{module}` needs `{needs}`, which is not in the kernel's packages")]
    Incomplete {
        /// The module.
        module: String,
        /// What it needs.
        needs: String,
    },
    /// Two files claim the same module name.
    #[error(
        "the kernel module `{name}` is there twice: `{first}` and `{second}`; take one out with `remove`"
    )]
    Twice {
        /// The name.
        name: String,
        /// One file.
        first: String,
        /// The other file.
        second: String,
    },
    /// Modules need each other in a circle, which no kernel build makes.
    #[error("the kernel modules need each other in a circle at `{0}`")]
    Circle(String),
    /// A file of the kernel's packages is damaged.
    #[error("`{path}` is damaged: {why}")]
    Damaged {
        /// The file in the tree.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The file in the tree.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}

fn nearest_names(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!("; did you mean {}?", names.join(" or ")) }
}

/// A module that was read, with what it needs brought to names of modules.
struct Read {
    module: Module,
    /// Must be loaded before.
    depends: Vec<String>,
    /// Should be loaded before, where the kernel has it (`softdep: pre:`).
    before: Vec<String>,
}

/// All modules that `names` need, those included, each once and after what it needs. The order depends on
/// nothing but the order of `names` and the modules.
///
/// Soft dependencies are followed as `modprobe` does: libcrc32c, and with it erofs, fails to start without
/// a module that provides `crc32c`. Such a module may refuse to start on a machine that lacks its
/// instructions, while another one serves; so whoever loads the list must go on where the kernel says
/// `ENODEV`.
pub fn closure(tree: &Tree, version: &str, names: &[String]) -> Result<Closure, ModuleError> {
    let mut index = Index::read(tree, version)?;
    let mut wanted: Vec<String> = Vec::new();
    let mut built_in = Vec::new();
    for name in names {
        if index.contains(name) {
            wanted.push(normal(name));
        } else if index.is_built_in(name) {
            built_in.push(name.clone());
        } else {
            return Err(ModuleError::Unknown { name: name.clone(), nearest: index.nearest(name) });
        }
    }
    let read = read_all(&mut index, &wanted)?;
    let mut order = Order { read: &read, done: BTreeSet::new(), open: BTreeSet::new(), modules: Vec::new() };
    for name in &wanted {
        order.visit(name)?;
    }
    Ok(Closure { modules: order.modules, built_in })
}

/// Reads the modules `first` and all that they need, one generation after the other, each in parallel.
fn read_all(index: &mut Index<'_>, first: &[String]) -> Result<BTreeMap<String, Read>, ModuleError> {
    let mut read: BTreeMap<String, Read> = BTreeMap::new();
    let mut next: BTreeSet<String> = first.iter().cloned().collect();
    while !next.is_empty() {
        let known = &*index;
        let generation: Vec<(Module, Info)> =
            next.par_iter().map(|name| known.load(name)).collect::<Result<_, _>>()?;
        next = BTreeSet::new();
        for (module, info) in generation {
            let mut depends = Vec::new();
            for needed in &info.depends {
                if index.contains(needed) {
                    depends.push(normal(needed));
                } else if !index.is_built_in(needed) {
                    return Err(ModuleError::Incomplete {
                        module: module.name.clone(),
                        needs: needed.clone(),
                    });
                }
            }
            let mut before = Vec::new();
            for name in &info.before {
                before.extend(index.providers(name)?.into_iter().filter(|name| *name != module.name));
            }
            next.extend(depends.iter().chain(&before).cloned());
            read.insert(module.name.clone(), Read { module, depends, before });
        }
        next.retain(|name| !read.contains_key(name));
    }
    Ok(read)
}

/// The walk that puts dependencies first.
struct Order<'a> {
    read: &'a BTreeMap<String, Read>,
    done: BTreeSet<String>,
    open: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order<'_> {
    fn visit(&mut self, name: &str) -> Result<(), ModuleError> {
        if self.done.contains(name) {
            return Ok(());
        }
        let Some(read) = self.read.get(name) else {
            return Ok(());
        };
        self.open.insert(name.to_owned());
        for needed in &read.depends {
            if self.open.contains(needed) {
                return Err(ModuleError::Circle(needed.clone()));
            }
            self.visit(needed)?;
        }
        for wished in &read.before {
            // A circle of wishes has no order; the one that began it comes last.
            if !self.open.contains(wished) {
                self.visit(wished)?;
            }
        }
        self.open.remove(name);
        self.done.insert(name.to_owned());
        self.modules.push(read.module.clone());
        Ok(())
    }
}
