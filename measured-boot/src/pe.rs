//! A strict, bounded reader of PE32+ files (Microsoft, "PE Format"), as far as measuring and signing need it.

use std::ops::Range;

/// Why a file was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PeError {
    /// The file ends before the named part does.
    #[error("the PE file ends inside its {0}; it is cut off or no PE file")]
    Short(&'static str),
    /// A field has a value that no x86-64 EFI program has.
    #[error("not an x86-64 PE32+ file: the {0} is wrong")]
    NotPe(&'static str),
    /// Two sections claim the same bytes of the file or of memory.
    #[error("the sections `{0}` and `{1}` overlap")]
    Overlap(String, String),
    /// The certificate table is not the last thing in the file.
    #[error("the certificate table does not end the file")]
    CertificateTable,
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Name without trailing NULs; at most 8 bytes.
    pub name: String,
    /// Address in memory relative to the image base.
    pub virtual_address: u32,
    /// Length in memory in bytes.
    pub virtual_size: u32,
    /// Bytes in the file.
    pub raw: Range<usize>,
    /// Characteristics.
    pub characteristics: u32,
}

/// A checked PE file.
#[derive(Debug, Clone)]
pub struct Pe<'a> {
    bytes: &'a [u8],
    /// Offset of the `CheckSum` field.
    pub checksum_offset: usize,
    /// Offset of data directory 4 (certificate table); none when there are fewer directories.
    pub certificate_entry_offset: Option<usize>,
    /// Where the certificate table lies; empty when there is none.
    pub certificates: Range<usize>,
    /// `SizeOfHeaders` in bytes.
    pub headers_size: usize,
    /// Alignment of sections in memory, in bytes.
    pub section_alignment: u32,
    /// Alignment of sections in the file, in bytes.
    pub file_alignment: u32,
    /// The sections in the order of their headers.
    pub sections: Vec<Section>,
}

fn at<const N: usize>(bytes: &[u8], offset: usize, part: &'static str) -> Result<[u8; N], PeError> {
    let end = offset.checked_add(N).ok_or(PeError::Short(part))?;
    bytes.get(offset..end).and_then(|s| s.try_into().ok()).ok_or(PeError::Short(part))
}

fn u16_at(bytes: &[u8], offset: usize, part: &'static str) -> Result<u16, PeError> {
    at(bytes, offset, part).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize, part: &'static str) -> Result<u32, PeError> {
    at(bytes, offset, part).map(u32::from_le_bytes)
}

/// `offset..offset + length` if it lies inside the file.
fn range(bytes: &[u8], offset: u32, length: u32, part: &'static str) -> Result<Range<usize>, PeError> {
    let range =
        offset as usize..(offset as usize).checked_add(length as usize).ok_or(PeError::Short(part))?;
    if range.end > bytes.len() { Err(PeError::Short(part)) } else { Ok(range) }
}

