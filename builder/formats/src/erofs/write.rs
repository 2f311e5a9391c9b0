//! Writing what was planned. Every content is read once.

use super::plan::{Plan, Planned};
use super::{BLOCK, ErofsError, SUPERBLOCK_OFFSET, directory, inode::Inode};
use ashlar_tree::{Content, Kind};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `EROFS_SUPER_MAGIC_V1`.
const MAGIC: u32 = 0xe0f5_e1e2;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM`.
const SUPERBLOCK_CHECKSUM: u32 = 1;
/// `EROFS_FEATURE_COMPAT_MTIME`: times are modification times.
const MTIME: u32 = 2;

/// The source file that was opened last: the members of one package lie in one file.
#[derive(Default)]
struct Source<'a>(Option<(&'a Path, File)>);

impl<'a> Source<'a> {
    fn open(&mut self, path: &'a Path) -> std::io::Result<&File> {
        if self.0.as_ref().is_none_or(|(opened, _)| *opened != path) {
            self.0 = Some((path, File::open(path)?));
        }
        self.0.as_ref().map(|(_, file)| file).ok_or_else(|| std::io::Error::other("no source"))
    }

    /// `length` bytes of `content` from `start`.
    fn read(&mut self, content: &'a Content, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
        match content {
            Content::Inline(bytes) => {
                Ok(bytes.get(start as usize..(start + length) as usize).unwrap_or_default().to_vec())
            }
            Content::Range { path, offset, .. } => {
                let mut bytes = vec![0; length as usize];
                self.open(path)?.read_exact_at(&mut bytes, offset + start)?;
                Ok(bytes)
            }
        }
    }
}

impl<'a> Plan<'a> {
    /// Writes the file system to `out` from its start; `out` has exactly [`Plan::size`] bytes then.
    pub fn write(&'a self, out: &File) -> Result<(), ErofsError> {
        let mut source = Source::default();
        let mut out = BufWriter::with_capacity(1 << 20, out);
        out.write_all(&self.metadata(&mut source)?)?;
        for planned in &self.inodes {
            let (blocks, _) = planned.split();
            if blocks == 0 {
                continue;
            }
            let stored = planned.size.min(blocks * BLOCK);
            match &planned.node.kind {
                Kind::File(Content::Range { path, offset, .. }) => {
                    copy(&mut source, path, *offset, stored, &mut out)
                        .map_err(|error| error.into_erofs(planned))?;
                }
                Kind::File(Content::Inline(bytes)) => {
                    out.write_all(bytes.get(..stored as usize).unwrap_or_default())?;
                }
                Kind::Symlink(target) => out.write_all(&target[..stored as usize])?,
                Kind::Directory(_) => out.write_all(&self.directory(planned)[..stored as usize])?,
                _ => {}
            }
            let padding = blocks * BLOCK - stored;
            std::io::copy(&mut std::io::repeat(0).take(padding), &mut out)?;
        }
        out.flush()?;
        Ok(())
    }

    fn directory(&self, planned: &Planned<'_>) -> Vec<u8> {
        directory::content(&planned.names, |node| self.inodes[node].nid())
    }

    /// Superblock, inodes, attributes and tails.
    fn metadata(&'a self, source: &mut Source<'a>) -> Result<Vec<u8>, ErofsError> {
        let mut bytes = vec![0; (self.metadata_blocks * BLOCK) as usize];
        for (index, planned) in self.inodes.iter().enumerate() {
            let inode = Inode {
                metadata: &planned.node.metadata,
                kind: &planned.node.kind,
                size: planned.size,
                links: planned.links,
                number: index as u32 + 1,
                layout: planned.layout,
                first_block: planned.first_block,
                xattr_size: planned.xattrs.len(),
            };
            let (blocks, tail) = planned.split();
            let tail = match &planned.node.kind {
                _ if tail == 0 => Vec::new(),
                Kind::File(content) => source
                    .read(content, blocks * BLOCK, tail)
                    .map_err(|error| CopyError::Read(error).into_erofs(planned))?,
                Kind::Symlink(target) => target[(blocks * BLOCK) as usize..].to_vec(),
                Kind::Directory(_) => self.directory(planned)[(blocks * BLOCK) as usize..].to_vec(),
                _ => Vec::new(),
            };
            let mut at = planned.offset as usize;
            for part in [&inode.bytes(self.options.build_time), &planned.xattrs, &tail] {
                bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        }
        self.superblock(&mut bytes);
        Ok(bytes)
    }

    /// Fills in `struct erofs_super_block`; its checksum covers the rest of the first block too.
    fn superblock(&self, bytes: &mut [u8]) {
        let mut put = |at: usize, value: &[u8]| {
            bytes[SUPERBLOCK_OFFSET + at..SUPERBLOCK_OFFSET + at + value.len()].copy_from_slice(value);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &(SUPERBLOCK_CHECKSUM | MTIME).to_le_bytes());
        put(12, &[BLOCK.trailing_zeros() as u8]);
        // The root comes first, so its number is small.
        put(14, &(self.inodes.first().map_or(0, Planned::nid) as u16).to_le_bytes());
        put(16, &(self.inodes.len() as u64).to_le_bytes());
        put(24, &self.options.build_time.to_le_bytes());
        put(36, &self.blocks.to_le_bytes());
        put(48, &self.options.uuid);
        put(64, self.options.volume_name.as_bytes());
        // The kernel's crc32c: all ones to begin with, not inverted at the end.
        let checksum = !crc32c::crc32c(&bytes[SUPERBLOCK_OFFSET..BLOCK as usize]);
        bytes[SUPERBLOCK_OFFSET + 4..SUPERBLOCK_OFFSET + 8].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Which side of a copy failed.
enum CopyError {
    Read(std::io::Error),
    Write(std::io::Error),
}

impl CopyError {
    fn into_erofs(self, planned: &Planned<'_>) -> ErofsError {
        match self {
            Self::Read(source) => {
                ErofsError::Read { path: String::from_utf8_lossy(&planned.path).into_owned(), source }
            }
            Self::Write(source) => ErofsError::Write(source),
        }
    }
}

/// Copies a range of a host file.
fn copy<'a>(
    source: &mut Source<'a>,
    path: &'a Path,
    offset: u64,
    length: u64,
    out: &mut impl Write,
) -> Result<(), CopyError> {
    let file = source.open(path).map_err(CopyError::Read)?;
    let mut buffer = vec![0; length.min(1 << 20) as usize];
    let mut done = 0;
    while done < length {
        let part = &mut buffer[..(length - done).min(1 << 20) as usize];
        file.read_exact_at(part, offset + done).map_err(CopyError::Read)?;
        out.write_all(part).map_err(CopyError::Write)?;
        done += part.len() as u64;
    }
    Ok(())
}
