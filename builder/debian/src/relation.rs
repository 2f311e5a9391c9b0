//! Relations between packages (Debian policy, chapter 7): `Depends: a (>= 1) | b, c:any [amd64]`.

use crate::version::compare_versions;
use std::cmp::Ordering;
use std::fmt;

/// How a version must relate to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Earlier,
    EarlierOrEqual,
    Equal,
    LaterOrEqual,
    Later,
}

/// A condition on a version, `>= 1:2.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    operator: Operator,
    version: String,
}

impl Constraint {
    /// Whether `version` fulfils the condition.
    pub fn accepts(&self, version: &str) -> bool {
        let order = compare_versions(version, &self.version);
        match self.operator {
            Operator::Earlier => order == Ordering::Less,
            Operator::EarlierOrEqual => order != Ordering::Greater,
            Operator::Equal => order == Ordering::Equal,
            Operator::LaterOrEqual => order != Ordering::Less,
            Operator::Later => order == Ordering::Greater,
        }
    }

    /// The version, when only this one is accepted.
    pub fn exactly(&self) -> Option<&str> {
        (self.operator == Operator::Equal).then_some(self.version.as_str())
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Earlier => "<<",
            Operator::EarlierOrEqual => "<=",
            Operator::Equal => "=",
            Operator::LaterOrEqual => ">=",
            Operator::Later => ">>",
        };
        write!(f, "{operator} {}", self.version)
    }
}

/// One package name of a relation with what is asked of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alternative {
    /// Name of a real or virtual package.
    pub name: String,
    /// Architecture qualifier: what follows the colon of `python3:any`.
    pub qualifier: Option<String>,
    /// Condition on the version.
    pub constraint: Option<Constraint>,
}

impl fmt::Display for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(qualifier) = &self.qualifier {
            write!(f, ":{qualifier}")?;
        }
        match &self.constraint {
            Some(constraint) => write!(f, " ({constraint})"),
            None => Ok(()),
        }
    }
}

/// Alternatives of which one is enough, the preferred one first.
pub type Clause = Vec<Alternative>;

/// Parses the value of a relation field for packages of `architecture`. Alternatives that are restricted to
/// other architectures are left out, and clauses that have none left. Build profiles (`<!nocheck>`) have no
/// meaning in a binary package and are passed over.
///
/// # Errors
/// Names what cannot be understood.
pub fn parse_relations(value: &str, architecture: &str) -> Result<Vec<Clause>, String> {
    let mut clauses = Vec::new();
    for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        let mut clause = Clause::new();
        for alternative in text.split('|') {
            let alternative = alternative.trim();
            if let Some(parsed) = parse_alternative(alternative, architecture)
                .ok_or_else(|| format!("`{alternative}` is not a relation to a package"))?
            {
                clause.push(parsed);
            }
        }
        if !clause.is_empty() {
            clauses.push(clause);
        }
    }
    Ok(clauses)
}

/// Whether `name` can be the name of a package (policy 5.6.7, upper case tolerated).
pub(crate) fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.len() <= 256
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-._".contains(&c))
}

/// The outer `None` is an error, the inner one an alternative of another architecture.
#[expect(clippy::option_option, reason = "both levels are taken apart at once by the one caller")]
fn parse_alternative(text: &str, architecture: &str) -> Option<Option<Alternative>> {
    let end = text.find(|c: char| c.is_whitespace() || "([<".contains(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, Some(qualifier)),
        None => (name, None),
    };
    if !is_name(name) || qualifier.is_some_and(|qualifier| !is_name(qualifier)) {
        return None;
    }
    let mut constraint = None;
    let mut applies = true;
    loop {
        rest = rest.trim_start();
        let Some(open) = rest.chars().next() else { break };
        let close = match open {
            '(' => ')',
            '[' => ']',
            '<' => '>',
            _ => return None,
        };
        let (inner, after) = rest[1..].split_once(close)?;
        match open {
            '(' if constraint.is_none() => constraint = Some(parse_constraint(inner)?),
            '[' => applies = applies_to(inner, architecture),
            '<' => {}
            _ => return None,
        }
        rest = after;
    }
    Some(applies.then(|| Alternative {
        name: name.to_owned(),
        qualifier: qualifier.map(str::to_owned),
        constraint,
    }))
}

fn parse_constraint(text: &str) -> Option<Constraint> {
    let text = text.trim();
    let end = text.bytes().take_while(|c| b"<>=".contains(c)).count();
    let (operator, version) = text.split_at(end);
    let operator = match operator {
        "<<" => Operator::Earlier,
        // The single forms are obsolete and mean `<=` and `>=` (policy 7.1).
        "<=" | "<" => Operator::EarlierOrEqual,
        "=" => Operator::Equal,
        ">=" | ">" => Operator::LaterOrEqual,
        ">>" => Operator::Later,
        _ => return None,
    };
    let version = version.trim();
    let valid = !version.is_empty() && !version.contains(char::is_whitespace);
    valid.then(|| Constraint { operator, version: version.to_owned() })
}

/// Whether an architecture restriction (`amd64 arm64`, `!hurd-any`) includes `architecture`.
fn applies_to(list: &str, architecture: &str) -> bool {
    let mut negative = false;
    for word in list.split_whitespace() {
        let (word, not) = word.strip_prefix('!').map_or((word, false), |word| (word, true));
        negative |= not;
        if word == architecture || word == "any" || word == "linux-any" {
            return !not;
        }
    }
    negative
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(value: &str) -> Vec<String> {
        let clauses = parse_relations(value, "amd64").unwrap();
        clauses.iter().map(|c| c.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")).collect()
    }

    #[test]
    fn all_forms() {
        assert_eq!(
            show("a(>=1)|b , python3:any (<< 3.14),\n c [amd64], d [!amd64] | e, f [arm64], g <!nocheck>,"),
            ["a (>= 1) | b", "python3:any (<< 3.14)", "c", "e", "g"]
        );
        assert_eq!(show("h [!hurd-any], i [linux-any], j (< 2), k [arm64 !x]"), ["h", "i", "j (<= 2)", "k"]);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in
            ["a (1)", "a (>= )", "a b", "(>= 1)", "a (>= 1", "a | | b", "../x", "a:", "a (>= 1) (<< 2)"]
        {
            assert!(parse_relations(bad, "amd64").is_err(), "{bad}");
        }
    }

    #[test]
    fn constraints() {
        let accepts = |text, version| parse_constraint(text).unwrap().accepts(version);
        assert!(accepts(">= 1:2", "1:2-0") && !accepts(">> 1:2", "1:2") && accepts("<< 2", "2~rc1"));
        assert!(accepts("= 1.0", "1.0") && !accepts("<= 1", "1+b1"));
    }
}
