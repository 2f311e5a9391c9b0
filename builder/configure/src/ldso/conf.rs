//! `/etc/ld.so.conf`: directories, one a line, `#` comments and `include GLOB…` (ldconfig(8)).

use crate::{ConfigureError, view};
use ashlar_tree::Tree;

/// How deep files may include each other.
const DEPTH_MAX: usize = 8;
/// How many directories are searched at most.
const DIRECTORIES_MAX: usize = 4096;

/// The directories that the configuration names, in its order.
pub(super) fn read(tree: &Tree) -> Result<Vec<String>, ConfigureError> {
    let mut directories = Vec::new();
    file(tree, "/etc/ld.so.conf", 0, &mut directories)?;
    Ok(directories)
}

fn file(tree: &Tree, path: &str, depth: usize, directories: &mut Vec<String>) -> Result<(), ConfigureError> {
    let Some(text) = view::text(tree, path)? else { return Ok(()) };
    if depth > DEPTH_MAX {
        let why = "files include each other too deeply".to_owned();
        return Err(ConfigureError::Format { path: path.to_owned(), line: None, why });
    }
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        match line.split_once([' ', '\t']) {
            Some(("include", patterns)) => {
                for pattern in patterns.split([' ', '\t']).filter(|pattern| !pattern.is_empty()) {
                    for path in expand(tree, path, pattern) {
                        file(tree, &path, depth + 1, directories)?;
                    }
                }
            }
            Some((word, _)) if word.eq_ignore_ascii_case("hwcap") => {}
            _ if directories.len() < DIRECTORIES_MAX => directories.push(line.to_owned()),
            _ => {
                let why = format!("more than {DIRECTORIES_MAX} directories");
                return Err(ConfigureError::Format { path: path.to_owned(), line: None, why });
            }
        }
    }
    Ok(())
}

/// The files that a pattern means. Wildcards are looked for in the last component only, where all known
/// configurations have them.
fn expand(tree: &Tree, from: &str, pattern: &str) -> Vec<String> {
    let pattern = if pattern.starts_with('/') {
        pattern.to_owned()
    } else {
        format!("{}/{pattern}", from.rsplit_once('/').map_or("", |(folder, _)| folder))
    };
    let Some((folder, last)) = pattern.rsplit_once('/') else { return Vec::new() };
    if !last.contains(['*', '?', '[']) {
        return vec![pattern];
    }
    view::names(tree, folder)
        .into_iter()
        .filter(|name| {
            (!name.starts_with('.') || last.starts_with('.')) && matches(last.as_bytes(), name.as_bytes())
        })
        .map(|name| format!("{folder}/{name}"))
        .collect()
}

/// Whether `name` matches a pattern of `*`, `?` and `[…]` (glob(7)). The work is bounded by the product of
/// both lengths.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
                continue;
            }
            None if n == name.len() => return true,
            None => None,
            Some(_) if n == name.len() => None,
            Some(b'?') => Some(p + 1),
            Some(b'[') => set(pattern, p, name[n]),
            Some(&byte) => (byte == name[n]).then_some(p + 1),
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                n += 1;
            }
            (None, Some((after, at))) if at < name.len() => {
                retry = Some((after, at + 1));
                p = after;
                n = at + 1;
            }
            _ => return false,
        }
    }
}

/// Where the pattern goes on after the set that begins at `at`, if `byte` is in it.
fn set(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    let mut i = at + 1;
    let negated = matches!(pattern.get(i), Some(b'!' | b'^'));
    i += usize::from(negated);
    let first = i;
    let mut inside = false;
    loop {
        let &low = pattern.get(i)?;
        if low == b']' && i > first {
            return (inside != negated).then_some(i + 1);
        }
        match (pattern.get(i + 1), pattern.get(i + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                inside |= (low..=high).contains(&byte);
                i += 3;
            }
            _ => {
                inside |= low == byte;
                i += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, want) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.old", false),
            ("a?c*", "abc", true),
            ("[a-c]*", "b", true),
            ("[!a-c]*", "b", false),
            ("[]]", "]", true),
            ("[", "[", false),
            ("*a*b*c", "xxaxxbxxbxxc", true),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
    }
}
