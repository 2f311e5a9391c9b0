//! The modules of one kernel by name, and their files.

use super::elf::{self, Info};
use super::{Module, ModuleError};
use ashlar_tree::{Content, Kind, Node, Tree};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

/// Largest uncompressed module in bytes; Debian's largest has about 40 MiB.
const MODULE_MAX: u64 = 256 << 20;
/// Largest list of built-in modules in bytes.
const LIST_MAX: u64 = 16 << 20;
/// Memory in bytes that decoding may take: the kernel's modules are packed with a dictionary of 2 MiB or less.
const XZ_MEMORY: u64 = 64 << 20;

/// A module's name as the kernel has it.
pub(super) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// How a module's file is packed.
#[derive(Debug, Clone, Copy)]
enum Packing {
    Plain,
    Xz,
    Zstd,
    Gzip,
}

/// A module's file in the tree.
struct Entry<'a> {
    /// Path in the tree.
    path: String,
    /// File name without the packing's ending.
    file_name: String,
    packing: Packing,
    content: &'a Content,
}

pub(super) struct Index<'a> {
    modules: BTreeMap<String, Entry<'a>>,
    built_in: BTreeSet<String>,
    /// Aliases of what is built in.
    built_in_aliases: BTreeSet<String>,
    /// Alias to modules, of those that implement algorithms. Read when first needed.
    algorithms: Option<BTreeMap<String, Vec<String>>>,
}

/// The name of a module's file without packing, and its packing; none if it is no module.
fn packing(file_name: &str) -> Option<(&str, Packing)> {
    let (name, packing) = [(".xz", Packing::Xz), (".zst", Packing::Zstd), (".gz", Packing::Gzip)]
        .into_iter()
        .find_map(|(ending, packing)| file_name.strip_suffix(ending).map(|name| (name, packing)))
        .unwrap_or((file_name, Packing::Plain));
    name.strip_suffix(".ko").map(|_| (name, packing))
}

fn collect<'a>(
    modules: &mut BTreeMap<String, Entry<'a>>,
    directory: &'a Node,
    path: &str,
) -> Result<(), ModuleError> {
    for (name, node) in directory.entries().into_iter().flatten() {
        let name = String::from_utf8_lossy(name);
        let path = format!("{path}/{name}");
        let Kind::File(content) = &node.kind else {
            collect(modules, node, &path)?;
            continue;
        };
        let Some((file_name, packing)) = packing(&name) else { continue };
        let module = normal(file_name.trim_end_matches(".ko"));
        let entry = Entry { path, file_name: file_name.to_owned(), packing, content };
        if let Some(other) = modules.get(&module) {
            return Err(ModuleError::Twice { name: module, first: other.path.clone(), second: entry.path });
        }
        modules.insert(module, entry);
    }
    Ok(())
}

impl<'a> Index<'a> {
    pub(super) fn read(tree: &'a Tree, version: &str) -> Result<Self, ModuleError> {
        let folder = format!("/usr/lib/modules/{version}");
        let mut modules = BTreeMap::new();
        if let Some((_, node)) = tree.get_followed(folder.as_bytes()) {
            collect(&mut modules, node, &folder)?;
        }
        let list = |name: &str| -> Result<Vec<u8>, ModuleError> {
            let path = format!("{folder}/{name}");
            match tree.get_followed(path.as_bytes()).map(|(_, node)| &node.kind) {
                Some(Kind::File(content)) if content.len() <= LIST_MAX => {
                    content.read().map_err(|source| ModuleError::Read { path, source })
                }
                Some(Kind::File(_)) => Err(ModuleError::Damaged { path, why: "it is too long".into() }),
                _ => Err(ModuleError::Damaged { path, why: "it is missing".into() }),
            }
        };
        // One path a line: `kernel/drivers/virtio/virtio_pci.ko`.
        let built_in = String::from_utf8_lossy(&list("modules.builtin")?)
            .lines()
            .filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko").map(normal))
            .collect();
        // NUL-terminated `module.key=value`.
        let built_in_aliases = list("modules.builtin.modinfo")?
            .split(|&byte| byte == 0)
            .filter_map(|string| std::str::from_utf8(string).ok()?.split_once('='))
            .filter(|(key, _)| key.rsplit('.').next() == Some("alias"))
            .map(|(_, alias)| normal(alias))
            .collect();
        Ok(Self { modules, built_in, built_in_aliases, algorithms: None })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.modules.contains_key(&normal(name))
    }

