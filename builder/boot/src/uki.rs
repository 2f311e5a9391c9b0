//! The unified kernel image (UAPI.5): systemd-stub with kernel, command line, initramfs and what describes
//! them appended as sections of the PE file (Microsoft, "PE Format").
//!
//! The sections of the file are in the specification's canonical order, whatever order they are given in,
//! so the same content gives the same bytes. Virtual sizes are the exact lengths: the stub measures
//! `VirtualSize` bytes into PCR 11. It starts the kernel with `LoadImage`, which copies it, so `.linux` needs
//! no room behind it as it did for kernels before 5.8.

use ashlar_measured_boot::pe::{Pe, PeError};

/// The sections that a UKI may have, in canonical order (UAPI.5, "UKI TPM PCR Measurements"). Profiles and
/// automatically chosen device trees are left out on purpose: they make it depend on the machine what is
/// measured. `.sbat` comes from the stub.
pub const CANONICAL_ORDER: [&str; 10] =
    [".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".splash", ".dtb", ".uname", ".pcrsig", ".pcrpkey"];

/// Longest command line in bytes: x86's `COMMAND_LINE_SIZE` less the NUL. The kernel cuts a longer one off
/// and starts all the same.
pub const CMDLINE_MAX: usize = 2047;

/// Size of one entry of the section table in bytes.
const HEADER_SIZE: usize = 40;
/// `IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ`.
const CHARACTERISTICS: u32 = 0x4000_0040;
/// `IMAGE_SUBSYSTEM_EFI_APPLICATION`.
const EFI_APPLICATION: u16 = 10;

/// A section to append.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// Name with its dot, one of [`CANONICAL_ORDER`].
    pub name: &'a str,
    /// Content; not empty.
    pub data: &'a [u8],
}

/// Why a UKI could not be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UkiError {
    /// The stub cannot be read.
    #[error("the EFI stub cannot be used: {0}; take `linuxx64.efi.stub` from the package systemd-boot-efi")]
    Stub(#[source] PeError),
    /// The stub is no EFI program that sections can be added to.
    #[error("the EFI stub cannot be used: {0}; take `linuxx64.efi.stub` from the package systemd-boot-efi")]
    UnfitStub(&'static str),
    /// The kernel is no EFI program.
    #[error("the kernel is no EFI program: {0}; take one built with CONFIG_EFI_STUB")]
    Kernel(#[source] PeError),
    /// A section has a name that is not in [`CANONICAL_ORDER`]. Stubs before 253 compare names by prefix, so
    /// `.linux2` would even be taken for `.linux`.
    #[error("a UKI has no section `{0}`; there are {all}", all = CANONICAL_ORDER.join(" "))]
    Unknown(String),
    /// A section is given twice, or the stub has it already.
    #[error("the UKI would have the section `{0}` twice")]
    Duplicate(String),
    /// A section that must be there is not, or a section has no content.
    #[error("the UKI's section `{0}` is missing or empty")]
    Empty(String),
    /// The command line is not what the kernel can take whole.
    #[error("the kernel command line {0}")]
    Cmdline(String),
    /// The stub's header has no room for more section headers.
    #[error(
        "the EFI stub has room for {room} more sections, {needed} are needed; take a stub from systemd 253 or newer"
    )]
    NoRoom {
        /// Section headers that fit.
        room: usize,
        /// Section headers that are needed.
        needed: usize,
    },
    /// The file would not fit into 32-bit offsets.
    #[error("the UKI would be larger than 4 GiB")]
    TooLarge,
}

