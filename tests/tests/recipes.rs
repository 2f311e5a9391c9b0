//! What a recipe says is what is in the image: first recipes, recipes made of recipes, files, users, trees, containers from
//! images; and the examples for CI do what they say.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_image::digest::Digest;
use ashlar_image::release::Release;
use ashlar_tests::folders::{self, assert_same};
use ashlar_tests::programs::{self, ashlar};
use ashlar_tests::release::shared;
use ashlar_tests::sparse::difference;
use ashlar_tests::tools::{has, judge};
use ashlar_tests::{Built, Case, Run, built, skip};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn release(folder: &Path) -> Release {
    serde_json::from_slice(&std::fs::read(folder.join("release.json")).unwrap()).unwrap()
}

#[test]
fn a_first_recipe_can_be_built_at_once() {
    let Some(built) = built() else { return };
    let top = tempfile::tempdir_in(shared()).unwrap();
    let folder = top.path().join("my-first-host");
    std::fs::create_dir(&folder).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = ashlar();
        Run::of(command.args(arguments).current_dir(&folder).env("ASHLAR_CACHE", &built.cache))
    };
    let _ = run(&["init"]).ok();
    let text = std::fs::read_to_string(folder.join("image.toml")).unwrap();
    assert!(text.contains("id = \"my-first-host\""), "{text}");
    // What is there is never overwritten.
    let again = run(&["init"]);
    assert_ne!(again.code, Some(0), "{again}");
    assert_eq!(std::fs::read_to_string(folder.join("image.toml")).unwrap(), text);
    let _ = run(&["keys", "new", "keys"]).ok();
    let first = run(&["build", "image.toml", "--keys", "keys", "-o", "out", "--offline"]).ok();
    assert!(first.to_string().contains("image.lock") && folder.join("image.lock").is_file(), "{first}");
    let release = release(&folder.join("out"));
    assert_eq!((release.image_id.as_str(), release.image_version.as_str()), ("my-first-host", "1"));
    assert!(release.packages.iter().any(|package| package.name == "crun"));
    std::fs::rename(folder.join("out"), folder.join("first")).unwrap();
    let _ = run(&["build", "image.toml", "--keys", "keys", "-o", "out", "--offline", "--locked"]).ok();
    assert_same(&folder.join("first"), &folder.join("out"), "from the lock file that was written");
}

#[test]
fn a_recipe_of_another_and_its_profile() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    std::fs::create_dir(case.path("common")).unwrap();
    std::fs::rename(case.path("recipe.toml"), case.path("common/base.toml")).unwrap();
    case.write("common/motd", "from the base's folder\n");
    let base = std::fs::read_to_string(case.path("common/base.toml")).unwrap();
    case.write("common/base.toml", base + "\n[[file]]\npath = \"/etc/motd\"\nsource = \"motd\"\n");
    case.write(
        "recipe.toml",
        r#"
extends = "common/base.toml"

[image]
id = "edge"
version = "7"

[[container]]
name = "hello"
memory = "32MiB"

[profile.debug.image]
name = "Edge, to be debugged"

[profile.debug.root]
packages = ["busybox-static", "!tzdata"]

[profile.debug.kernel]
cmdline = "console=ttyS0 debug"
"#,
    );
    let _ = case.build(&["--locked"]).ok();
    let plain = release(&case.out());
    assert_eq!((plain.image_id.as_str(), plain.image_version.as_str()), ("edge", "7"));
    assert!(plain.uki.cmdline.contains("lockdown=integrity"), "{}", plain.uki.cmdline);
    let Some(tree) = case.unpack_root() else { return };
    assert_eq!(std::fs::read_to_string(tree.join("etc/motd")).unwrap(), "from the base's folder\n");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(tree.join("usr/lib/ashlar/image.json")).unwrap()).unwrap();
    // One container of both files: the memory of one, the command of the other.
    let text = manifest.to_string();
    assert!(text.contains(&(32 << 20).to_string()) && text.contains("httpd"), "{text}");

    let _ = case.build(&["--profile", "debug", "--lock", "debug.lock"]).ok();
    let debug = release(&case.out());
    let has = |release: &Release, name: &str| {
        release.packages.iter().any(|package| package.part == "root" && package.name == name)
    };
    assert!(has(&plain, "tzdata") && !has(&plain, "busybox-static"));
    assert!(!has(&debug, "tzdata") && has(&debug, "busybox-static"));
    assert!(debug.uki.cmdline.starts_with("console=ttyS0 debug "), "{}", debug.uki.cmdline);
    let tree = case.unpack_root().unwrap();
    let os_release = std::fs::read_to_string(tree.join("usr/lib/os-release")).unwrap();
    assert!(os_release.contains("Edge, to be debugged"), "{os_release}");
    let run = case.build(&["--profile", "debgu"]);
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.error_text().contains("debug"), "{run}");
}

