//! The licence that a package declares: its file `/usr/share/doc/PACKAGE/copyright` (Debian Policy, section 12.5),
//! in the machine-readable format 1.0 or as free text.

use crate::SbomError;
use crate::control::{field, paragraphs, synopsis};
use crate::license::{All, Extracted, common_licenses, expression, names, reference};
use ashlar_tree::{Kind, Tree};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Longest file that is read, in bytes; the longest in Debian 13's main archive are below a third of it. Of a longer
/// one nothing is said.
pub const MAX_COPYRIGHT: usize = 4 << 20;

/// What a package says about its licence.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// A valid SPDX expression; none when nothing is known (`NOASSERTION`).
    pub expression: Option<String>,
    /// The licences of the expression without an SPDX identifier, by their `LicenseRef-…`.
    pub extracted: BTreeMap<String, Extracted>,
    /// What of `/usr/share/common-licenses` a free text refers to: a hint for people, no identifier.
    pub mentions: BTreeSet<String>,
    /// Whether the file was in the machine-readable format.
    pub machine_readable: bool,
}

/// The text of a package's copyright file in a tree that its files were unpacked into. Links are followed: the folder
/// of a package may be a link to another's of the same source (Policy, section 12.3). None when there is none.
///
/// # Errors
/// [`SbomError::Copyright`] when the content cannot be read.
pub fn read(tree: &Tree, package: &str) -> Result<Option<String>, SbomError> {
    let path = format!("/usr/share/doc/{package}/copyright");
    let Some((_, node)) = tree.get_followed(path.as_bytes()) else { return Ok(None) };
    let node = match &node.kind {
        Kind::HardLink(target) => tree.get(target),
        _ => Some(node),
    };
    match node.map(|node| &node.kind) {
        Some(Kind::File(content)) if content.len() <= MAX_COPYRIGHT as u64 => {
            let bytes = content
                .read()
                .map_err(|source| SbomError::Copyright { package: package.to_owned(), source })?;
            Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
        }
        _ => Ok(None),
    }
}

/// Reads a copyright file. Any text is accepted: what cannot be understood is declared by reference to the text.
pub fn parse(text: &str) -> Declared {
    if text.len() > MAX_COPYRIGHT || text.trim().is_empty() {
        return Declared::default();
    }
    let all = paragraphs(text);
    let machine_readable = all.first().is_some_and(|header| {
        ["format", "format-specification"].iter().any(|name| {
            field(header, name)
                .is_some_and(|value| value.contains("copyright-format") || value.contains("dep5"))
        })
    });
    if machine_readable && let Some(declared) = machine(&all) {
        return declared;
    }
    let mut extracted = BTreeMap::new();
    let id = reference("copyright-file", text, &mut extracted);
    Declared {
        expression: Some(id),
        extracted,
        mentions: common_licenses(text).into_iter().map(str::to_owned).collect(),
        machine_readable: false,
    }
}