/// Brings the sections into canonical order and checks that they make a UKI.
fn ordered<'a>(sections: &[Section<'a>], stub: &Pe<'_>) -> Result<Vec<Section<'a>>, UkiError> {
    for section in sections {
        if !CANONICAL_ORDER.contains(&section.name) {
            return Err(UkiError::Unknown(section.name.to_owned()));
        }
        if section.data.is_empty() {
            return Err(UkiError::Empty(section.name.to_owned()));
        }
    }
    let mut sorted: Vec<Section<'a>> = Vec::new();
    for name in CANONICAL_ORDER {
        let mut same = sections.iter().filter(|section| section.name == name);
        sorted.extend(same.next());
        if same.next().is_some() || stub.section(name).is_some() {
            return Err(UkiError::Duplicate(name.to_owned()));
        }
    }
    let find = |name: &str| {
        sorted
            .iter()
            .find(|section| section.name == name)
            .map(|section| section.data)
            .ok_or_else(|| UkiError::Empty(name.to_owned()))
    };
    Pe::parse(find(".linux")?).map_err(UkiError::Kernel)?;
    let cmdline = find(".cmdline")?;
    if cmdline.contains(&0) || std::str::from_utf8(cmdline).is_err() {
        return Err(UkiError::Cmdline("has a NUL byte or is not UTF-8".into()));
    }
    if cmdline.len() > CMDLINE_MAX {
        return Err(UkiError::Cmdline(format!(
            "has {} bytes; the kernel reads no more than {CMDLINE_MAX}",
            cmdline.len()
        )));
    }
    Ok(sorted)
}

/// `value` rounded up to `alignment`, which is a power of two.
fn align(value: usize, alignment: u32) -> Result<usize, UkiError> {
    value.checked_next_multiple_of(alignment as usize).ok_or(UkiError::TooLarge)
}

fn u32_of(value: usize) -> Result<u32, UkiError> {
    u32::try_from(value).map_err(|_| UkiError::TooLarge)
}

/// Field access in the header, which [`Pe::parse`] has found to be there.
struct Header<'a>(&'a mut Vec<u8>);

impl Header<'_> {
    fn put(&mut self, offset: usize, value: &[u8]) -> Result<(), UkiError> {
        let field = self.0.get_mut(offset..offset + value.len());
        field.ok_or(UkiError::UnfitStub("its headers are cut off"))?.copy_from_slice(value);
        Ok(())
    }

    fn u32(&self, offset: usize) -> Result<u32, UkiError> {
        let field = self.0.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
        field.map(u32::from_le_bytes).ok_or(UkiError::UnfitStub("its headers are cut off"))
    }

    fn u16(&self, offset: usize) -> Result<u16, UkiError> {
        let field = self.0.get(offset..offset + 2).and_then(|bytes| bytes.try_into().ok());
        field.map(u16::from_le_bytes).ok_or(UkiError::UnfitStub("its headers are cut off"))
    }
}

/// Where things lie in the stub.
struct Stub {
    /// Offset of the optional header.
    optional: usize,
    /// Offset of the section table.
    table: usize,
    /// Number of the stub's own sections.
    sections: usize,
    /// Where the content of the sections ends in the file; what follows (symbols, signature) is dropped.
    file_end: usize,
    /// Where the sections end in memory.
    memory_end: usize,
}

/// Checks that sections can be added to the stub: aligned as the PE format says, an EFI application, and
/// with nothing but zeros where the new section headers go.
fn measure_stub(pe: &Pe<'_>, added: usize) -> Result<Stub, UkiError> {
    let mut bytes = pe.bytes().get(..pe.headers_size).unwrap_or_default().to_vec();
    let header = Header(&mut bytes);
    let optional = pe.checksum_offset - 64;
    let table = optional + usize::from(header.u16(optional - 4)?);
    let sections = pe.sections.len();
    if header.u16(optional + 68)? != EFI_APPLICATION {
        return Err(UkiError::UnfitStub("it is no EFI application"));
    }
    // The PE format's limits for files, and sections on pages of their own.
    if !(512..=65_536).contains(&pe.file_alignment) || !(4096..=1 << 21).contains(&pe.section_alignment) {
        return Err(UkiError::UnfitStub("its alignment is none that firmware loads"));
    }
    let mut file_end = pe.headers_size;
    let mut memory_end = pe.headers_size;
    let mut headers_limit = pe.bytes().len();
    for section in &pe.sections {
        let start = section.virtual_address as usize;
        if !section.raw.start.is_multiple_of(pe.file_alignment as usize)
            || !start.is_multiple_of(pe.section_alignment as usize)
        {
            return Err(UkiError::UnfitStub("its sections are not aligned"));
        }
        let end = start.checked_add((section.virtual_size as usize).max(section.raw.len()));
        memory_end = memory_end.max(end.ok_or(UkiError::TooLarge)?);
        file_end = file_end.max(section.raw.end);
        headers_limit = headers_limit.min(start);
        if !section.raw.is_empty() {
            headers_limit = headers_limit.min(section.raw.start);
        }
    }
    let used = table + sections * HEADER_SIZE;
    let room = headers_limit.saturating_sub(used) / HEADER_SIZE;
    if room < added {
        return Err(UkiError::NoRoom { room, needed: added });
    }
    let free = pe.bytes().get(used..used + added * HEADER_SIZE);
    if free.is_none_or(|bytes| bytes.iter().any(|&byte| byte != 0)) {
        return Err(UkiError::UnfitStub("something lies behind its section table"));
    }
    Ok(Stub { optional, table, sections, file_end, memory_end })
}

