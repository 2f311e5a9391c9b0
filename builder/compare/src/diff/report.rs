//! The difference as text.

use super::boot::names_root;
use super::{Diff, FileChange, PackageChange};
use crate::text::{bytes, clean, growth};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Most lines of one kind, unless all are asked for.
const LIMIT: usize = 20;

/// Writes a heading and lines below it; none without lines.
fn section(out: &mut String, heading: &str, lines: &[String], all: bool) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{heading}");
    let limit = if all { lines.len() } else { LIMIT };
    for line in lines.iter().take(limit) {
        let _ = writeln!(out, "  {line}");
    }
    if lines.len() > limit {
        let _ = writeln!(out, "  and {} more", lines.len() - limit);
    }
}

fn package(change: &PackageChange) -> String {
    let PackageChange { part, name, before, after } = change;
    match (before, after) {
        (None, Some(after)) => format!("+ {name} {after} ({part})"),
        (Some(before), None) => format!("- {name} {before} ({part})"),
        (Some(before), Some(after)) if before == after => {
            format!("~ {name} {before}: same version, another package file ({part})")
        }
        (Some(before), Some(after)) => format!("~ {name} {before} -> {after} ({part})"),
        (None, None) => name.clone(),
    }
}

fn file(change: &FileChange) -> String {
    let path = &change.path;
    match (&change.before, &change.after) {
        (None, Some(after)) if after.kind == "file" => format!("+ {path} ({})", bytes(after.size)),
        (None, Some(after)) => format!("+ {path} ({})", after.kind),
        (Some(before), None) if before.kind == "file" => format!("- {path} ({})", bytes(before.size)),
        (Some(before), None) => format!("- {path} ({})", before.kind),
        (Some(before), Some(after)) => {
            let what: Vec<String> = change
                .changed
                .iter()
                .map(|aspect| match *aspect {
                    "content" => format!("{} -> {} bytes", before.size, after.size),
                    "kind" => format!("{} -> {}", before.kind, after.kind),
                    "mode" => format!("mode {} -> {}", before.mode, after.mode),
                    "owner" => format!("owner {} -> {}", before.owner, after.owner),
                    "time" => format!("time {} -> {}", before.mtime, after.mtime),
                    other => {
                        let names =
                            |x: &BTreeMap<String, String>| x.keys().cloned().collect::<Vec<_>>().join(" ");
                        format!("{other} [{}] -> [{}]", names(&before.xattrs), names(&after.xattrs))
                    }
                })
                .collect();
            format!("~ {path} ({})", what.join(", "))
        }
        (None, None) => path.clone(),
    }
}

/// The folder that a file is counted under: two levels below `usr/share` and the like, which is what a package has
/// there.
fn group(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').collect();
    let folders = parts.len().saturating_sub(1);
    let depth = if path.starts_with("usr/") { 3 } else { 2 };
    parts.iter().take(depth.min(folders).max(1)).copied().collect::<Vec<_>>().join("/")
}

/// Files one by one when they are few; counted by folder when they are many.
fn files(changes: &[FileChange], all: bool) -> Vec<String> {
    let shown: Vec<&FileChange> = changes.iter().filter(|change| all || !change.only_time()).collect();
    let mut lines: Vec<String> = if all || shown.len() <= LIMIT {
        shown.iter().map(|change| file(change)).collect()
    } else {
        let mut groups: BTreeMap<String, (usize, usize, usize, Vec<&FileChange>)> = BTreeMap::new();
        for change in &shown {
            let counts = groups.entry(group(&change.path)).or_default();
            match (&change.before, &change.after) {
                (None, _) => counts.0 += 1,
                (_, None) => counts.1 += 1,
                _ => counts.2 += 1,
            }
            counts.3.push(change);
        }
        groups
            .into_iter()
            .map(|(folder, (added, removed, changed, members))| match members.as_slice() {
                [only] => file(only),
                _ => format!("  {folder}/: {added} added, {removed} removed, {changed} changed"),
            })
            .collect()
    };
    let times = changes.len() - shown.len();
    if times > 0 {
        // Among the first lines, as the list may be cut.
        lines.insert(0, format!("~ {times} more differ in nothing but their time"));
    }
    lines
}

impl Diff {
    /// Whether nothing at all changed.
    pub fn is_empty(&self) -> bool {
        self.artifacts.iter().all(|artifact| artifact.same)
            && self.values.is_empty()
            && self.packages.is_empty()
            && self.keys.is_empty()
            && self.pcrs.is_empty()
    }

