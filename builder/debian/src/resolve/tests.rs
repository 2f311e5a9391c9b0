//! From names to packages, on small lists.

use super::*;
use std::fmt::Write;

/// `name version; field: value; …`, one package a line.
fn index(packages: &str) -> Index {
    Index::from_lists(vec![list(packages)], "amd64")
}

fn list(packages: &str) -> String {
    let mut list = String::new();
    for line in packages.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut parts = line.split(';').map(str::trim);
        let (name, version) = parts.next().unwrap().split_once(' ').unwrap();
        write!(
            list,
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nSHA256: {}\nSize: 1\n\
             Filename: pool/{name}.deb\n",
            "0".repeat(64)
        )
        .unwrap();
        for field in parts {
            list += field;
            list.push('\n');
        }
        list.push('\n');
    }
    list
}

fn resolve(packages: &str, wanted: &str, excluded: &str) -> Result<String, String> {
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let locked =
        index(packages).resolve(&words(wanted), &words(excluded)).map_err(|error| error.to_string())?;
    let names: Vec<_> = locked.iter().map(|l| format!("{}={}", l.name, l.version)).collect();
    Ok(names.join(" "))
}

#[track_caller]
fn good(packages: &str, wanted: &str, excluded: &str, expected: &str) {
    assert_eq!(resolve(packages, wanted, excluded).unwrap(), expected);
}

#[track_caller]
fn bad(packages: &str, wanted: &str, excluded: &str, expected: &str) {
    assert_eq!(resolve(packages, wanted, excluded).unwrap_err(), expected);
}

#[test]
fn dependencies_and_versions() {
    good("a 1; Depends: b (>= 2), c\nb 1\nb 3\nb 2\nc 1; Pre-Depends: d\nd 1", "a", "", "a=1 b=3 c=1 d=1");
    good("a 1; Depends: b (<< 3)\nb 3\nb 2", "a", "", "a=1 b=2");
    good("a 1; Depends: b\nb 1; Depends: a", "b", "", "a=1 b=1");
    good("a 1; Recommends: b\nb 1", "a", "", "a=1");
}

#[test]
fn a_package_asked_for_by_its_name_is_that_package() {
    let packages = "box 1\nbox-static 2; Provides: box; Conflicts: box\na 1; Depends: box";
    good(packages, "box", "", "box=1");
    good(packages, "box-static a", "", "a=1 box-static=2");
    let error = resolve(packages, "box-static box", "").unwrap_err();
    assert!(error.contains("box-static 2 (asked for)") && error.contains("box 1 (asked for)"), "{error}");
}

#[test]
fn alternatives() {
    let packages = "a 1; Depends: b | c\nb 1\nc 1\nd 1; Depends: a, c\ne 1; Conflicts: b";
    good(packages, "a", "", "a=1 b=1");
    good(packages, "d", "", "a=1 c=1 d=1");
    good(packages, "a e", "", "a=1 c=1 e=1");
    good(packages, "a", "b", "a=1");
    good("a 1; Depends: gone | b\nb 1", "a", "", "a=1 b=1");
    // The first alternative leads nowhere two steps later and is taken back.
    good("a 1; Depends: b | c\nb 1; Depends: d\nd 1; Depends: gone\nc 1", "a", "", "a=1 c=1");
}

#[test]
fn virtual_packages() {
    let packages =
        "a 1; Depends: mta\nx 1; Provides: mta\nb 1; Depends: mta (>= 2)\ny 1; Provides: mta (= 3)";
    good(packages, "a", "", "a=1 x=1");
    good(packages, "b", "", "b=1 y=1");
    good(packages, "b a", "", "a=1 b=1 y=1");
    bad(packages, "mta", "", "`mta` is no package but provided by several; name one of them: x, y");
    good("x 1; Provides: only", "only", "", "x=1");
    bad(
        "b 1; Depends: mta (>= 4)\ny 1; Provides: mta (= 3)",
        "b",
        "",
        "b needs mta (>= 4), but nothing that provides mta fits or all of it is excluded",
    );
}

#[test]
fn architectures() {
    good("a 1; Depends: b:any, c:amd64, d [arm64]\nb 1\nc 1", "a", "", "a=1 b=1 c=1");
    bad("a 1; Depends: b:arm64\nb 1", "a", "", "a needs b:arm64, but the suite has b 1");
}

#[test]
fn exclusions_are_satisfied_and_never_chosen() {
    good("a 1; Depends: b (>= 9), v\nb 1\nc 1; Provides: v", "a", "b v", "a=1");
    bad("a 1; Depends: b", "a", "a", "package `a` is asked for and excluded at the same time");
}

#[test]
fn conflicts_name_both_and_who_wanted_them() {
    bad(
        "a 1; Depends: b\nb 1; Breaks: c (<< 2)\nc 1\nd 1; Depends: c",
        "a d",
        "",
        "c 1 (needed by d) and b 1 (needed by a) cannot be together in an image: b conflicts with or breaks c (<< 2)",
    );
    good("a 1; Breaks: c (<< 2)\nc 2", "a c", "", "a=1 c=2");
    // A package may conflict with a name that it provides itself.
    good("a 1; Provides: mta; Conflicts: mta", "a", "", "a=1");
    assert!(
        resolve("a 1; Provides: mta; Conflicts: mta\nb 1; Provides: mta; Conflicts: mta", "a b", "").is_err()
    );
}

