//! The texts that a recipe was put together from, laid end to end, so that one number tells file and place.

use super::RecipeError;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One file of a recipe.
#[derive(Debug, Clone)]
struct Text {
    name: String,
    folder: PathBuf,
    start: usize,
    content: String,
}

/// All files of a recipe, the one that the user named first.
#[derive(Debug, Clone, Default)]
pub struct Texts(Vec<Text>);

impl Texts {
    /// Adds a file and gives its number.
    pub(super) fn add(&mut self, path: &Path, text: String) -> usize {
        // One byte between two texts, so that the end of one is not the start of the next.
        let start = self.0.last().map_or(0, |last| last.start + last.content.len() + 1);
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        self.0.push(Text { name: path.display().to_string(), folder, start, content: text });
        self.0.len() - 1
    }

    /// Where the first byte of a file lies, and its text.
    pub(super) fn text(&self, number: usize) -> (usize, &str) {
        self.0.get(number).map_or((0, ""), |text| (text.start, &text.content))
    }

    fn holding(&self, at: usize) -> Option<&Text> {
        self.0.iter().rev().find(|text| text.start <= at)
    }

    /// The folder of the file that `at` lies in: relative paths there mean files in it.
    pub(super) fn folder(&self, at: usize) -> &Path {
        self.holding(at).map_or(Path::new(""), |text| &text.folder)
    }

    /// The names and bytes of all files, the one that the user named first.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|text| (text.name.as_str(), text.content.as_bytes()))
    }

    /// An error about this place.
    pub(super) fn error(&self, span: Range<usize>, message: String, help: Option<String>) -> RecipeError {
        match self.holding(span.start) {
            Some(text) => {
                let local = span.start - text.start..span.end.saturating_sub(text.start);
                RecipeError::at(&text.name, &text.content, local, message, help)
            }
            None => RecipeError::at("recipe", "", 0..0, message, help),
        }
    }

    /// An error about a value: where it stands first, in the file that the user named if it is there.
    pub(super) fn value_error(&self, needle: &str, message: String) -> RecipeError {
        let found = self.0.iter().find_map(|text| Some((text, text.content.find(needle)?)));
        let start = found.map_or(0, |(text, at)| text.start + at);
        self.error(start..start + needle.len(), message, None)
    }
}