impl<'a> Pe<'a> {
    /// Reads and checks the headers of `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PeError> {
        if at::<2>(bytes, 0, "DOS header")? != *b"MZ" {
            return Err(PeError::NotPe("DOS signature"));
        }
        let pe = u32_at(bytes, 0x3c, "DOS header")? as usize;
        if at::<4>(bytes, pe, "PE signature")? != *b"PE\0\0" {
            return Err(PeError::NotPe("PE signature"));
        }
        // The checks above bound `pe` by the file's length, so small sums cannot overflow.
        if u16_at(bytes, pe + 4, "file header")? != 0x8664 {
            return Err(PeError::NotPe("machine type"));
        }
        let section_count = usize::from(u16_at(bytes, pe + 6, "file header")?);
        let optional_size = usize::from(u16_at(bytes, pe + 20, "file header")?);
        let optional = pe + 24;
        if u16_at(bytes, optional, "optional header")? != 0x20b {
            return Err(PeError::NotPe("optional header's magic"));
        }
        if optional_size < 112 {
            return Err(PeError::NotPe("optional header's size"));
        }
        let section_alignment = u32_at(bytes, optional + 32, "optional header")?;
        let file_alignment = u32_at(bytes, optional + 36, "optional header")?;
        if !section_alignment.is_power_of_two() || !file_alignment.is_power_of_two() {
            return Err(PeError::NotPe("alignment"));
        }
        let headers_size = u32_at(bytes, optional + 60, "optional header")? as usize;
        let directories = u32_at(bytes, optional + 108, "optional header")? as usize;
        if directories > 16 || 112 + directories * 8 > optional_size {
            return Err(PeError::NotPe("number of data directories"));
        }
        let table = optional + optional_size;
        if headers_size > bytes.len() || table + section_count * 40 > headers_size {
            return Err(PeError::Short("headers"));
        }
        let certificate_entry_offset = (directories > 4).then_some(optional + 112 + 4 * 8);
        let certificates = match certificate_entry_offset {
            None => bytes.len()..bytes.len(),
            Some(entry) => {
                let start = u32_at(bytes, entry, "data directories")?;
                let length = u32_at(bytes, entry + 4, "data directories")?;
                if length == 0 {
                    bytes.len()..bytes.len()
                } else {
                    let table = range(bytes, start, length, "certificate table")?;
                    if table.end != bytes.len() || table.start < headers_size {
                        return Err(PeError::CertificateTable);
                    }
                    table
                }
            }
        };
        let sections =
            (0..section_count).map(|i| section(bytes, table + i * 40)).collect::<Result<Vec<_>, _>>()?;
        let pe = Self {
            bytes,
            checksum_offset: optional + 64,
            certificate_entry_offset,
            certificates,
            headers_size,
            section_alignment,
            file_alignment,
            sections,
        };
        pe.check_overlaps()?;
        Ok(pe)
    }

    fn check_overlaps(&self) -> Result<(), PeError> {
        let memory = |s: &Section| (u64::from(s.virtual_address), u64::from(s.virtual_size));
        let file = |s: &Section| (s.raw.start as u64, s.raw.len() as u64);
        for extent in [memory as fn(&Section) -> (u64, u64), file] {
            let mut sorted: Vec<&Section> = self.sections.iter().filter(|s| extent(s).1 != 0).collect();
            sorted.sort_by_key(|s| extent(s).0);
            for pair in sorted.windows(2) {
                if let [a, b] = pair
                    && extent(a).0 + extent(a).1 > extent(b).0
                {
                    return Err(PeError::Overlap(a.name.clone(), b.name.clone()));
                }
            }
        }
        Ok(())
    }

    /// The whole file.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The first section with this name.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// A section's content as it is in memory: `VirtualSize` bytes, filled with zeros where the file has
    /// fewer. None when the zeros alone would be more than 64 MiB, which no sane file needs.
    pub fn content(&self, section: &Section) -> Option<Vec<u8>> {
        let size = section.virtual_size as usize;
        let stored = self.bytes.get(section.raw.clone())?;
        if size.saturating_sub(stored.len()) > 64 << 20 {
            return None;
        }
        let mut content = stored[..stored.len().min(size)].to_vec();
        content.resize(size, 0);
        Some(content)
    }

    /// The checksum that belongs into the optional header: the sum of all 16-bit words with end-around
    /// carry, the `CheckSum` field taken as zero, plus the file's length.
    pub fn checksum(&self) -> u32 {
        let field = self.checksum_offset..self.checksum_offset + 4;
        let mut sum: u32 = 0;
        for (index, pair) in self.bytes.chunks(2).enumerate() {
            let offset = index * 2;
            let byte = |i: usize| match pair.get(i) {
                Some(b) if !field.contains(&(offset + i)) => u32::from(*b),
                _ => 0,
            };
            sum += byte(0) | byte(1) << 8;
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // The field is 32 bits wide; an EFI program beyond 4 GiB does not load.
        sum.wrapping_add(self.bytes.len() as u32)
    }
}

fn section(bytes: &[u8], header: usize) -> Result<Section, PeError> {
    let name: [u8; 8] = at(bytes, header, "section table")?;
    let length = name.iter().position(|&b| b == 0).unwrap_or(8);
    let field = |offset| u32_at(bytes, header + offset, "section table");
    let raw_size = field(16)?;
    let raw = if raw_size == 0 { 0..0 } else { range(bytes, field(20)?, raw_size, "sections")? };
    Ok(Section {
        name: String::from_utf8_lossy(&name[..length]).into_owned(),
        virtual_size: field(8)?,
        virtual_address: field(12)?,
        raw,
        characteristics: field(36)?,
    })
}
