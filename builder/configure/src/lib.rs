//! What maintainer scripts would have done and matters, done from data. No script is ever run.
//!
//! [`configure`] works on the tree of an unpacked root: it writes the account files, alternatives, trusted
//! certificates, the dynamic linker's cache, the indexes of kernel modules and a few small files. A step whose
//! input is not in the tree does nothing. The scripts of the packages are read as text: literal commands that
//! are known are carried out here, and all others are listed in the [`Report`], so that a person sees at once
//! what may be missing.
//!
//! The result depends on the tree, the packages and the options only: not on the order of packages, the clock,
//! the locale or the host.
#![forbid(unsafe_code)]
// Debian's tools compare endings of names exactly, and the texts that are put together here are short.
#![allow(clippy::case_sensitive_file_extension_comparisons, clippy::format_push_string)]

mod accounts;
mod alternatives;
mod base;
mod certificates;
mod depmod;
mod error;
mod ldso;
mod report;
mod scripts;
mod statoverride;
mod view;

pub use accounts::{Group, GroupEntry, User, UserEntry};
pub use depmod::depmod;
pub use error::ConfigureError;
pub use report::{Action, Done, Kind, LeftOut, PackageReport, Report, State, Step};

use ashlar_tree::Tree;
use report::Log;
use std::collections::BTreeMap;

/// The control files of a package, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scripts<'a> {
    /// Name of the package.
    pub package: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Content by name: `postinst`, `preinst`, `config`, `triggers` are read, others may be there.
    pub files: BTreeMap<&'a str, &'a str>,
}

/// What the recipe says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options<'a> {
    /// Time of all files that are made, in seconds since 1970; its day stands in `shadow` too.
    pub time: i64,
    /// Users.
    pub users: Vec<User>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Time zone (`Europe/Berlin`); where none is given, `Etc/UTC` if tzdata is in the tree.
    pub time_zone: Option<String>,
    /// The packages' control stanzas, where dpkg's files in `/var/lib/dpkg` are wanted: `status`, and those about
    /// alternatives and overrides.
    pub keep_package_database: Option<Vec<&'a str>>,
}

/// Configures the tree of a root.
///
/// # Errors
/// Fails where account declarations contradict each other, a file of the tree does not follow its format or
/// cannot be read, or the time zone is not in the tree.
pub fn configure(
    tree: &mut Tree,
    packages: &[Scripts<'_>],
    options: &Options<'_>,
) -> Result<Report, ConfigureError> {
    let time = options.time;
    let database = options.keep_package_database.is_some();
    let mut log = Log::default();
    let mut found = scripts::find(packages);

    let ids = accounts::configure(tree, &options.users, &options.groups, &mut found, time, &mut log)?;
    base::configure(tree, &ids, options.time_zone.as_deref(), time, &mut log)?;
    base::configuration_files(tree, &mut found, time, &mut log)?;
    statoverride::configure(tree, &mut found, &ids, database, time, &mut log)?;
    alternatives::configure(tree, &mut found, database, time, &mut log)?;
    certificates::configure(tree, time, &mut log)?;
    // After alternatives, which may choose libraries.
    ldso::configure(tree, time, &mut log)?;
    for version in depmod::versions(tree) {
        depmod(tree, &version, time)?;
        log.done(
            Step::Modules,
            &format!("/usr/lib/modules/{version}"),
            &[],
            "modules.dep and the other indexes",
        );
    }
    if let Some(stanzas) = &options.keep_package_database {
        base::package_database(tree, stanzas, time, &mut log)?;
    }
    base::notes(tree, &mut log)?;
    let packages = scripts::classify(packages, &found, &mut log);
    let Log { mut done, mut left_out } = log;
    done.sort();
    left_out.sort();
    Ok(Report { done, left_out, packages })
}

/// Parsers of outside bytes, for fuzzing.
pub mod parsers {
    pub use crate::accounts::{
        SysusersId, SysusersLine, parse_group, parse_line as parse_sysusers_line, parse_passwd,
    };
    pub use crate::certificates::{pem_certificates, subject_hash};
    pub use crate::depmod::{Module, read_module};
    pub use crate::ldso::{Library, compare_names, read_library};
    pub use crate::scripts::{Command, When, Word, commands};
}