    /// The difference for people; `all` lists every file.
    pub fn text(&self, all: bool) -> String {
        let mut out = format!("{} -> {}\n", clean(&self.from), clean(&self.to));
        if self.is_empty() {
            out.push_str("\nnothing changed\n");
            return out;
        }
        let values: Vec<String> = self
            .values
            .iter()
            .map(|change| format!("{}: {} -> {}", change.what, clean(&change.before), clean(&change.after)))
            .collect();
        section(&mut out, "values", &values, true);
        section(&mut out, "packages", &self.packages.iter().map(package).collect::<Vec<_>>(), all);
        // The words that name the root differ in any two releases.
        let own = |word: &&String| !names_root(word);
        let (removed, added) = (&self.cmdline.removed, &self.cmdline.added);
        let mut words: Vec<String> =
            removed.iter().filter(own).map(|word| format!("- {}", clean(word))).collect();
        words.extend(added.iter().filter(own).map(|word| format!("+ {}", clean(word))));
        if removed.iter().chain(added).any(|word| names_root(word)) {
            words.push("~ roothash and ashlar.verity, which follow from the root".into());
        }
        if self.cmdline.reordered {
            words.push("~ the other words have another order".into());
        }
        section(&mut out, "command line", &words, all);
        let mut modules = Vec::new();
        for change in &self.modules {
            modules.extend(change.removed.iter().map(|name| format!("- {} ({})", clean(name), change.place)));
            modules.extend(change.added.iter().map(|name| format!("+ {} ({})", clean(name), change.place)));
            if change.reordered {
                modules.push(format!("~ another order ({})", change.place));
            }
        }
        section(&mut out, "kernel modules", &modules, all);
        let sections: Vec<String> = self
            .sections
            .iter()
            .map(|change| match (change.before, change.after) {
                (Some(before), Some(after)) => format!("~ {} ({})", change.name, growth(before, after)),
                (None, _) => format!("+ {}", change.name),
                (_, None) => format!("- {}", change.name),
            })
            .collect();
        section(&mut out, "sections of the UKI", &sections, all);
        section(&mut out, "initramfs", &files(&self.initramfs, all), all);
        let keys: Vec<String> = self
            .keys
            .iter()
            .map(|change| {
                let list = |digests: &[ashlar_image::digest::Digest]| {
                    let names: Vec<String> =
                        digests.iter().map(|d| d.to_string().chars().take(16).collect()).collect();
                    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
                };
                let why = if change.what == "PCR policy" { " (follows from PCR 11 or its key)" } else { "" };
                format!("~ {}: {} -> {}{why}", change.what, list(&change.before), list(&change.after))
            })
            .collect();
        section(&mut out, "keys", &keys, all);
        let pcrs: Vec<String> = self
            .pcrs
            .iter()
            .map(|change| {
                let causes: Vec<String> = change
                    .causes
                    .iter()
                    .map(|cause| match (cause.before, cause.after) {
                        (None, _) => format!("`{}` is measured in addition", clean(&cause.event)),
                        (_, None) => format!("`{}` is no longer measured", clean(&cause.event)),
                        _ => format!("`{}`", clean(&cause.event)),
                    })
                    .collect();
                let cases = match change.variants.as_slice() {
                    [only] => only.clone(),
                    more => format!("in {} cases", more.len()),
                };
                format!("~ PCR {}: because of {} ({cases})", change.pcr, causes.join(", "))
            })
            .collect();
        section(&mut out, "PCRs", &pcrs, all);
        let manifest: Vec<String> = self
            .manifest
            .iter()
            .map(|change| {
                let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".into());
                format!(
                    "~ {}: {} -> {}",
                    clean(change.pointer.trim_start_matches('/')),
                    value(&change.before),
                    value(&change.after)
                )
            })
            .collect();
        section(&mut out, "containers and services", &manifest, all);
        section(&mut out, "files of the root", &files(&self.files, all), all);
        let sizes: Vec<String> = self
            .artifacts
            .iter()
            .map(|a| {
                let what = if a.same { "same bytes".to_owned() } else { growth(a.before, a.after) };
                format!("{}: {} ({what})", a.file, bytes(a.after))
            })
            .collect();
        section(&mut out, "sizes", &sizes, true);
        let download = &self.download;
        let mut lines = vec![format!(
            "{} blocks of 4 KiB: {}, about {} packed",
            download.new_blocks,
            bytes(download.bytes),
            bytes(download.packed)
        )];
        lines.extend(download.parts.iter().map(|part| {
            format!(
                "{}: {} of {} blocks, {} packed",
                part.file,
                part.new_blocks,
                part.blocks,
                bytes(part.packed)
            )
        }));
        section(&mut out, "an update would download", &lines, true);
        out
    }
}