/// The expression over all paragraphs with files; none when they say nothing that is a valid expression.
fn machine(all: &[crate::control::Paragraph]) -> Option<Declared> {
    // The text of a licence is in the paragraph of the files or in one of its own.
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    let mut synopses: Vec<String> = Vec::new();
    let mut of_header = None;
    for (index, paragraph) in all.iter().enumerate() {
        let Some(value) = field(paragraph, "license") else { continue };
        let (short, text) = synopsis(value);
        if !text.trim().is_empty() {
            // The text below `A and B` is both's.
            for name in std::iter::once(short).chain(names(short)) {
                texts.entry(name.to_ascii_lowercase()).or_insert_with(|| text.clone());
            }
        }
        if short.is_empty() {
            continue;
        }
        if field(paragraph, "files").is_some() {
            synopses.push(short.to_owned());
        } else if index == 0 {
            of_header = Some(short.to_owned());
        }
    }
    if synopses.is_empty() {
        synopses.extend(of_header);
    }
    let mut extracted = BTreeMap::new();
    let text_of = |name: &str| texts.get(&name.to_ascii_lowercase()).map_or("", String::as_str);
    let mut operands = All::new();
    let mut seen = BTreeSet::new();
    for short in &synopses {
        if seen.insert(short) {
            operands.extend(expression(short, text_of, &mut extracted));
        }
    }
    let expression = operands.into_iter().collect::<Vec<_>>().join(" AND ");
    // What the SPDX parser refuses is not published.
    spdx::Expression::parse(&expression).ok()?;
    Some(Declared {
        expression: Some(expression),
        extracted,
        mentions: BTreeSet::new(),
        machine_readable: true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ashlar_tree::{Metadata, Node};
    use proptest::prelude::*;

    const GOOD: &str = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: \
                        A\nLicense: GPL-2+\n\nFiles: b\nLicense: Apache-2.0 or LGPL-2.1+\n\nFiles: c\nLicense: \
                        BSD-like\n Do as you like.\n .\n Really.\n\nLicense: GPL-2+\n See the \
                        /usr/share/common-licenses/GPL-2.\n";

    #[test]
    fn a_machine_readable_file() {
        let declared = parse(GOOD);
        let id = declared.extracted.keys().next().unwrap().clone();
        assert!(id.starts_with("LicenseRef-BSD-like-"), "{id}");
        assert_eq!(
            declared.expression,
            Some(format!("(Apache-2.0 OR LGPL-2.1-or-later) AND GPL-2.0-or-later AND {id}"))
        );
        assert_eq!(declared.extracted[&id].text, "Do as you like.\n\nReally.");
        assert!(declared.machine_readable);
    }

    #[test]
    fn free_text_is_quoted_not_guessed() {
        let text = "This is free software; see /usr/share/common-licenses/GPL-2\nfor more.\n";
        let declared = parse(text);
        let (id, extracted) = declared.extracted.iter().next().unwrap();
        assert_eq!(declared.expression.as_ref(), Some(id));
        assert_eq!(extracted.text, text.trim_end());
        assert_eq!(declared.mentions.iter().collect::<Vec<_>>(), ["GPL-2.0"]);
        assert_eq!(parse("  \n").expression, None);
        // A header alone says nothing about any file; what is there is quoted.
        let header = parse("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n");
        assert!(!header.machine_readable && header.extracted.len() == 1);
    }

    #[test]
    fn linked_folders_are_followed() {
        let meta = |mode| Metadata::root(mode, 0);
        let mut tree = Tree::new(meta(0o755));
        tree.insert(b"/usr/share/doc/gcc-base/copyright", Node::file(meta(0o644), *b"free")).unwrap();
        tree.insert(b"/usr/share/doc/libgcc", Node::symlink(meta(0o777), "gcc-base")).unwrap();
        tree.insert(b"/usr/share/doc/c/copyright", Node::symlink(meta(0o777), "../libgcc/copyright"))
            .unwrap();
        tree.insert(b"/usr/share/doc/loop", Node::symlink(meta(0o777), "loop")).unwrap();
        tree.insert(b"/usr/share/doc/dir/copyright/x", Node::file(meta(0o644), *b"x")).unwrap();
        for package in ["gcc-base", "libgcc", "c"] {
            assert_eq!(read(&tree, package).unwrap().as_deref(), Some("free"), "{package}");
        }
        for package in ["loop", "dir", "none"] {
            assert_eq!(read(&tree, package).unwrap(), None, "{package}");
        }
    }

    fn is_sound(declared: &Declared) {
        if let Some(expression) = &declared.expression {
            spdx::Expression::parse(expression).unwrap();
            for id in declared.extracted.keys() {
                assert!(expression.contains(id.as_str()));
            }
        }
    }

    #[test]
    fn every_truncation_gives_a_valid_expression() {
        for end in 0..=GOOD.len() {
            is_sound(&parse(&GOOD[..end]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_synopsis_gives_a_valid_expression(
            words in proptest::collection::vec("(?i)(and|or|and/or|with|,|\\(|\\)|GPL-2\\+|MIT|Perl|BSD|exception|[a-zü+(),/.-]{1,6}| )", 0..12),
        ) {
            let text = format!(
                "Format: copyright-format\n\nFiles: *\nLicense: {}\n text\n",
                words.join(" ")
            );
            is_sound(&parse(&text));
        }
    }
}