const EVERYTHING: &str = r#"
[[user]]
name = "operator"
uid = 1000
home = "/home/operator"
description = "Who is on call"
groups = ["watchers"]

[[user]]
name = "robot"

[[group]]
name = "watchers"
gid = 2000

[[directory]]
path = "/srv/data"
mode = "2750"
uid = 1000
gid = 2000

[[symlink]]
path = "/usr/bin/run"
target = "crun"

[[file]]
path = "/etc/motd"
content = "Mine.\n"
mode = "0440"
uid = 1000
gid = 2000

[[file]]
path = "/opt/deep/er/large"
source = "large"
mode = "0755"

[[source]]
directory = "overlay"
exclude = ["*.swp"]

[[source]]
tar = "site.tar.zst"
into = "/srv/site"
"#;

#[test]
fn what_a_recipe_adds_is_in_the_root_with_mode_and_owner() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()[..2].to_vec()).collect();
    case.write("large", &large);
    case.write("overlay/etc/site.conf", "from the overlay\n");
    case.write("overlay/etc/.site.conf.swp", "left by an editor");
    case.write("overlay/usr/bin/tool", "a tool\n");
    let mode = |path: &str, mode| {
        std::fs::set_permissions(case.path(path), PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("overlay/usr/bin/tool", 0o755);
    mode("overlay/etc/site.conf", 0o600);
    case.write("site/index.html", "from the archive\n");
    let (Some(mut tar), Some(_)) = (judge("tar", "tar"), judge("zstd", "zstd")) else { return };
    tar.args([
        "--zstd",
        "--owner=33",
        "--group=33",
        "--mode=u=rw,go=r,a+X",
        "-cf",
        "site.tar.zst",
        "-C",
        "site",
        ".",
    ]);
    let _ = Run::of(tar.current_dir(case.path(""))).ok();
    let digest = Digest::of(std::fs::read(case.path("site.tar.zst")).unwrap());
    case.add(EVERYTHING);
    case.edit("tar = \"site.tar.zst\"", &format!("tar = \"site.tar.zst\"\nsha256 = \"{digest}\""));
    let _ = case.build(&["--locked"]).ok();
    let Some(tree) = case.unpack_root() else { return };
    let read = |path: &str| std::fs::read(tree.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let text = |path: &str| String::from_utf8(read(path)).unwrap();
    assert_eq!(text("etc/motd"), "Mine.\n");
    assert!(read("opt/deep/er/large") == large);
    assert_eq!(text("etc/site.conf"), "from the overlay\n");
    assert!(!tree.join("etc/.site.conf.swp").exists());
    assert_eq!(text("srv/site/index.html"), "from the archive\n");
    assert_eq!(std::fs::read_link(tree.join("usr/bin/run")).unwrap(), Path::new("crun"));
    for (path, mode, owner) in [
        ("etc/motd", 0o440, (1000, 2000)),
        ("srv/data", 0o2750, (1000, 2000)),
        ("opt/deep/er/large", 0o755, (0, 0)),
        ("opt/deep", 0o755, (0, 0)),
        ("usr/bin/tool", 0o755, (0, 0)),
        // A directory's files are root's, whoever builds; an archive's are whose it says.
        ("etc/site.conf", 0o600, (0, 0)),
        ("srv/site/index.html", 0o644, (33, 33)),
    ] {
        let found = std::fs::metadata(tree.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{path}: {found:o}");
        assert_eq!(case.owner(&format!("/{path}")), owner, "{path}");
    }
    let line = |file: &str, name: &str| {
        let text = text(file);
        text.lines()
            .find(|line| line.starts_with(&format!("{name}:")))
            .unwrap_or_else(|| panic!("{text}"))
            .to_owned()
    };
    let operator = line("etc/passwd", "operator");
    assert!(
        operator.starts_with("operator:x:1000:") && operator.contains(":Who is on call:/home/operator:"),
        "{operator}"
    );
    assert!(operator.ends_with("/nologin"), "{operator}");
    assert_eq!(line("etc/group", "watchers"), "watchers:x:2000:operator");
    assert!(line("etc/passwd", "robot").contains(":/nonexistent:"));
    // Nobody can log in.
    for name in ["operator", "robot", "root"] {
        let line = line("etc/shadow", name);
        assert!(line.split(':').nth(1).unwrap().starts_with(['!', '*']), "{line}");
    }
    // Another archive than the one that was meant.
    case.write("site.tar.zst", "x");
    let run = case.build(&["--locked"]);
    assert_eq!(run.code, Some(2), "{run}");
    assert!(run.error_text().contains("site.tar.zst"), "{run}");
}

/// An OCI layout with one layer that has these files.
fn layout(case: &Case, name: &str, page: &str) -> Option<()> {
    let folder = case.path(name);
    std::fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
    case.write(&format!("{name}-tree/srv/index.html"), page);
    case.write(&format!("{name}-tree/etc/app.conf"), "an app\n");
    let layer = case.path(format!("{name}.tar"));
    let mut tar = judge("tar", "tar")?;
    tar.args(["--owner=0", "--group=0", "--mtime=@1600000000", "--sort=name", "-cf"]);
    let _ = Run::of(tar.arg(&layer).arg("-C").arg(case.path(format!("{name}-tree"))).arg(".")).ok();
    let layer = std::fs::read(layer).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(folder.join("blobs/sha256").join(digest.to_string()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    };
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Env": ["APP=1"], "Entrypoint": ["/srv/app"], "Cmd": ["--serve"], "WorkingDir": "/srv"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", Digest::of(&layer))]},
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let layer = blob("application/vnd.oci.image.layer.v1.tar", &layer);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
    let mut manifest = blob(kind, manifest.to_string().as_bytes());
    manifest["annotations"] = json!({"org.opencontainers.image.ref.name": "it"});
    manifest["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    case.write(&format!("{name}/index.json"), index.to_string());
    case.write(&format!("{name}/oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#);
    Some(())
}

/// The digest of a layout's manifest.
fn manifest_digest(case: &Case, name: &str) -> String {
    let index: Value =
        serde_json::from_slice(&std::fs::read(case.path(name).join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

const CONTAINER_COMMAND: &str =
    "command = [\"/usr/bin/busybox\", \"httpd\", \"-f\", \"-p\", \"8080\", \"-h\", \"/srv\"]\n";

/// The example whose container comes from an image, with the image's own command.
fn with_image(built: &Built, origin: &str) -> Case {
    let case = Case::of(built);
    case.edit("packages = [\"busybox-static\"]\n", &format!("{origin}\n"));
    case.edit(CONTAINER_COMMAND, "");
    case.edit(
        "[[container.file]]\npath = \"/srv/index.html\"\ncontent = \"Hello from a measured machine.\\n\"\n",
        "",
    );
    case
}

fn page(case: &Case) -> Option<String> {
    let tree = case.unpack_root()?;
    Some(std::fs::read_to_string(tree.join("usr/lib/ashlar/containers/hello/rootfs/srv/index.html")).unwrap())
}

#[test]
fn a_container_from_an_oci_layout() {
    let Some(built) = built() else { return };
    let case = with_image(built, "oci-layout = \"image\"");
    let Some(()) = layout(&case, "image", "From an image.\n") else { return };
    let _ = case.build(&[]).ok();
    let Some(page) = page(&case) else { return };
    assert_eq!(page, "From an image.\n");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(case.path("tree/usr/lib/ashlar/image.json")).unwrap()).unwrap();
    let container = &manifest["containers"]["hello"];
    assert_eq!(container["command"], json!(["/srv/app", "--serve"]), "{manifest}");
    // What the image is made of is told.
    let provenance = std::fs::read_to_string(case.path("out/provenance.json")).unwrap();
    assert!(provenance.contains(&manifest_digest(&case, "image")[7..]), "{provenance}");
    // A layer that was changed is refused by name.
    let digest = Digest::of(std::fs::read(case.path("image.tar")).unwrap()).to_string();
    let blob = case.path("image/blobs/sha256").join(&digest);
    ashlar_tests::disk::flip(&blob, 1000);
    let fresh = case.with_own_cache();
    let _ = std::fs::remove_dir_all(fresh.cache.join("blobs"));
    let run = fresh.build(&["--locked"]);
    assert_eq!(run.code, Some(2), "{run}");
    let words: String = run.error_text().split_whitespace().collect();
    assert!(words.contains(&digest), "{run}");
}

/// The real registry; ended with this value.
struct Registry {
    address: SocketAddr,
    child: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    fn start(case: &Case) -> Self {
        for attempt in 0.. {
            // Free a moment ago; somebody else may be faster, so it is tried again.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let folder = case.path("registry");
            let text = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n  secret: test\n",
                folder.display()
            );
            let path = case.write("registry.yml", text);
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let mut registry = Self { address, child: command.spawn().unwrap() };
            let until = Instant::now() + Duration::from_secs(30);
            while registry.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(address).is_ok() {
                    return registry;
                }
                assert!(Instant::now() < until, "docker-registry does not listen");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(attempt < 5, "docker-registry does not start");
        }
        unreachable!()
    }

    /// Puts the image of a layout there under this tag.
    fn push(&self, case: &Case, layout: &str, tag: &str) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false"]);
        let from = format!("oci:{}:it", case.path(layout).display());
        let _ = Run::of(skopeo.arg(from).arg(format!("docker://{}/team/app:{tag}", self.address))).ok();
    }
}

#[test]
fn a_container_from_a_registry_by_digest_and_by_tag() {
    let Some(built) = built() else { return };
    for (program, package) in [("docker-registry", "docker-registry"), ("skopeo", "skopeo")] {
        if !has(program) {
            return skip(&format!("{program} is needed (package {package})"));
        }
    }
    let by_layout = with_image(built, "oci-layout = \"image\"");
    let Some(()) = layout(&by_layout, "image", "From a registry.\n") else { return };
    let _ = by_layout.build(&[]).ok();
    let registry = Registry::start(&by_layout);
    registry.push(&by_layout, "image", "v1");
    let digest = manifest_digest(&by_layout, "image");
    let mirror = by_layout.mirror(built);
    let name = format!("{}/team/app", registry.address);
    let by_digest = with_image(built, &format!("oci = \"{name}@{digest}\"")).with_own_cache();
    let by_tag = with_image(built, &format!("oci = \"{name}:v1\"")).with_own_cache();
    for case in [&by_digest, &by_tag] {
        let _ = std::fs::remove_dir_all(case.cache.join("blobs"));
        let _ = Run::of(&mut case.build_command(&["--mirror", &mirror])).ok();
        // The same image, wherever it came from.
        let byte = difference(&by_layout.path("out/root.erofs"), &case.path("out/root.erofs"));
        assert_eq!(byte, None, "not the root that the layout gives");
        let lock = std::fs::read_to_string(case.path("recipe.lock")).unwrap();
        assert!(lock.contains(&digest[7..]), "{lock}");
        std::fs::rename(case.out(), case.path("first")).unwrap();
    }
    // The tag moves; what is locked does not.
    let Some(()) = layout(&by_layout, "newer", "A newer one.\n") else { return };
    registry.push(&by_layout, "newer", "v1");
    let build = |arguments: &[&str]| {
        let _ = Run::of(by_tag.build_command(&["--mirror", &mirror]).args(arguments)).ok();
    };
    build(&["--locked"]);
    assert_same(&by_tag.path("first"), &by_tag.out(), "locked, after the tag has moved");
    build(&["--refresh"]);
    assert_eq!(page(&by_tag).as_deref(), Some("A newer one.\n"));
    // Without the registry, the cache is enough.
    drop(registry);
    by_digest.forget_stages();
    let _ = by_digest.build(&["--locked"]).ok();
    assert_same(&by_digest.path("first"), &by_digest.out(), "without the registry");
    std::fs::remove_dir_all(by_digest.cache.join("blobs")).unwrap();
    by_digest.forget_stages();
    let run = by_digest.build(&["--locked"]);
    assert!(matches!(run.code, Some(2 | 3)), "{run}");
    assert!(run.error_text().contains("offline"), "{run}");
}

/// The lines of an example for CI that run Ashlar.
fn commands(example: &str) -> Vec<String> {
    let text = std::fs::read_to_string(programs::workspace().join("examples/ci").join(example)).unwrap();
    text.lines().map(str::trim).filter(|line| line.starts_with("ashlar ")).map(str::to_owned).collect()
}

/// The examples for CI, command by command as they stand there, come to a signed release that another machine verifies.
#[test]
fn the_examples_for_ci_do_what_they_say() {
    let Some(built) = built() else { return };
    for example in ["github-actions.yml", "gitlab-ci.yml"] {
        let commands = commands(example);
        assert!(commands.len() >= 6, "{commands:?}");
        let case = Case::of(built);
        std::fs::rename(case.path("recipe.toml"), case.path("image.toml")).unwrap();
        std::fs::rename(case.path("recipe.lock"), case.path("image.lock")).unwrap();
        let secret = case.path("secret");
        folders::copy(&built.keys, &secret);
        folders::copy(&built.keys, &case.path("keys"));
        let mut offline = String::new();
        for role in ["PK", "KEK", "db", "pcr", "channel", "configuration"] {
            std::fs::remove_file(case.path("keys").join(format!("{role}.key"))).unwrap();
            offline.push_str(role);
            offline.push_str(" = \"offline\"\n");
        }
        case.write("keys/keys.toml", offline);
        let path = format!("{}:{}", programs::folder().display(), std::env::var("PATH").unwrap());
        for command in commands {
            // `cache gc` is another test's business, and this cache is that of all tests.
            if command.starts_with("ashlar cache") {
                let run = Run::of(&mut case.ashlar(&["cache", "gc", "--dry-run", "--max-size", "2GiB"])).ok();
                assert!(command.contains("gc --max-size 2GiB"), "{command}: {run}");
                continue;
            }
            let command = command.replace("--keys /keys", "--keys secret").replace("\"$folder\"", "secret");
            let mut shell = Command::new("sh");
            shell.args(["-c", &command]).current_dir(case.path("")).env("PATH", &path);
            let _ = Run::of(shell.env("ASHLAR_CACHE", &case.cache).env("NO_COLOR", "1")).ok();
        }
        assert_same(&built.out, &case.path("out/release"), example);
        let json = |name: &str| -> Value {
            serde_json::from_slice(&std::fs::read(case.path(name)).unwrap()).unwrap()
        };
        assert_eq!(json("lint.json")["errors"], 0);
        assert_eq!(json("verify.json")["same"], true);
        assert_eq!(json("build.json")["lint"]["errors"], 0);
    }
}

/// A validator that is not ours takes the recipes that we take, and none that we refuse.
const VALIDATE: &str = r#"
import json, sys
try:
    import jsonschema, tomllib
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)
schema = json.load(open(sys.argv[1]))
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
for path in sys.argv[2:]:
    found = list(validator(schema).iter_errors(tomllib.load(open(path, "rb"))))
    print(path, len(found), [error.message[:200] for error in found])
"#;

#[test]
fn the_schema_takes_what_the_program_takes() {
    let Some(built) = built() else { return };
    let case = Case::of(built);
    case.write("schema.json", Run::of(&mut case.ashlar(&["schema"])).ok().stdout);
    case.write("validate.py", VALIDATE);
    let _ = Run::of(&mut case.ashlar(&["init"])).ok();
    case.add(EVERYTHING);
    let good = std::fs::read_to_string(case.path("recipe.toml")).unwrap();
    let bad = [
        ("bad-key.toml", "hostname = \"ashlar\"", "hostnaem = \"ashlar\""),
        ("bad-type.toml", "security-version = 1", "security-version = \"one\""),
        ("bad-file.toml", "path = \"/etc/motd\"", "path = 7"),
    ];
    for (name, old, new) in bad {
        assert!(good.contains(old));
        case.write(name, good.replace(old, new));
        let mut lint = case.ashlar(&["build", name, "--offline", "-o", "none", "--keys"]);
        assert_eq!(Run::of(lint.arg(&case.keys)).code, Some(2), "{name}");
    }
    let examples = programs::workspace().join("examples");
    let mut paths: Vec<_> = std::fs::read_dir(examples)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension().is_some_and(|ending| ending == "toml") && !path.ends_with("machine.toml")
        })
        // The schema is that of a whole recipe; one that extends another need not be whole.
        .filter(|path| !std::fs::read_to_string(path).unwrap().contains("\nextends = "))
        .collect();
    assert!(!paths.is_empty());
    paths.extend(["recipe.toml", "image.toml"].map(|name| case.path(name)));
    let Some(mut python) = judge("python3", "python3") else { return };
    python.args(["validate.py", "schema.json"]).args(&paths).args(bad.map(|(name, ..)| name));
    let run = Run::of(python.current_dir(case.path("")));
    if run.code == Some(77) {
        return skip(&format!("Python's jsonschema is needed (package python3-jsonschema): {}", run.stderr));
    }
    let run = run.ok();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines.len(), paths.len() + bad.len(), "{run}");
    for line in lines {
        let is_bad = line.starts_with("bad-");
        assert_ne!(is_bad, line.contains(".toml 0 []"), "{line}");
    }
}
