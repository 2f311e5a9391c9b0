//! Users and groups: `/etc/passwd`, `group`, `shadow`, `gshadow`.
//!
//! Sources, from the strongest to the weakest: the recipe; the files that the tree has already, or base-passwd's
//! master files; `sysusers.d`; `adduser` and its like in maintainer scripts. A number that a source gives is
//! kept. One that nobody gives is found from the name: the first free one of 101 to 999, counted from a place
//! that the SHA-256 of the name points to, names in byte order. So the ids of a system stay the same from one
//! release to the next when packages come and go, as long as no two names point to one place.

mod database;
mod requests;
mod sysusers;

use crate::report::{Log, State};
use crate::scripts::Found;
use crate::{ConfigureError, Step, view};
use ashlar_tree::{Metadata, Node, Tree};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

pub use database::{GroupEntry, UserEntry, parse_group, parse_passwd};
pub use sysusers::{Id as SysusersId, Line as SysusersLine, parse_line};

/// The ids that are given out: Debian Policy 9.2.2, "dynamically allocated system users".
const FIRST_ID: u32 = 101;
const LAST_ID: u32 = 999;
const SHELL_NONE: &str = "/usr/sbin/nologin";

/// Users that no system is without: name, number, comment, home.
const BASE_USERS: [(&str, u32, &str, &str); 2] =
    [("root", 0, "root", "/root"), ("nobody", 65534, "nobody", "/nonexistent")];

/// A user of the recipe. What is not given of a user that is there already stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Number; found from the name if none.
    pub uid: Option<u32>,
    /// Number of the first group; if none, the group of the same name, which is made where it is missing.
    pub gid: Option<u32>,
    /// Full name.
    pub comment: String,
    /// Home directory, made where it is missing; `/nonexistent` if none.
    pub home: Option<String>,
    /// Shell; `/usr/sbin/nologin` if none.
    pub shell: Option<String>,
    /// Groups that it is a member of, beside the first.
    pub groups: Vec<String>,
    /// Password as crypt(5) has it (`$y$…`); locked if none.
    pub password_hash: Option<String>,
}

/// A group of the recipe.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Number; found from the name if none.
    pub gid: Option<u32>,
    /// Members by name.
    pub members: Vec<String>,
}

/// The group that a wanted user comes first in.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Primary {
    /// The group of the user's name; made with the user's number where that is free.
    Own,
    Number(u32),
    Name(String),
}

/// Something that a source wants.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    User {
        name: String,
        uid: Option<u32>,
        primary: Primary,
        /// What is none stays as it is, or gets the default.
        comment: Option<String>,
        home: Option<String>,
        shell: Option<String>,
        make_home: bool,
    },
    Group {
        name: String,
        gid: Option<u32>,
    },
    Member {
        user: String,
        group: String,
    },
}

/// A wish and who has it.
#[derive(Debug, Clone)]
struct Request {
    wish: Wish,
    from: String,
    package: Option<String>,
    strength: Strength,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Recipe,
    Sysusers,
    Script,
    /// What a membership line needs and nobody declares.
    Implied,
}

/// The account files while they are worked on.
#[derive(Debug, Default)]
struct Accounts {
    users: BTreeMap<String, UserEntry>,
    groups: BTreeMap<String, GroupEntry>,
    /// Order of the lines as they were found; new names come after them, by number.
    user_order: Vec<String>,
    group_order: Vec<String>,
    shadow: BTreeMap<String, String>,
    gshadow: BTreeMap<String, String>,
    /// Ranges that `r` lines of sysusers.d give out instead of the usual one.
    ranges: Vec<(u32, u32)>,
}

/// Names and numbers that other steps look up.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    pub(crate) users: BTreeMap<String, u32>,
    pub(crate) groups: BTreeMap<String, u32>,
}

