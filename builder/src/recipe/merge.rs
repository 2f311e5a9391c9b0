//! Recipes made of recipes: `extends` and `[profile.NAME]`.
//!
//! What comes later wins: a file over those that it extends, a profile over the files, a later profile over an
//! earlier one. Tables are merged key by key. Lists that name things of one kind (packages, modules, paths to
//! remove) grow; `"!name"` in one takes a name out again and `"!*"` all of them. Tables in lists (`[[container]]`,
//! `[[file]]`) that have the same `name` or `path` are one, others are added. Everything else is replaced.

use super::RecipeError;
use super::texts::Texts;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// How deep files may extend each other.
const MAX_DEPTH: usize = 16;
/// Largest file of a recipe in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Lists whose entries are added to those that are there.
const GROWING: [&str; 10] = [
    "packages",
    "exclude-packages",
    "remove",
    "initramfs-modules",
    "modules",
    "capabilities",
    "after",
    "requires",
    "exclude",
    "local",
];
/// Keys by which two tables in a list are the same thing.
const NAMES: [&str; 2] = ["name", "path"];

/// A file and those that it extends.
pub(super) struct File {
    text: usize,
    bases: Vec<File>,
}

/// Moves the places of a value that was read from a text which begins at `by`.
fn shift_value(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(shift(table, by)),
        DeValue::Array(mut array) => {
            for value in array.iter_mut() {
                *value = shift_value(value.clone(), by);
            }
            DeValue::Array(array)
        }
        other => other,
    };
    Spanned::new(span.start + by..span.end + by, value)
}

fn shift(table: DeTable<'_>, by: usize) -> DeTable<'_> {
    table
        .into_iter()
        .map(|(key, value)| {
            let span = key.span();
            let key = Spanned::new(span.start + by..span.end + by, key.into_inner());
            (key, shift_value(value, by))
        })
        .collect()
}

/// The name of a table in a list.
fn name_of<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    NAMES.iter().find_map(|key| value.as_table()?.get(*key)?.get_ref().as_str())
}

/// Adds the entries of a list.
fn extend_array<'a>(base: &mut Spanned<DeValue<'a>>, over: Spanned<DeValue<'a>>) {
    let DeValue::Array(over) = over.into_inner() else { return };
    let DeValue::Array(array) = base.get_mut() else { return };
    let mut items: Vec<Spanned<DeValue<'a>>> = array.iter().cloned().collect();
    for item in over.iter().cloned() {
        if let Some(text) = item.get_ref().as_str() {
            if let Some(gone) = text.strip_prefix('!') {
                items.retain(|old| gone != "*" && old.get_ref().as_str() != Some(gone));
            } else if items.iter().all(|old| old.get_ref().as_str() != Some(text)) {
                items.push(item);
            }
            continue;
        }
        let same = name_of(item.get_ref())
            .and_then(|name| items.iter().position(|old| name_of(old.get_ref()) == Some(name)));
        match same.and_then(|at| items.get_mut(at)) {
            Some(old) => merge_value(old, item),
            None => items.push(item),
        }
    }
    *array = items.into_iter().collect();
}

fn merge_value<'a>(base: &mut Spanned<DeValue<'a>>, over: Spanned<DeValue<'a>>) {
    match (base.get_mut(), over.get_ref()) {
        (DeValue::Table(table), DeValue::Table(_)) => {
            if let DeValue::Table(over) = over.into_inner() {
                merge(table, over);
            }
        }
        _ => *base = over,
    }
}

/// Lays `over` over `base`.
pub(super) fn merge<'a>(base: &mut DeTable<'a>, over: DeTable<'a>) {
    for (key, value) in over {
        let growing = GROWING.contains(&key.get_ref().as_ref());
        let of_tables = match value.get_ref() {
            DeValue::Array(array) => !array.is_empty() && array.iter().all(|item| item.get_ref().is_table()),
            _ => false,
        };
        if of_tables || (growing && value.get_ref().is_array()) {
            // Also where nothing is there yet, so that `"!name"` never reaches the recipe.
            let span = value.span();
            let old = base
                .entry(key)
                .or_insert_with(|| Spanned::new(span, DeValue::Array([].into_iter().collect())));
            if old.get_ref().is_array() {
                extend_array(old, value);
            } else {
                *old = value;
            }
            continue;
        }
        match base.get_mut(key.get_ref().as_ref()) {
            Some(old) => merge_value(old, value),
            None => {
                let mut fresh = value;
                if let DeValue::Table(table) = fresh.get_mut() {
                    let inner = std::mem::take(table);
                    merge(table, inner);
                }
                base.insert(key, fresh);
            }
        }
    }
}

