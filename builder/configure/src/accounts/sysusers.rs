//! `sysusers.d`: declarations of system users and groups (sysusers.d(5)).
//!
//! Specifiers speak of the running machine, so all but `%%` are refused.

use super::database::{check_field, check_name, check_path};
use super::{Primary, Request, SHELL_NONE, Strength, Wish};
use crate::{ConfigureError, view};
use ashlar_tree::Tree;
use std::collections::BTreeMap;

/// Where declarations lie, the strongest first.
const FOLDERS: [&str; 3] = ["/etc/sysusers.d", "/usr/local/lib/sysusers.d", "/usr/lib/sysusers.d"];
/// Longest line in bytes.
const LINE_MAX: usize = 8192;

/// The field `ID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// `-`
    Any,
    /// A number.
    Number(u32),
    /// `UID:GID`
    Both(u32, u32),
    /// `UID:GROUP`; no uid for `-:GROUP`.
    InGroup(Option<u32>, String),
    /// The owner of that path.
    OwnerOf(String),
}

/// A declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `u`: a user and, where no group is named, a group.
    User {
        /// Name.
        name: String,
        /// Numbers.
        id: Id,
        /// Full name.
        comment: String,
        /// Home directory; `/` if none.
        home: Option<String>,
        /// Shell.
        shell: Option<String>,
    },
    /// `g`: a group.
    Group {
        /// Name.
        name: String,
        /// Number.
        id: Id,
    },
    /// `m`: a membership; both are made where they are missing.
    Member {
        /// The user.
        user: String,
        /// The group.
        group: String,
    },
    /// `r`: numbers to give out.
    Range(u32, u32),
}

/// Reads a line; none for an empty one or a comment. The error says what is wrong.
pub fn parse_line(line: &str) -> Result<Option<Line>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    if line.len() > LINE_MAX {
        return Err("the line is longer than 8192 bytes".into());
    }
    let fields = fields(line)?;
    let field =
        |index: usize| fields.get(index).map(String::as_str).filter(|&text| text != "-" && !text.is_empty());
    let name = |index: usize| field(index).map(str::to_owned).ok_or("a name is missing");
    if fields.len() > 6 {
        return Err("more than six fields".into());
    }
    let kind = fields.first().map_or("", String::as_str);
    Ok(Some(match kind {
        "u" | "u!" => Line::User {
            name: name(1)?,
            id: id(field(2))?,
            comment: field(3).unwrap_or_default().to_owned(),
            home: field(4).map(str::to_owned),
            shell: field(5).map(str::to_owned),
        },
        "g" => match id(field(2))? {
            id @ (Id::Any | Id::Number(_) | Id::OwnerOf(_)) => Line::Group { name: name(1)?, id },
            _ => return Err("a group has one number".into()),
        },
        "m" => {
            Line::Member { user: name(1)?, group: field(2).map(str::to_owned).ok_or("a group is missing")? }
        }
        "r" => {
            let range = field(2).ok_or("a range is missing")?;
            let (low, high) = range.split_once('-').unwrap_or((range, range));
            let number = |text: &str| text.parse().map_err(|_| format!("`{range}` is no range of ids"));
            let (low, high): (u32, u32) = (number(low)?, number(high)?);
            if low > high || high > 65_533 {
                return Err(format!("`{range}` is no range of ids below 65534"));
            }
            Line::Range(low, high)
        }
        other => return Err(format!("`{other}` is no type of line")),
    }))
}

fn id(text: Option<&str>) -> Result<Id, String> {
    let Some(text) = text else { return Ok(Id::Any) };
    if text.starts_with('/') {
        return Ok(Id::OwnerOf(text.to_owned()));
    }
    let number = |text: &str| match text.parse::<u32>() {
        // (uid_t) -1 and its 16-bit kin mean "no user".
        Ok(65_535 | u32::MAX) | Err(_) => Err(format!("`{text}` is no id")),
        Ok(id) => Ok(id),
    };
    Ok(match text.split_once(':') {
        None => Id::Number(number(text)?),
        Some((uid, group)) => {
            let uid = if uid == "-" { None } else { Some(number(uid)?) };
            match (uid, number(group)) {
                (Some(uid), Ok(gid)) => Id::Both(uid, gid),
                (uid, Err(_)) if !group.bytes().all(|b| b.is_ascii_digit()) => {
                    Id::InGroup(uid, group.to_owned())
                }
                _ => return Err(format!("`{text}` is no id")),
            }
        }
    })
}

/// Cuts a line into fields; quotes keep blanks, a backslash keeps the next character.
fn fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut chars = line.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(fields);
        }
        let mut field = String::new();
        let mut quote = None;
        while let Some(&c) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                break;
            }
            chars.next();
            match (quote, c) {
                (Some(open), _) if open == c => quote = None,
                (None, '"' | '\'') => quote = Some(c),
                (_, '\\') => field.push(chars.next().ok_or("it ends with a backslash")?),
                (_, '%') => match chars.next() {
                    Some('%') => field.push('%'),
                    Some(c) => return Err(format!("the specifier `%{c}` speaks of the running machine")),
                    None => return Err("it ends with `%`".into()),
                },
                _ => field.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".into());
        }
        fields.push(field);
    }
}

/// Wishes, and ranges of numbers to give out.
type Declared = (Vec<Request>, Vec<(u32, u32)>);

