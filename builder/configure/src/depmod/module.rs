//! What a module says of itself: `.modinfo`, the symbols that it exports and those that it needs.

use crate::ConfigureError;
use ashlar_tree::Content;
use object::LittleEndian;
use object::read::elf::{FileHeader, Sym};
use std::io::Read;

/// Largest module, packed or not, in bytes; Debian's largest has about 40 MiB.
const MODULE_MAX: u64 = 256 << 20;
/// Memory in bytes that unpacking may take: modules are packed with a dictionary of 2 MiB or less.
const XZ_MEMORY: u64 = 64 << 20;

/// A module as its file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module {
    /// `key=value` of `.modinfo`, in its order.
    pub info: Vec<(String, String)>,
    /// Exported symbols.
    pub exports: Vec<String>,
    /// Undefined symbols in the order of the symbol table.
    pub imports: Vec<String>,
}

/// The path without the ending of its packing.
pub(super) fn unpacked_name(path: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|ending| path.strip_suffix(ending)).unwrap_or(path)
}

/// The name of the module in a file of that name; none if it is no module.
pub(super) fn name_of(file_name: &str) -> Option<String> {
    unpacked_name(file_name).strip_suffix(".ko")?;
    Some(module_name(file_name))
}

/// The name of the module at a path: up to the first dot, with `_` for `-`.
pub(super) fn module_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

/// Reads and unpacks a module of the tree.
pub(super) fn load(content: &Content, path: &str) -> Result<Module, ConfigureError> {
    if content.len() > MODULE_MAX {
        return Err(ConfigureError::TooLarge {
            path: path.to_owned(),
            len: content.len(),
            limit: MODULE_MAX,
        });
    }
    let read = |source| ConfigureError::Read { path: path.to_owned(), source };
    let bytes = unpack(content.read().map_err(read)?, path).map_err(read)?;
    read_module(&bytes).map_err(|why| ConfigureError::Format {
        path: path.to_owned(),
        line: None,
        why: why.to_owned(),
    })
}

fn unpack(packed: Vec<u8>, path: &str) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut decoder: Box<dyn Read> = match path.rsplit('.').next() {
        Some("xz") => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed.as_slice(), stream))
        }
        Some("zst") => Box::new(zstd::Decoder::new(packed.as_slice())?),
        Some("gz") => Box::new(flate2::read::GzDecoder::new(packed.as_slice())),
        _ => return Ok(packed),
    };
    decoder.by_ref().take(MODULE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MODULE_MAX {
        return Err(std::io::Error::other("it is larger than any module"));
    }
    Ok(bytes)
}

/// Reads an unpacked module, 32-bit or 64-bit, little-endian. The error says what is wrong with it. Never panics.
pub fn read_module(bytes: &[u8]) -> Result<Module, &'static str> {
    match bytes.get(4) {
        Some(1) => read::<object::elf::FileHeader32<LittleEndian>>(bytes),
        Some(2) => read::<object::elf::FileHeader64<LittleEndian>>(bytes),
        _ => Err("it is no ELF file"),
    }
}

fn read<H: FileHeader<Endian = LittleEndian>>(bytes: &[u8]) -> Result<Module, &'static str> {
    let header = H::parse(bytes).map_err(|_| "it is no ELF file")?;
    let endian = header.endian().map_err(|_| "it is no little-endian ELF file")?;
    let sections = header.sections(endian, bytes).map_err(|_| "its table of sections is damaged")?;
    let data = |name: &[u8]| match sections.section_by_name(endian, name) {
        Some((_, section)) => object::read::elf::SectionHeader::data(section, endian, bytes)
            .map_err(|_| "one of its sections is cut off"),
        None => Ok(&[][..]),
    };
    let strings = |data: &[u8]| -> Vec<String> {
        data.split(|&byte| byte == 0)
            .filter(|string| !string.is_empty())
            .filter_map(|string| std::str::from_utf8(string).ok().map(str::to_owned))
            .collect()
    };
    let info = strings(data(b".modinfo")?)
        .into_iter()
        .map(|string| match string.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (string, String::new()),
        })
        .collect();
    let symbols = sections
        .symbols(endian, bytes, object::elf::SHT_SYMTAB)
        .map_err(|_| "its symbol table is damaged")?;
    let (mut exports, mut imports) = (Vec::new(), Vec::new());
    for symbol in symbols.iter().skip(1) {
        let Ok(name) = symbol.name(endian, symbols.strings()) else {
            return Err("a symbol's name is cut off");
        };
        let Ok(name) = std::str::from_utf8(name) else { continue };
        if let Some(exported) = name.strip_prefix("__crc_") {
            exports.push(exported.to_owned());
        }
        if symbol.is_undefined(endian) && !name.is_empty() {
            imports.push(name.to_owned());
        }
    }
    if exports.is_empty() {
        // A kernel without versions of symbols.
        exports = strings(data(b"__ksymtab_strings")?);
    }
    Ok(Module { info, exports, imports })
}
