//! What was done and what was left out, for a person to read.

use serde::Serialize;

/// A step of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Users and groups.
    Accounts,
    /// Owner and mode of a file (`dpkg-statoverride`).
    StatOverride,
    /// A choice among alternatives (`update-alternatives`).
    Alternative,
    /// Trusted certificates (`update-ca-certificates`).
    Certificates,
    /// Small files of the base system (machine-id, nsswitch.conf, shells, localtime …).
    BaseFile,
    /// A configuration file that `ucf` puts in place.
    ConfigurationFile,
    /// A missing SONAME link (`ldconfig`).
    LibraryLink,
    /// `/etc/ld.so.cache` (`ldconfig`).
    LibraryCache,
    /// Indexes of kernel modules (`depmod`).
    Modules,
    /// dpkg's list of installed packages.
    PackageDatabase,
}

/// Something that was put into the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Done {
    /// The step.
    pub step: Step,
    /// The path in the tree.
    pub path: String,
    /// The packages that asked for it; empty where no single package did.
    pub packages: Vec<String>,
    /// What it is, in words.
    pub detail: String,
}

/// Something that a Debian system would have and this tree has not, whichever package wants it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct LeftOut {
    /// What.
    pub what: String,
    /// Why, and what to do where it is needed.
    pub why: String,
}

/// What became of an action in a maintainer script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Its effect is in the tree.
    Done,
    /// It has none in a freshly built image: it acts on upgrades or on a running system.
    NotNeeded,
    /// Its effect is missing.
    LeftOut,
}

/// What an action of a maintainer script is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Users, groups and memberships.
    Accounts,
    /// `update-alternatives`.
    Alternatives,
    /// `dpkg-statoverride`.
    StatOverride,
    /// `ldconfig` or its trigger.
    Ldconfig,
    /// `update-ca-certificates` or its trigger.
    Certificates,
    /// `depmod`.
    Depmod,
    /// Questions and answers of debconf.
    Debconf,
    /// systemd units: enabling, presets, starting.
    SystemdUnits,
    /// Init scripts: links and starting.
    InitScripts,
    /// `systemd-tmpfiles`.
    Tmpfiles,
    /// Moving configuration files between versions (`dpkg-maintscript-helper`, `ucf`).
    ConfigurationFiles,
    /// Byte code of Python modules.
    PythonByteCode,
    /// Shells in `/etc/shells`.
    Shells,
    /// A cache or index that programs can do without (icons, MIME types, fonts, manual pages …).
    Cache,
    /// Initramfs or boot loader.
    Boot,
    /// PAM profiles (`pam-auth-update`).
    Pam,
    /// Locales, time zone.
    Locale,
    /// AppArmor, udev and other things of a running kernel.
    Running,
    /// Files made, changed or removed by plain commands.
    Files,
    /// Capabilities of a program file (`setcap`).
    Capabilities,
    /// A dpkg trigger with no step here.
    Trigger,
    /// Shell that is not recognised.
    Unknown,
}

/// An action that a maintainer script or a trigger would have carried out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Action {
    /// The control file: `postinst`, `preinst`, `config`, `triggers`.
    pub script: String,
    /// Its first line there, counted from 1.
    pub line: usize,
    /// What it is about.
    pub kind: Kind,
    /// What became of it.
    pub state: State,
    /// The command, and why it was left out.
    pub detail: String,
    /// How many commands of this kind and state are summed up here.
    pub commands: usize,
}

/// A package that has something to do at installation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PackageReport {
    /// Its name.
    pub package: String,
    /// Its version.
    pub version: String,
    /// What its scripts and triggers would have done, in the order of the scripts' names and lines.
    pub actions: Vec<Action>,
}

/// What a configuration did and what it left out. Its order depends on nothing but the tree and the packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was put into the tree.
    pub done: Vec<Done>,
    /// What is missing from the whole tree.
    pub left_out: Vec<LeftOut>,
    /// By package, those with nothing to do left out.
    pub packages: Vec<PackageReport>,
}

impl Report {
    /// The actions that are missing from the tree, with their packages.
    pub fn missing(&self) -> impl Iterator<Item = (&str, &Action)> {
        self.packages.iter().flat_map(|package| {
            package
                .actions
                .iter()
                .filter(|action| action.state == State::LeftOut)
                .map(|action| (package.package.as_str(), action))
        })
    }
}

/// What the steps write down as they go.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) done: Vec<Done>,
    pub(crate) left_out: Vec<LeftOut>,
}

impl Log {
    pub(crate) fn done(&mut self, step: Step, path: &str, packages: &[&str], detail: impl Into<String>) {
        let mut packages: Vec<String> = packages.iter().map(|&name| name.to_owned()).collect();
        packages.sort();
        packages.dedup();
        self.done.push(Done { step, path: path.to_owned(), packages, detail: detail.into() });
    }

    pub(crate) fn left_out(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.left_out.push(LeftOut { what: what.into(), why: why.into() });
    }
}
