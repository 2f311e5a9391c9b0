//! Lines of `passwd` and `group` (passwd(5), group(5)).

use crate::ConfigureError;

/// How many lines a file may have.
const LINES_MAX: usize = 100_000;

/// A line of `passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEntry {
    /// Login name.
    pub name: String,
    /// Password as it stands in the file; `x` where `shadow` has it.
    pub password: String,
    /// Number.
    pub uid: u32,
    /// Number of the first group.
    pub gid: u32,
    /// Full name.
    pub comment: String,
    /// Home directory.
    pub home: String,
    /// Shell.
    pub shell: String,
}

impl UserEntry {
    /// The line with its newline; the password is always in `shadow`.
    pub(super) fn line(&self) -> String {
        let Self { name, uid, gid, comment, home, shell, .. } = self;
        format!("{name}:x:{uid}:{gid}:{comment}:{home}:{shell}\n")
    }
}

/// A line of `group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEntry {
    /// Name.
    pub name: String,
    /// Password as it stands in the file.
    pub password: String,
    /// Number.
    pub gid: u32,
    /// Members.
    pub members: Vec<String>,
}

fn bad(path: &str, line: usize, why: impl Into<String>) -> ConfigureError {
    ConfigureError::Format { path: path.to_owned(), line: Some(line), why: why.into() }
}

fn lines<'a>(
    text: &'a str,
    path: &str,
) -> Result<impl Iterator<Item = (usize, Vec<&'a str>)>, ConfigureError> {
    if text.lines().count() > LINES_MAX {
        return Err(bad(path, LINES_MAX, "more lines than any such file"));
    }
    Ok(text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        .map(|(index, line)| (index + 1, line.split(':').collect())))
}

fn number(text: &str, path: &str, line: usize) -> Result<u32, ConfigureError> {
    text.parse().map_err(|_| bad(path, line, format!("`{text}` is no id")))
}

/// Reads a `passwd` file; `path` is for messages. A name that comes twice is refused.
pub fn parse_passwd(text: &str, path: &str) -> Result<Vec<UserEntry>, ConfigureError> {
    let mut users: Vec<UserEntry> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (line, fields) in lines(text, path)? {
        let [name, password, uid, gid, comment, home, shell] = fields[..] else {
            return Err(bad(path, line, "a line has seven fields, separated by `:`"));
        };
        check_name(name, "a user's name", path)?;
        if !seen.insert(name) {
            return Err(bad(path, line, format!("user `{name}` comes twice")));
        }
        users.push(UserEntry {
            name: name.into(),
            password: password.into(),
            uid: number(uid, path, line)?,
            gid: number(gid, path, line)?,
            comment: comment.into(),
            home: home.into(),
            shell: shell.into(),
        });
    }
    Ok(users)
}

/// Reads a `group` file; `path` is for messages. A name that comes twice is refused.
pub fn parse_group(text: &str, path: &str) -> Result<Vec<GroupEntry>, ConfigureError> {
    let mut groups: Vec<GroupEntry> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (line, fields) in lines(text, path)? {
        let [name, password, gid, members] = fields[..] else {
            return Err(bad(path, line, "a line has four fields, separated by `:`"));
        };
        check_name(name, "a group's name", path)?;
        if !seen.insert(name) {
            return Err(bad(path, line, format!("group `{name}` comes twice")));
        }
        let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
        let gid = number(gid, path, line)?;
        groups.push(GroupEntry { name: name.into(), password: password.into(), gid, members });
    }
    Ok(groups)
}

/// Whether a name can stand in the files and be found again by every tool: the portable characters, not only
/// digits, at most 32 bytes.
pub(super) fn check_name(name: &str, what: &'static str, from: &str) -> Result<(), ConfigureError> {
    let first = name.bytes().next().unwrap_or(b'-');
    let good = (first.is_ascii_alphanumeric() || first == b'_')
        && !name.bytes().all(|b| b.is_ascii_digit())
        && name.len() <= 32
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-$+".contains(&b));
    if good {
        return Ok(());
    }
    Err(ConfigureError::BadAccountField { what, value: name.to_owned(), from: from.to_owned() })
}

/// Whether a text can be a field of a line.
pub(super) fn check_field(text: &str, what: &'static str, from: &str) -> Result<(), ConfigureError> {
    if text.len() <= 4096 && !text.contains([':', '\n', '\r', '\0']) {
        return Ok(());
    }
    Err(ConfigureError::BadAccountField { what, value: text.to_owned(), from: from.to_owned() })
}

/// Whether a text can be a directory or a program.
pub(super) fn check_path(text: &str, what: &'static str, from: &str) -> Result<(), ConfigureError> {
    check_field(text, what, from)?;
    if text.starts_with('/') {
        return Ok(());
    }
    Err(ConfigureError::BadAccountField { what, value: text.to_owned(), from: from.to_owned() })
}
