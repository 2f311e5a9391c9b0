//! Findings and the report of them.

use serde::{Serialize, Serializer};
use std::fmt::{self, Write};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The image should not be signed like this.
    Error,
    /// Very likely not what was meant.
    Warning,
    /// Good to know.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// Which part of the image a finding is about. Written as `root`, `container NAME`, `kernel` or `image`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The image as a whole: sizes, certificates, the recipe.
    Image,
    /// The kernel, its configuration, modules and command line.
    Kernel,
    /// The root file system without its containers.
    Root,
    /// The root file system of this container.
    Container(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image => f.write_str("image"),
            Self::Kernel => f.write_str("kernel"),
            Self::Root => f.write_str("root"),
            Self::Container(name) => write!(f, "container {name}"),
        }
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the rule.
    pub rule: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// Which part of the image.
    pub part: Part,
    /// The file, as a path inside the part: a container's file is named as the container sees it.
    pub path: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// A finding that the recipe allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Allowed {
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
    /// Why it may stay, in the words of the recipe.
    pub reason: String,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Number of findings that are errors.
    pub errors: usize,
    /// Number of findings that are warnings.
    pub warnings: usize,
    /// Number of findings that are notes.
    pub notes: usize,
    /// What was found and is not allowed: errors first, then by rule, part and path.
    pub findings: Vec<Finding>,
    /// What was found and is allowed, in the same order.
    pub allowed: Vec<Allowed>,
    /// Number of files whose content was looked at.
    pub files: u64,
    /// Number of bytes of content that were looked at.
    pub bytes: u64,
}

/// How many findings of one rule and part [`Report::text`] prints in full.
const SHOWN: usize = 10;

impl Report {
    /// From findings in any order.
    pub(crate) fn new(mut findings: Vec<Finding>, mut allowed: Vec<Allowed>, files: u64, bytes: u64) -> Self {
        let key = |f: &Finding| (f.severity, f.rule, f.part.clone(), f.path.clone(), f.message.clone());
        findings.sort_by_cached_key(key);
        findings.dedup();
        allowed.sort_by_cached_key(|a| key(&a.finding));
        let count = |severity| findings.iter().filter(|f| f.severity == severity).count();
        Self {
            errors: count(Severity::Error),
            warnings: count(Severity::Warning),
            notes: count(Severity::Note),
            findings,
            allowed,
            files,
            bytes,
        }
    }

    /// Whether anything was found that should keep the image from being signed.
    pub const fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// The report for a person: findings by rule, the advice once for each, what is allowed, and a line with the
    /// numbers. At most ten findings of one rule and part are printed; `--json` has all of them.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut rest = self.findings.as_slice();
        while let Some(first) = rest.first() {
            let same =
                |f: &&Finding| f.severity == first.severity && f.rule == first.rule && f.part == first.part;
            let (group, others) = rest.split_at(rest.iter().take_while(same).count());
            rest = others;
            let _ = writeln!(out, "{}[{}] {}", first.severity, first.rule, first.part);
            for (i, finding) in group.iter().take(SHOWN).enumerate() {
                match &finding.path {
                    Some(path) => {
                        let _ = writeln!(out, "  {}: {}", printable(path), printable(&finding.message));
                    }
                    None => {
                        let _ = writeln!(out, "  {}", printable(&finding.message));
                    }
                }
                let last = i + 1 == group.len().min(SHOWN);
                if last || group.get(i + 1).is_some_and(|next| next.help != finding.help) {
                    let _ = writeln!(out, "    help: {}", finding.help);
                }
            }
            if group.len() > SHOWN {
                let _ = writeln!(out, "  and {} more; --json lists all of them", group.len() - SHOWN);
            }
        }
        for allowed in &self.allowed {
            let finding = &allowed.finding;
            let path = finding.path.as_ref().map_or_else(String::new, |path| format!(" {}", printable(path)));
            let reason = printable(&allowed.reason);
            let _ = writeln!(out, "allowed[{}] {}{path}: {reason}", finding.rule, finding.part);
        }
        let _ = writeln!(
            out,
            "{}, {}, {}, {} allowed; {} and {:.1} MiB looked at",
            counted(self.errors, "error"),
            counted(self.warnings, "warning"),
            counted(self.notes, "note"),
            self.allowed.len(),
            counted(usize::try_from(self.files).unwrap_or(usize::MAX), "file"),
            mebibytes(self.bytes),
        );
        if let Some(first) = self.findings.first() {
            let _ = writeln!(out, "`ashlar lint --explain {}` tells more about a rule", first.rule);
        }
        out
    }
}

/// A file of the image names itself; what it says must not reach the terminal as control sequences.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[allow(clippy::cast_precision_loss)] // one digit after the point is printed
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: Severity, rule: &'static str, path: &str) -> Finding {
        Finding {
            rule,
            severity,
            part: Part::Container("web".into()),
            path: Some(path.into()),
            message: "m".into(),
            help: "h".into(),
        }
    }

    #[test]
    fn errors_come_first_and_long_lists_are_cut() {
        let mut findings: Vec<_> =
            (0..14).map(|i| finding(Severity::Warning, "dangling-link", &format!("/l{i:02}"))).collect();
        findings.push(finding(Severity::Error, "setuid", "/x\u{1b}[31m"));
        let text = Report::new(findings, Vec::new(), 3, 1 << 20).text();
        assert!(
            text.starts_with("error[setuid] container web\n  /x\u{fffd}[31m: m\n    help: h\n"),
            "{text}"
        );
        assert!(text.contains("/l09: m\n    help: h\n  and 4 more"), "{text}");
        assert!(!text.contains("/l10"), "{text}");
        assert!(
            text.contains("1 error, 14 warnings, 0 notes, 0 allowed; 3 files and 1.0 MiB looked at"),
            "{text}"
        );
    }

    #[test]
    fn allowed_findings_are_kept_apart_with_their_reason() {
        let allowed =
            Allowed { finding: finding(Severity::Error, "setuid", "/x"), reason: "mount needs it".into() };
        let report = Report::new(Vec::new(), vec![allowed], 0, 0);
        assert!(!report.has_errors());
        assert!(report.text().contains("allowed[setuid] container web /x: mount needs it"));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["allowed"][0]["part"], "container web");
        assert_eq!(json["allowed"][0]["severity"], "error");
        assert_eq!(json["allowed"][0]["reason"], "mount needs it");
    }
}
