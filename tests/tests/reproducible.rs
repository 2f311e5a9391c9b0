//! The same inputs give the same bytes: in another folder, at another time, with other settings, as another
//! user.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_tests::folders::{self, NOBODY, assert_same};
use ashlar_tests::release::{build, new_keys};
use ashlar_tests::sparse::difference;
use ashlar_tests::{Built, Case, Run, built, is_root, programs, skip};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// Not in the second of the first build, so that a clock that gets into the result shows.
fn another_second(built: &Built) {
    let made = std::fs::metadata(built.file("release.json")).unwrap().modified().unwrap();
    while SystemTime::now().duration_since(made).unwrap() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn in_another_folder_with_other_settings() {
    let Some(built) = built() else { return };
    another_second(built);
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    // Another depth, other names, and the recipe by a relative path.
    let folder = dir.path().join("some where/else");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(&built.recipe, folder.join("recipe.toml")).unwrap();
    std::fs::copy(&built.lock, folder.join("recipe.lock")).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077; exec \"$0\" \"$@\""])
        .arg(programs::folder().join("ashlar"))
        .args(["build", "recipe.toml", "--locked", "--offline", "-o", "result", "--keys"])
        .arg(&built.keys)
        .arg("--cache")
        .arg(&built.cache)
        .current_dir(&folder)
        .envs([("TZ", "Asia/Kathmandu"), ("LC_ALL", "tr_TR.UTF-8"), ("SOURCE_DATE_EPOCH", "1")])
        .envs([("RAYON_NUM_THREADS", "1"), ("HOME", "/nonexistent")]);
    let _ = Run::of(&mut command).ok();
    assert_same(&built.out, &folder.join("result"), "in another folder");
}

#[test]
fn as_an_ordinary_user_who_unpacks_anew() {
    let Some(built) = built() else { return };
    if !is_root() {
        return skip("only root can become another user");
    }
    another_second(built);
    // Not below the target folder, which the other user may not be allowed to enter.
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let folder = dir.path().join("nobody");
    folders::copy(&built.keys, &folder.join("keys"));
    // The packages, but nothing that was unpacked from them.
    folders::copy(&built.cache.join("debs"), &folder.join("cache/debs"));
    folders::copy(&programs::folder(), &dir.path().join("programs"));
    std::fs::copy(&built.recipe, folder.join("recipe.toml")).unwrap();
    std::fs::copy(&built.lock, folder.join("recipe.lock")).unwrap();
    let _ = Run::of(Command::new("chown").args(["-R", "65534:65534"]).arg(&folder)).ok();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps=-all"])
        .arg(dir.path().join("programs/ashlar"))
        .args([
            "build",
            "recipe.toml",
            "--locked",
            "--offline",
            "-o",
            "out",
            "--keys",
            "keys",
            "--cache",
            "cache",
        ])
        .current_dir(&folder)
        .env("HOME", "/nonexistent");
    let _ = Run::of(&mut command).ok();
    assert_same(&built.out, &folder.join("out"), "another user's");
}

/// The comparison can fail: other keys give other bytes exactly where keys are.
#[test]
fn other_keys_change_the_signed_files_and_no_other() {
    let Some(built) = built() else { return };
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    let (keys, out) = (dir.path().join("keys"), dir.path().join("out"));
    new_keys(&keys, "Somebody else");
    let _ = Run::of(build(&keys, &out).args(["--locked", "--offline"])).ok();
    let differs = |name: &str| difference(&built.file(name), &out.join(name)).is_some();
    for name in ["uki.efi", "esp.img", "disk.raw", "release.json", "secure-boot/db.auth"] {
        assert!(differs(name), "{name} is the same with other keys");
    }
    for name in ["root.erofs", "root.verity"] {
        assert!(!differs(name), "{name} depends on the keys");
    }
}

/// What this machine lets a test vary beyond what an ordinary user can.
struct Machine {
    /// A library that gives programs another clock, where `ashlar` is linked so that it can be.
    clock: Option<PathBuf>,
    /// Whether the host name can be another one.
    host_name: bool,
    /// Whether the clocks since the start can be others.
    boot_time: bool,
    /// A file system in memory with room for a release.
    memory: Option<&'static Path>,
}