#[test]
fn errors_say_what_led_there() {
    bad(
        "a 1; Depends: b\nb 1; Depends: c (>= 2)\nc 1",
        "a",
        "",
        "a -> b needs c (>= 2), but the suite has c 1",
    );
    bad("a 1; Depends: x | y", "a", "", "a needs x | y, but the suite has no x, the suite has no y");
    bad(
        "containerd 1\ncontainers-common 1\nzsh 1",
        "contanerd",
        "",
        "there is no package `contanerd` in the suite; near to it: containerd, containers-common",
    );
    bad("a 1; Depends: b ((", "a", "", {
        "the entry of package a in the package list cannot be used: `b ((` is not a relation to a package (in \
         `Depends`)"
    });
}

#[test]
fn many_choices_end() {
    // Each of 300 packages has a choice, and no other choice helps the last one: 2^300 ways are not tried.
    let mut packages = String::new();
    for at in 0..300 {
        writeln!(packages, "a{at} 1; Depends: x{at} | y{at}, a{}\nx{at} 1\ny{at} 1", at + 1).unwrap();
    }
    assert!(resolve(&format!("{packages}a300 1"), "a0", "").unwrap().starts_with("a0=1 a1=1 a10=1"));
    let error = resolve(
        &format!(
            "{packages}a300 1; Depends: p | q\np 1; Depends: gone\n\
        q 1; Breaks: a0"
        ),
        "a0",
        "",
    )
    .unwrap_err();
    assert!(error.ends_with("-> p needs gone, but the suite has no gone"), "{error}");
}

fn several(sources: &[(&str, i32, &str)], pins: &[crate::Pin]) -> Index {
    let loaded = sources.iter().map(|(name, priority, packages)| {
        crate::loader::Loaded::of_lists(name, *priority, vec![list(packages)])
    });
    Index::new(loaded.collect(), &[], pins, "amd64")
}

#[test]
fn several_suites_are_chosen_from_as_apt_does() {
    let sources = [
        ("trixie", 500, "a 1; Depends: b\nb 1\nc 1; Depends: b (>= 3)\nv 1; Provides: w"),
        ("trixie-security", 500, "b 1+deb13u1; Provides: w"),
        ("trixie-backports", 100, "b 3; Provides: w\nonly 1"),
    ];
    let resolve = |index: &Index, name: &str| -> Result<Vec<(String, String)>, String> {
        let locked = index.resolve(&[name.into()], &[]).map_err(|error| error.to_string())?;
        Ok(locked.into_iter().map(|l| (l.version, l.origin.into())).collect())
    };
    let pair = |version: &str, origin: &str| (version.to_owned(), origin.to_owned());
    let index = several(&sources, &[]);
    assert_eq!(resolve(&index, "a").unwrap(), [pair("1", "trixie"), pair("1+deb13u1", "trixie-security")]);
    // What only the low one has is taken from there.
    assert_eq!(resolve(&index, "only").unwrap(), [pair("1", "trixie-backports")]);
    assert_eq!(
        resolve(&index, "c").unwrap_err(),
        "c needs b (>= 3), but trixie-security has b 1+deb13u1 and trixie-backports has b 3 at priority 100, which is \
         too low; a pin can change that"
    );
    let pin = |to: &str, priority| crate::Pin {
        packages: vec!["b".into()],
        to: crate::PinTo::Suite(to.into()),
        priority,
    };
    let pinned = several(&sources, &[pin("trixie-backports", 600)]);
    assert_eq!(resolve(&pinned, "c").unwrap(), [pair("3", "trixie-backports"), pair("1", "trixie")]);
    let forbidden = several(&sources, &[pin("*", -1)]);
    assert!(resolve(&forbidden, "b").unwrap_err().contains("has b 3 at priority -1, which forbids it"));
    // A version that is no candidate provides nothing either.
    let error = resolve(&index, "w").unwrap_err();
    assert!(error.ends_with("name one of them: b, v"), "{error}");
}

#[test]
fn conflicts_between_suites_say_where_both_come_from() {
    let index = several(&[("one", 500, "a 1; Breaks: b (<< 2)"), ("two", 500, "b 1")], &[]);
    let error = index.resolve(&["a".into(), "b".into()], &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "b 1 from two (asked for) and a 1 from one (asked for) cannot be together in an image: a conflicts with or \
         breaks b (<< 2)"
    );
}

#[test]
fn entries_that_cannot_be_locked_are_refused() {
    for (field, value) in [("SHA256", "1"), ("Size", "-1"), ("Filename", "../x"), ("Filename", "/x")] {
        let list = format!(
            "Package: a\nVersion: 1\nArchitecture: all\n{field}: {value}\nSHA256: {}\nSize: 1\nFilename: p/a.deb\n",
            "0".repeat(64)
        );
        let error = Index::from_lists(vec![list], "amd64").resolve(&["a".into()], &[]).unwrap_err();
        assert!(matches!(error, Error::BadEntry { .. }), "{error}");
    }
}
