//! The kernel's configuration against what the image needs of it.

use super::Context;
use crate::report::Part;
use crate::report::Severity::{self, Error, Note, Warning};
use crate::subject::{Compression, Module};
use std::collections::BTreeMap;

/// A kernel's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config<'a> {
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Config<'a> {
    /// Reads the text of a `.config` or `/boot/config-VERSION`: `CONFIG_NAME=value`; everything else means "not set".
    pub fn parse(text: &'a str) -> Self {
        let options = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("CONFIG_")?.split_once('='))
            .map(|(name, value)| (name, value.trim_matches('"')))
            .collect();
        Self { options }
    }

    /// The value of an option (without `CONFIG_`): `y`, `m`, a number or a text without its quotes.
    pub fn get(&self, option: &str) -> Option<&'a str> {
        self.options.get(option).copied()
    }

    /// Whether the option is `y`.
    pub fn is_built_in(&self, option: &str) -> bool {
        self.get(option) == Some("y")
    }
}

/// What makes up for an option that is `m`.
enum Loaded {
    /// Nothing: it must be `y`.
    No,
    /// This module in the initramfs.
    Initramfs(&'static str),
    /// It being there is enough; something else loads it when it is wanted.
    Somewhere,
}

struct Needed {
    option: &'static str,
    module: Loaded,
    severity: Severity,
    why: &'static str,
}

const fn needed(option: &'static str, module: Loaded, severity: Severity, why: &'static str) -> Needed {
    Needed { option, module, severity, why }
}

/// What every image needs.
const ALWAYS: &[Needed] = &[
    needed("BLK_DEV_INITRD", Loaded::No, Error, "init starts from the initramfs"),
    needed("DEVTMPFS", Loaded::No, Error, "init finds the disks in /dev"),
    needed("TMPFS", Loaded::No, Error, "/run and /tmp are in memory"),
    needed("EFI_STUB", Loaded::No, Error, "the firmware starts the kernel itself"),
    needed("EFIVAR_FS", Loaded::Initramfs("efivarfs"), Error, "init reads from which disk it was started"),
    needed("EROFS_FS", Loaded::Initramfs("erofs"), Error, "the root is erofs"),
    needed("BLK_DEV_DM", Loaded::Initramfs("dm_mod"), Error, "the root is behind dm-verity"),
    needed("DM_VERITY", Loaded::Initramfs("dm_verity"), Error, "the root is behind dm-verity"),
    needed("TCG_TPM", Loaded::Initramfs("tpm"), Error, "every start is measured"),
    needed(
        "SECURITY_LOCKDOWN_LSM",
        Loaded::No,
        Error,
        "without lockdown, root can change the running kernel",
    ),
    needed("MODULE_SIG", Loaded::No, Error, "without signatures, root can load any module"),
    needed("DM_CRYPT", Loaded::Somewhere, Warning, "the state volume is encrypted"),
    needed("WATCHDOG", Loaded::Somewhere, Warning, "a machine that hangs should start again by itself"),
];

/// What containers need beside.
const CONTAINERS: &[Needed] = &[
    needed("NAMESPACES", Loaded::No, Error, "containers are namespaces"),
    needed("PID_NS", Loaded::No, Error, "each container sees its own processes only"),
    needed("NET_NS", Loaded::No, Error, "containers have a network of their own"),
    needed("UTS_NS", Loaded::No, Error, "containers have a host name of their own"),
    needed("IPC_NS", Loaded::No, Error, "containers share no memory"),
    needed("CGROUPS", Loaded::No, Error, "containers are limited by control groups"),
    needed(
        "SECCOMP_FILTER",
        Loaded::No,
        Error,
        "containers are kept from system calls that they do not need",
    ),
    needed("MEMCG", Loaded::No, Warning, "`memory` of a container has no effect"),
    needed("CGROUP_PIDS", Loaded::No, Warning, "`pids` of a container has no effect"),
    needed("CFS_BANDWIDTH", Loaded::No, Warning, "`cpus` of a container has no effect"),
    needed("CGROUP_BPF", Loaded::No, Warning, "devices cannot be kept from containers"),
    needed("OVERLAY_FS", Loaded::Somewhere, Warning, "containers can write to a layer over their root"),
];

const RULE: &str = "kernel-config";

/// Names of modules, `-` and `_` being the same.
pub(super) fn normal(name: &str) -> String {
    name.replace('-', "_")
}

fn has(modules: &[Module], name: &str) -> bool {
    modules.iter().any(|module| normal(&module.name) == name)
}

pub(crate) fn check(context: &mut Context<'_, '_>) {
    let subject = context.subject;
    let Some(text) = subject.kernel_config else {
        let message =
            format!("the kernel package has no /boot/config-{}: nothing can be said", subject.kernel_version);
        let help = "look by hand whether it has erofs, dm-verity, TPM and lockdown";
        context.add((RULE, Note), &Part::Kernel, None, message, help);
        return;
    };
    let config = Config::parse(text);
    let mut wanted: Vec<&Needed> = ALWAYS.iter().collect();
    if !subject.containers.is_empty() {
        wanted.extend(CONTAINERS);
    }
    let mut extra = Vec::new();
    if subject.compression != Compression::None {
        extra.push(needed("EROFS_FS_ZIP", Loaded::No, Error, "the root is compressed"));
    }
    if subject.compression == Compression::Zstd {
        extra.push(needed(
            "EROFS_FS_ZIP_ZSTD",
            Loaded::No,
            Error,
            "the root is compressed with zstd (Linux 6.10)",
        ));
    }
    let attributes =
        || context.parts.iter().flat_map(|p| &p.entries).flat_map(|e| e.node.metadata.xattrs.keys());
    if attributes().next().is_some() {
        extra.push(needed(
            "EROFS_FS_XATTR",
            Loaded::No,
            Error,
            "files of the image have extended attributes",
        ));
    }
    if attributes().any(|name| name.starts_with(b"security.")) {
        extra.push(needed(
            "EROFS_FS_SECURITY",
            Loaded::No,
            Error,
            "files of the image have security attributes",
        ));
    }
    wanted.extend(&extra);

    let mut found: Vec<(Severity, String, String)> = Vec::new();
    for Needed { option, module, severity, why } in wanted {
        let (message, help) = match (config.get(option), module) {
            (Some("y"), _) | (Some("m"), Loaded::Somewhere) => continue,
            (Some("m"), Loaded::Initramfs(name)) if has(subject.modules.initramfs, name) => continue,
            (Some("m"), Loaded::Initramfs(name)) => (
                format!("CONFIG_{option} is a module, and `{name}` is not loaded by the initramfs: {why}"),
                format!("add \"{name}\" to `kernel.initramfs-modules`"),
            ),
            (Some("m"), Loaded::No) => (
                format!("CONFIG_{option} is a module and must be built in: {why}"),
                "choose a kernel package that has it built in".to_owned(),
            ),
            _ => (
                format!("CONFIG_{option} is not set: {why}"),
                "choose a kernel package that has it".to_owned(),
            ),
        };
        found.push((*severity, message, help));
    }
    tpm_interfaces(context, &config, &mut found);
    lockdown(context, &config, &mut found);
    for (severity, message, help) in found {
        context.add((RULE, severity), &Part::Kernel, None, message, help);
    }
}

/// A TPM is reached by one of two interfaces; a machine has either.
fn tpm_interfaces(
    context: &Context<'_, '_>,
    config: &Config<'_>,
    found: &mut Vec<(Severity, String, String)>,
) {
    let interfaces = [("TCG_TIS", "tpm_tis"), ("TCG_CRB", "tpm_crb")];
    let missing: Vec<_> = interfaces
        .iter()
        .filter(|(option, module)| match config.get(option) {
            Some("y") => false,
            Some("m") => !has(context.subject.modules.initramfs, module),
            _ => true,
        })
        .collect();
    let severity = if missing.len() == interfaces.len() { Error } else { Warning };
    for (option, module) in missing {
        found.push((
            severity,
            format!("CONFIG_{option} is not built in, and `{module}` is not loaded by the initramfs: TPMs with this interface are not found"),
            format!("add \"{module}\" to `kernel.initramfs-modules`"),
        ));
    }
}

/// Lockdown and forced signatures may come from the configuration, from Secure Boot or from the command line.
fn lockdown(context: &Context<'_, '_>, config: &Config<'_>, found: &mut Vec<(Severity, String, String)>) {
    let words: Vec<&str> = context.subject.cmdline.split_ascii_whitespace().collect();
    let asked = words.iter().any(|w| matches!(*w, "lockdown=integrity" | "lockdown=confidentiality"))
        || config.is_built_in("LOCK_DOWN_KERNEL_FORCE_INTEGRITY")
        || config.is_built_in("LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY");
    if !config.is_built_in("SECURITY_LOCKDOWN_LSM") {
        return;
    }
    let listed = |list: &str| list.split(',').any(|name| name == "lockdown");
    let on_command_line = words.iter().rev().find_map(|word| word.strip_prefix("lsm="));
    let active = config.is_built_in("SECURITY_LOCKDOWN_LSM_EARLY")
        || on_command_line.or_else(|| config.get("LSM")).is_some_and(listed);
    if !active {
        found.push((
            Error,
            "lockdown is not among the security modules that are started (CONFIG_LSM, `lsm=`)".into(),
            "add `lockdown` to `lsm=` on the kernel's command line".into(),
        ));
    }
    if !asked {
        let message = if config.is_built_in("LOCK_DOWN_IN_EFI_SECURE_BOOT") {
            "the kernel is locked down only where the firmware enforces Secure Boot"
        } else {
            "nothing locks the kernel down"
        };
        found.push((Warning, message.into(), "add `lockdown=integrity` to `kernel.cmdline`".into()));
    }
    let forced = config.is_built_in("MODULE_SIG_FORCE")
        || words
            .iter()
            .any(|w| matches!(*w, "module.sig_enforce" | "module.sig_enforce=1" | "module.sig_enforce=y"));
    if !asked && !forced && config.is_built_in("MODULE_SIG") {
        found.push((
            Warning,
            "modules without a signature are loaded where the kernel is not locked down".into(),
            "add `lockdown=integrity` or `module.sig_enforce=1` to `kernel.cmdline`".into(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{CONFIG, of_rule, subject, tree};
    use super::*;
    use crate::{Modules, Subject, lint};

    fn found(subject: &Subject<'_>) -> Vec<String> {
        of_rule(&lint(subject, &[]).unwrap(), RULE)
    }

    fn with(from: &str, to: &str) -> Vec<String> {
        let tree = tree();
        let config = CONFIG.replace(from, to);
        assert_ne!(config, CONFIG);
        found(&Subject { kernel_config: Some(&config), ..subject(&tree) })
    }

    fn module(name: &str) -> Module {
        Module { name: name.into(), depends: Vec::new() }
    }

    #[test]
    fn each_option_is_missed() {
        for needed in ALWAYS.iter().chain(CONTAINERS) {
            let line = format!("CONFIG_{}=y\n", needed.option);
            let found = with(&line, &format!("# CONFIG_{} is not set\n", needed.option));
            let expected = format!("kernel -: CONFIG_{} is not set: {}", needed.option, needed.why);
            assert!(found.contains(&expected), "{expected}: {found:?}");
        }
    }

    #[test]
    fn a_module_counts_where_it_is_loaded() {
        let as_module = CONFIG.replace("CONFIG_EROFS_FS=y", "CONFIG_EROFS_FS=m");
        let tree = tree();
        let mut subject = Subject { kernel_config: Some(&as_module), ..subject(&tree) };
        let modules = [module("erofs")];
        subject.modules = Modules { root: &modules, ..Modules::default() };
        let missed = found(&subject);
        assert!(
            missed.len() == 1 && missed[0].contains("`erofs` is not loaded by the initramfs"),
            "{missed:?}"
        );
        subject.modules = Modules { initramfs: &modules, ..Modules::default() };
        assert!(found(&subject).is_empty());
        assert_eq!(with("CONFIG_EFI_STUB=y", "CONFIG_EFI_STUB=m").len(), 1, "a boolean cannot be a module");
        assert!(with("CONFIG_DM_CRYPT=y", "CONFIG_DM_CRYPT=m").is_empty());
    }

    #[test]
    fn what_depends_on_the_image() {
        let mut tree = tree();
        let mut subject = subject(&tree);
        subject.compression = Compression::Lz4;
        assert_eq!(found(&subject), ["kernel -: CONFIG_EROFS_FS_ZIP is not set: the root is compressed"]);
        subject.compression = Compression::Zstd;
        let zip = format!("{CONFIG}CONFIG_EROFS_FS_ZIP=y\n");
        subject.kernel_config = Some(&zip);
        let missed = found(&subject);
        assert!(missed.len() == 1 && missed[0].contains("EROFS_FS_ZIP_ZSTD"), "{missed:?}");

        let node = tree.get_mut(b"/etc/passwd").unwrap();
        node.metadata.xattrs.insert(b"security.selinux".to_vec(), b"x".to_vec());
        let missed = found(&super::super::testing::subject(&tree));
        assert_eq!(missed.len(), 2, "{missed:?}");

        // Without containers, nobody needs what they need.
        let bare = super::super::testing::tree();
        let config = CONFIG.replace("CONFIG_MEMCG=y\n", "");
        let mut subject = super::super::testing::subject(&bare);
        subject.kernel_config = Some(&config);
        assert_eq!(found(&subject).len(), 1);
        subject.containers = &[];
        assert!(found(&subject).is_empty());
    }

    #[test]
    fn lockdown_and_interfaces_of_the_tpm() {
        let tree = tree();
        let mut subject = subject(&tree);
        subject.cmdline = "quiet";
        let missed = found(&subject);
        assert_eq!(missed.len(), 2, "{missed:?}");
        subject.cmdline = "lockdown=none module.sig_enforce=1";
        assert_eq!(found(&subject), ["kernel -: nothing locks the kernel down"]);
        subject.cmdline = "lockdown=integrity lsm=apparmor";
        let missed = found(&subject);
        assert!(missed.len() == 1 && missed[0].contains("not among the security modules"), "{missed:?}");

        let one = with("CONFIG_TCG_TIS=y\n", "CONFIG_TCG_TIS=m\n");
        assert!(one.len() == 1 && one[0].contains("tpm_tis"), "{one:?}");
        let both = CONFIG.replace("CONFIG_TCG_TIS=y\n", "").replace("CONFIG_TCG_CRB=y\n", "");
        let subject = Subject { kernel_config: Some(&both), ..super::super::testing::subject(&tree) };
        let report = lint(&subject, &[]).unwrap();
        assert_eq!(report.errors, 2, "{}", report.text());
    }

    #[test]
    fn without_a_configuration_there_is_a_note() {
        let tree = tree();
        let report = lint(&Subject { kernel_config: None, ..subject(&tree) }, &[]).unwrap();
        assert_eq!((report.errors, report.warnings, report.notes), (0, 0, 1));
    }
}
