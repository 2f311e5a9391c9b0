//! What should not be in an image is found before anything is signed.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_tests::tools::judge;
use ashlar_tests::{Case, Run, built};
use serde_json::Value;

/// The lint has found an error.
const FINDING: i32 = 7;
/// An argument or the recipe is wrong.
const INPUT: i32 = 2;

const WRONG: &str = r#"
[[file]]
path = "/etc/ssl/private/host.key"
source = "host.key"

[[file]]
path = "/usr/bin/give-me-root"
content = "x"
mode = "4755"

[[file]]
path = "/etc/anyone"
content = "x"
mode = "0666"

[[symlink]]
path = "/etc/nowhere"
target = "/nonexistent/file"
"#;

/// What each of them breaks, and where.
const BROKEN: [(&str, &str, &str); 4] = [
    ("private-key", "error", "/etc/ssl/private/host.key"),
    ("setuid", "error", "/usr/bin/give-me-root"),
    ("world-writable", "error", "/etc/anyone"),
    ("dangling-link", "warning", "/etc/nowhere"),
];

/// A recipe with all of them.
fn wrong() -> Option<Case> {
    let built = built()?;
    let case = Case::of(built);
    let mut openssl = judge("openssl", "openssl")?;
    openssl.args(["genpkey", "-algorithm", "ed25519", "-out", "host.key"]).current_dir(case.path(""));
    let _ = Run::of(&mut openssl).ok();
    case.add(WRONG);
    Some(case)
}

#[test]
fn each_finding_is_named_and_nothing_is_signed() {
    let Some(case) = wrong() else { return };
    for arguments in [&["--locked"][..], &["--locked", "--unsigned"]] {
        let run = case.build(arguments);
        assert_eq!(run.code, Some(FINDING), "{run}");
        for (rule, severity, path) in BROKEN {
            let text = run.error_text();
            assert!(text.contains(&format!("{severity}[{rule}]")) && text.contains(path), "{rule}: {run}");
        }
        assert!(run.error_text().contains("nothing was signed"), "{run}");
        let left: Vec<_> =
            std::fs::read_dir(case.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 3, "something was left behind: {left:?}");
    }
    let run = Run::of(&mut case.ashlar(&["lint", "recipe.toml", "--offline", "--locked"]));
    assert_eq!(run.code, Some(FINDING), "{run}");
    for (rule, severity, path) in BROKEN {
        assert!(run.stdout.contains(&format!("{severity}[{rule}]")) && run.stdout.contains(path), "{run}");
    }
    let run = Run::of(&mut case.ashlar(&["lint", "recipe.toml", "--offline", "--locked", "--json"]));
    assert_eq!(run.code, Some(FINDING), "{run}");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["errors"], &report["warnings"]), (&Value::from(3), &Value::from(1)), "{report}");
    for (rule, _, path) in BROKEN {
        let of_rule = |finding: &&Value| finding["rule"] == rule && finding["path"] == path;
        assert!(report["findings"].as_array().unwrap().iter().any(|f| of_rule(&f)), "{rule}: {report}");
    }
}

#[test]
fn what_is_meant_is_allowed_with_the_reason() {
    let Some(case) = wrong() else { return };
    for (rule, _, path) in BROKEN {
        case.add(&format!(
            "[[lint.allow]]\nrule = \"{rule}\"\npath = \"{path}\"\nreason = \"a test means it\"\n"
        ));
    }
    let run = case.build(&["--locked", "--json"]).ok();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!((&report["lint"]["errors"], &report["lint"]["warnings"]), (&Value::from(0), &Value::from(0)));
    assert!(case.path("out/release.json").is_file());
    let _ = Run::of(&mut case.ashlar(&["lint", "recipe.toml", "--offline", "--locked"])).ok();

    // Allowed elsewhere is not allowed here; a rule that is none is told with the nearest; a reason must be given.
    let case = wrong().unwrap();
    case.add("[[lint.allow]]\nrule = \"setuid\"\npath = \"/usr/sbin/*\"\nreason = \"another place\"\n");
    let run = case.build(&["--locked"]);
    assert_eq!(run.code, Some(FINDING), "{run}");
    assert!(run.error_text().contains("error[setuid]"), "{run}");
    let case = wrong().unwrap();
    case.add("[[lint.allow]]\nrule = \"setuit\"\nreason = \"a slip\"\n");
    let run = case.build(&["--locked"]);
    assert_eq!(run.code, Some(INPUT), "{run}");
    assert!(run.error_text().contains("`setuid`"), "{run}");
    let case = wrong().unwrap();
    case.add("[[lint.allow]]\nrule = \"setuid\"\n");
    let run = case.build(&["--locked"]);
    assert_eq!(run.code, Some(INPUT), "{run}");
    assert!(run.error_text().contains("reason"), "{run}");
}

#[test]
fn the_example_has_no_error() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    let run = Run::of(&mut case.ashlar(&["lint", "recipe.toml", "--offline", "--locked"])).ok();
    assert!(run.stdout.contains("0 errors"), "{run}");
}

#[test]
fn every_rule_is_explained() {
    let ashlar = ashlar_tests::programs::ashlar;
    let run = Run::of(ashlar().args(["lint", "--rules", "--json"])).ok();
    let rules: Value = serde_json::from_str(&run.stdout).unwrap();
    let text = Run::of(ashlar().args(["lint", "--rules"])).ok().stdout;
    let rules = rules.as_array().unwrap();
    assert!(rules.len() >= 20, "{rules:?}");
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in {text}");
        let explained = Run::of(ashlar().args(["lint", "--explain", name])).ok().stdout;
        assert!(explained.contains(rule["summary"].as_str().unwrap()), "{explained}");
        assert!(explained.contains("[[lint.allow]]") && explained.contains("reason"), "{explained}");
    }
    let run = Run::of(ashlar().args(["lint", "--explain", "setuit"]));
    assert_eq!(run.code, Some(INPUT), "{run}");
    assert!(run.error_text().contains("setuid"), "{run}");
    let run = Run::of(ashlar().arg("lint"));
    assert!(run.code == Some(0) || run.code == Some(INPUT), "{run}");
}
