//! The checks. Each reads the context and adds findings to it.

pub(crate) mod accounts;
pub mod capabilities;
pub(crate) mod certificates;
pub(crate) mod contents;
pub mod elf;
pub mod kernel;
pub(crate) mod leftovers;
pub(crate) mod links;
pub(crate) mod modules;
pub(crate) mod nodes;
pub mod os_release;
pub(crate) mod programs;
pub(crate) mod sizes;

use crate::parts::PartView;
use crate::report::{Finding, Part, Severity};
use crate::rules;
use crate::subject::Subject;
use contents::Contents;

/// What the checks read and add to.
pub(crate) struct Context<'c, 's> {
    /// What is linted.
    pub subject: &'c Subject<'s>,
    /// The root and the containers.
    pub parts: &'c [PartView<'s>],
    /// What is known of the files' contents.
    pub contents: &'c Contents,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl<'c, 's> Context<'c, 's> {
    pub fn new(subject: &'c Subject<'s>, parts: &'c [PartView<'s>], contents: &'c Contents) -> Self {
        Self { subject, parts, contents, findings: Vec::new() }
    }

    /// Adds a finding.
    pub fn add(
        &mut self,
        (rule, severity): (&'static str, Severity),
        part: &Part,
        path: Option<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        debug_assert!(
            rules::rule(rule).is_some_and(|known| known.severity <= severity),
            "{rule} is no such rule"
        );
        self.findings.push(Finding {
            rule,
            severity,
            part: part.clone(),
            path,
            message: message.into(),
            help: help.into(),
        });
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! A small sound image, and one line to lint a change of it.

    use crate::{Container, Finding, HostFacts, Modules, Report, Subject, lint};
    use ashlar_tree::{Metadata, Node, Tree};

    pub const TIME: i64 = 1_700_000_000;
    pub const OS_RELEASE: &str =
        "NAME=Ashlar\nID=ashlar\nPRETTY_NAME=\"Ashlar test\"\nVERSION_ID=1\nIMAGE_ID=test\nIMAGE_VERSION=1\n";
    pub const PREFIX: &str = "/usr/lib/ashlar/containers/web/rootfs";

    /// A kernel's configuration with all that an image with containers needs.
    pub const CONFIG: &str = "\
CONFIG_BLK_DEV_INITRD=y
CONFIG_DEVTMPFS=y
CONFIG_TMPFS=y
CONFIG_EFI_STUB=y
CONFIG_EFIVAR_FS=y
CONFIG_EROFS_FS=y
CONFIG_BLK_DEV_DM=y
CONFIG_DM_VERITY=y
CONFIG_TCG_TPM=y
CONFIG_TCG_TIS=y
CONFIG_TCG_CRB=y
CONFIG_SECURITY_LOCKDOWN_LSM=y
CONFIG_LSM=\"landlock,lockdown,yama\"
CONFIG_MODULE_SIG=y
CONFIG_DM_CRYPT=y
CONFIG_WATCHDOG=y
CONFIG_NAMESPACES=y
CONFIG_PID_NS=y
CONFIG_NET_NS=y
CONFIG_UTS_NS=y
CONFIG_IPC_NS=y
CONFIG_CGROUPS=y
CONFIG_SECCOMP_FILTER=y
CONFIG_MEMCG=y
CONFIG_CGROUP_PIDS=y
CONFIG_CFS_BANDWIDTH=y
CONFIG_CGROUP_BPF=y
CONFIG_OVERLAY_FS=y
CONFIG_IA32_EMULATION=y
";

    pub fn meta(mode: u32) -> Metadata {
        Metadata::root(mode, TIME)
    }

    /// A root with accounts and os-release, and the container `web` with accounts. Nothing is to be found in it.
    pub fn tree() -> Tree {
        let mut tree = Tree::new(meta(0o755));
        for prefix in ["", PREFIX] {
            put(
                &mut tree,
                &format!("{prefix}/etc/passwd"),
                0o644,
                "root:x:0:0:root:/root:/usr/sbin/nologin\n",
            );
            put(&mut tree, &format!("{prefix}/etc/group"), 0o644, "root:x:0:\n");
        }
        put(&mut tree, "/usr/lib/os-release", 0o644, OS_RELEASE);
        tree.insert(b"/etc/os-release", Node::symlink(meta(0o777), "../usr/lib/os-release")).unwrap();
        tree
    }

    pub fn put(tree: &mut Tree, path: &str, mode: u32, content: impl AsRef<[u8]>) {
        tree.insert(path.as_bytes(), Node::file(meta(mode), content.as_ref())).unwrap();
    }

    pub fn subject(tree: &Tree) -> Subject<'_> {
        Subject {
            tree,
            containers: &[Container { name: "web", prefix: PREFIX }],
            os_release: OS_RELEASE,
            kernel_config: Some(CONFIG),
            kernel_version: "6.12.0",
            modules: Modules::default(),
            cmdline: "lockdown=integrity",
            compression: crate::Compression::None,
            sizes: None,
            host: HostFacts::default(),
            certificates: &[],
            own_files: &[],
            build_time: TIME,
        }
    }

    pub fn report(tree: &Tree) -> Report {
        lint(&subject(tree), &[]).unwrap()
    }

    /// The findings of one rule, as `PART PATH: MESSAGE`.
    pub fn of_rule(report: &Report, rule: &str) -> Vec<String> {
        let shown = |f: &Finding| format!("{} {}: {}", f.part, f.path.as_deref().unwrap_or("-"), f.message);
        report.findings.iter().filter(|f| f.rule == rule).map(shown).collect()
    }

    #[test]
    fn nothing_is_found_in_a_sound_image() {
        let report = report(&tree());
        assert!(report.findings.is_empty(), "{}", report.text());
    }
}
