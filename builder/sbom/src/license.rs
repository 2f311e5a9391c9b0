//! Debian's short names of licences as SPDX expressions (SPDX 2.3, annex D).
//!
//! The names are those of the machine-readable copyright format 1.0, section 7.1, and the ones that are common in the
//! archive. A name that is not known for sure is not guessed: it becomes a `LicenseRef-` with the package's text.

use crate::ids::idstring;
use ashlar_image::digest::Digest;
use std::collections::{BTreeMap, BTreeSet};

/// A licence that SPDX has no identifier for, or that was not recognised.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extracted {
    /// What the package calls it.
    pub name: String,
    /// Its text, as the package has it; the name alone where the package gives no text.
    pub text: String,
}

/// Expressions that all apply: the operands of one `AND`, sorted. Operands that are alternatives are in parentheses.
pub(crate) type All = BTreeSet<String>;

/// Short names that differ from SPDX's identifier by more than case. GNU licences are not here: see [`gnu`].
const NAMES: [(&str, &str); 36] = [
    ("apache-2", "Apache-2.0"),
    ("apache 2.0", "Apache-2.0"),
    ("artistic", "Artistic-1.0-Perl"),
    ("artistic-1", "Artistic-1.0-Perl"),
    ("artistic-2", "Artistic-2.0"),
    ("boost-1.0", "BSL-1.0"),
    ("bsl-1", "BSL-1.0"),
    ("bsd-2", "BSD-2-Clause"),
    ("bsd-2-clauses", "BSD-2-Clause"),
    ("bsd-3", "BSD-3-Clause"),
    ("bsd-3-clauses", "BSD-3-Clause"),
    ("bsd-4", "BSD-4-Clause"),
    ("cc0", "CC0-1.0"),
    ("cc-by-3", "CC-BY-3.0"),
    ("cc-by-4", "CC-BY-4.0"),
    ("cc-by-sa-3", "CC-BY-SA-3.0"),
    ("cc-by-sa-4", "CC-BY-SA-4.0"),
    ("cddl", "CDDL-1.0"),
    ("expat", "MIT"),
    ("mit-expat", "MIT"),
    ("mit/expat", "MIT"),
    ("freetype", "FTL"),
    ("gnu-all-permissive", "FSFAP"),
    ("mpl-1", "MPL-1.0"),
    ("mpl-2", "MPL-2.0"),
    ("ofl", "OFL-1.1"),
    ("sil-1.1", "OFL-1.1"),
    ("sil-ofl-1.1", "OFL-1.1"),
    ("psf-2", "PSF-2.0"),
    ("python-2", "Python-2.0"),
    ("qpl", "QPL-1.0"),
    ("unicode-dfs", "Unicode-DFS-2016"),
    ("w3c-software", "W3C"),
    ("x/mit", "X11"),
    ("zope-2.1", "ZPL-2.1"),
    ("zlib/libpng", "Zlib"),
];

/// Exceptions by the words that Debian's files use (`GPL-3+ with Autoconf exception`), and for which licence.
const EXCEPTIONS: [(&str, &str, &str); 8] = [
    ("autoconf", "GPL-2.0", "Autoconf-exception-2.0"),
    ("autoconf", "GPL-3.0", "Autoconf-exception-3.0"),
    ("bison", "GPL-2.0", "Bison-exception-2.2"),
    ("bison", "GPL-3.0", "Bison-exception-2.2"),
    ("classpath", "GPL-2.0", "Classpath-exception-2.0"),
    ("gcc runtime library", "GPL-3.0", "GCC-exception-3.1"),
    ("libtool", "GPL-2.0", "Libtool-exception"),
    ("font", "GPL-2.0", "Font-exception-2.0"),
];

