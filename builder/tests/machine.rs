//! `ashlar machine` and `ashlar schema machine` as a user types them. OpenSSL, sfdisk and Python's jsonschema judge.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_formats::disk::{self, DiskLayout};
use ashlar_image::layout::{MIB, Sizes};
use ashlar_image::machine::{self, MachineConfig, PublicKey, seed};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Exit codes as documented.
const INPUT: i32 = 2;
const KEYS: i32 = 4;
const OUTPUT: i32 = 5;

/// How a program ended and what it said.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    /// Runs to the end, or two minutes.
    fn of(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err")).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return Self { code: status.code(), out: read("out"), err: read("err") };
            }
            if Instant::now() > deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{command:?} did not end: {}{}", read("out"), read("err"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

fn ashlar(folder: &Path, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ashlar"));
    Run::of(command.args(arguments).current_dir(folder))
}

/// A judge; none, with the reason said, when it is not there.
fn judge(program: &str, package: &str) -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{program} is needed (package {package})"));
    }
    found.map(Command::new)
}

fn skip(why: &str) {
    assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "{why}");
    println!("skipped: {why}");
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/machine.toml")
}

/// Keys for all tests here.
fn keys() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let _ = ashlar(folder.path(), &["keys", "new", "owner"]).ok();
        folder
    };
    // The folder of a static is never removed; it lies where temporary files lie.
    FOLDER.get_or_init(make).path()
}

/// A folder with `machine.toml` and the owner's keys as `owner`.
fn case() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(example(), folder.path().join("machine.toml")).unwrap();
    std::os::unix::fs::symlink(keys().join("owner"), folder.path().join("owner")).unwrap();
    folder
}

#[test]
fn a_good_configuration_is_checked_signed_shown_and_compared() {
    let folder = case();
    let at = |name: &str| folder.path().join(name);
    let run = ashlar(folder.path(), &["machine", "check", "machine.toml"]).ok();
    assert!(run.out.contains("good machine configuration: serial 1"), "{run:?}");
    let report: Value = serde_json::from_str(
        &ashlar(folder.path(), &["machine", "check", "machine.toml", "--json"]).ok().out,
    )
    .unwrap();
    assert_eq!((&report["good"], &report["serial"]), (&true.into(), &1.into()));

    let _ = ashlar(folder.path(), &["machine", "sign", "machine.toml", "--keys", "owner"]).ok();
    let text = std::fs::read_to_string(at("machine.toml")).unwrap();
    let key = PublicKey::parse(&std::fs::read_to_string(at("owner/configuration.pub")).unwrap()).unwrap();
    let envelope = std::fs::read(at("machine.dsse")).unwrap();
    assert_eq!(machine::verify(&envelope, &key, None).unwrap().text(), text);

    for with in [["--keys", "owner"], ["--key", "owner/configuration.pub"]] {
        let run =
            ashlar(folder.path(), &[["machine", "show", "machine.dsse"].as_slice(), &with].concat()).ok();
        assert!(
            run.out.contains(&format!("good, by the configuration key {}", key.fingerprint())),
            "{run:?}"
        );
        assert!(run.out.ends_with(&text), "{run:?}");
        let shown = ashlar(folder.path(), &["keys", "show", "owner"]).ok();
        assert!(shown.out.contains(&key.fingerprint().to_string()), "{shown:?}");
    }
    let run = ashlar(folder.path(), &["machine", "show", "machine.dsse"]).ok();
    assert!(run.out.contains("not verified"), "{run:?}");
    let run = ashlar(folder.path(), &["machine", "show", "machine.dsse", "--keys", "owner", "--json"]).ok();
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!((&report["verified"], report["text"].as_str()), (&true.into(), Some(text.as_str())));
    assert_eq!(report["sha256"], machine::verify(&envelope, &key, None).unwrap().digest().to_string());

    // The next one.
    let next = text
        .replace("serial = 1", "serial = 2")
        .replace("web-1", "web-2")
        .replace("timeout = \"60s\"", "timeout = \"90s\"");
    std::fs::write(at("next.toml"), &next).unwrap();
    for against in ["machine.dsse", "machine.toml"] {
        let run = ashlar(folder.path(), &["machine", "check", "next.toml", "--against", against]).ok();
        let wanted = "changes at once:\n  hostname: `web-1.example.com` -> `web-2.example.com`\nwaits for a restart:\n  \
                      watchdog.timeout: `90s` added\n";
        assert!(run.out.ends_with(wanted), "{run:?}");
    }
    std::fs::write(at("next.toml"), next.replace("serial = 2", "serial = 1")).unwrap();
    let run = ashlar(folder.path(), &["machine", "check", "next.toml", "--against", "machine.dsse"]);
    assert_eq!(run.code, Some(INPUT), "{run:?}");
    assert!(run.err.contains("serial: 1 is not above 1"), "{run:?}");
}

