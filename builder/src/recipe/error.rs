//! Errors of a recipe, with the line that they are about.

use super::texts::Texts;
use ashlar_image::machine::nearest;
use miette::{Diagnostic, NamedSource, SourceSpan};
use std::path::PathBuf;

/// Why a recipe was refused.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum RecipeError {
    /// The file cannot be read.
    #[error("cannot read the recipe `{}`", path.display())]
    #[diagnostic(help("give the path of a recipe, such as examples/container-host.toml"))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A profile that the recipe has not was asked for.
    #[error("the recipe has no profile `{name}`; it has: {known}")]
    #[diagnostic(help("add `[profile.{name}]` to the recipe, or choose another with `--profile`"))]
    Profile {
        /// The name.
        name: String,
        /// Those that it has.
        known: String,
    },
    /// The text is not TOML or has a key or a type that the recipe does not know.
    #[error("{file}, line {line}, column {column}: {message}")]
    Text {
        /// Name of the file.
        file: String,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong.
        message: String,
        /// What to do.
        #[help]
        help: Option<String>,
        /// The text, for the excerpt.
        #[source_code]
        text: NamedSource<String>,
        /// Where in it.
        #[label("here")]
        span: SourceSpan,
    },
}

/// Line and column, from 1, of a byte offset.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

impl RecipeError {
    pub(super) fn at(
        file: &str,
        text: &str,
        span: std::ops::Range<usize>,
        message: String,
        help: Option<String>,
    ) -> Self {
        let (line, column) = position(text, span.start);
        Self::Text {
            file: file.to_owned(),
            line,
            column,
            message,
            help,
            text: NamedSource::new(file, text.to_owned()),
            span: (span.start, span.len().max(1).min(text.len().saturating_sub(span.start))).into(),
        }
    }

    /// From an error of the TOML reader, whose places count from `start`.
    pub(super) fn syntax(texts: &Texts, start: usize, error: &toml::de::Error) -> Self {
        let message = error.message().to_owned();
        // serde names the unknown key first and then those that it knows, each between backquotes.
        let mut quoted = message.split('`').skip(1).step_by(2);
        let help = match quoted.next() {
            Some(unknown) if message.starts_with("unknown") => {
                nearest(unknown, quoted).map(|known| format!("did you mean `{known}`?"))
            }
            _ => None,
        };
        let span = error.span().unwrap_or(0..0);
        texts.error(start + span.start..start + span.end, message.clone(), help)
    }
}