/// Makes a UKI of the EFI stub and `sections`. A signature of the stub is dropped; its own sections, `.sbat`
/// among them, stay as they are. `.linux` and `.cmdline` are required: without the latter the stub takes a
/// command line from outside.
pub fn build(stub: &[u8], sections: &[Section<'_>]) -> Result<Vec<u8>, UkiError> {
    let pe = Pe::parse(stub).map_err(UkiError::Stub)?;
    let sections = ordered(sections, &pe)?;
    let place = measure_stub(&pe, sections.len())?;

    let mut out = Vec::with_capacity(sections.iter().try_fold(
        place.file_end + pe.file_alignment as usize,
        |sum, section| {
            align(section.data.len(), pe.file_alignment)?.checked_add(sum).ok_or(UkiError::TooLarge)
        },
    )?);
    out.extend_from_slice(stub.get(..place.file_end).ok_or(UkiError::UnfitStub("it is cut off"))?);
    out.resize(align(out.len(), pe.file_alignment)?, 0);

    let mut memory_end = place.memory_end;
    let mut initialized = 0usize;
    for (index, section) in sections.iter().enumerate() {
        let address = align(memory_end, pe.section_alignment)?;
        let raw_start = out.len();
        let raw_size = align(section.data.len(), pe.file_alignment)?;
        out.extend_from_slice(section.data);
        out.resize(raw_start.checked_add(raw_size).ok_or(UkiError::TooLarge)?, 0);
        memory_end = address.checked_add(section.data.len()).ok_or(UkiError::TooLarge)?;
        initialized = initialized.checked_add(raw_size).ok_or(UkiError::TooLarge)?;

        let at = place.table + (place.sections + index) * HEADER_SIZE;
        let mut header = Header(&mut out);
        header.put(at, section.name.as_bytes())?;
        header.put(at + 8, &u32_of(section.data.len())?.to_le_bytes())?;
        header.put(at + 12, &u32_of(address)?.to_le_bytes())?;
        header.put(at + 16, &u32_of(raw_size)?.to_le_bytes())?;
        header.put(at + 20, &u32_of(raw_start)?.to_le_bytes())?;
        header.put(at + 36, &CHARACTERISTICS.to_le_bytes())?;
    }
    u32_of(out.len())?;

    let count = place.sections + sections.len();
    let headers_size = align(place.table + count * HEADER_SIZE, pe.file_alignment)?.max(pe.headers_size);
    let optional = place.optional;
    let file_header = optional - 20;
    let mut header = Header(&mut out);
    header.put(file_header + 2, &u16::try_from(count).map_err(|_| UkiError::TooLarge)?.to_le_bytes())?;
    // The symbol table, if there was one, is dropped with all that follows the sections.
    header.put(file_header + 8, &[0; 8])?;
    let initialized = u32_of(initialized)?.checked_add(header.u32(optional + 8)?);
    header.put(optional + 8, &initialized.ok_or(UkiError::TooLarge)?.to_le_bytes())?;
    header.put(optional + 56, &u32_of(align(memory_end, pe.section_alignment)?)?.to_le_bytes())?;
    header.put(optional + 60, &u32_of(headers_size)?.to_le_bytes())?;
    if let Some(entry) = pe.certificate_entry_offset {
        header.put(entry, &[0; 8])?;
    }
    // Reading the result back proves that nothing overlaps, and gives the checksum.
    let checksum = Pe::parse(&out).map_err(UkiError::Stub)?.checksum();
    Header(&mut out).put(pe.checksum_offset, &checksum.to_le_bytes())?;
    Ok(out)
}