#[test]
fn a_wrong_configuration_is_told_of_with_excerpts_and_never_signed() {
    let folder = case();
    let text = std::fs::read_to_string(folder.path().join("machine.toml")).unwrap();
    let wrong = text.replace("hostname =", "hostnaem =").replace("id = 20", "id = 5000");
    std::fs::write(folder.path().join("wrong.toml"), wrong).unwrap();
    let commands: [&[&str]; 2] = [
        &["machine", "check", "wrong.toml"],
        &["machine", "sign", "wrong.toml", "--keys", "owner", "-o", "out.dsse"],
    ];
    for command in commands {
        let run = ashlar(folder.path(), command);
        assert_eq!(run.code, Some(INPUT), "{run:?}");
        for words in [
            "2 error(s)",
            "wrong.toml, line 11, column 1: hostnaem: there is no such key",
            "did you mean `hostname`?",
            "network.vlan[0].id: `5000` is out of range; a whole number from 1 to 4094 is wanted",
            "id = 5000",
        ] {
            assert!(run.err.contains(words), "{words}: {}", run.err);
        }
    }
    assert!(!folder.path().join("out.dsse").exists());
    let run = ashlar(folder.path(), &["machine", "check", "wrong.toml", "--json"]);
    assert_eq!(run.code, Some(INPUT), "{run:?}");
    let report: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(report["errors"][0]["key"], "hostnaem");
    assert_eq!((&report["errors"][1]["key"], &report["good"]), (&"network.vlan[0].id".into(), &false.into()));
    // Files that are none.
    std::fs::write(folder.path().join("binary"), b"serial = 1 # \xff").unwrap();
    let run = ashlar(folder.path(), &["machine", "check", "binary"]);
    assert!(run.code == Some(INPUT) && run.err.contains("byte 13 is not UTF-8"), "{run:?}");
    std::fs::write(folder.path().join("large"), vec![b'#'; machine::MAX_TEXT + 1]).unwrap();
    assert_eq!(ashlar(folder.path(), &["machine", "check", "large"]).code, Some(INPUT));
    assert_eq!(ashlar(folder.path(), &["machine", "check", "missing"]).code, Some(INPUT));
    assert_eq!(ashlar(folder.path(), &["machine", "show", "machine.toml"]).code, Some(INPUT));
}

#[test]
fn another_owners_signature_and_files_in_the_way() {
    let folder = case();
    let at = |name: &str| folder.path().join(name);
    let _ = ashlar(folder.path(), &["machine", "sign", "machine.toml", "--keys", "owner"]).ok();
    // Signing again is no harm: the signature is deterministic.
    let before = std::fs::read(at("machine.dsse")).unwrap();
    let _ = ashlar(folder.path(), &["machine", "sign", "machine.toml", "--keys", "owner"]).ok();
    assert_eq!(std::fs::read(at("machine.dsse")).unwrap(), before);
    let run =
        ashlar(folder.path(), &["machine", "sign", "machine.toml", "--keys", "owner", "-o", "machine.toml"]);
    assert_eq!(run.code, Some(OUTPUT), "{run:?}");
    assert_eq!(std::fs::read(at("machine.toml")).unwrap(), std::fs::read(example()).unwrap());
    let stranger = PublicKey([1; 32]);
    std::fs::write(at("stranger.pub"), stranger.to_string()).unwrap();
    for command in [&["machine", "show", "machine.dsse"][..], &["machine", "seed", "no-disk", "machine.dsse"]]
    {
        let run = ashlar(folder.path(), &[command, &["--key", "stranger.pub"]].concat());
        assert_eq!(run.code, Some(KEYS), "{run:?}");
        assert!(run.err.contains(&stranger.fingerprint().to_string()), "{run:?}");
    }
    let run = ashlar(folder.path(), &["machine", "show", "machine.dsse", "--key", "machine.toml"]);
    assert!(run.code == Some(KEYS) || run.code == Some(INPUT), "{run:?}");
}