/// Files of `/usr/share/common-licenses` and what they hold.
const COMMON: [(&str, &str); 16] = [
    ("Apache-2.0", "Apache-2.0"),
    ("Artistic", "Artistic-1.0-Perl"),
    ("BSD", "BSD-3-Clause"),
    ("CC0-1.0", "CC0-1.0"),
    ("GFDL", "GFDL"),
    ("GFDL-1.2", "GFDL-1.2"),
    ("GFDL-1.3", "GFDL-1.3"),
    ("GPL", "GPL"),
    ("GPL-1", "GPL-1.0"),
    ("GPL-2", "GPL-2.0"),
    ("GPL-3", "GPL-3.0"),
    ("LGPL", "LGPL"),
    ("LGPL-2", "LGPL-2.0"),
    ("LGPL-2.1", "LGPL-2.1"),
    ("LGPL-3", "LGPL-3.0"),
    ("MPL-2.0", "MPL-2.0"),
];

/// What `/usr/share/common-licenses` files a text refers to, by SPDX's names of what they hold. Whether a later
/// version may be taken is not said by a reference, so these are no identifiers.
pub(crate) fn common_licenses(text: &str) -> BTreeSet<&'static str> {
    let name_end = |c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-');
    text.split("/usr/share/common-licenses/")
        .skip(1)
        .filter_map(|rest| {
            let name = rest.split(name_end).next()?.trim_end_matches(['.', '-']);
            COMMON.iter().find(|(file, _)| *file == name).map(|(_, holds)| *holds)
        })
        .collect()
}

/// `GPL-2+`, `LGPL-2.1`, `GFDL-1.3-no-invariants+`, `GFDL-NIV-1.2+` as SPDX's identifiers.
fn gnu(name: &str) -> Option<String> {
    let (base, later) = match name.strip_suffix('+').or_else(|| name.strip_suffix("-or-later")) {
        Some(base) => (base, true),
        None => (name.strip_suffix("-only").unwrap_or(name), false),
    };
    let (base, invariants) = match base.strip_prefix("gfdl-niv-") {
        Some(version) => (format!("gfdl-{version}"), "-no-invariants"),
        None => match base.strip_suffix("-no-invariants") {
            Some(base) => (base.to_owned(), "-no-invariants"),
            None => (base.to_owned(), ""),
        },
    };
    let (family, version) = base.rsplit_once('-')?;
    let family =
        ["GPL", "LGPL", "AGPL", "GFDL"].into_iter().find(|known| known.eq_ignore_ascii_case(family))?;
    if family != "GFDL" && !invariants.is_empty() {
        return None;
    }
    let version = if version.contains('.') { version.to_owned() } else { format!("{version}.0") };
    let id = format!("{family}-{version}{invariants}-{}", if later { "or-later" } else { "only" });
    spdx::license_id(&id).map(|_| id)
}

/// The identifier of one short name; none when it is not known for sure. `text` is what the package has as the
/// licence's text.
fn identifier(name: &str, text: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if let Some(id) = gnu(&lower) {
        return Some(id);
    }
    if lower == "perl" {
        return Some("(Artistic-1.0-Perl OR GPL-1.0-or-later)".into());
    }
    if lower == "mit" {
        // Debian's files say MIT of half a dozen texts; the one that SPDX means begins so.
        return text.contains("Permission is hereby granted, free of charge").then(|| "MIT".into());
    }
    if let Some((_, id)) = NAMES.iter().find(|(known, _)| *known == lower) {
        return Some((*id).to_owned());
    }
    let found =
        spdx::identifiers::LICENSES.iter().find(|license| license.name.eq_ignore_ascii_case(&lower))?;
    (found.flags & spdx::flags::IS_DEPRECATED == 0).then(|| found.name.to_owned())
}

