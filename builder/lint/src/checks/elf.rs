//! Reading what an ELF file needs to start: its machine, interpreter and libraries (System V ABI, chapters 4 and 5).
//! Only the headers and the dynamic section are read, whatever the file's size.

use crate::secrets::Reader;
use object::elf::{FileHeader32, FileHeader64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{LittleEndian, elf, pod};

/// Program headers that are read at most.
const MAX_HEADERS: usize = 256;
/// Longest interpreter path and library name, in bytes.
const MAX_NAME: usize = 4096;
/// Longest dynamic section, in bytes.
const MAX_DYNAMIC: usize = 256 << 10;
/// Libraries that one file may need.
const MAX_NEEDED: usize = 512;

/// What kind of ELF file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `ET_REL`: an object file or a kernel module.
    Relocatable,
    /// `ET_EXEC`, or `ET_DYN` with an interpreter.
    Program,
    /// `ET_DYN` without an interpreter: a shared library or a static position-independent program.
    Library,
    /// A core dump or something of another system.
    Other,
}

/// What is known of an ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// `e_machine`.
    pub machine: u16,
    /// Whether it has 64 bits.
    pub is_64: bool,
    /// Kind.
    pub kind: Kind,
    /// `PT_INTERP`: the program that loads it.
    pub interpreter: Option<String>,
    /// `DT_NEEDED`: names of the libraries that it needs.
    pub needed: Vec<String>,
    /// `DT_SONAME`: the name that others need it by.
    pub soname: Option<String>,
}

/// Reads an ELF file in memory; see the fields for what is read. `None` if it is no ELF file or its headers are
/// broken. Of a big-endian file only machine and kind are read.
pub fn read_bytes(bytes: &[u8]) -> Option<Elf> {
    read(Reader::Slice(bytes))
}

pub(crate) fn read(reader: Reader<'_>) -> Option<Elf> {
    let mut ident = [0; 20];
    if reader.read_at(0, &mut ident).ok()? != ident.len() || !ident.starts_with(&elf::ELFMAG) {
        return None;
    }
    match (ident[4], ident[5]) {
        (2, 1) => headers::<FileHeader64<LittleEndian>>(reader, true),
        (1, 1) => headers::<FileHeader32<LittleEndian>>(reader, false),
        (class @ (1 | 2), 2) => {
            let machine = u16::from_be_bytes([ident[18], ident[19]]);
            let kind = kind(u16::from_be_bytes([ident[16], ident[17]]), false);
            Some(Elf {
                machine,
                is_64: class == 2,
                kind,
                interpreter: None,
                needed: Vec::new(),
                soname: None,
            })
        }
        _ => None,
    }
}

fn kind(e_type: u16, has_interpreter: bool) -> Kind {
    match e_type {
        1 => Kind::Relocatable,
        2 => Kind::Program,
        3 if has_interpreter => Kind::Program,
        3 => Kind::Library,
        _ => Kind::Other,
    }
}

/// `len` bytes at `at`, if the file has them.
fn bytes(reader: Reader<'_>, at: u64, len: usize) -> Option<Vec<u8>> {
    if at.checked_add(len as u64)? > reader.len() {
        return None;
    }
    let mut buffer = vec![0; len];
    (reader.read_at(at, &mut buffer).ok()? == len).then_some(buffer)
}

/// The text at `at` up to a NUL byte.
fn text(reader: Reader<'_>, at: u64, limit: usize) -> Option<String> {
    // Names are short: most of the time the first read has the NUL.
    for limit in [limit.min(64), limit.min(MAX_NAME)] {
        let mut buffer = vec![0; limit];
        let read = reader.read_at(at, &mut buffer).ok()?;
        buffer.truncate(read);
        if let Some(end) = memchr::memchr(0, &buffer) {
            buffer.truncate(end);
            return String::from_utf8(buffer).ok();
        }
    }
    None
}

fn headers<H: FileHeader<Endian = LittleEndian>>(reader: Reader<'_>, is_64: bool) -> Option<Elf> {
    let le = LittleEndian;
    let raw = bytes(reader, 0, size_of::<H>())?;
    let (header, _) = pod::from_bytes::<H>(&raw).ok()?;
    let mut out = Elf {
        machine: header.e_machine(le).0,
        is_64,
        kind: kind(header.e_type(le).0, false),
        interpreter: None,
        needed: Vec::new(),
        soname: None,
    };
    let count = usize::from(header.e_phnum(le));
    if count == 0 || out.kind == Kind::Relocatable {
        return Some(out);
    }
    if count > MAX_HEADERS || usize::from(header.e_phentsize(le)) != size_of::<H::ProgramHeader>() {
        return None;
    }
    let raw = bytes(reader, header.e_phoff(le).into(), count * size_of::<H::ProgramHeader>())?;
    let (segments, _) = pod::slice_from_bytes::<H::ProgramHeader>(&raw, count).ok()?;
    for segment in segments.iter().filter(|segment| segment.p_type(le) == elf::PT_INTERP) {
        let len = usize::try_from(segment.p_filesz(le).into()).ok()?.min(MAX_NAME);
        out.interpreter = text(reader, segment.p_offset(le).into(), len);
        out.kind = kind(header.e_type(le).0, true);
    }
    for segment in segments.iter().filter(|segment| segment.p_type(le) == elf::PT_DYNAMIC) {
        let len = usize::try_from(segment.p_filesz(le).into()).ok()?;
        if len > MAX_DYNAMIC {
            return None;
        }
        let raw = bytes(reader, segment.p_offset(le).into(), len)?;
        let (entries, _) = pod::slice_from_bytes::<H::Dyn>(&raw, len / size_of::<H::Dyn>()).ok()?;
        dynamic::<H>(reader, segments, entries, &mut out);
    }
    Some(out)
}