    pub(super) fn is_built_in(&self, name: &str) -> bool {
        self.built_in.contains(&normal(name))
    }

    /// The three modules, built in or not, whose names are most like this one.
    pub(super) fn nearest(&self, name: &str) -> Vec<String> {
        let name = normal(name);
        let mut scored: Vec<(f64, &String)> = self
            .modules
            .keys()
            .chain(&self.built_in)
            .map(|known| (strsim::jaro_winkler(&name, known), known))
            .filter(|(score, _)| *score > 0.8)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        scored.dedup_by_key(|(_, known)| *known);
        scored.into_iter().take(3).map(|(_, known)| known.clone()).collect()
    }

    /// Reads and unpacks a module that [`Self::contains`].
    pub(super) fn load(&self, name: &str) -> Result<(Module, Info), ModuleError> {
        let entry = self
            .modules
            .get(name)
            .ok_or_else(|| ModuleError::Unknown { name: name.to_owned(), nearest: Vec::new() })?;
        let damaged = |why: String| ModuleError::Damaged { path: entry.path.clone(), why };
        let packed =
            entry.content.read().map_err(|source| ModuleError::Read { path: entry.path.clone(), source })?;
        let bytes = unpack(packed, entry.packing).map_err(|error| damaged(error.to_string()))?;
        let info = elf::info(&bytes).map_err(|why| damaged(why.to_owned()))?;
        if normal(&info.name) != name {
            return Err(damaged(format!("it holds the module `{}`", info.name)));
        }
        let module =
            Module { name: name.to_owned(), file_name: entry.file_name.clone(), bytes: bytes.into() };
        Ok((module, info))
    }

    /// The modules that a soft dependency means: the one of that name, or those with that alias. None if it
    /// is built in or not there.
    ///
    /// Aliases are looked for among the modules that implement algorithms. The others' soft dependencies by
    /// alias name single devices, which the recipe names itself where it needs them.
    pub(super) fn providers(&mut self, name: &str) -> Result<Vec<String>, ModuleError> {
        let wanted = normal(name);
        if self.modules.contains_key(&wanted) {
            return Ok(vec![wanted]);
        }
        if self.built_in.contains(&wanted) || self.built_in_aliases.contains(&wanted) {
            return Ok(Vec::new());
        }
        let algorithms = match self.algorithms.take() {
            Some(algorithms) => algorithms,
            None => self.read_algorithms()?,
        };
        let providers = algorithms.get(&wanted).cloned().unwrap_or_default();
        self.algorithms = Some(algorithms);
        Ok(providers)
    }

    fn read_algorithms(&self) -> Result<BTreeMap<String, Vec<String>>, ModuleError> {
        let names: Vec<&String> = self
            .modules
            .iter()
            .filter(|(_, entry)| implements_algorithms(&entry.path))
            .map(|(name, _)| name)
            .collect();
        let read: Vec<(Module, Info)> =
            names.par_iter().map(|name| self.load(name)).collect::<Result<_, _>>()?;
        let mut algorithms: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (module, info) in read {
            for alias in info.aliases.iter().map(|alias| normal(alias)).collect::<BTreeSet<_>>() {
                algorithms.entry(alias).or_default().push(module.name.clone());
            }
        }
        Ok(algorithms)
    }
}

/// Whether a module lies where the kernel's sources keep algorithms: `kernel/crypto`, `kernel/arch/x86/crypto`.
fn implements_algorithms(path: &str) -> bool {
    let Some((_, inside)) = path.split_once("/kernel/") else { return false };
    inside.starts_with("crypto/") || inside.starts_with("arch/") && inside.contains("/crypto/")
}

/// Unpacks a module, of at most [`MODULE_MAX`] bytes.
fn unpack(packed: Vec<u8>, packing: Packing) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut decoder: Box<dyn Read> = match packing {
        Packing::Plain => return Ok(packed),
        Packing::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed.as_slice(), stream))
        }
        Packing::Zstd => Box::new(zstd::Decoder::new(packed.as_slice())?),
        Packing::Gzip => Box::new(flate2::read::GzDecoder::new(packed.as_slice())),
    };
    decoder.by_ref().take(MODULE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MODULE_MAX {
        return Err(std::io::Error::other("it is larger than any module"));
    }
    Ok(bytes)
}