/// Reads all declarations of the tree: files by name, one of a stronger folder hiding the others of its name, a
/// link to `/dev/null` hiding all.
pub(super) fn read(tree: &Tree) -> Result<Declared, ConfigureError> {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    for folder in FOLDERS {
        for name in view::names(tree, folder).into_iter().filter(|name| name.ends_with(".conf")) {
            let path = format!("{folder}/{name}");
            files.entry(name).or_insert(path);
        }
    }
    let (mut requests, mut ranges) = (Vec::new(), Vec::new());
    for path in files.into_values() {
        let Some(text) = view::text(tree, &path)? else { continue };
        for (index, line) in text.lines().enumerate() {
            let bad = |why| ConfigureError::Format { path: path.clone(), line: Some(index + 1), why };
            let from = format!("{path}, line {}", index + 1);
            let Some(line) = parse_line(line).map_err(bad)? else { continue };
            match line {
                Line::Range(low, high) => ranges.push((low, high)),
                line => {
                    let implied = matches!(line, Line::Member { .. });
                    for wish in wishes(tree, line, &from)? {
                        let strength = match wish {
                            Wish::User { .. } | Wish::Group { .. } if implied => Strength::Implied,
                            _ => Strength::Sysusers,
                        };
                        requests.push(Request { wish, from: from.clone(), package: None, strength });
                    }
                }
            }
        }
    }
    Ok((requests, ranges))
}

fn wishes(tree: &Tree, line: Line, from: &str) -> Result<Vec<Wish>, ConfigureError> {
    let owner = |path: &str| {
        tree.get_followed(path.as_bytes()).map(|(_, node)| (node.metadata.uid, node.metadata.gid))
    };
    let user = |name: &str, uid, primary| Wish::User {
        name: name.to_owned(),
        uid,
        primary,
        comment: None,
        home: Some("/".into()),
        shell: Some(if uid == Some(0) { "/bin/sh".into() } else { SHELL_NONE.into() }),
        make_home: false,
    };
    Ok(match line {
        Line::User { name, id, comment, home, shell } => {
            check_name(&name, "a user's name", from)?;
            check_field(&comment, "a comment", from)?;
            let (uid, primary, group) = match id {
                Id::Any => (None, Primary::Own, None),
                Id::Number(uid) => (Some(uid), Primary::Own, Some(uid)),
                Id::Both(uid, gid) => (Some(uid), Primary::Number(gid), None),
                Id::InGroup(uid, group) => (uid, Primary::Name(group), None),
                Id::OwnerOf(path) => match owner(&path) {
                    Some((uid, gid)) => (Some(uid), Primary::Own, Some(gid)),
                    None => (None, Primary::Own, None),
                },
            };
            let mut wish = user(&name, uid, primary);
            if let Wish::User { comment: c, home: h, shell: s, .. } = &mut wish {
                *c = Some(comment);
                if let Some(home) = home {
                    check_path(&home, "a home directory", from)?;
                    *h = Some(home);
                }
                if let Some(shell) = shell {
                    check_path(&shell, "a shell", from)?;
                    *s = Some(shell);
                }
            }
            let group = group.map(|gid| Wish::Group { name: name.clone(), gid: Some(gid) });
            group.into_iter().chain([wish]).collect()
        }
        Line::Group { name, id } => {
            check_name(&name, "a group's name", from)?;
            let gid = match id {
                Id::Number(gid) => Some(gid),
                Id::OwnerOf(path) => owner(&path).map(|(_, gid)| gid),
                _ => None,
            };
            vec![Wish::Group { name, gid }]
        }
        Line::Member { user: name, group } => {
            check_name(&name, "a user's name", from)?;
            check_name(&group, "a group's name", from)?;
            vec![
                Wish::Group { name: group.clone(), gid: None },
                user(&name, None, Primary::Own),
                Wish::Member { user: name, group },
            ]
        }
        Line::Range(..) => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_manual_page() {
        let user = |line: &str| match parse_line(line).unwrap().unwrap() {
            Line::User { name, id, comment, home, shell } => (name, id, comment, home, shell),
            other => panic!("{other:?}"),
        };
        let (name, id, comment, home, shell) = user("u httpd 404 \"HTTP User\"");
        assert_eq!(
            (name.as_str(), id, comment.as_str(), home, shell),
            ("httpd", Id::Number(404), "HTTP User", None, None)
        );
        assert_eq!(user("u! a /usr/bin/x - /var/lib/a /bin/sh").1, Id::OwnerOf("/usr/bin/x".into()));
        assert_eq!(user("u a 5:nogroup").1, Id::InGroup(Some(5), "nogroup".into()));
        assert_eq!(user("u a -:g").1, Id::InGroup(None, "g".into()));
        assert_eq!(user("u a 4:65534 '50%% off'").2, "50% off");
        assert_eq!(parse_line("r - 500-900").unwrap(), Some(Line::Range(500, 900)));
        assert_eq!(parse_line("  # m").unwrap(), None);
        for bad in [
            "x a",
            "u",
            "u a %b",
            "u a 1 \"x",
            "r - 9-1",
            "g a 1:2",
            "m a",
            "u a 4294967295",
            "u a b",
            "u a 1 \\",
        ] {
            assert!(parse_line(bad).is_err(), "{bad}");
        }
    }
}
