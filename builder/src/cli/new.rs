//! `ashlar init`: a first recipe.

use super::print;
use crate::error::BuildError;
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// A recipe with a comment for everything that can be in one.
const TEMPLATE: &str = include_str!("../../recipe.toml");

#[derive(Debug, Args)]
pub(super) struct Init {
    /// The recipe to write
    #[arg(default_value = "image.toml")]
    recipe: PathBuf,
    /// The image's name [default: the name of the recipe's folder]
    #[arg(long, value_name = "NAME")]
    id: Option<String>,
}

/// What of a folder's name can name an image.
fn id_of(recipe: &Path) -> String {
    let folder = std::path::absolute(recipe)
        .ok()
        .and_then(|path| Some(path.parent()?.file_name()?.to_string_lossy().to_ascii_lowercase()));
    let id: String = folder
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    let id = id.trim_start_matches('-');
    if id.is_empty() { "machine".into() } else { id.chars().take(64).collect() }
}

/// The recipe's text for this image.
pub fn text(id: &str) -> String {
    TEMPLATE.replace("id = \"machine\"", &format!("id = \"{id}\""))
}

impl Init {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        let text = text(&self.id.unwrap_or_else(|| id_of(&self.recipe)));
        // A name that cannot be one is said before anything is written.
        crate::recipe::Recipe::parse(&self.recipe.display().to_string(), &text)?;
        let fail = |e: std::io::Error| match e.kind() {
            std::io::ErrorKind::AlreadyExists => BuildError::Exists(self.recipe.clone()),
            _ => BuildError::io("write a new recipe to", &self.recipe, e),
        };
        let mut file = std::fs::File::create_new(&self.recipe).map_err(fail)?;
        file.write_all(text.as_bytes()).map_err(fail)?;
        let recipe = self.recipe.display();
        print(&format!(
            "wrote `{recipe}`\nnext: ashlar keys new keys, then ashlar build {recipe} --keys keys -o out\n"
        ));
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;

    #[test]
    fn the_first_recipe_can_be_read_and_so_can_all_that_its_comments_show() {
        let plain = Recipe::parse("image.toml", &text("mine")).unwrap();
        assert_eq!(plain.image.id, "mine");
        // A line that begins with `#` and no blank is TOML that a user may bring to life.
        let alive = |line: &'static str| {
            line.strip_prefix('#').filter(|rest| !rest.starts_with([' ', '!'])).unwrap_or(line)
        };
        let all = TEMPLATE.lines().map(alive).collect::<Vec<_>>().join("\n");
        let recipe = Recipe::parse("image.toml", &all).unwrap();
        assert!(!recipe.files.is_empty() && !recipe.users.is_empty() && !recipe.sources.is_empty());
    }

    #[test]
    fn the_name_of_the_folder_names_the_image() {
        assert_eq!(id_of(Path::new("/srv/My Host/image.toml")), "myhost");
        assert_eq!(id_of(Path::new("/image.toml")), "machine");
    }
}
