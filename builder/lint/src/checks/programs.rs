//! Programs that cannot start: no interpreter, a library missing, another machine.

use super::Context;
use super::elf::{Kind, machine_name};
use crate::parts::{Lookup, PartView};
use crate::report::Severity::{Error, Warning};
use ashlar_tree::Kind as NodeKind;
use object::elf::{EM_386, EM_BPF, EM_X86_64};
use std::collections::HashSet;

/// Where `env` looks when nobody says otherwise.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Folders with scripts that nobody starts in a finished image: examples, and hooks and maintainer scripts of tools that
/// build or change systems.
const NOT_STARTED: [&[u8]; 6] = [
    b"/usr/share/doc/",
    b"/usr/share/bug/",
    b"/usr/share/lintian/",
    b"/usr/share/initramfs-tools/",
    b"/usr/lib/dracut/",
    b"/var/lib/dpkg/info/",
];

pub(crate) fn check(context: &mut Context<'_, '_>) {
    let config = context.subject.kernel_config.map(super::kernel::Config::parse);
    let runs_32_bit = config.is_none_or(|config| config.is_built_in("IA32_EMULATION"));
    let mut found = Vec::new();
    for (number, part) in context.parts.iter().enumerate() {
        // Names that a library can be found by: of files and links, and those that libraries say of themselves.
        let mut names: HashSet<&[u8]> = part
            .entries
            .iter()
            .filter(|entry| !matches!(entry.node.kind, NodeKind::Directory(_)))
            .filter_map(|entry| entry.path.rsplit(|&b| b == b'/').next())
            .collect();
        for (_, facts) in context.contents.of_part(number, part) {
            names.extend(facts.elf.iter().filter_map(|elf| elf.soname.as_deref()).map(str::as_bytes));
        }
        for (entry, facts) in context.contents.of_part(number, part) {
            let executable = entry.node.metadata.mode & 0o111 != 0;
            let mut add = |rule, message: String, help: &'static str| {
                found.push((rule, part.part.clone(), entry.shown(), message, help));
            };
            let started = executable && !NOT_STARTED.iter().any(|folder| entry.path.starts_with(folder));
            if let Some(line) = facts.script.as_ref().filter(|_| started)
                && let Some(missing) = missing_interpreter(part, line)
            {
                let message = format!("its interpreter `{missing}` is not here");
                add(
                    ("missing-interpreter", Warning),
                    message,
                    "add the interpreter's package, or remove the script",
                );
            }
            let Some(elf) = &facts.elf else { continue };
            if !matches!(elf.kind, Kind::Program | Kind::Library) {
                continue;
            }
            let name = entry.path.rsplit(|&b| b == b'/').next().unwrap_or_default();
            let is_library = memchr::memmem::find(name, b".so").is_some();
            let ours = elf.machine == EM_X86_64.0 || (elf.machine == EM_386.0 && runs_32_bit);
            if !ours {
                let firmware = memchr::memmem::find(&entry.path, b"/firmware/").is_some();
                if elf.machine != EM_BPF.0 && !firmware && (executable || is_library) {
                    let message = format!("it is for {}, the image is for x86-64", machine_name(elf.machine));
                    add(("wrong-architecture", Error), message, "take the file, package or image for amd64");
                }
                continue;
            }
            if let Some(interpreter) =
                elf.interpreter.as_ref().filter(|_| executable && elf.kind == Kind::Program)
                && part.get(interpreter).is_none()
            {
                let message = format!("its loader `{interpreter}` is not here: it cannot be started");
                add(("missing-interpreter", Error), message, "add the libc that it was built for");
            }
            let missing: Vec<&str> = elf
                .needed
                .iter()
                .filter(|needed| {
                    if needed.contains('/') {
                        return !needed.contains('$') && part.get(needed).is_none();
                    }
                    !names.contains(needed.as_bytes())
                })
                .map(String::as_str)
                .collect();
            if !missing.is_empty() {
                let severity = if executable && elf.kind == Kind::Program { Error } else { Warning };
                let message = format!("it needs {}, which is not here", listed(&missing));
                add(
                    ("missing-library", severity),
                    message,
                    "add the package that has the library, or remove the file",
                );
            }
        }
    }
    for (rule, part, path, message, help) in found {
        context.add(rule, &part, Some(path), message, help);
    }
}

