//! What `ldconfig` reads of a shared library: machine, SONAME, and the instruction set level that it needs.

/// `FLAG_ELF`: a library that is bound to no known C library.
const FLAG_ELF: u32 = 1;
/// `FLAG_ELF_LIBC6`.
const FLAG_LIBC6: u32 = 3;
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_GNU_PROPERTY: u32 = 0x6474_e553;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
/// `GNU_PROPERTY_X86_ISA_1_NEEDED` (x86-64 psABI, "Program property").
const X86_ISA_NEEDED: u32 = 0xc000_8002;
pub(super) const EM_386: u16 = 3;
pub(super) const EM_ARM: u16 = 40;
pub(super) const EM_X86_64: u16 = 62;
pub(super) const EM_AARCH64: u16 = 183;
pub(super) const EM_RISCV: u16 = 243;
/// `EF_ARM_ABI_FLOAT_HARD` and `EF_ARM_ABI_FLOAT_SOFT` of the ELF header's flags.
const ARM_HARD: u32 = 0x400;
const ARM_SOFT: u32 = 0x200;

/// A shared library as the cache describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// `e_machine`.
    pub machine: u16,
    /// Its SONAME, or the file's name where it has none.
    pub soname: String,
    /// Kind of library and architecture (`FLAG_*` of glibc's `ldconfig.h`).
    pub flags: u32,
    /// Highest bit of the instruction set levels that it needs; 0 is the baseline.
    pub isa_level: u32,
}

/// A little-endian file with all accesses checked.
#[derive(Clone, Copy)]
struct Bytes<'a> {
    bytes: &'a [u8],
    wide: bool,
}

impl<'a> Bytes<'a> {
    fn slice(self, at: u64, len: u64) -> Option<&'a [u8]> {
        let at = usize::try_from(at).ok()?;
        self.bytes.get(at..at.checked_add(usize::try_from(len).ok()?)?)
    }
    fn u16(self, at: u64) -> Option<u16> {
        Some(u16::from_le_bytes(self.slice(at, 2)?.try_into().ok()?))
    }
    fn u32(self, at: u64) -> Option<u32> {
        Some(u32::from_le_bytes(self.slice(at, 4)?.try_into().ok()?))
    }
    /// An address or offset: 8 bytes in a 64-bit file, 4 in a 32-bit one.
    fn word(self, at: u64) -> Option<u64> {
        if self.wide {
            Some(u64::from_le_bytes(self.slice(at, 8)?.try_into().ok()?))
        } else {
            self.u32(at).map(u64::from)
        }
    }
    fn string(self, at: u64) -> Option<&'a str> {
        let rest = self.bytes.get(usize::try_from(at).ok()?..)?;
        let len = rest.iter().take(4096).position(|&byte| byte == 0)?;
        std::str::from_utf8(&rest[..len]).ok()
    }
}

/// A program header.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_len: u64,
    align: u64,
}

/// Reads a library; `name` is its file's name. None if it is no shared library for a machine that is known
/// (x86, Arm, RISC-V; all little-endian), or is damaged: `ldconfig` passes over such files too.
pub fn read_library(bytes: &[u8], name: &str) -> Option<Library> {
    let ident = bytes.get(..16)?;
    if !ident.starts_with(b"\x7fELF") || ident.get(5) != Some(&1) {
        return None;
    }
    let wide = match ident.get(4) {
        Some(1) => false,
        Some(2) => true,
        _ => return None,
    };
    let file = Bytes { bytes, wide };
    let machine = file.u16(18)?;
    let segments = segments(file)?;
    let dynamic = segments.iter().rev().find(|segment| segment.kind == PT_DYNAMIC && segment.file_len > 0)?;
    let entry_len = if wide { 16 } else { 8 };
    let mut entries = Vec::new();
    let mut at = dynamic.offset;
    loop {
        let tag = file.word(at)?;
        if tag == DT_NULL {
            break;
        }
        entries.push((tag, file.word(at.checked_add(entry_len / 2)?)?));
        at = at.checked_add(entry_len)?;
    }
    let (_, table) = entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?;
    let load = segments.iter().find(|segment| {
        segment.kind == PT_LOAD
            && table.checked_sub(segment.address).is_some_and(|distance| distance < segment.file_len)
    });
    let strings = match load {
        Some(segment) => table.wrapping_sub(segment.address).checked_add(segment.offset)?,
        None => *table,
    };
    let string = |at: u64| file.string(strings.checked_add(at)?);
    let mut soname = None;
    let mut libc = FLAG_ELF;
    for (tag, value) in &entries {
        match *tag {
            DT_NEEDED if string(*value)? == "libc.so.6" => libc = FLAG_LIBC6,
            DT_SONAME => soname = Some(string(*value)?),
            _ => {}
        }
    }
    let flags = flags(file, machine, libc)?;
    let isa_level = if matches!(machine, EM_X86_64 | EM_386) { isa_level(file, &segments) } else { 0 };
    Some(Library { machine, soname: soname.unwrap_or(name).to_owned(), flags, isa_level })
}