/// `BASE with X exception`.
fn with_exception(base: &str, exception: &str) -> Option<String> {
    let base = identifier(base, "")?;
    let words = exception.to_ascii_lowercase();
    let words = words.trim().trim_end_matches("exception").trim_end_matches(['-', ' ']);
    let of_table = EXCEPTIONS
        .iter()
        .find(|(known, licence, _)| *known == words && base.starts_with(licence))
        .map(|(_, _, id)| *id);
    let id = of_table.or_else(|| {
        let is =
            |name: &&str| name.eq_ignore_ascii_case(exception.trim()) || name.eq_ignore_ascii_case(words);
        spdx::identifiers::EXCEPTIONS.iter().map(|e| e.name).find(is)
    })?;
    Some(format!("{base} WITH {id}"))
}

/// A reference for a licence without an identifier. Its name has the hash of the text, so that two packages'
/// `BSD-like` are not taken for the same.
pub(crate) fn reference(name: &str, text: &str, extracted: &mut BTreeMap<String, Extracted>) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = if words.is_empty() { name } else { text };
    let hash = Digest::of(if words.is_empty() { name.to_owned() } else { words.join(" ") }).to_string();
    // Names are one line of outside text; a readable beginning is enough beside the hash.
    let short: String = idstring(name).chars().take(40).collect();
    let id = format!("LicenseRef-{short}-{}", hash.get(..12).unwrap_or_default());
    extracted
        .entry(id.clone())
        .or_insert_with(|| Extracted { name: name.to_owned(), text: text.trim_end().to_owned() });
    id
}

/// One short name, with its exception if it has one.
fn single(name: &str, text: &str, extracted: &mut BTreeMap<String, Extracted>) -> String {
    let name = name.trim().trim_matches(['(', ')', ',']).trim();
    let lower = name.to_ascii_lowercase();
    let known = match lower.find(" with ") {
        Some(at) => with_exception(name[..at].trim(), &name[at + 6..]),
        None => identifier(name, text),
    };
    known.unwrap_or_else(|| reference(name, text, extracted))
}