/// The signature that the program made, seen by OpenSSL.
#[test]
fn openssl_verifies_what_was_signed() {
    use base64::Engine as _;
    let Some(mut openssl) = judge("openssl", "openssl") else { return };
    let folder = case();
    let _ = ashlar(folder.path(), &["machine", "sign", "machine.toml", "--keys", "owner"]).ok();
    let envelope: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("machine.dsse")).unwrap()).unwrap();
    let decode =
        |value: &Value| base64::engine::general_purpose::STANDARD.decode(value.as_str().unwrap()).unwrap();
    let payload = decode(&envelope["payload"]);
    let kind = "application/vnd.ashlar.machine-config+toml";
    assert_eq!(envelope["payloadType"], kind);
    let message = [format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).as_bytes(), &payload].concat();
    std::fs::write(folder.path().join("message"), message).unwrap();
    std::fs::write(folder.path().join("signature"), decode(&envelope["signatures"][0]["sig"])).unwrap();
    openssl.args(["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "owner/configuration.pub"]);
    let run =
        Run::of(openssl.args(["-in", "message", "-sigfile", "signature"]).current_dir(folder.path())).ok();
    assert!(run.out.contains("Verified Successfully"), "{run:?}");
}

/// A disk as a release has it, with small partitions and nothing in them.
fn blank_disk(path: &Path) -> u64 {
    let sizes = Sizes { esp: MIB, root: MIB, verity: MIB, state: 4 * MIB };
    let mut guids = [[0; 16]; 7];
    for (number, guid) in (1..).zip(&mut guids) {
        guid[0] = number;
    }
    let layout = DiskLayout::new(&sizes, [9; 16], guids).unwrap();
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    disk::write(&file, &layout, &[]).unwrap();
    layout.partition(7).unwrap().0
}

fn area(path: &Path, offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; seed::AREA];
    File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

#[test]
fn a_seed_lies_where_the_first_start_looks() {
    let folder = case();
    let at = |name: &str| folder.path().join(name);
    let offset = blank_disk(&at("disk.raw"));
    let before = std::fs::read(at("disk.raw")).unwrap();
    let sign = |name: &str| {
        let _ =
            ashlar(folder.path(), &["machine", "sign", name, "--keys", "owner", "-o", "machine.dsse"]).ok();
        std::fs::read(at("machine.dsse")).unwrap()
    };
    let plant = || ashlar(folder.path(), &["machine", "seed", "disk.raw", "machine.dsse", "--keys", "owner"]);
    let first = sign("machine.toml");
    let run = plant().ok();
    assert!(run.out.contains(&format!("serial 1 at byte {offset}")), "{run:?}");
    let seeded = area(&at("disk.raw"), offset);
    assert_eq!(seed::decode(&seeded), Ok(Some(first.as_slice())));
    // Nothing else was changed, and the place is the one that others see too.
    let after = std::fs::read(at("disk.raw")).unwrap();
    let (start, end) = (usize::try_from(offset).unwrap(), usize::try_from(offset).unwrap() + seed::AREA);
    assert!(before[..start] == after[..start] && before[end..] == after[end..]);
    if let Some(mut sfdisk) = judge("sfdisk", "fdisk") {
        let run = Run::of(sfdisk.arg("--json").arg(at("disk.raw"))).ok();
        let table: Value = serde_json::from_str(&run.out).unwrap();
        let entry = &table["partitiontable"]["partitions"][6];
        assert_eq!(entry["type"], "4D21B016-B534-45C2-A9FB-5C16E091FD2D", "{run:?}");
        assert_eq!(entry["start"].as_u64(), Some(offset / 512), "{run:?}");
    }

    // A shorter one takes its place whole.
    std::fs::write(at("short.toml"), "serial = 2\n").unwrap();
    let short = sign("short.toml");
    assert!(short.len() < first.len());
    let _ = plant().ok();
    assert_eq!(seed::decode(&area(&at("disk.raw"), offset)), Ok(Some(short.as_slice())));
    // One that was cut off by a power failure can be written over.
    let disk = File::options().write(true).open(at("disk.raw")).unwrap();
    disk.write_all_at(&[0; 16], offset + 20).unwrap();
    assert!(seed::decode(&area(&at("disk.raw"), offset)).is_err());
    let _ = plant().ok();

    // A volume is never written over, nor anything else.
    for (place, bytes) in [(0, b"LUKS\xba\xbe".as_slice()), (seed::AREA as u64 - 1, b"x")] {
        disk.write_all_at(bytes, offset + place).unwrap();
        let before = area(&at("disk.raw"), offset);
        let run = plant();
        assert_eq!(run.code, Some(OUTPUT), "{run:?}");
        assert!(run.err.contains("state partition is in use") && run.err.contains("ashlarctl"), "{run:?}");
        assert_eq!(area(&at("disk.raw"), offset), before);
        disk.write_all_at(&vec![0; seed::AREA], offset).unwrap();
    }
    let _ = plant().ok();
    std::fs::write(at("no-table"), vec![0; 1 << 20]).unwrap();
    let run = ashlar(folder.path(), &["machine", "seed", "no-table", "machine.dsse"]);
    assert_ne!(run.code, Some(0), "{run:?}");
}

/// A validator that is not ours takes what we take and refuses what we refuse.
const VALIDATE: &str = r"
import datetime, json, sys
try:
    import jsonschema, tomllib
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)
schema = json.load(open(sys.argv[1]))
kind = jsonschema.validators.validator_for(schema)
kind.check_schema(schema)
validator = kind(schema)
for document in json.load(open(sys.argv[2])):
    # JSON has no times: an editor's validator sees texts.
    parsed = json.loads(json.dumps(tomllib.loads(document), default=lambda time: time.isoformat()))
    found = [error.message[:200] for error in validator.iter_errors(parsed)]
    print(json.dumps(found))