impl Machine {
    fn look() -> Self {
        let can = |arguments: &[&str]| {
            is_root() && Run::of(Command::new("unshare").args(arguments)).code == Some(0)
        };
        let memory = Path::new("/dev/shm");
        let room = rustix::fs::statvfs(memory).is_ok_and(|fs| fs.f_bavail * fs.f_frsize > 512 << 20);
        let places = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/faketime"];
        let library =
            places.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1")).find(|p| p.exists());
        let program = std::fs::read(programs::folder().join("ashlar")).unwrap();
        let dynamic = program.windows(9).any(|bytes| bytes == b"ld-linux-");
        if library.is_none() {
            eprintln!("left out: another clock (package libfaketime)");
        }
        if !dynamic {
            eprintln!("left out: another clock, which a static program cannot be given");
        }
        Self {
            clock: library.filter(|_| dynamic),
            host_name: can(&["--uts", "hostname", "somewhere-else"]),
            boot_time: can(&["--fork", "--time", "--boottime", "1000000", "true"]),
            memory: room.then_some(memory),
        }
    }
}

const FOLDERS: [&str; 4] = ["a", "a folder with blanks", "\u{fc}ber/tief/unten/im/baum", ".hidden/x"];
const UMASKS: [&str; 4] = ["022", "000", "077", "027"];
const ZONES: [&str; 5] = ["UTC", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia", ":/nonexistent"];
const LOCALES: [&str; 4] = ["C", "tr_TR.UTF-8", "de_DE.ISO-8859-1", "ja_JP.SJIS"];
const JOBS: [&str; 5] = ["1", "2", "3", "8", "64"];
const CLOCKS: [&str; 3] = ["@1985-10-26 01:21:00", "@2038-01-19 03:14:08", "@2031-12-31 23:59:59"];
const EPOCHS: [&str; 3] = ["0", "18446744073709551616", "yesterday"];
const USERS: [u32; 3] = [0, NOBODY, 12345];

/// Puts the recipe's tree of files below `folder`, in this order or the other, with old or new times.
fn put_files(folder: &Path, reversed: bool, time: SystemTime) {
    let mut names: Vec<String> =
        (0..40).map(|number| format!("etc/site/{:02x}/file-{number}", number * 37 % 41)).collect();
    names.push("srv/index.html".into());
    if reversed {
        names.reverse();
    }
    for name in &names {
        let path = folder.join("overlay").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("{name}\n").repeat(100)).unwrap();
    }
    std::fs::write(folder.join("motd"), "Welcome.\n").unwrap();
    for name in folders::names(&folder.join("overlay")) {
        let path = folder.join("overlay").join(name);
        let mode = if path.is_dir() { 0o755 } else { 0o644 };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        std::fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }
    std::fs::set_permissions(folder.join("overlay"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::File::open(folder.join("overlay")).unwrap().set_modified(time).unwrap();
}

/// The example with a tree of files, users and links, so that there is an order to get wrong.
const MORE: &str = r#"
[[source]]
directory = "overlay"

[[file]]
path = "/etc/motd"
source = "motd"

[[user]]
name = "operator"

[[user]]
name = "auditor"
groups = ["watchers"]

[[group]]
name = "watchers"
"#;

/// One of the twenty builds: everything that must not matter is another in each.
fn build_varied(
    round: usize,
    machine: &Machine,
    recipe: &Path,
    lock: &Path,
    top: &Path,
    keys: &Path,
) -> PathBuf {
    let memory = machine.memory.filter(|_| round % 4 == 3);
    let root = match memory {
        Some(memory) => tempfile::Builder::new().prefix("ashlar-tests-").tempdir_in(memory).unwrap().keep(),
        None => top.join(format!("round-{round}")),
    };
    let folder = root.join(FOLDERS[round % FOLDERS.len()]);
    std::fs::create_dir_all(&folder).unwrap();
    let day = Duration::from_secs(86_400 * 365 * (round as u64 % 5) * 10);
    put_files(&folder, round % 2 == 1, SystemTime::UNIX_EPOCH + day);
    std::fs::copy(recipe, folder.join("image.toml")).unwrap();
    std::fs::copy(lock, folder.join("image.lock")).unwrap();
    folders::copy(keys, &folder.join("keys"));
    let cache = top.join("cache");
    // Two of three builds find no stage, the third those of the one before.
    if round % 3 != 2 && cache.join("stages").exists() {
        std::fs::remove_dir_all(cache.join("stages")).unwrap();
    }
    let user = if is_root() { USERS[round % USERS.len()] } else { rustix::process::geteuid().as_raw() };
    folders::give_to(&root, user);
    folders::give_to(&cache, user);

    let mut words: Vec<String> = Vec::new();
    let mut push = |more: &[&str]| words.extend(more.iter().map(|word| (*word).to_owned()));
    if machine.boot_time && round.is_multiple_of(2) {
        push(&["unshare", "--fork", "--time", "--boottime", "1000000", "--monotonic", "5000000"]);
    }
    if machine.host_name {
        let name = format!("hostname buildhost-{round}.example.org && exec \"$@\"");
        push(&["unshare", "--uts", "sh", "-c", &name, "sh"]);
    }
    if round % 2 == 1 {
        push(&["taskset", "1"]);
    }
    if user != rustix::process::geteuid().as_raw() {
        let id = user.to_string();
        push(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--inh-caps=-all"]);
    }
    push(&["sh", "-c", &format!("umask {}; exec \"$@\"", UMASKS[round % UMASKS.len()]), "sh", "env"]);
    if let Some(library) = machine.clock.as_ref().filter(|_| round % 5 < CLOCKS.len()) {
        push(&[&format!("LD_PRELOAD={}", library.display()), &format!("FAKETIME={}", CLOCKS[round % 5])]);
        push(&["FAKETIME_DONT_FAKE_MONOTONIC=1"]);
    }
    let program = top.join("programs/ashlar");
    push(&[program.to_str().unwrap(), "build"]);
    let absolute = folder.join("image.toml");
    push(&[if round.is_multiple_of(2) { "image.toml" } else { absolute.to_str().unwrap() }]);
    push(&[
        "--offline",
        "--locked",
        "--jobs",
        JOBS[round % JOBS.len()],
        "-o",
        "out",
        "--keys",
        "keys",
        "--cache",
    ]);
    push(&[cache.to_str().unwrap()]);
    let home = root.display().to_string();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(&folder).env("NO_COLOR", "1");
    command.env("TZ", ZONES[round % ZONES.len()]).env("LC_ALL", LOCALES[round % LOCALES.len()]);
    command.env("LANG", LOCALES[(round + 1) % LOCALES.len()]);
    command.env("SOURCE_DATE_EPOCH", EPOCHS[round % EPOCHS.len()]);
    command.env("HOME", if round.is_multiple_of(2) { "/nonexistent" } else { &home });
    command.env("USER", format!("user{round}")).env("HOSTNAME", format!("name{round}"));
    let _ = Run::of(&mut command).ok();
    folder.join("out")
}

#[test]
fn twenty_builds_under_varied_conditions() {
    let Some(built) = built() else { return };
    let machine = Machine::look();
    let case = Case::of(built);
    case.add(MORE);
    put_files(&case.path(""), false, SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000));
    let _ = case.build(&[]).ok();
    // Not below the target folder, which another user may not be allowed to enter.
    let top = tempfile::tempdir().unwrap();
    std::fs::set_permissions(top.path(), PermissionsExt::from_mode(0o755)).unwrap();
    for room in ["debs", "unpacked"] {
        folders::copy(&built.cache.join(room), &top.path().join("cache").join(room));
    }
    folders::copy(&programs::folder(), &top.path().join("programs"));
    for round in 0..20 {
        let (recipe, lock) = (case.path("recipe.toml"), case.path("recipe.lock"));
        let out = build_varied(round, &machine, &recipe, &lock, top.path(), &built.keys);
        assert_same(&case.out(), &out, &format!("round {round}"));
        // The round's folder, wherever it lies.
        let depth = Path::new(FOLDERS[round % FOLDERS.len()]).components().count();
        std::fs::remove_dir_all(out.ancestors().nth(depth + 1).unwrap()).unwrap();
    }
    if let Some(library) = &machine.clock {
        // The clock really is another one.
        let mut date = Command::new("date");
        date.arg("+%Y").env("LD_PRELOAD", library).env("FAKETIME", CLOCKS[0]);
        assert_eq!(Run::of(&mut date).ok().stdout.trim(), "1985");
    }
    // And the comparison can fail: one byte of one file.
    case.write("overlay/srv/index.html", "another");
    let _ = case.build(&["--locked"]).ok();
    let kept = case.path("kept");
    std::fs::rename(case.out(), &kept).unwrap();
    put_files(&case.path(""), true, SystemTime::UNIX_EPOCH);
    let _ = case.build(&["--locked"]).ok();
    assert!(folders::release_difference(&kept, &case.out()).is_some());
}