/// Reads the names that the dynamic section refers to.
fn dynamic<H: FileHeader<Endian = LittleEndian>>(
    reader: Reader<'_>,
    segments: &[H::ProgramHeader],
    entries: &[H::Dyn],
    out: &mut Elf,
) -> Option<()> {
    let le = LittleEndian;
    let value = |wanted: elf::DynamicTag| {
        entries
            .iter()
            .take_while(|entry| entry.tag(le) != elf::DT_NULL)
            .find(|entry| entry.tag(le) == wanted)
            .map(|entry| entry.val(le))
    };
    let address = value(elf::DT_STRTAB)?;
    let size = value(elf::DT_STRSZ)?;
    // The table is given by its address in memory; the segment that holds it says where it is in the file.
    let strings =
        segments.iter().filter(|segment| segment.p_type(le) == elf::PT_LOAD).find_map(|segment| {
            let inside = address.checked_sub(segment.p_vaddr(le).into())?;
            (inside < segment.p_filesz(le).into())
                .then(|| Into::<u64>::into(segment.p_offset(le)).checked_add(inside))?
        })?;
    let name = |offset: u64| {
        let left = usize::try_from(size.checked_sub(offset)?).ok()?;
        text(reader, strings.checked_add(offset)?, left)
    };
    for entry in entries {
        match entry.tag(le) {
            elf::DT_NULL => break,
            elf::DT_NEEDED if out.needed.len() < MAX_NEEDED => {
                out.needed.extend(name(entry.val(le)));
            }
            elf::DT_SONAME => out.soname = name(entry.val(le)),
            _ => {}
        }
    }
    Some(())
}

/// Names of machines that people know.
pub(crate) fn machine_name(machine: u16) -> String {
    match elf::Machine(machine) {
        elf::EM_386 => "32-bit x86".into(),
        elf::EM_X86_64 => "x86-64".into(),
        elf::EM_ARM => "32-bit ARM".into(),
        elf::EM_AARCH64 => "64-bit ARM".into(),
        elf::EM_RISCV => "RISC-V".into(),
        elf::EM_PPC64 => "64-bit PowerPC".into(),
        elf::EM_S390 => "s390".into(),
        elf::EM_MIPS => "MIPS".into(),
        elf::EM_LOONGARCH => "LoongArch".into(),
        elf::Machine(other) => format!("machine type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test's own program, by what is known of programs and by another reader.
    #[test]
    fn a_program_of_this_machine() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let found = read_bytes(&bytes).unwrap();
        assert!(found.is_64);
        assert_eq!(found.kind, Kind::Program);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(found.machine, elf::EM_X86_64.0);
        }
        let Ok(output) =
            std::process::Command::new("readelf").arg("-dlW").arg(std::env::current_exe().unwrap()).output()
        else {
            eprintln!("skipped: readelf is not installed");
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let between = |line: &str| line.split_once('[').unwrap().1.split_once(']').unwrap().0.to_owned();
        let needed: Vec<_> = text.lines().filter(|line| line.contains("(NEEDED)")).map(between).collect();
        assert!(!needed.is_empty(), "{text}");
        assert_eq!(found.needed, needed);
        let interpreter = text.lines().find_map(|line| line.split_once("interpreter: ")).unwrap().1;
        assert_eq!(found.interpreter.unwrap(), interpreter.trim_end_matches(']'));
    }

    #[test]
    fn cut_and_changed_headers_never_panic() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for cut in (0..2000).chain([bytes.len() / 2]) {
            read_bytes(&bytes[..cut]);
        }
        let mut changed = bytes[..bytes.len().min(1 << 16)].to_vec();
        for i in 0..1024.min(changed.len()) {
            for value in [0, 0x7f, 0xff] {
                let old = std::mem::replace(&mut changed[i], value);
                read_bytes(&changed);
                changed[i] = old;
            }
        }
    }

    #[test]
    fn big_endian_and_other_files() {
        let mut s390 = b"\x7fELF\x02\x02\x01".to_vec();
        s390.resize(64, 0);
        (s390[16], s390[17], s390[18], s390[19]) = (0, 2, 0, 22);
        let found = read_bytes(&s390).unwrap();
        assert_eq!((found.machine, found.kind, found.is_64), (elf::EM_S390.0, Kind::Program, true));
        assert_eq!(read_bytes(b"#!/bin/sh\nexit 0 0 0 0 0 0 0"), None);
        assert_eq!(read_bytes(b"\x7fELF"), None);
    }
}