/// Reads one of the texts into a table whose places are those of `texts`.
fn parse(texts: &Texts, text: usize) -> Result<DeTable<'_>, RecipeError> {
    let (start, text) = texts.text(text);
    match DeTable::parse(text) {
        Ok(table) => Ok(shift(table.into_inner(), start)),
        Err(error) => Err(RecipeError::syntax(texts, start, &error)),
    }
}

/// The files that a table extends, and where that is written.
fn extends(texts: &Texts, table: &DeTable<'_>) -> Result<Vec<(PathBuf, usize)>, RecipeError> {
    let Some(value) = table.get("extends") else { return Ok(Vec::new()) };
    let list: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
        DeValue::Array(array) => array.iter().collect(),
        _ => vec![value],
    };
    let one = |value: &Spanned<DeValue<'_>>| match value.get_ref().as_str() {
        Some(file) => Ok((texts.folder(value.span().start).join(file), value.span().start)),
        None => {
            let message = "`extends` is the path of a recipe, or a list of such".into();
            Err(texts.error(value.span(), message, None))
        }
    };
    list.into_iter().map(one).collect()
}

/// Adds a text that extends nothing.
pub(super) fn single(texts: &mut Texts, path: &Path, text: String) -> File {
    File { text: texts.add(path, text), bases: Vec::new() }
}

/// Reads a file and all that it extends. `chain` is the way to it.
pub(super) fn gather(texts: &mut Texts, path: &Path, chain: &mut Vec<PathBuf>) -> Result<File, RecipeError> {
    let read = |source| RecipeError::Read { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(read)?.len() > MAX_FILE {
        return Err(read(std::io::Error::other("it is larger than 4 MiB")));
    }
    let text = texts.add(path, std::fs::read_to_string(path).map_err(read)?);
    let named = extends(texts, &parse(texts, text)?)?;
    chain.push(std::fs::canonicalize(path).map_err(read)?);
    let mut bases = Vec::new();
    for (base, at) in named {
        let fail = |message| texts.error(at..at + 1, message, None);
        let known = std::fs::canonicalize(&base)
            .map_err(|error| fail(format!("cannot read `{}`: {error}", base.display())))?;
        if chain.contains(&known) || chain.len() >= MAX_DEPTH {
            return Err(fail(format!("`{}` extends itself in the end", base.display())));
        }
        bases.push(gather(texts, &base, chain)?);
    }
    chain.pop();
    Ok(File { text, bases })
}

/// What a file and all that it extends come to.
#[derive(Default)]
pub(super) struct Layers<'a> {
    /// All but the profiles.
    pub(super) table: DeTable<'a>,
    /// The profiles by name, in the order of the files. They stay apart until they are chosen: only then is there
    /// something for a `"!name"` in them to take out.
    pub(super) profiles: Vec<(String, DeTable<'a>)>,
}

/// Takes `[profile.NAME]` out of a table.
fn take_profiles<'a>(
    texts: &Texts,
    table: &mut DeTable<'a>,
) -> Result<Vec<(String, DeTable<'a>)>, RecipeError> {
    let Some(value) = table.remove("profile") else { return Ok(Vec::new()) };
    let bad = |span| texts.error(span, "`profile` holds tables: `[profile.debug]`".into(), None);
    let span = value.span();
    let DeValue::Table(profiles) = value.into_inner() else { return Err(bad(span)) };
    let mut named = Vec::new();
    for (name, value) in profiles {
        let span = value.span();
        let DeValue::Table(table) = value.into_inner() else { return Err(bad(span)) };
        named.push((name.into_inner().into_owned(), table));
    }
    Ok(named)
}

/// Merges a file into those that it extends.
pub(super) fn layers<'a>(texts: &'a Texts, file: &File) -> Result<Layers<'a>, RecipeError> {
    let mut all = Layers::default();
    for base in &file.bases {
        let base = layers(texts, base)?;
        merge(&mut all.table, base.table);
        all.profiles.extend(base.profiles);
    }
    let mut own = parse(texts, file.text)?;
    own.remove("extends");
    all.profiles.extend(take_profiles(texts, &mut own)?);
    merge(&mut all.table, own);
    Ok(all)
}

/// Lays every profile of this name over `table`, in the order of the files.
pub(super) fn choose<'a>(profiles: &[(String, DeTable<'a>)], name: &str, table: &mut DeTable<'a>) {
    for (_, profile) in profiles.iter().filter(|(known, _)| known == name) {
        merge(table, profile.clone());
    }
}