";

/// Faults that a schema can see.
const BAD: &[&str] = &[
    "",
    "serial = 0",
    "serial = 'one'",
    "serial = 1\nhostnaem = 'a'",
    "serial = 1\nhostname = 7",
    "serial = 1\n[[network.interface]]\nname = 'eth0'\ngateway = '10.0.0.1'",
    "serial = 1\n[[network.interface]]\nname = 'eth0'\naddresses = ['10.0.0.1']",
    "serial = 1\n[[network.interface]]\nname = 'eth0'\nmtu = 100",
    "serial = 1\n[[network.interface]]\ndhcp = true",
    "serial = 1\n[[network.interface]]\nname = 'a'\nmac = '52:54:00:12:34:56'",
    "serial = 1\n[[network.interface]]\nmac = '52:54'",
    "serial = 1\n[[network.interface]]\nname = 'a'\nroute = [{ via = '10.0.0.1' }]",
    "serial = 1\n[[network.vlan]]\nname = 'v'\nid = 5000\nparent = 'eth0'",
    "serial = 1\n[[network.vlan]]\nname = 'v'\nid = 1",
    "serial = 1\n[[network.bond]]\nname = 'b'\nmembers = ['a']\nmode = 'none'",
    "serial = 1\n[[network.bond]]\nname = 'b'\nmembers = []",
    "serial = 1\n[network.dns]\nservers = ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4']",
    "serial = 1\n[network.proxy]\nhttp = 'proxy'",
    "serial = 1\n[control]\nport = 70000",
    "serial = 1\n[control]\ntrust-roots = ['MIIB']",
    "serial = 1\n[cluster]\nname = 'a'",
    "serial = 1\n[update]\npolicy = 'sometimes'",
    "serial = 1\n[[update.window]]\nfrom = '2:30'\nduration = '2h'",
    "serial = 1\n[[update.window]]\nfrom = '02:30'\nduration = '2 hours'",
    "serial = 1\n[[update.window]]\nfrom = '02:30'\nduration = '2h'\ntime-zone = 'Berlin time'",
    "serial = 1\n[[container]]\nname = 'web'\ncpus = 0",
    "serial = 1\n[[container]]\nname = 'web'\nenvironment = { A = 1 }",
    "serial = 1\n[labels]\na = 1",
    "serial = 1\n[debug]\ncontainer = 'a'",
    "serial = 1\n[debug]\ncontainer = 'a'\nuntil = 2026-11-30T18:00:00Z\nduration = '1h'",
    "serial = 1\n[watchdog]\ntimeout = 60",
];

