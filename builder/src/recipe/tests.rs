use super::*;

const GOOD: &str = "[image]\nid = \"a\"\nversion = \"1\"\n[kernel]\ninitramfs-modules = [\"erofs\"]\n";

fn shown(error: RecipeError) -> String {
    let report = miette::Report::new(error);
    let mut out = String::new();
    miette::NarratableReportHandler::new().render_report(&mut out, report.as_ref()).unwrap();
    out
}

fn error(text: &str) -> String {
    shown(Recipe::parse("image.toml", text).unwrap_err())
}

/// Files of a recipe in a folder of their own.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

#[test]
fn the_least_recipe_has_defaults() {
    let recipe = Recipe::parse("image.toml", GOOD).unwrap();
    assert_eq!(recipe.debian.suite, "trixie");
    assert_eq!(recipe.partitions.sizes(), Sizes::default());
    assert_eq!(recipe.kernel.package, "linux-image-amd64");
    assert_eq!(recipe.root.compression, Compression::Lz4);
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_the_nearest_key() {
    let text = GOOD.replace("initramfs-modules", "initramfs-module");
    let shown = error(&text);
    assert!(shown.contains("`initramfs-module`"), "{shown}");
    assert!(shown.contains("did you mean `initramfs-modules`"), "{shown}");
    assert!(shown.contains("line 5"), "{shown}");
    assert!(shown.contains("column 1"), "{shown}");
}

#[test]
fn values_are_checked() {
    assert!(error(&GOOD.replace("\"a\"", "\"A B\"")).contains("image.id `A B`"));
    let text = format!("{GOOD}[[container]]\nname = \"web\"\ncommand = [\"/x\"]\n");
    assert!(error(&text).contains("give either `packages` or `oci-layout`"));
    let text = format!("{GOOD}[partitions]\nesp = \"1000\"\n");
    assert!(error(&text).contains("esp"), "{}", error(&text));
    let text = format!("{GOOD}cmdline = \"quiet roothash=00\"\n");
    assert!(error(&text).contains("are written by the builder"));
    let text = format!("{GOOD}[root]\ncluster-size = \"5KiB\"\n");
    assert!(error(&text).contains("power of two"), "{}", error(&text));
    let text = format!("{GOOD}[root]\ncompression-level = 3\n");
    assert!(error(&text).contains("only `lz4hc` and `zstd` have levels"), "{}", error(&text));
}

/// A recipe with services of these keys, one after another.
fn services(keys: &[(&str, &str)]) -> String {
    let tables = keys.iter().map(|(name, keys)| format!("[service.{name}]\ncommand = [\"/x\"]\n{keys}\n"));
    format!("{GOOD}{}", tables.collect::<String>())
}

#[test]
fn services_say_what_they_need() {
    let text = services(&[
        (
            "db",
            "ready = \"notify\"\nwatchdog = 10\nstart-limit = { count = 5, interval = 60 }\nuser = \"app\"",
        ),
        (
            "web",
            "requires = [\"db\"]\nready = { tcp = 80 }\ncapabilities = [\"CAP_NET_BIND_SERVICE\"]\npids = 9",
        ),
        ("log", "after = [\"web\"]\nready = { file = \"/run/log/up\" }\nstop-timeout = 3\nopen-files = 64"),
    ]);
    let recipe = Recipe::parse("image.toml", &text).unwrap();
    let db = recipe.services["db"].manifest(Identity { uid: 7, gid: 8, groups: vec![9] });
    assert_eq!((db.uid, db.gid, db.groups.as_slice()), (7, 8, &[9][..]));
    assert_eq!(db.supervision.ready, ashlar_image::manifest::Readiness::Notify);
    assert_eq!((db.supervision.watchdog, db.supervision.start_timeout), (Some(10), 60));
    assert_eq!(db.supervision.start_limit.unwrap().count, 5);
    let web = recipe.services["web"].manifest(Identity::default());
    assert_eq!((web.supervision.requires.as_slice(), web.pids_max), (&["db".to_owned()][..], Some(9)));
    let log = recipe.services["log"].manifest(Identity::default());
    assert_eq!((log.supervision.stop_timeout, log.files_max), (3, Some(64)));
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let value = serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap();
    assert!(validator.is_valid(&value), "{:?}", validator.iter_errors(&value).next());
}

#[test]
fn what_services_cannot_need_is_refused_with_the_reason() {
    for (keys, message) in [
        (
            &[("a", "after = [\"b\"]"), ("b", "requires = [\"c\"]"), ("c", "after = [\"b\"]")][..],
            "in a circle: b, c, b",
        ),
        (&[("a", "after = [\"a\"]")], "cannot wait for itself"),
        (&[("a", "requires = [\"gone\"]")], "waits for `gone`, which is no service"),
        (&[("a", "capabilities = [\"CAP_NET_BIND_SERVIC\"]")], "did you mean `CAP_NET_BIND_SERVICE`"),
        (&[("a", "pids = 0")], "`pids` is a number"),
        (&[("a", "open-files = 1")], "`open-files` is a number"),
        (&[("a", "watchdog = 0")], "`watchdog` is a number of seconds"),
        (&[("a", "start-limit = { count = 0, interval = 1 }")], "`start-limit` has a `count`"),
        (&[("a", "ready = { tcp = 0 }")], "is a port from 1"),
        (&[("a", "ready = { file = \"/etc/x\" }")], "below /run"),
        (&[("a", "ready = { file = \"/run/../etc/x\" }")], "below /run"),
        (&[("a", "ready = \"soon\"")], "soon"),
        (&[("a", "new-privileges = true")], "needs `system-calls = \"all\"`"),
        (&[("kernel", "")], "`kernel` cannot be a name"),
    ] {
        let shown = error(&services(keys));
        assert!(shown.contains(message), "{message}: {shown}");
    }
    let container = |keys: &str| {
        format!("{GOOD}[[container]]\nname = \"web\"\npackages = [\"nginx\"]\ncommand = [\"/x\"]\n{keys}\n")
    };
    assert!(error(&container("ready = { tcp = 80 }")).contains("needs `network = \"host\"`"));
    let twice = format!("{}[service.web]\ncommand = [\"/x\"]\n", container(""));
    assert!(error(&twice).contains("a container has the same name"), "{}", error(&twice));
    let debug = format!("{}[service.b]\ncommand = [\"/x\"]\nafter = [\"web\"]\n", container("debug = true"));
    assert!(error(&debug).contains("which is for debugging"), "{}", error(&debug));
    let hook = |keys: &str| container(&format!("start = \"on-request\"\n{keys}"));
    let waits = format!("{}[service.b]\ncommand = [\"/x\"]\nrequires = [\"web\"]\n", hook(""));
    assert!(error(&waits).contains("only started on request"), "{}", error(&waits));
    assert!(error(&hook("debug = true")).contains("either for debugging or"));
    assert!(error(&hook("restart = \"on-failure\"")).contains("each time once"));
    let hook = Recipe::parse("image.toml", &hook("restart = \"never\"")).unwrap();
    assert_eq!(hook.containers[0].start, ashlar_image::manifest::Start::OnRequest);
    assert!(Recipe::parse("image.toml", &container("debug = true\nready = { file = \"/run/up\" }")).is_ok());
}

#[test]
fn a_recipe_extends_others_and_the_last_word_wins() {
    let base = format!(
        "{GOOD}[root]\npackages = [\"crun\", \"tzdata\"]\n[[file]]\npath = \"/etc/motd\"\nsource = \"motd\"\n\
         [[container]]\nname = \"web\"\npackages = [\"nginx\"]\ncommand = [\"/a\", \"-b\"]\npids = 7\n"
    );
    let top = "extends = \"common/base.toml\"\n[image]\nversion = \"2\"\n[root]\npackages = [\"!tzdata\", \"curl\"]\n\
               [[container]]\nname = \"web\"\ncommand = [\"/c\"]\n[[file]]\npath = \"/etc/issue\"\ncontent = \"x\"\n";
    let dir = folder(&[("common/base.toml", &base), ("image.toml", top)]);
    let recipe = Recipe::load(&dir.path().join("image.toml"), &[]).unwrap();
    assert_eq!((recipe.image.id.as_str(), recipe.image.version.as_str()), ("a", "2"));
    assert_eq!(recipe.root.packages, ["crun", "curl"]);
    assert_eq!(recipe.containers.len(), 1);
    assert_eq!(recipe.containers[0].command, ["/c"]);
    assert_eq!(recipe.containers[0].pids, Some(7));
    assert_eq!(recipe.files.len(), 2);
    // A path means what it means in the file that it is written in.
    let source = recipe.files[0].source.as_ref().unwrap();
    assert_eq!(recipe.host_path(source), dir.path().join("common/motd"));
    assert_eq!(recipe.texts.files().count(), 2);
}

#[test]
fn an_error_in_an_extended_file_names_that_file_and_its_line() {
    let base = GOOD.replace("initramfs-modules", "initramfs-module");
    let dir = folder(&[("base.toml", &base), ("image.toml", "extends = [\"base.toml\"]\n\n\n\n\n\n\n")]);
    let shown = shown(Recipe::load(&dir.path().join("image.toml"), &[]).unwrap_err());
    assert!(shown.contains("base.toml, line 5"), "{shown}");
}

#[test]
fn circles_and_missing_files_are_errors_at_their_line() {
    let dir = folder(&[
        ("a.toml", "extends = \"b.toml\"\n"),
        ("b.toml", "extends = \"a.toml\"\n"),
        ("c.toml", "\nextends = \"none.toml\"\n"),
        ("d.toml", "extends = 7\n"),
    ]);
    let error = |name: &str| shown(Recipe::load(&dir.path().join(name), &[]).unwrap_err());
    assert!(error("a.toml").contains("extends itself"), "{}", error("a.toml"));
    assert!(
        error("c.toml").contains("none.toml") && error("c.toml").contains("line 2"),
        "{}",
        error("c.toml")
    );
    assert!(error("d.toml").contains("is the path of a recipe"), "{}", error("d.toml"));
}

#[test]
fn profiles_change_what_they_name_and_are_checked_though_not_chosen() {
    let text = format!(
        "{GOOD}modules = [\"x\"]\n[profile.debug.image]\nname = \"Debug\"\n[profile.debug.kernel]\nmodules = [\"!*\", \"y\"]\n"
    );
    let dir =
        folder(&[("image.toml", &text), ("bad.toml", &format!("{GOOD}[profile.x.image]\nnam = \"y\"\n"))]);
    let load = |name: &str, profiles: &[&str]| {
        let profiles: Vec<String> = profiles.iter().map(|name| (*name).to_owned()).collect();
        Recipe::load(&dir.path().join(name), &profiles)
    };
    assert_eq!(load("image.toml", &[]).unwrap().kernel.modules, ["x"]);
    let debug = load("image.toml", &["debug"]).unwrap();
    assert_eq!(debug.kernel.modules, ["y"]);
    assert_eq!(debug.image.name.as_deref(), Some("Debug"));
    assert_eq!(debug.profiles, ["debug"]);
    let unknown = shown(load("image.toml", &["relase"]).unwrap_err());
    assert!(unknown.contains("no profile `relase`; it has: debug"), "{unknown}");
    let bad = shown(load("bad.toml", &[]).unwrap_err());
    assert!(bad.contains("did you mean `name`"), "{bad}");
}

#[test]
fn the_schema_knows_every_table_and_the_example_fits_it() {
    let schema = schema();
    let properties = schema["properties"].as_object().unwrap();
    for key in ["image", "debian", "kernel", "container", "file", "user", "extends", "profile", "lint"] {
        assert!(properties.contains_key(key), "{key}");
    }
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/container-host.toml");
    let example: toml::Table = toml::from_str(&std::fs::read_to_string(example).unwrap()).unwrap();
    let value = serde_json::to_value(&example).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let mut wrong = value;
    wrong["image"]["nam"] = "x".into();
    assert!(!validator.is_valid(&wrong));
}