/// Writes the account files. Does nothing where the tree has none and nobody wants any.
pub(crate) fn configure(
    tree: &mut Tree,
    users: &[User],
    groups: &[Group],
    found: &mut [Found<'_>],
    time: i64,
    log: &mut Log,
) -> Result<Ids, ConfigureError> {
    let mut accounts = Accounts::read(tree)?;
    let mut requests = requests::of_recipe(users, groups)?;
    let (lines, ranges) = sysusers::read(tree)?;
    accounts.ranges = ranges;
    requests.extend(lines);
    requests.extend(requests::of_scripts(found)?);
    if accounts.users.is_empty() && accounts.groups.is_empty() && requests.is_empty() {
        return Ok(Ids::default());
    }
    accounts.add_base_groups();
    let before: BTreeSet<String> = accounts.users.keys().chain(accounts.groups.keys()).cloned().collect();
    accounts.apply(&requests)?;
    accounts.add_base_users();
    for user in users {
        if let Some(hash) = &user.password_hash {
            accounts.shadow.insert(user.name.clone(), hash.clone());
        }
    }
    accounts.check()?;
    accounts.write(tree, time)?;
    make_homes(tree, &accounts, &requests, time)?;

    let mut wanted_by: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for request in &requests {
        let name = match &request.wish {
            Wish::User { name, .. } | Wish::Group { name, .. } => name,
            Wish::Member { user, .. } => user,
        };
        wanted_by.entry(name).or_default().extend(request.package.as_deref());
    }
    for (name, packages) in wanted_by {
        let by_recipe =
            users.iter().any(|user| user.name == name) || groups.iter().any(|group| group.name == name);
        if before.contains(name) && !by_recipe {
            continue;
        }
        let new = if before.contains(name) { "" } else { "new " };
        let packages: Vec<&str> = packages.into_iter().collect();
        let detail = match (accounts.users.get(name), accounts.groups.get(name)) {
            (Some(user), _) => format!("{new}user {name}, uid {}, gid {}", user.uid, user.gid),
            (None, Some(group)) => format!("{new}group {name}, gid {}", group.gid),
            _ => continue,
        };
        log.done(Step::Accounts, "/etc/passwd", &packages, detail);
    }
    for found in found.iter_mut() {
        if found.outcome.is_none() && found.at_installation() && found.command.name() == "systemd-sysusers" {
            found.settle(State::Done, "");
        }
    }
    Ok(Ids {
        users: accounts.users.iter().map(|(name, user)| (name.clone(), user.uid)).collect(),
        groups: accounts.groups.iter().map(|(name, group)| (name.clone(), group.gid)).collect(),
    })
}

impl Accounts {
    fn read(tree: &Tree) -> Result<Self, ConfigureError> {
        let first = |paths: [&str; 2]| -> Result<(String, String), ConfigureError> {
            for path in paths {
                if let Some(text) = view::text(tree, path)?.filter(|text| !text.trim().is_empty()) {
                    return Ok((path.to_owned(), text));
                }
            }
            Ok((paths[0].to_owned(), String::new()))
        };
        let mut accounts = Self::default();
        let (path, text) = first(["/etc/passwd", "/usr/share/base-passwd/passwd.master"])?;
        for user in parse_passwd(&text, &path)? {
            accounts.user_order.push(user.name.clone());
            accounts.users.insert(user.name.clone(), user);
        }
        let (path, text) = first(["/etc/group", "/usr/share/base-passwd/group.master"])?;
        for group in parse_group(&text, &path)? {
            accounts.group_order.push(group.name.clone());
            accounts.groups.insert(group.name.clone(), group);
        }
        for (path, lines) in [("/etc/shadow", &mut accounts.shadow), ("/etc/gshadow", &mut accounts.gshadow)]
        {
            for line in view::text(tree, path)?.unwrap_or_default().lines().take(100_000) {
                if let Some((name, rest)) = line.split_once(':') {
                    // Of `shadow` only the password is kept apart; `gshadow`'s members come from `group`.
                    let rest =
                        if path == "/etc/shadow" { rest } else { rest.split(':').next().unwrap_or("!") };
                    lines.insert(name.to_owned(), rest.to_owned());
                }
            }
        }
        Ok(accounts)
    }

    /// Every system has the groups of the superuser and of nobody.
    fn add_base_groups(&mut self) {
        for (name, gid) in [("root", 0), ("nogroup", 65534)] {
            if !self.groups.contains_key(name) && !self.gid_taken(gid) {
                self.add_group(name, gid);
            }
        }
    }

    /// Every system has a superuser and one who stands for nobody.
    fn add_base_users(&mut self) {
        for (name, id, comment, home) in BASE_USERS {
            if !self.users.contains_key(name) && !self.uid_taken(id) {
                self.add_user(UserEntry {
                    name: name.into(),
                    password: "x".into(),
                    uid: id,
                    gid: id,
                    comment: comment.into(),
                    home: home.into(),
                    shell: SHELL_NONE.into(),
                });
            }
        }
    }

    fn add_user(&mut self, user: UserEntry) {
        if !self.users.contains_key(&user.name) {
            self.user_order.push(user.name.clone());
        }
        self.users.insert(user.name.clone(), user);
    }

    fn add_group(&mut self, name: &str, gid: u32) {
        if !self.groups.contains_key(name) {
            self.group_order.push(name.to_owned());
        }
        let members = self.groups.get(name).map(|group| group.members.clone()).unwrap_or_default();
        self.groups.insert(
            name.to_owned(),
            GroupEntry { name: name.to_owned(), password: "x".into(), gid, members },
        );
    }

    /// Groups with numbers, users with numbers, groups without, users without; then memberships. Inside of
    /// each, names in byte order; of several wishes for one name the strongest.
    fn apply(&mut self, requests: &[Request]) -> Result<(), ConfigureError> {
        let mut sorted: Vec<&Request> = requests.iter().collect();
        sorted.sort_by(|a, b| (a.strength, &a.from).cmp(&(b.strength, &b.from)));
        let mut groups: BTreeMap<&str, (Option<u32>, &Request)> = BTreeMap::new();
        let mut users: BTreeMap<&str, (Option<u32>, &Request)> = BTreeMap::new();
        for request in &sorted {
            match &request.wish {
                Wish::Group { name, gid } => merge(&mut groups, name, *gid, request, "group")?,
                Wish::User { name, uid, .. } => merge(&mut users, name, *uid, request, "user")?,
                Wish::Member { .. } => {}
            }
        }
        for (name, (gid, request)) in &groups {
            self.keep_or_set_group(name, *gid, request)?;
        }
        for (name, (uid, request)) in users.iter().filter(|(_, (uid, _))| uid.is_some()) {
            self.user(name, *uid, request, &groups)?;
        }
        // Users before groups without a number, so that both of one name can have the same.
        for (name, (_, request)) in users.iter().filter(|(_, (uid, _))| uid.is_none()) {
            self.user(name, None, request, &groups)?;
        }
        for name in groups.keys() {
            if !self.groups.contains_key(*name) {
                let gid = self.free_id(name)?;
                self.add_group(name, gid);
            }
        }
        for request in sorted {
            let Wish::Member { user, group } = &request.wish else { continue };
            let missing = |kind: &'static str, name: &str| ConfigureError::NoSuchAccount {
                kind,
                name: name.to_owned(),
                wanted_by: request.from.clone(),
            };
            if !self.users.contains_key(user) {
                return Err(missing("user", user));
            }
            let entry = self.groups.get_mut(group).ok_or_else(|| missing("group", group))?;
            if !entry.members.contains(user) {
                entry.members.push(user.clone());
                entry.members.sort();
            }
        }
        Ok(())
    }

    fn keep_or_set_group(
        &mut self,
        name: &str,
        gid: Option<u32>,
        request: &Request,
    ) -> Result<(), ConfigureError> {
        let Some(gid) = gid else { return Ok(()) };
        match self.groups.get(name) {
            Some(old) if old.gid == gid || request.strength != Strength::Recipe => return Ok(()),
            _ => {}
        }
        if let Some(other) = self.groups.values().find(|group| group.gid == gid && group.name != name) {
            let (first, second) = (other.name.clone(), name.to_owned());
            return Err(ConfigureError::IdTaken { kind: "group", id: gid, first, second });
        }
        self.add_group(name, gid);
        Ok(())
    }

    fn user(
        &mut self,
        name: &str,
        uid: Option<u32>,
        request: &Request,
        groups: &BTreeMap<&str, (Option<u32>, &Request)>,
    ) -> Result<(), ConfigureError> {
        let Wish::User { primary, comment, home, shell, .. } = &request.wish else { return Ok(()) };
        let uid = uid.or_else(|| BASE_USERS.iter().find(|base| base.0 == name).map(|base| base.1));
        let old = self.users.get(name).cloned();
        if old.is_some() && request.strength != Strength::Recipe {
            return Ok(());
        }
        let uid = match uid.or(old.as_ref().map(|old| old.uid)) {
            Some(uid) => uid,
            // A group of that name which has its number gives it to the user where it is free.
            None => match self.groups.get(name).map(|group| group.gid) {
                Some(gid) if *primary == Primary::Own && !self.uid_taken(gid) && gid != 0 => gid,
                _ => self.free_id(name)?,
            },
        };
        if let Some(other) = self.users.values().find(|user| user.uid == uid && user.name != name) {
            let (first, second) = (other.name.clone(), name.to_owned());
            return Err(ConfigureError::IdTaken { kind: "user", id: uid, first, second });
        }
        let gid = match primary {
            Primary::Number(gid) => *gid,
            Primary::Name(group) => match self.groups.get(group) {
                Some(group) => group.gid,
                None if groups.contains_key(group.as_str()) => {
                    let gid = self.free_id(group)?;
                    self.add_group(group, gid);
                    gid
                }
                None => {
                    let wanted_by = request.from.clone();
                    return Err(ConfigureError::NoSuchAccount {
                        kind: "group",
                        name: group.clone(),
                        wanted_by,
                    });
                }
            },
            Primary::Own => match (&old, self.groups.get(name).map(|group| group.gid)) {
                (Some(old), _) => old.gid,
                (None, Some(gid)) => gid,
                (None, None) => {
                    let gid = if self.gid_taken(uid) { self.free_id(name)? } else { uid };
                    self.add_group(name, gid);
                    gid
                }
            },
        };
        let given = |wanted: &Option<String>, field: fn(&UserEntry) -> &String, default: &str| {
            wanted
                .clone()
                .or_else(|| old.as_ref().map(|old| field(old).clone()))
                .unwrap_or_else(|| default.into())
        };
        let password = old.as_ref().map_or_else(|| "x".to_owned(), |old| old.password.clone());
        self.add_user(UserEntry {
            name: name.to_owned(),
            password,
            uid,
            gid,
            comment: given(comment, |old| &old.comment, ""),
            home: given(home, |old| &old.home, "/nonexistent"),
            shell: given(shell, |old| &old.shell, SHELL_NONE),
        });
        Ok(())
    }

    fn uid_taken(&self, id: u32) -> bool {
        self.users.values().any(|user| user.uid == id)
    }

    fn gid_taken(&self, id: u32) -> bool {
        self.groups.values().any(|group| group.gid == id)
    }

    /// The first free number from the name's place on. Free means that neither a user nor a group has it, so
    /// that a user and its own group can share it.
    fn free_id(&self, name: &str) -> Result<u32, ConfigureError> {
        let numbers: Vec<u32> = if self.ranges.is_empty() {
            (FIRST_ID..=LAST_ID).collect()
        } else {
            self.ranges.iter().flat_map(|(low, high)| *low..=*high).take(65536).collect()
        };
        let digest = Sha256::digest(name.as_bytes());
        let place = digest.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let start = usize::try_from(place % (numbers.len().max(1) as u64)).unwrap_or(0);
        numbers
            .iter()
            .cycle()
            .skip(start)
            .take(numbers.len())
            .copied()
            .find(|&id| !self.uid_taken(id) && !self.gid_taken(id))
            .ok_or_else(|| ConfigureError::NoFreeId(name.to_owned()))
    }

    /// Every user's first group exists.
    fn check(&self) -> Result<(), ConfigureError> {
        for user in self.users.values() {
            if !self.gid_taken(user.gid) {
                return Err(ConfigureError::NoSuchAccount {
                    kind: "group",
                    name: user.gid.to_string(),
                    wanted_by: format!("user {}", user.name),
                });
            }
        }
        Ok(())
    }

    fn write(&self, tree: &mut Tree, time: i64) -> Result<(), ConfigureError> {
        let day = time.div_euclid(86400);
        let (mut passwd, mut shadow) = (String::new(), String::new());
        for user in self.user_order.iter().filter_map(|name| self.users.get(name)) {
            passwd.push_str(&user.line());
            let rest = match (self.shadow.get(&user.name), user.password.as_str()) {
                // A whole line's rest, from the tree.
                (Some(rest), _) if rest.contains(':') => rest.clone(),
                (Some(hash), _) => format!("{hash}:{day}:0:99999:7:::"),
                (None, "x") => format!("!*:{day}:0:99999:7:::"),
                (None, password) => format!("{password}:{day}:0:99999:7:::"),
            };
            shadow.push_str(&format!("{}:{rest}\n", user.name));
        }
        let (mut group_file, mut gshadow) = (String::new(), String::new());
        for group in self.group_order.iter().filter_map(|name| self.groups.get(name)) {
            let members = group.members.join(",");
            group_file.push_str(&format!("{}:x:{}:{members}\n", group.name, group.gid));
            let password = match (self.gshadow.get(&group.name), group.password.as_str()) {
                (Some(password), _) => password.as_str(),
                (None, "x") => "!*",
                (None, password) => password,
            };
            gshadow.push_str(&format!("{}:{password}::{members}\n", group.name));
        }
        let shadow_group = self.groups.get("shadow").map_or(0, |group| group.gid);
        for (path, mode, gid, text) in [
            ("/etc/passwd", 0o644, 0, passwd),
            ("/etc/group", 0o644, 0, group_file),
            ("/etc/shadow", 0o640, shadow_group, shadow),
            ("/etc/gshadow", 0o640, shadow_group, gshadow),
        ] {
            let metadata = Metadata { gid, ..Metadata::root(mode, time) };
            tree.insert(path.as_bytes(), Node::file(metadata, text.into_bytes()))?;
        }
        Ok(())
    }
}