#[test]
fn the_schema_takes_what_the_program_takes() {
    let folder = tempfile::tempdir().unwrap();
    let schema: Value =
        serde_json::from_str(&ashlar(folder.path(), &["schema", "machine"]).ok().out).unwrap();
    let recipe: Value = serde_json::from_str(&ashlar(folder.path(), &["schema"]).ok().out).unwrap();
    assert_eq!(recipe["title"], "Ashlar recipe");
    let example = std::fs::read_to_string(example()).unwrap();
    let good = [
        example.as_str(),
        "serial = 1",
        "serial = 1\n[[network.bond]]\nname = 'bond0'\nmembers = ['a', 'b']\n[[network.interface]]\nname = 'c'\ndhcp = true",
        "serial = 1\n[debug]\ncontainer = 'a'\nduration = '1h'\n[[container]]\nname = 'a'\ncpus = 2",
    ];
    let written = toml::to_string(&MachineConfig::parse(&example).unwrap()).unwrap();
    let documents: Vec<&str> =
        good.into_iter().chain([written.as_str()]).chain(BAD.iter().copied()).collect();
    let good = good.len() + 1;
    for (number, document) in documents.iter().enumerate() {
        assert_eq!(MachineConfig::parse(document).is_ok(), number < good, "{document}");
    }
    std::fs::write(folder.path().join("schema.json"), schema.to_string()).unwrap();
    std::fs::write(folder.path().join("documents.json"), serde_json::to_vec(&documents).unwrap()).unwrap();
    std::fs::write(folder.path().join("validate.py"), VALIDATE).unwrap();
    let Some(mut python) = judge("python3", "python3") else { return };
    let run =
        Run::of(python.args(["validate.py", "schema.json", "documents.json"]).current_dir(folder.path()));
    if run.code == Some(77) {
        return skip(&format!("Python's jsonschema is needed (package python3-jsonschema): {}", run.err));
    }
    let run = run.ok();
    let found: Vec<Vec<String>> = run.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(found.len(), documents.len());
    for (number, (document, errors)) in documents.iter().zip(&found).enumerate() {
        assert_eq!(errors.is_empty(), number < good, "{document}\n{errors:?}");
    }
}

/// The keys of a schema, `[]` for the items of an array.
fn schema_keys(schema: &Value, node: &Value, path: &str, found: &mut std::collections::BTreeSet<String>) {
    if !node.is_object() {
        return;
    }
    if let Some(name) = node["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
        schema_keys(schema, &schema["$defs"][name], path, found);
    }
    for other in node["anyOf"].as_array().into_iter().flatten().chain([&node["items"]]) {
        schema_keys(schema, other, path, found);
    }
    for (key, value) in node["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{key}").trim_start_matches('.').to_owned();
        schema_keys(schema, value, &path, found);
        found.insert(path);
    }
}

/// The guide's tables have each key and no other; those of addresses stand once, for interfaces, VLANs and bonds.
#[test]
fn the_guide_tells_of_every_key() {
    let schema = machine::schema();
    let mut known = std::collections::BTreeSet::new();
    schema_keys(&schema, &schema, "", &mut known);
    assert!(known.contains("network.interface.route.via"), "{known:?}");
    let interface: Vec<String> =
        known.iter().filter_map(|key| Some(key.strip_prefix("network.interface.")?.to_owned())).collect();
    for kind in ["vlan", "bond"] {
        for key in interface.iter().filter(|key| *key != "mac" && *key != "name") {
            assert!(known.remove(&format!("network.{kind}.{key}")), "network.{kind}.{key}");
        }
    }
    // Tables, whose keys follow.
    let tables =
        ["network", "time", "control", "cluster", "lock", "channel", "update", "debug", "watchdog", "log"];
    let inner =
        ["interface", "vlan", "bond", "dns", "proxy", "interface.route"].map(|key| format!("network.{key}"));
    for table in tables.map(str::to_owned).into_iter().chain(inner).chain(
        ["update.window", "update.health", "update.pre-reboot", "update.post-boot", "container"]
            .map(str::to_owned),
    ) {
        assert!(known.remove(&table), "{table}");
    }
    let guide = include_str!("../../docs/how-to/machine-configuration.md");
    let guide = guide.split("\n## ").find(|section| section.starts_with("Keys\n")).unwrap();
    let row = |line: &str| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned());
    let told: std::collections::BTreeSet<String> = guide.lines().filter_map(row).collect();
    assert_eq!(told, known);
}
