//! What is taken from sources of outside: devices and extended attributes.

use std::collections::{BTreeMap, BTreeSet};

/// What becomes of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Devices {
    /// The source is refused.
    #[default]
    Refuse,
    /// They are left out, with a note.
    Skip,
    /// They are taken.
    Take,
}

/// What is taken and what is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keep {
    /// Device nodes.
    pub devices: Devices,
    /// Extended attributes that are taken beside `security.capability`, by full name; a `*` at the end stands for any rest
    /// (`user.*`). Others are left out, with a note: labels of the build host mean nothing in the image.
    pub xattrs: Vec<String>,
}

impl Keep {
    /// Whether an extended attribute is taken.
    pub(crate) fn takes(&self, name: &[u8]) -> bool {
        name == b"security.capability"
            || self.xattrs.iter().any(|wanted| match wanted.strip_suffix('*') {
                Some(start) => name.starts_with(start.as_bytes()),
                None => name == wanted.as_bytes(),
            })
    }
}

/// Collects what was left out.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    lines: Vec<String>,
    left_out: BTreeMap<&'static str, Vec<String>>,
    xattrs: BTreeSet<String>,
}

/// Names that a note gives before it only counts.
const SHOWN: usize = 5;

impl Notes {
    pub(crate) fn add(&mut self, note: String) {
        self.lines.push(note);
    }

    /// An entry of this kind was left out.
    pub(crate) fn left_out(&mut self, kind: &'static str, path: &[u8]) {
        self.left_out.entry(kind).or_default().push(String::from_utf8_lossy(path).into_owned());
    }

    /// An extended attribute was left out.
    pub(crate) fn xattr(&mut self, name: &[u8]) {
        self.xattrs.insert(String::from_utf8_lossy(name).into_owned());
    }

    pub(crate) fn finish(mut self) -> Vec<String> {
        for (kind, paths) in self.left_out {
            let shown: Vec<&str> = paths.iter().take(SHOWN).map(String::as_str).collect();
            let more = paths.len() - shown.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            self.lines.push(format!("left out {kind}: {}{more}", shown.join(", ")));
        }
        if !self.xattrs.is_empty() {
            let names: Vec<String> = self.xattrs.into_iter().collect();
            self.lines.push(format!("left out extended attributes: {}", names.join(", ")));
        }
        self.lines
    }
}
