//! Allowances from the recipe to the report, as the main program uses them.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_lint::{Allow, Compression, Container, HostFacts, Modules, Part, Report, Subject, lint};
use ashlar_tree::{Metadata, Node, Tree};

fn run(allow: &[Allow]) -> Report {
    let mut tree = Tree::new(Metadata::root(0o755, 0));
    let prefix = "/usr/lib/ashlar/containers/web/rootfs";
    for path in ["/usr/bin/su", "/usr/bin/mount", &format!("{prefix}/usr/bin/su")] {
        tree.insert(path.as_bytes(), Node::file(Metadata::root(0o4755, 0), *b"")).unwrap();
    }
    let subject = Subject {
        tree: &tree,
        containers: &[Container { name: "web", prefix }],
        os_release: "",
        kernel_config: None,
        kernel_version: "",
        modules: Modules::default(),
        cmdline: "",
        compression: Compression::None,
        sizes: None,
        host: HostFacts::default(),
        certificates: &[],
        own_files: &[],
        build_time: 0,
    };
    lint(&subject, allow).unwrap()
}

fn allow(path: Option<&str>, part: Option<&str>) -> Allow {
    Allow {
        rule: "setuid".into(),
        path: path.map(Into::into),
        part: part.map(Into::into),
        reason: "the rescue console needs it".into(),
    }
}

/// Findings of setuid that are left, that are allowed, and of allowances that were of no use.
fn counts(allows: &[Allow]) -> (usize, usize, usize) {
    let report = run(allows);
    let left = |rule| report.findings.iter().filter(|f| f.rule == rule).count();
    (left("setuid"), report.allowed.len(), left("unused-allow"))
}

#[test]
fn by_rule_path_and_part() {
    assert_eq!(counts(&[]), (3, 0, 0));
    assert_eq!(counts(&[allow(None, None)]), (0, 3, 0));
    assert_eq!(counts(&[allow(Some("/usr/bin/su"), None)]), (1, 2, 0), "in the root and in the container");
    assert_eq!(counts(&[allow(Some("/usr/bin/su"), Some("root"))]), (2, 1, 0));
    assert_eq!(counts(&[allow(Some("/usr/bin/*"), Some("container web"))]), (2, 1, 0));
    let whole = "/usr/lib/ashlar/containers/web/rootfs/usr/bin/su";
    assert_eq!(counts(&[allow(Some(whole), None)]), (2, 1, 0), "by its path in the whole tree");
    assert_eq!(counts(&[allow(Some("/usr/bin/sudo"), None)]), (3, 0, 1));
    assert_eq!(counts(&[allow(None, Some("container db"))]), (3, 0, 1));
    // Both cover something, so neither is unused.
    assert_eq!(counts(&[allow(Some("/usr/bin/su"), None), allow(Some("**/su"), None)]), (1, 2, 0));
}

#[test]
fn an_allowance_that_found_nothing_is_a_warning_with_its_rule_and_path() {
    let report = run(&[allow(Some("/usr/bin/sudo"), None)]);
    let unused = report.findings.iter().find(|f| f.rule == "unused-allow").unwrap();
    assert_eq!(unused.part, Part::Image);
    assert!(unused.message.contains("allows `setuid` at `/usr/bin/sudo`"), "{}", unused.message);
}

#[test]
fn the_report_is_the_same_every_time() {
    let allows = [allow(Some("/usr/bin/su"), None)];
    let first = serde_json::to_string(&run(&allows)).unwrap();
    for _ in 0..20 {
        assert_eq!(serde_json::to_string(&run(&allows)).unwrap(), first);
    }
}