fn segments(file: Bytes<'_>) -> Option<Vec<Segment>> {
    let (table, entry_len, count) = if file.wide {
        (file.word(32)?, 56_u64, file.u16(56)?)
    } else {
        (file.word(28)?, 32_u64, file.u16(44)?)
    };
    (0..u64::from(count))
        .map(|index| {
            let at = table.checked_add(index.checked_mul(entry_len)?)?;
            file.slice(at, entry_len)?;
            let field =
                |wide: u64, narrow: u64| file.word(at.checked_add(if file.wide { wide } else { narrow })?);
            Some(Segment {
                kind: file.u32(at)?,
                offset: field(8, 4)?,
                address: field(16, 8)?,
                file_len: field(32, 16)?,
                align: field(48, 28)?,
            })
        })
        .collect()
}

/// Kind and architecture. The 64-bit ones have always been for version 6 of the C library.
fn flags(file: Bytes<'_>, machine: u16, libc: u32) -> Option<u32> {
    let header_flags = file.u32(if file.wide { 48 } else { 36 })?;
    match (machine, file.wide) {
        (EM_X86_64, true) => Some(0x0300 | FLAG_LIBC6),
        (EM_X86_64, false) => Some(0x0800 | FLAG_LIBC6),
        (EM_AARCH64, true) => Some(0x0a00 | FLAG_LIBC6),
        (EM_ARM, false) if header_flags & ARM_HARD != 0 => Some(0x0900 | FLAG_LIBC6),
        (EM_ARM, false) if header_flags & ARM_SOFT != 0 => Some(0x0b00 | FLAG_LIBC6),
        (EM_386 | EM_ARM, false) => Some(libc),
        (EM_RISCV, true) => match header_flags & 6 {
            4 => Some(0x1000 | FLAG_LIBC6),
            0 => Some(0x0f00 | FLAG_LIBC6),
            _ => None,
        },
        _ => None,
    }
}

/// The highest level in the x86 property note; 0 where there is none or it breaks the rules.
fn isa_level(file: Bytes<'_>, segments: &[Segment]) -> u32 {
    let Some(segment) = segments.iter().find(|segment| segment.kind == PT_GNU_PROPERTY) else { return 0 };
    let align: u64 = if file.wide { 8 } else { 4 };
    if segment.align != align {
        return 0;
    }
    let level = || {
        let mut at = segment.offset;
        let end = segment.offset.checked_add(segment.file_len)?;
        while at.checked_add(12)? < end {
            let (name_len, len, kind) = (file.u32(at)?, file.u32(at + 4)?, file.u32(at + 8)?);
            let name_at = at + 12;
            if name_len == 4 && kind == 5 && file.slice(name_at, 4)? == b"GNU\0" {
                return property(file, name_at + 4, u64::from(len), align);
            }
            let next = name_at.checked_add(u64::from(name_len).next_multiple_of(4))?;
            at = next.checked_add(u64::from(len).next_multiple_of(align))?;
        }
        None
    };
    level().unwrap_or(0)
}

fn property(file: Bytes<'_>, start: u64, len: u64, align: u64) -> Option<u32> {
    let mut at = start;
    let end = start.checked_add(len)?;
    let mut last = 0;
    while at.checked_add(8)? <= end {
        let (kind, data_len) = (file.u32(at)?, file.u32(at + 4)?);
        // Properties are sorted by kind.
        if kind < last || at.checked_add(8)?.checked_add(u64::from(data_len))? > end {
            return None;
        }
        if kind == X86_ISA_NEEDED && data_len == 4 {
            return file.u32(at + 8)?.checked_ilog2();
        }
        last = kind;
        at = at.checked_add(8)?.checked_add(u64::from(data_len).next_multiple_of(align))?;
    }
    None
}
