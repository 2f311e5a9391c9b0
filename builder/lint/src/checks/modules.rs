//! Modules whose dependencies are not loaded before them.

use super::Context;
use super::kernel::normal;
use crate::report::Part;
use crate::report::Severity::Error;
use std::collections::BTreeSet;

/// The name of a module from a line of `modules.builtin` or a bare name.
fn module_name(text: &str) -> String {
    let file = text.rsplit('/').next().unwrap_or(text);
    normal(file.split_once(".ko").map_or(file, |(name, _)| name))
}

pub(crate) fn check(context: &mut Context<'_, '_>) {
    let modules = context.subject.modules;
    let built_in: BTreeSet<String> = modules.built_in.iter().map(|name| module_name(name)).collect();
    let mut loaded: BTreeSet<String> = BTreeSet::new();
    let mut found = Vec::new();
    for (list, place) in [(modules.initramfs, "the initramfs"), (modules.root, "the root")] {
        let all: BTreeSet<String> = list.iter().map(|module| normal(&module.name)).collect();
        for module in list {
            for dependency in module.depends.iter().map(|name| normal(name)) {
                if built_in.contains(&dependency) || loaded.contains(&dependency) {
                    continue;
                }
                let name = &module.name;
                found.push(if all.contains(&dependency) {
                    format!("`{name}` is loaded from {place} before `{dependency}`, which it needs")
                } else {
                    format!("`{name}` is loaded from {place} and needs `{dependency}`, which is not loaded or built in")
                });
            }
            loaded.insert(normal(&module.name));
        }
    }
    for message in found {
        let help = "put the needed module before it in the list";
        context.add(("module-without-dependency", Error), &Part::Kernel, None, message, help);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{of_rule, subject, tree};
    use crate::{Module, Modules, lint};

    fn module(name: &str, depends: &[&str]) -> Module {
        Module { name: name.into(), depends: depends.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn lists_in_their_order() {
        let tree = tree();
        let mut subject = subject(&tree);
        let initramfs = [
            module("dm-mod", &["dax"]),
            module("dm_verity", &["dm_mod", "dm_bufio"]),
            module("early", &["late"]),
            module("late", &[]),
        ];
        let root = [module("virtio_net", &["net_failover", "late"])];
        let built_in = ["kernel/drivers/dax/dax.ko".to_owned(), "x".into()];
        subject.modules = Modules { initramfs: &initramfs, root: &root, built_in: &built_in };
        assert_eq!(
            of_rule(&lint(&subject, &[]).unwrap(), "module-without-dependency"),
            [
                "kernel -: `dm_verity` is loaded from the initramfs and needs `dm_bufio`, which is not loaded or built in",
                "kernel -: `early` is loaded from the initramfs before `late`, which it needs",
                "kernel -: `virtio_net` is loaded from the root and needs `net_failover`, which is not loaded or built in",
            ]
        );
    }
}
