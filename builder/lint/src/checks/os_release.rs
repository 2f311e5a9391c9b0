//! os-release(5).

use super::Context;
use crate::error::LintError;
use crate::report::Part;
use crate::report::Severity::{Error, Warning};
use std::collections::BTreeMap;

/// Fields that must be there and have a value.
const NEEDED: [(&str, &str); 4] = [
    ("NAME", "what the system is called"),
    ("ID", "what programs know the system by"),
    ("PRETTY_NAME", "what boot menus show"),
    ("IMAGE_VERSION", "what updates compare"),
];

/// Reads assignments as os-release(5) says: `NAME=value`, the value bare or in quotes, with the shell's backslashes in
/// double quotes. What is no such line is given back with its number, from 1.
pub fn parse(text: &str) -> (BTreeMap<String, String>, Vec<usize>) {
    let mut fields = BTreeMap::new();
    let mut bad = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = line.split_once('=').and_then(|(key, value)| {
            let known = !key.is_empty()
                && key.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
                && !key.starts_with(|c: char| c.is_ascii_digit());
            known.then_some(key).zip(unquote(value))
        });
        match parsed {
            Some((key, value)) => {
                fields.insert(key.to_owned(), value);
            }
            None => bad.push(i + 1),
        }
    }
    (fields, bad)
}

fn unquote(value: &str) -> Option<String> {
    if let Some(inside) = value.strip_prefix('\'') {
        return inside.strip_suffix('\'').filter(|text| !text.contains('\'')).map(str::to_owned);
    }
    let Some(inside) = value.strip_prefix('"') else {
        // Anything that a shell would treat specially must be quoted.
        let plain = |c: char| !c.is_whitespace() && !"\"'$`\\;&|<>()".contains(c);
        return value.chars().all(plain).then(|| value.to_owned());
    };
    let mut out = String::new();
    let mut chars = inside.chars();
    loop {
        match chars.next()? {
            '"' => break,
            '$' | '`' => return None,
            '\\' => match chars.next()? {
                c @ ('"' | '\\' | '$' | '`') => out.push(c),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    chars.next().is_none().then_some(out)
}

pub(crate) fn check(context: &mut Context<'_, '_>) -> Result<(), LintError> {
    const HELP: &str = "set `image.id`, `image.version` and `image.name` in the recipe";
    let rule = ("os-release", Error);
    let text = context.subject.os_release;
    let (fields, bad) = parse(text);
    for line in bad {
        let message = format!("line {line} is no `NAME=value` as os-release(5) has it");
        context.add(rule, &Part::Image, None, message, "quote the value as a shell would need it");
    }
    let has = |name: &str| fields.get(name).is_some_and(|value| !value.is_empty());
    for (name, what) in NEEDED {
        if !has(name) {
            context.add(rule, &Part::Image, None, format!("`{name}` is missing: {what}"), HELP);
        }
    }
    if !has("VERSION_ID") && !has("IMAGE_ID") {
        let message = "neither `VERSION_ID` nor `IMAGE_ID` is there: what the version is of";
        context.add(rule, &Part::Image, None, message, HELP);
    }
    for name in ["ID", "VERSION_ID", "IMAGE_ID", "IMAGE_VERSION"] {
        let strange = fields.get(name).filter(|value| {
            !value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-~^+".contains(&b))
        });
        if let Some(value) = strange {
            let message =
                format!("`{name}` is `{value}`: lower-case letters, digits, `.`, `_` and `-` are allowed");
            context.add(rule, &Part::Image, None, message, HELP);
        }
    }
    if let Some(root) = context.parts.first() {
        let path = "/etc/os-release";
        match root.read_text(path, 64 << 10)? {
            None => {
                let help = "link it to ../usr/lib/os-release";
                context.add(rule, &Part::Root, Some(path.into()), "there is none", help);
            }
            Some(there) if there != text => {
                let message = "it is not the text that goes into the UKI";
                let help = "let the builder write it, or two answers are given to one question";
                context.add(("os-release", Warning), &Part::Root, Some(path.into()), message, help);
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{OS_RELEASE, of_rule, put, subject, tree};
    use super::*;
    use crate::lint;

    #[test]
    fn quoting() {
        let (fields, bad) = parse(
            "A=b\n# c\n\nB=\"x \\\"y\\\" \\$z\"\nC='it is'\nlower=1\nD=two words\nE=\"open\nF=\"$x\"\nG=\n",
        );
        assert_eq!(fields["A"], "b");
        assert_eq!(fields["B"], "x \"y\" $z");
        assert_eq!(fields["C"], "it is");
        assert_eq!(fields["G"], "");
        assert_eq!(bad, [6, 7, 8, 9]);
    }

    #[test]
    fn each_needed_field_is_missed() {
        for (gone, expected) in [
            ("NAME=", "`NAME` is missing"),
            ("ID=", "`ID` is missing"),
            ("PRETTY_NAME=", "`PRETTY_NAME` is missing"),
            ("IMAGE_VERSION=", "`IMAGE_VERSION` is missing"),
        ] {
            let kept: Vec<_> = OS_RELEASE.lines().filter(|line| !line.starts_with(gone)).collect();
            let text = kept.join("\n");
            let mut tree = tree();
            put(&mut tree, "/usr/lib/os-release", 0o644, &text);
            let mut subject = subject(&tree);
            subject.os_release = &text;
            let found = of_rule(&lint(&subject, &[]).unwrap(), "os-release");
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(expected), "{found:?}");
        }
    }

    #[test]
    fn one_of_two_is_enough_and_characters_are_few() {
        let text = "NAME=A\nID=Ashlar\nPRETTY_NAME=A\nIMAGE_VERSION=1\nVERSION_ID=1\n";
        let mut tree = tree();
        put(&mut tree, "/usr/lib/os-release", 0o644, text);
        let mut subject = subject(&tree);
        subject.os_release = text;
        let found = of_rule(&lint(&subject, &[]).unwrap(), "os-release");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("`ID` is `Ashlar`"), "{found:?}");
    }

    #[test]
    fn the_roots_own_file() {
        let mut tree = tree();
        put(&mut tree, "/usr/lib/os-release", 0o644, "NAME=Debian\n");
        let found = of_rule(&lint(&subject(&tree), &[]).unwrap(), "os-release");
        assert_eq!(found, ["root /etc/os-release: it is not the text that goes into the UKI"]);
        tree.remove(b"/etc/os-release").unwrap();
        let found = of_rule(&lint(&subject(&tree), &[]).unwrap(), "os-release");
        assert_eq!(found, ["root /etc/os-release: there is none"]);
    }
}
