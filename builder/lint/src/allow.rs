//! What the recipe allows.

use crate::error::LintError;
use crate::glob;
use crate::parts::PartView;
use crate::report::{Allowed, Finding, Part, Report, Severity};
use crate::rules;
use serde::Deserialize;

/// One `[[lint.allow]]` of the recipe.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Allow {
    /// Name of the rule.
    pub rule: String,
    /// Which paths, with `*` (any characters but `/`), `**` (any characters) and `?`; all findings of the rule
    /// otherwise. A container's file may be named as the container sees it or as it lies in the whole tree.
    #[serde(default)]
    pub path: Option<String>,
    /// Only in this part: `root`, `kernel`, `image` or `container NAME`.
    #[serde(default)]
    pub part: Option<String>,
    /// Why it may stay; at least two words.
    pub reason: String,
}

/// Checks allowances without an image, so that a recipe is refused before anything is built.
///
/// # Errors
/// [`LintError::UnknownRule`], [`LintError::Reason`], [`LintError::Path`] or [`LintError::UnknownPart`].
pub fn check_allows(allow: &[Allow]) -> Result<(), LintError> {
    for allow in allow {
        if rules::rule(&allow.rule).is_none() {
            return Err(LintError::unknown_rule(&allow.rule));
        }
        if allow.reason.split_whitespace().filter(|word| word.chars().any(char::is_alphanumeric)).count() < 2
        {
            return Err(LintError::Reason { rule: allow.rule.clone(), reason: allow.reason.clone() });
        }
        if let Some(path) =
            allow.path.as_ref().filter(|path| !path.starts_with('/') && !path.starts_with("**"))
        {
            return Err(LintError::Path { rule: allow.rule.clone(), path: path.clone() });
        }
        if let Some(part) = &allow.part {
            let container = part.strip_prefix("container ").is_some_and(|name| !name.is_empty());
            if !container && !["root", "kernel", "image"].contains(&part.as_str()) {
                return Err(LintError::UnknownPart { rule: allow.rule.clone(), part: part.clone() });
            }
        }
    }
    Ok(())
}

impl Allow {
    fn covers(&self, finding: &Finding, parts: &[PartView<'_>]) -> bool {
        if self.rule != finding.rule || self.part.as_ref().is_some_and(|p| *p != finding.part.to_string()) {
            return false;
        }
        let Some(pattern) = &self.path else { return true };
        let Some(path) = &finding.path else { return false };
        let prefix = parts.iter().find(|p| p.part == finding.part).map_or("", |p| p.prefix);
        glob::matches(pattern, path)
            || (!prefix.is_empty() && glob::matches(pattern, &format!("{prefix}{path}")))
    }
}

/// Parts the allowed findings from the others; what allowed nothing is a finding itself.
pub(crate) fn apply(
    findings: Vec<Finding>,
    allow: &[Allow],
    parts: &[PartView<'_>],
    files: u64,
    bytes: u64,
) -> Report {
    let mut used = vec![false; allow.len()];
    let mut kept = Vec::new();
    let mut allowed = Vec::new();
    for finding in findings {
        let mut reason = None;
        for (allow, used) in allow.iter().zip(&mut used) {
            if allow.covers(&finding, parts) {
                *used = true;
                reason = reason.or(Some(&allow.reason));
            }
        }
        match reason {
            Some(reason) => allowed.push(Allowed { finding, reason: reason.clone() }),
            None => kept.push(finding),
        }
    }
    for allow in allow.iter().zip(&used).filter(|(_, used)| !**used).map(|(allow, _)| allow) {
        let path = allow.path.as_ref().map_or_else(String::new, |path| format!(" at `{path}`"));
        let part = allow.part.as_ref().map_or_else(String::new, |part| format!(" in {part}"));
        kept.push(Finding {
            rule: "unused-allow",
            severity: Severity::Warning,
            part: Part::Image,
            path: None,
            message: format!(
                "the recipe allows `{}`{path}{part}, and nothing of the kind is there",
                allow.rule
            ),
            help: "take this [[lint.allow]] out of the recipe: it would hide the next finding".into(),
        });
    }
    Report::new(kept, allowed, files, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(rule: &str, path: Option<&str>, reason: &str) -> Allow {
        Allow { rule: rule.into(), path: path.map(Into::into), part: None, reason: reason.into() }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let error = |a| check_allows(&[a]).unwrap_err().to_string();
        let text = error(allow("set-uid", None, "mount needs it"));
        assert!(text.contains("no rule `set-uid` (did you mean `setuid`?)"), "{text}");
        assert!(error(allow("setuid", None, "because - ")).contains("at least two words"));
        assert!(error(allow("setuid", Some("usr/bin/su"), "su is needed")).contains("must begin with `/`"));
        let mut part = allow("setuid", None, "su is needed");
        part.part = Some("containers".into());
        assert!(error(part).contains("no part `containers`"));
        check_allows(&[allow("setuid", Some("**/su"), "su is needed")]).unwrap();
    }

    #[test]
    fn a_recipe_writes_it() {
        #[derive(Deserialize)]
        struct Lint {
            allow: Vec<Allow>,
        }
        let text = "[[allow]]\nrule = \"setuid\"\npath = \"/usr/bin/su\"\nreason = \"rescue needs it\"\n";
        let lint: Lint = toml::from_str(text).unwrap();
        assert_eq!(lint.allow, [allow("setuid", Some("/usr/bin/su"), "rescue needs it")]);
        assert!(toml::from_str::<Lint>("[[allow]]\nrule = \"setuid\"\n").is_err(), "a reason is asked for");
    }
}