/// Takes a wish for a name into account: the first number that the strongest source gives. Two sources of one
/// strength that give different numbers contradict each other.
fn merge<'a>(
    all: &mut BTreeMap<&'a str, (Option<u32>, &'a Request)>,
    name: &'a str,
    id: Option<u32>,
    request: &'a Request,
    kind: &'static str,
) -> Result<(), ConfigureError> {
    let Some((known, first)) = all.get_mut(name) else {
        all.insert(name, (id, request));
        return Ok(());
    };
    match (*known, id) {
        (Some(known), Some(id)) if known != id && first.strength == request.strength => {
            Err(ConfigureError::IdsDiffer {
                kind,
                name: name.to_owned(),
                first: known,
                first_from: first.from.clone(),
                second: id,
                second_from: request.from.clone(),
            })
        }
        (None, Some(id)) => {
            *known = Some(id);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Home directories that `adduser` makes, where they are missing.
fn make_homes(
    tree: &mut Tree,
    accounts: &Accounts,
    requests: &[Request],
    time: i64,
) -> Result<(), ConfigureError> {
    for request in requests {
        let Wish::User { name, make_home: true, .. } = &request.wish else { continue };
        let Some(user) = accounts.users.get(name) else { continue };
        if user.home == "/" || user.home == "/nonexistent" || view::exists(tree, &user.home) {
            continue;
        }
        let metadata = Metadata { uid: user.uid, gid: user.gid, ..Metadata::root(0o755, time) };
        tree.insert(user.home.as_bytes(), Node::directory(metadata))?;
    }
    Ok(())
}
