//! Releases beside one another, and the channel that offers them.

use crate::case::Case;
use crate::programs::Run;
use crate::release::Built;
use std::path::PathBuf;

/// Releases of a test, and the channel that offers them.
#[derive(Debug)]
pub struct Channel {
    /// Where they are built.
    pub case: Case,
    /// The channel's repository.
    pub repository: PathBuf,
}

impl Channel {
    /// A channel `stable` without a release.
    pub fn new(built: &Built) -> Self {
        let case = Case::of(built);
        let repository = case.path("repository");
        let channel = Self { case, repository };
        let _ = channel
            .ashlar(&[
                "channel",
                "new",
                "REPOSITORY",
                "--image-id",
                "container-host",
                "--channel",
                "stable",
                "--keys",
                "KEYS",
            ])
            .ok();
        channel
    }

    /// `ashlar`; `REPOSITORY` and `KEYS` stand for their paths.
    pub fn ashlar(&self, arguments: &[&str]) -> Run {
        let arguments: Vec<&str> = arguments
            .iter()
            .map(|argument| match *argument {
                "REPOSITORY" => self.repository.to_str().unwrap(),
                "KEYS" => self.case.keys.to_str().unwrap(),
                other => other,
            })
            .collect();
        Run::of(&mut self.case.ashlar(&arguments))
    }

    /// Builds a release of this version, with the recipe changed, and offers it.
    pub fn release(&self, version: &str, changes: &[(&str, &str)]) -> PathBuf {
        let recipe = std::fs::read_to_string(self.case.path("recipe.toml")).unwrap();
        let mut text = recipe.replacen("version = \"1\"", &format!("version = \"{version}\""), 1);
        for (old, new) in changes {
            assert!(text.contains(old), "`{old}` is not in the recipe");
            text = text.replacen(old, new, 1);
        }
        let name = format!("recipe-{version}.toml");
        self.case.write(&name, text);
        std::fs::copy(self.case.path("recipe.lock"), self.case.path(format!("recipe-{version}.lock")))
            .unwrap();
        let _ = self.ashlar(&["build", &name, "-o", version, "--keys", "KEYS"]).ok();
        let out = self.case.path(version);
        let _ = self
            .ashlar(&[
                "channel",
                "add-release",
                "REPOSITORY",
                out.to_str().unwrap(),
                "--channel",
                "stable",
                "--keys",
                "KEYS",
            ])
            .ok();
        out
    }
}
