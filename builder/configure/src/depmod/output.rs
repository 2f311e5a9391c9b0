//! The files that `depmod` writes, out of the modules in their order.

use super::Entry;
use super::index::Index;
use super::module::module_name;
use std::collections::BTreeMap;

/// Name and content of each file.
pub(super) fn all(
    entries: &[Entry],
    ranks: &[usize],
    built_in: Option<&[u8]>,
    built_in_info: Option<&[u8]>,
) -> Vec<(&'static str, Vec<u8>)> {
    let lines: Vec<String> = (0..entries.len()).map(|index| dependencies(entries, ranks, index)).collect();
    let mut files = vec![
        ("modules.dep", (lines.join("\n") + if lines.is_empty() { "" } else { "\n" }).into_bytes()),
        ("modules.dep.bin", by_name(entries, &lines)),
        ("modules.alias", aliases(entries).into_bytes()),
        ("modules.alias.bin", aliases_index(entries)),
        (
            "modules.softdep",
            of_key(entries, "softdep", "# Soft dependencies extracted from modules themselves.\n"),
        ),
        (
            "modules.weakdep",
            of_key(entries, "weakdep", "# Weak dependencies extracted from modules themselves.\n"),
        ),
        ("modules.devname", devices(entries).into_bytes()),
    ];
    let (text, index) = symbols(entries);
    files.push(("modules.symbols", text.into_bytes()));
    files.push(("modules.symbols.bin", index));
    if let Some(list) = built_in {
        let mut index = Index::default();
        for line in String::from_utf8_lossy(list)
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
        {
            index.insert(&module_name(line), "", 0);
        }
        files.push(("modules.builtin.bin", index.bytes()));
    }
    files.push(("modules.builtin.alias.bin", built_in_info.map(built_in_aliases).unwrap_or_default()));
    files
}

/// `path: path…`: a module and all that it needs, users before what they use.
fn dependencies(entries: &[Entry], ranks: &[usize], index: usize) -> String {
    let mut needed = std::collections::BTreeSet::new();
    let mut open = entries[index].needs.clone();
    while let Some(next) = open.pop() {
        if needed.insert((ranks[next], next)) {
            open.extend(&entries[next].needs);
        }
    }
    let mut line = format!("{}:", entries[index].path);
    for (_, next) in needed {
        line.push(' ');
        line.push_str(&entries[next].path);
    }
    line
}

fn by_name(entries: &[Entry], lines: &[String]) -> Vec<u8> {
    let mut index = Index::default();
    for (priority, (entry, line)) in entries.iter().zip(lines).enumerate() {
        index.insert(&entry.name, line, priority as u32);
    }
    index.bytes()
}

fn values<'a>(entry: &'a Entry, key: &'a str) -> impl Iterator<Item = &'a str> {
    entry.module.info.iter().filter(move |(other, _)| other == key).map(|(_, value)| value.as_str())
}

fn aliases(entries: &[Entry]) -> String {
    let mut text = String::from("# Aliases extracted from modules themselves.\n");
    for entry in entries {
        for alias in values(entry, "alias") {
            text.push_str(&format!("alias {alias} {}\n", entry.name));
        }
    }
    text
}

fn aliases_index(entries: &[Entry]) -> Vec<u8> {
    let mut index = Index::default();
    for (priority, entry) in entries.iter().enumerate() {
        for alias in values(entry, "alias").filter_map(normal_alias) {
            index.insert(&alias, &entry.name, priority as u32);
        }
    }
    index.bytes()
}

/// An alias with `_` for `-` outside of brackets; none if its brackets do not match.
fn normal_alias(alias: &str) -> Option<String> {
    let mut inside = false;
    let mut out = String::with_capacity(alias.len());
    for c in alias.chars() {
        match c {
            ']' if !inside => return None,
            ']' => inside = false,
            '[' => inside = true,
            _ => {}
        }
        out.push(if c == '-' && !inside { '_' } else { c });
    }
    (!inside).then_some(out)
}

fn of_key(entries: &[Entry], key: &str, heading: &str) -> Vec<u8> {
    let mut text = heading.to_owned();
    for entry in entries {
        for value in values(entry, key) {
            text.push_str(&format!("{key} {} {value}\n", entry.name));
        }
    }
    text.into_bytes()
}

/// Exported symbols by name. `depmod` lists them in no order.
fn symbols(entries: &[Entry]) -> (String, Vec<u8>) {
    let mut owners: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        for symbol in &entry.module.exports {
            owners.insert(symbol, index);
        }
    }
    let mut text = String::from("# Aliases for symbols, used by symbol_request().\n");
    let mut index = Index::default();
    for (symbol, owner) in owners {
        let name = &entries[owner].name;
        text.push_str(&format!("alias symbol:{symbol} {name}\n"));
        index.insert(&format!("symbol:{symbol}"), name, owner as u32);
    }
    (text, index.bytes())
}

/// Device nodes whose opening loads a module: those with a name and a number among the aliases.
fn devices(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        let (mut name, mut number) = (None, None);
        for alias in values(entry, "alias") {
            if let Some(device) = alias.strip_prefix("devname:") {
                name = Some(device);
            } else if let Some(found) = device_number(alias) {
                number = Some(found);
            }
            if name.is_some() && number.is_some() {
                break;
            }
        }
        if let (Some(name), Some((kind, major, minor))) = (name, number) {
            if text.is_empty() {
                text.push_str("# Device nodes to trigger on-demand module loading.\n");
            }
            text.push_str(&format!("{} {name} {kind}{major}:{minor}\n", entry.name));
        }
    }
    text
}

fn device_number(alias: &str) -> Option<(char, u32, u32)> {
    let (kind, rest) = match (alias.strip_prefix("char-major-"), alias.strip_prefix("block-major-")) {
        (Some(rest), _) => ('c', rest),
        (_, Some(rest)) => ('b', rest),
        _ => return None,
    };
    let (major, minor) = rest.split_once('-')?;
    // What follows the number does not matter.
    let digits = minor.len() - minor.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    Some((kind, major.parse().ok()?, minor.get(..digits)?.parse().ok()?))
}

/// Aliases of what is built into the kernel, from the NUL-terminated `module.key=value` of
/// `modules.builtin.modinfo`. No bytes at all where there is none, as `depmod` has it.
fn built_in_aliases(info: &[u8]) -> Vec<u8> {
    let mut index = Index::default();
    let mut any = false;
    for string in info.split(|&byte| byte == 0) {
        let Some((key, value)) = std::str::from_utf8(string).ok().and_then(|text| text.split_once('='))
        else {
            continue;
        };
        let Some((module, "alias")) = key.split_once('.') else { continue };
        if let Some(alias) = normal_alias(value) {
            index.insert(&alias, &module.replace('-', "_"), 0);
            any = true;
        }
    }
    if any { index.bytes() } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_are_made_alike() {
        assert_eq!(normal_alias("usb:v-1[0-9]-x").as_deref(), Some("usb:v_1[0-9]_x"));
        assert_eq!(normal_alias("a]"), None);
        assert_eq!(normal_alias("a[b"), None);
        assert_eq!(device_number("char-major-10-229"), Some(('c', 10, 229)));
        assert_eq!(device_number("block-major-7-*"), None);
    }
}
