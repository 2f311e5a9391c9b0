//! `ashlar lint`

use super::{build, print, print_json};
use crate::build as pipeline;
use crate::error::{BuildError, exit};
use crate::progress;
use ashlar_lint::{LintError, rule, rules};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Lint {
    /// The recipe
    #[arg(required_unless_present_any = ["explain", "rules"])]
    recipe: Option<PathBuf>,
    // Not `Option<build::From>`: clap's derive takes a flattened option for absent when it holds another flattened struct.
    #[command(flatten)]
    settings: build::Settings,
    /// Say what a rule is about and how to allow what it finds
    #[arg(long, value_name = "RULE", conflicts_with = "recipe")]
    explain: Option<String>,
    /// List all rules
    #[arg(long, conflicts_with = "recipe")]
    rules: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Lint {
    pub(super) fn run(self) -> Result<ExitCode, BuildError> {
        if let Some(name) = &self.explain {
            let rule = rule(name).ok_or_else(|| LintError::unknown_rule(name))?;
            if self.json {
                print_json(rule)?;
            } else {
                print(&rule.text());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let Some(recipe) = self.recipe else {
            if self.json {
                print_json(&rules())?;
            } else {
                let lines = rules().iter().map(|rule| format!("{:<28} {}\n", rule.name, rule.summary));
                print(&lines.collect::<String>());
            }
            return Ok(ExitCode::SUCCESS);
        };
        let outcome = pipeline::lint(&self.settings.options(recipe), progress::for_stderr().as_ref())?;
        if self.json {
            print_json(&outcome.report)?;
        } else {
            print(&outcome.text);
        }
        Ok(if outcome.errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FINDING) })
    }
}
