//! The rules: their names never change, because recipes allow them by name.

use crate::report::Severity;
use serde::Serialize;

mod text;

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// Name, in kebab case.
    pub name: &'static str,
    /// One line.
    pub summary: &'static str,
    /// Why it matters, how it is found, how to fix it and when to allow it.
    pub explanation: &'static str,
    /// The most severe finding that it makes.
    pub severity: Severity,
}

impl Rule {
    /// The rule for a person: name, severity, summary, explanation and how to allow it.
    pub fn text(&self) -> String {
        let Self { name, summary, explanation, severity } = self;
        format!(
            "{name} ({severity})\n{summary}\n\n{}\n\nTo allow it, in the recipe:\n\n    [[lint.allow]]\n    rule = \"{name}\"\n    path = \"/path/of/the/file\"    # `*`, `**` and `?` are wildcards; leave it out for every finding\n    reason = \"why this one is meant\"\n",
            explanation.trim()
        )
    }
}

/// All rules, by name.
pub fn rules() -> &'static [Rule] {
    text::RULES
}

/// The rule with this name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    rules().iter().find(|rule| rule.name == name)
}

/// The rule whose name is most like `name`.
pub fn nearest(name: &str) -> Option<&'static str> {
    rules()
        .iter()
        .map(|rule| (strsim::jaro_winkler(name, rule.name), rule.name))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_unique_kebab_case_and_explained() {
        let names: Vec<_> = rules().iter().map(|rule| rule.name).collect();
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(names, sorted);
        for rule in rules() {
            assert!(rule.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", rule.name);
            assert!(rule.explanation.split_whitespace().count() >= 30, "{} needs an explanation", rule.name);
            assert!(rule.summary.len() <= 100, "{}", rule.name);
            assert!(rule.text().contains(&format!("rule = \"{}\"", rule.name)));
        }
    }

    #[test]
    fn the_nearest_name_is_offered() {
        assert_eq!(nearest("dangling-links"), Some("dangling-link"));
        assert_eq!(nearest("zzz"), None);
    }
}
