//! Reading the content of the tree's files.

use ashlar_tree::Content;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The source file that was opened last: the members of one package lie in one file.
#[derive(Default)]
pub struct Source<'a>(Option<(&'a Path, File)>);

impl<'a> Source<'a> {
    fn open(&mut self, path: &'a Path) -> std::io::Result<&File> {
        if self.0.as_ref().is_none_or(|(opened, _)| *opened != path) {
            self.0 = Some((path, File::open(path)?));
        }
        self.0.as_ref().map(|(_, file)| file).ok_or_else(|| std::io::Error::other("no source"))
    }

    /// `length` bytes of `content` from `start`.
    pub fn read(&mut self, content: &'a Content, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
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
