//! Whether two releases are the same bytes, and where they are not.

mod disk;
mod esp;
mod hints;
mod release;
mod root;
mod uki;

use crate::CompareError;
use crate::folder::{ReleaseFolder, open};
use crate::stream::first_difference;
use hints::Hints;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// Most lines for one artefact, unless all are asked for.
const LIMIT: usize = 25;
/// The same for what follows from other places.
const LIMIT_FOLLOWING: usize = 8;

/// One place that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// File of the release.
    pub artifact: String,
    /// What in it: a path in the root, a section of the UKI, a JSON pointer, a field.
    pub place: String,
    /// First byte in the place that differs.
    pub offset: Option<u64>,
    /// First byte of the artefact that differs for this place.
    pub byte: Option<u64>,
    /// The difference for people.
    pub text: String,
    /// Whether it is the consequence of another one: a hash of what differs.
    pub follows: bool,
}

impl Difference {
    fn new(artifact: &str, place: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            artifact: artifact.to_owned(),
            place: place.into(),
            offset: None,
            byte: None,
            text: text.into(),
            follows: false,
        }
    }

    fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }

    fn byte(mut self, byte: u64) -> Self {
        self.byte = Some(byte);
        self
    }

    fn following(mut self, follows: bool) -> Self {
        self.follows = follows;
        self
    }
}

/// Whether two releases are the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Every file of both has the same bytes.
    pub same: bool,
    /// Every place that differs, artefact by artefact.
    pub differences: Vec<Difference>,
    /// Causes that the bytes themselves show: a time, a path of the build, an order.
    pub hints: Vec<String>,
}

impl Verdict {
    /// The verdict for people; `all` lists every place.
    pub fn text(&self, all: bool) -> String {
        if self.same {
            return "same bytes\n".into();
        }
        let causes = self.differences.iter().filter(|difference| !difference.follows).count();
        let (places, verb) = if causes == 1 { ("place", "differs") } else { ("places", "differ") };
        let mut out = format!("not the same bytes: {causes} {places} {verb}");
        match self.differences.len() - causes {
            0 => out.push('\n'),
            1 => out.push_str("; 1 more follows from that\n"),
            more => {
                let _ = writeln!(out, "; {more} more follow from that");
            }
        }
        for (heading, follows) in [("", false), ("\nfollows from that:\n", true)] {
            out.push_str(if self.differences.iter().any(|d| d.follows == follows) { heading } else { "" });
            let mut artifacts: Vec<&str> = Vec::new();
            for difference in self.differences.iter().filter(|d| d.follows == follows) {
                if !artifacts.contains(&difference.artifact.as_str()) {
                    artifacts.push(&difference.artifact);
                }
            }
            for artifact in artifacts {
                let of_it: Vec<&Difference> = self
                    .differences
                    .iter()
                    .filter(|d| d.follows == follows && d.artifact == artifact)
                    .collect();
                let _ = writeln!(out, "{artifact}");
                let usual = if follows { LIMIT_FOLLOWING } else { LIMIT };
                let limit = if all { of_it.len() } else { usual };
                for difference in of_it.iter().take(limit) {
                    let _ = writeln!(out, "  {}", difference.text);
                }
                if of_it.len() > limit {
                    let _ = writeln!(out, "  and {} more", of_it.len() - limit);
                }
            }
        }
        if !self.hints.is_empty() {
            out.push_str("\nwhat may be the cause\n");
            for hint in &self.hints {
                let _ = writeln!(out, "  {hint}");
            }
        }
        out
    }
}

/// Compares two releases byte by byte. Damaged artefacts are no errors: where they differ is told as far as they can be
/// read.
///
/// # Errors
/// [`CompareError::Read`] when a file is missing or cannot be read.
pub fn same(a: &ReleaseFolder, b: &ReleaseFolder) -> Result<Verdict, CompareError> {
    let mut differences = Vec::new();
    let mut hints = Hints::default();
    root::compare(a, b, &mut differences, &mut hints)?;
    let root_differs = !differences.is_empty();
    differences.extend(root::verity(a, b, root_differs)?);
    let uki = uki::compare(a, b, root_differs, &mut hints)?;
    let uki_differs = !uki.is_empty();
    differences.extend(uki);
    differences.extend(esp::compare(a, b, uki_differs)?);
    differences.extend(disk::compare(a, b, !differences.is_empty())?);
    differences.extend(others(a, b)?);
    let artifacts_differ = !differences.is_empty();
    differences.extend(release::compare(a, b, artifacts_differ));
    Ok(Verdict { same: differences.is_empty(), differences, hints: hints.into_lines() })
}

/// Where two unified kernel images differ, `artifact` being their name in the result; none when they are the same. Any
/// bytes are accepted: what is no image differs by its first byte.
pub fn compare_ukis(artifact: &str, a: &[u8], b: &[u8]) -> Vec<Difference> {
    uki::images(artifact, a, b, false, &mut Hints::default())
}

/// Files beside those of the slot: keys to enrol, bills of materials.
fn others(a: &ReleaseFolder, b: &ReleaseFolder) -> Result<Vec<Difference>, CompareError> {
    let (of_a, of_b) = (list(a)?, list(b)?);
    let mut found = Vec::new();
    for name in of_a.union(&of_b) {
        if !of_a.contains(name) || !of_b.contains(name) {
            let which = if of_a.contains(name) { "first" } else { "second" };
            found.push(Difference::new(name, "", format!("is only in the {which} release")));
            continue;
        }
        let ((mut old, _), (mut new, _)) = (open(&a.path().join(name))?, open(&b.path().join(name))?);
        let fail = |source| CompareError::Read { path: b.path().join(name), source };
        if let Some(at) = first_difference(&mut old, &mut new).map_err(fail)? {
            found.push(Difference::new(name, "", format!("differs at byte {at}")).at(at).byte(at));
        }
    }
    Ok(found)
}

/// Names of the other files, folders one level deep; at most some thousand.
fn list(folder: &ReleaseFolder) -> Result<BTreeSet<String>, CompareError> {
    const MAX: usize = 4096;
    let release = folder.release();
    let slot = &release.slot;
    let own = [
        "release.json",
        &slot.esp.file,
        &slot.root.file,
        &slot.verity.file,
        &release.uki.artifact.file,
        &release.disk.file,
    ];
    let mut names = BTreeSet::new();
    let mut read = |path: &Path, prefix: &str, folders: &mut Vec<String>| -> Result<(), CompareError> {
        let fail = |source| CompareError::Read { path: path.to_owned(), source };
        for entry in std::fs::read_dir(path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                folders.push(name);
            } else if kind.is_file() && !own.contains(&name.as_str()) {
                names.insert(name);
            }
            if names.len() + folders.len() > MAX {
                return Err(fail(std::io::Error::other("there are too many files beside the release")));
            }
        }
        Ok(())
    };
    let mut folders = Vec::new();
    read(folder.path(), "", &mut folders)?;
    for name in folders {
        read(&folder.path().join(&name), &format!("{name}/"), &mut Vec::new())?;
    }
    Ok(names)
}