fn listed(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// The interpreter of a script that is not there. The line is what follows `#!`.
fn missing_interpreter<'l>(part: &PartView<'_>, line: &'l str) -> Option<&'l str> {
    let mut words = line.split_ascii_whitespace();
    let interpreter = words.next()?;
    // A template's placeholder or a relative path cannot be judged.
    if !interpreter.starts_with('/') || interpreter.contains(['@', '{', '$', '%']) {
        return None;
    }
    if !matches!(part.follow(b"/", interpreter.as_bytes()), Lookup::Found(..)) {
        return Some(interpreter);
    }
    if !interpreter.ends_with("/env") {
        return None;
    }
    let program = words.find(|word| !word.starts_with('-') && !word.contains('='))?;
    if program.contains('/') {
        return part.get(program).is_none().then_some(program);
    }
    PATH.iter().all(|folder| part.get(&format!("{folder}/{program}")).is_none()).then_some(program)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PREFIX, meta, of_rule, put, report, subject, tree};
    use crate::lint;
    use ashlar_tree::Node;

    /// An ELF file of 64 bits with an interpreter, needed libraries and a name: headers and one segment of strings.
    fn elf(
        machine: u16,
        e_type: u16,
        interpreter: Option<&str>,
        needed: &[&str],
        soname: Option<&str>,
    ) -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut place = |text: &str| {
            let at = strings.len() as u64;
            strings.extend(text.as_bytes());
            strings.push(0);
            at
        };
        let mut dynamic: Vec<(u64, u64)> = needed.iter().map(|name| (1, place(name))).collect();
        dynamic.extend(soname.map(|name| (14, place(name))));
        let interpreter = interpreter.map(|path| (place(path), path.len() as u64 + 1));
        let segments: u64 = 2 + u64::from(interpreter.is_some());
        let strings_at = 64 + segments * 56;
        let base = 0x40_0000;
        dynamic.extend([(5, base + strings_at), (10, strings.len() as u64), (0, 0)]);
        let dynamic_at = strings_at + strings.len() as u64;
        let end = dynamic_at + dynamic.len() as u64 * 16;

        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(16, 0);
        out.extend(e_type.to_le_bytes());
        out.extend(machine.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        for value in [0u64, 64, 0] {
            out.extend(value.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        for value in [64u16, 56, segments as u16, 0, 0, 0] {
            out.extend(value.to_le_bytes());
        }
        let mut segment = |p_type: u32, offset: u64, len: u64| {
            out.extend(p_type.to_le_bytes());
            out.extend(4u32.to_le_bytes());
            for value in [offset, base + offset, base + offset, len, len, 8] {
                out.extend(value.to_le_bytes());
            }
        };
        if let Some((at, len)) = interpreter {
            segment(3, strings_at + at, len);
        }
        segment(1, 0, end);
        segment(2, dynamic_at, dynamic.len() as u64 * 16);
        out.extend(strings);
        for (tag, value) in dynamic {
            out.extend(tag.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        out
    }

    const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
    const X86_64: u16 = 62;

    #[test]
    fn loaders_and_libraries_are_looked_for_in_their_own_root() {
        let mut tree = tree();
        let program = elf(X86_64, 3, Some(LOADER), &["libc.so.6", "libx.so.1"], None);
        put(&mut tree, "/usr/bin/app", 0o755, &program);
        put(&mut tree, &format!("{PREFIX}/usr/bin/app"), 0o755, &program);
        put(&mut tree, "/usr/lib64/ld-linux-x86-64.so.2", 0o755, elf(X86_64, 3, None, &[], None));
        tree.insert(b"/lib64", Node::symlink(meta(0o777), "usr/lib64")).unwrap();
        put(&mut tree, "/usr/lib/libc.so.6", 0o644, elf(X86_64, 3, None, &[], Some("libc.so.6")));
        // Found by what the library says of itself.
        put(&mut tree, "/opt/x/libx-1.2.so", 0o644, elf(X86_64, 3, None, &[], Some("libx.so.1")));
        let report = report(&tree);
        assert_eq!(
            of_rule(&report, "missing-interpreter"),
            [format!("container web /usr/bin/app: its loader `{LOADER}` is not here: it cannot be started")]
        );
        assert_eq!(
            of_rule(&report, "missing-library"),
            ["container web /usr/bin/app: it needs `libc.so.6`, `libx.so.1`, which is not here"]
        );
    }

    #[test]
    fn a_library_is_a_warning_and_a_program_an_error() {
        let mut tree = tree();
        put(&mut tree, "/usr/lib/p.so", 0o644, elf(X86_64, 3, None, &["libgone.so"], None));
        let report = report(&tree);
        assert_eq!((report.errors, report.warnings), (0, 1), "{}", report.text());
    }

    #[test]
    fn scripts() {
        let mut tree = tree();
        for (path, mode, line) in [
            ("/usr/bin/a", 0o755, "#!/bin/sh\n"),
            ("/usr/bin/b", 0o755, "#! /usr/bin/env python3\n"),
            ("/usr/bin/c", 0o755, "#!/usr/bin/env -S perl -w\n"),
            ("/usr/bin/d", 0o644, "#!/bin/gone\n"),
            ("/usr/bin/e", 0o755, "#!@PERL@\n"),
            ("/usr/bin/f", 0o755, "#!/usr/bin/perl -w\n"),
            ("/usr/share/doc/x/examples/g", 0o755, "#!/bin/gone\n"),
        ] {
            put(&mut tree, path, mode, line);
        }
        put(&mut tree, "/usr/bin/env", 0o755, "");
        put(&mut tree, "/usr/bin/perl", 0o755, "");
        assert_eq!(
            of_rule(&report(&tree), "missing-interpreter"),
            [
                "root /usr/bin/a: its interpreter `/bin/sh` is not here",
                "root /usr/bin/b: its interpreter `python3` is not here",
            ]
        );
    }

    #[test]
    fn other_machines() {
        let mut tree = tree();
        let arm = elf(183, 2, None, &["libc.so.6"], None);
        put(&mut tree, "/usr/bin/arm", 0o755, &arm);
        put(&mut tree, "/usr/lib/firmware/blob.elf", 0o755, &arm);
        put(&mut tree, "/usr/share/data.elf", 0o644, &arm);
        put(&mut tree, "/usr/lib/x.o", 0o755, elf(183, 1, None, &[], None));
        put(&mut tree, "/usr/bin/i386", 0o755, elf(3, 2, None, &[], None));
        let expected = "root /usr/bin/arm: it is for 64-bit ARM, the image is for x86-64";
        assert_eq!(of_rule(&report(&tree), "wrong-architecture"), [expected]);
        let mut subject = subject(&tree);
        subject.kernel_config = Some("# CONFIG_IA32_EMULATION is not set\n");
        let found = of_rule(&lint(&subject, &[]).unwrap(), "wrong-architecture");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].contains("/usr/bin/i386: it is for 32-bit x86"), "{found:?}");
    }
}