/// Splits at a word (` or `) whatever its case.
fn split<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let lower = text.to_ascii_lowercase();
    let mut parts = Vec::new();
    let mut from = 0;
    while let Some(at) = lower[from..].find(word) {
        parts.push(&text[from..from + at]);
        from += at + word.len();
    }
    parts.push(&text[from..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// One operand out of alternatives.
fn any(operands: &BTreeSet<String>) -> Option<String> {
    match operands.len() {
        0 => None,
        1 => operands.first().cloned(),
        _ => Some(format!("({})", operands.iter().map(String::as_str).collect::<Vec<_>>().join(" OR "))),
    }
}

/// One operand out of those that all apply, to be put beside alternatives.
pub(crate) fn all(operands: &All) -> Option<String> {
    match operands.len() {
        0 => None,
        1 => operands.first().cloned(),
        _ => Some(format!("({})", operands.iter().map(String::as_str).collect::<Vec<_>>().join(" AND "))),
    }
}

/// The short names of a `License` field, each by itself.
pub(crate) fn names(synopsis: &str) -> Vec<&str> {
    split(synopsis, " and/or ")
        .into_iter()
        .flat_map(|part| split(part, " or "))
        .flat_map(|part| split(part, " and "))
        .map(|name| name.trim().trim_matches(['(', ')', ',']).trim())
        .filter(|name| !name.is_empty())
        .collect()
}

/// The synopsis of a `License` field as an expression (copyright-format 1.0, section 7.2: `and` binds more than `or`,
/// a comma before them turns that around). `text_of` gives the text of a short name.
pub(crate) fn expression<'t>(
    synopsis: &str,
    text_of: impl Fn(&str) -> &'t str,
    extracted: &mut BTreeMap<String, Extracted>,
) -> All {
    let mut conjunction = |text: &str| -> All {
        split(text, " and ")
            .into_iter()
            .flat_map(|name| {
                let name = name.trim().trim_matches(['(', ')', ',']).trim();
                single(name, text_of(name), extracted).split(" AND ").map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    };
    let mut disjunction = |text: &str| -> All {
        let parts: Vec<&str> =
            split(text, " and/or ").into_iter().flat_map(|part| split(part, " or ")).collect();
        if let [only] = parts.as_slice() {
            return conjunction(only);
        }
        let alternatives = parts.into_iter().filter_map(|part| all(&conjunction(part))).collect();
        any(&alternatives).into_iter().collect()
    };
    let mut alternatives = BTreeSet::new();
    for part in split(synopsis, ", or ") {
        let operands: All = split(part, ", and ").into_iter().flat_map(&mut disjunction).collect();
        alternatives.insert(operands);
    }
    if alternatives.len() <= 1 {
        return alternatives.into_iter().next().unwrap_or_default();
    }
    any(&alternatives.iter().filter_map(all).collect()).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(synopsis: &str) -> String {
        let mut extracted = BTreeMap::new();
        let all = expression(synopsis, |_| "", &mut extracted);
        let text = all.into_iter().collect::<Vec<_>>().join(" AND ");
        spdx::Expression::parse(&text).unwrap();
        text
    }

    #[test]
    fn short_names_and_their_expressions() {
        for (debian, wanted) in [
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-2", "GPL-2.0-only"),
            ("LGPL-2.1+", "LGPL-2.1-or-later"),
            ("GFDL-NIV-1.3+", "GFDL-1.3-no-invariants-or-later"),
            ("GFDL-1.3-no-invariants", "GFDL-1.3-no-invariants-only"),
            ("Expat", "MIT"),
            ("BSD-3-clause", "BSD-3-Clause"),
            ("Apache-2.0 or LGPL-2.1+", "(Apache-2.0 OR LGPL-2.1-or-later)"),
            ("GPL-2 and/or BSD-2-clause", "(BSD-2-Clause OR GPL-2.0-only)"),
            ("GPL-1+ or Artistic-2.0 and ISC", "((Artistic-2.0 AND ISC) OR GPL-1.0-or-later)"),
            ("GPL-1+ or Artistic-2.0, and ISC", "(Artistic-2.0 OR GPL-1.0-or-later) AND ISC"),
            ("Perl", "(Artistic-1.0-Perl OR GPL-1.0-or-later)"),
            ("GPL-3+ with Autoconf exception", "GPL-3.0-or-later WITH Autoconf-exception-3.0"),
            ("GPL-2 with Linux-syscall-note", "GPL-2.0-only WITH Linux-syscall-note"),
            ("GPL-2 with Linux-syscall-note exception", "GPL-2.0-only WITH Linux-syscall-note"),
            ("FSFAP", "FSFAP"),
        ] {
            assert_eq!(read(debian), wanted, "{debian}");
        }
    }

    #[test]
    fn what_is_not_known_is_a_reference() {
        for odd in
            ["GPL-9", "GPL-2+-with-link-exception", "MIT", "BSD-like-Spencer", "GPL-2.0-no-invariants", "ü ö"]
        {
            assert!(read(odd).starts_with("LicenseRef-"), "{odd}");
        }
        let mut extracted = BTreeMap::new();
        let text = "Permission is hereby granted, free of charge, to any person";
        let all = expression("MIT", |_| text, &mut extracted);
        assert_eq!(all.into_iter().collect::<Vec<_>>(), ["MIT"]);
        // Blanks do not make another licence.
        let one = reference("x", "a\n b", &mut extracted);
        assert_eq!(one, reference("x", "a b\n", &mut extracted));
        assert_ne!(one, reference("x", "a c", &mut extracted));
    }

    #[test]
    fn common_licences_are_recognised() {
        let text = "see /usr/share/common-licenses/GPL-2. Or `/usr/share/common-licenses/LGPL-2.1'; \
                    /usr/share/common-licenses/Nothing";
        assert_eq!(common_licenses(text).into_iter().collect::<Vec<_>>(), ["GPL-2.0", "LGPL-2.1"]);
    }
}
