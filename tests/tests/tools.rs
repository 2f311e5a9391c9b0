//! The release before programs that we did not write: each accepts it, and refuses it when it is changed.
#![allow(clippy::unwrap_used)] // a test fails by it

use ashlar_debian::{Cache, DEFAULT_KEYRINGS, Index, Network, NoProgress, Suite};
use ashlar_image::digest::Digest;
use ashlar_image::layout::PARTITIONS;
use ashlar_image::measure::PHASES;
use ashlar_measured_boot::uki::Uki;
use ashlar_tests::disk::{flip, partition};
use ashlar_tests::release::new_keys;
use ashlar_tests::tools::{accepts, judge};
use ashlar_tests::{Built, Disk, Run, built, is_root, skip, sparse};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A partition of the release's disk as a file of its own.
fn extract(built: &Built, number: u32, to: &Path) {
    let disk = built.file(&built.release.disk.file);
    let range = partition(&disk, number);
    let (from, to) = (File::open(&disk).unwrap(), File::create(to).unwrap());
    to.set_len(range.end - range.start).unwrap();
    for data in sparse::data(&from) {
        let (start, end) = (data.start.max(range.start), data.end.min(range.end));
        if start < end {
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            from.read_exact_at(&mut bytes, start).unwrap();
            to.write_all_at(&bytes, start - range.start).unwrap();
        }
    }
}

#[test]
fn the_release_lists_its_files_as_sha256sum_sees_them() {
    let Some(built) = built() else { return };
    let slot = &built.release.slot;
    for artifact in [&slot.esp, &slot.root, &slot.verity, &built.release.uki.artifact] {
        let path = built.file(&artifact.file);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), artifact.size, "{}", artifact.file);
        let run = accepts("sha256sum", "coreutils", &[path.as_os_str()]).unwrap();
        assert_eq!(run.stdout[..64].parse::<Digest>().unwrap(), artifact.sha256, "{}", artifact.file);
    }
}

#[test]
fn the_disk_has_the_slot_and_nothing_else() {
    let Some(built) = built() else { return };
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    let slot = &built.release.slot;
    let files = [Some(&slot.esp), Some(&slot.root), Some(&slot.verity), None, None, None, None];
    for (entry, artifact) in PARTITIONS.iter().zip(files) {
        let (whole, wanted) = (dir.path().join("whole"), dir.path().join("wanted"));
        extract(built, entry.number, &whole);
        let size = std::fs::metadata(&whole).unwrap().len();
        assert_eq!(size, built.release.partition_sizes.of(entry.role), "{}", entry.label);
        match artifact {
            Some(artifact) => sparse::copy(&built.file(&artifact.file), &wanted),
            None => drop(File::create(&wanted).unwrap()),
        }
        File::options().write(true).open(&wanted).unwrap().set_len(size).unwrap();
        assert_eq!(sparse::difference(&whole, &wanted), None, "{}", entry.label);
    }
}

#[test]
fn sgdisk_finds_no_problem() {
    let Some(built) = built() else { return };
    let disk = built.file(&built.release.disk.file);
    let Some(run) = accepts("sgdisk", "gdisk", &[OsStr::new("-v"), disk.as_os_str()]) else { return };
    assert!(run.stdout.contains("No problems found"), "{run}");
    let run = accepts("sgdisk", "gdisk", &[OsStr::new("-p"), disk.as_os_str()]).unwrap();
    for entry in &PARTITIONS {
        assert!(run.stdout.contains(entry.label), "{run}");
    }
    // Changed, it is told.
    let copy = Disk::copy_of(built);
    flip(copy.path(), 2 * 512 + 32);
    let run = Run::of(judge("sgdisk", "gdisk").unwrap().arg("-v").arg(copy.path()));
    assert!(!run.stdout.contains("No problems found"), "{run}");
}

#[test]
fn fsck_fat_finds_no_problem() {
    let Some(built) = built() else { return };
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    let esp = dir.path().join("esp");
    extract(built, 1, &esp);
    let arguments = [OsStr::new("-n"), OsStr::new("-v"), esp.as_os_str()];
    let Some(run) = accepts("fsck.fat", "dosfstools", &arguments) else { return };
    // A complaint that it would only repair is no failure to it, but a line to us.
    let last = format!("{}: 4 files, ", esp.display());
    let complaints = run.stdout.lines().skip_while(|line| !line.contains("Checking free cluster")).skip(1);
    assert!(complaints.clone().all(|line| line.starts_with(&last)) && complaints.count() == 1, "{run}");
    let Some(mut mdir) = judge("mdir", "mtools") else { return };
    let listed = Run::of(mdir.args(["-b", "-/", "-i"]).args([esp.to_str().unwrap(), "::"])).ok().stdout;
    let files: Vec<&str> = listed.lines().filter(|line| !line.is_empty() && !line.ends_with('/')).collect();
    assert_eq!(files, ["::/EFI/BOOT/BOOTX64.EFI"]);
    let uki = dir.path().join("uki");
    let image = esp.to_str().unwrap();
    let Some(mut mcopy) = judge("mcopy", "mtools") else { return };
    let _ = Run::of(mcopy.args(["-i", image, "::/EFI/BOOT/BOOTX64.EFI"]).arg(&uki)).ok();
    assert_eq!(sparse::difference(&uki, &built.file(&built.release.uki.artifact.file)), None);
}

#[test]
fn fsck_erofs_accepts_the_root_and_finds_no_shell() {
    let Some(built) = built() else { return };
    let root = built.file(&built.release.slot.root.file);
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    let tree = dir.path().join("tree");
    let extract = format!("--extract={}", tree.display());
    // As an ordinary user owners cannot be set.
    let owners = if is_root() { "--preserve" } else { "--no-preserve" };
    let arguments = [OsStr::new(&extract), OsStr::new(owners), root.as_os_str()];
    let Some(_) = accepts("fsck.erofs", "erofs-utils", &arguments) else { return };
    assert!(tree.join("usr/lib/ashlar/image.json").is_file());
    assert!(tree.join("usr/lib/ashlar/ashlar-init").is_file() && tree.join("usr/bin/crun").is_file());
    for shell in ["sh", "bash", "dash", "busybox", "ash", "zsh"] {
        for folder in ["bin", "usr/bin", "usr/local/bin"] {
            let path = tree.join(folder).join(shell);
            assert!(path.symlink_metadata().is_err(), "{} is in the root", path.display());
        }
    }
}

#[test]
fn veritysetup_verifies_the_root_and_tells_a_changed_one() {
    let Some(built) = built() else { return };
    let slot = &built.release.slot;
    let verity = built.file(&slot.verity.file);
    let hash = built.release.root_hash.to_string();
    let verify = |root: &Path| {
        let mut command = judge("veritysetup", "cryptsetup-bin")?;
        Some(Run::of(command.arg("verify").args([root, &verity]).arg(&hash)))
    };
    let Some(run) = verify(&built.file(&slot.root.file)) else { return };
    let _ = run.ok();
    let dir = tempfile::tempdir_in(built.out.parent().unwrap()).unwrap();
    let changed = dir.path().join("root");
    sparse::copy(&built.file(&slot.root.file), &changed);
    flip(&changed, slot.root.size / 2);
    assert_ne!(verify(&changed).unwrap().code, Some(0));
}

#[test]
fn sbverify_accepts_the_owners_certificate_and_no_other() {
    let Some(built) = built() else { return };
    let uki = built.file(&built.release.uki.artifact.file);
    let verify = |certificate: &Path| {
        let mut command = judge("sbverify", "sbsigntool")?;
        Some(Run::of(command.arg("--cert").args([certificate, &uki])))
    };
    let Some(run) = verify(&built.file("secure-boot/db.crt")) else { return };
    let _ = run.ok();
    let dir = tempfile::tempdir().unwrap();
    new_keys(&dir.path().join("keys"), "Somebody else");
    assert_ne!(verify(&dir.path().join("keys/db.crt")).unwrap().code, Some(0));
}

#[test]
fn linux_mounts_the_root() {
    let Some(built) = built() else { return };
    if !is_root() {
        return skip("only root can mount");
    }
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap();
    if !filesystems.contains("erofs") {
        let _ = Command::new("modprobe").arg("erofs").output();
    }
    if !std::fs::read_to_string("/proc/filesystems").unwrap().contains("erofs") {
        return skip("this kernel has no erofs (the booted machines mount the root all the same)");
    }
    if !Path::new("/dev/loop-control").exists() {
        return skip("there are no loop devices here");
    }
    let dir = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount
        .args(["-t", "erofs", "-o", "loop,ro"])
        .arg(built.file(&built.release.slot.root.file))
        .arg(dir.path());
    let _ = Run::of(&mut mount).ok();
    let found = std::fs::read(dir.path().join("usr/lib/ashlar/ashlar-init"));
    let _ = Run::of(Command::new("umount").arg(dir.path())).ok();
    assert_eq!(Digest::of(found.unwrap()), built.release.init);
}

/// A root of Debian 13 with systemd's tools, unpacked from the packages without installing them; none, with the
/// reason said, when it cannot be had or used.
fn debian_13(built: &Built) -> Option<&'static Path> {
    static ROOT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match ROOT.get_or_init(|| unpack(built)) {
        Ok(root) => Some(root),
        Err(why) => {
            skip(why);
            None
        }
    }
}

fn unpack(built: &Built) -> Result<PathBuf, String> {
    let cache = Cache::open(&built.cache).unwrap();
    let mirror = ashlar_debian::host_mirror().map_err(|error| error.to_string())?;
    let suite = Suite {
        mirror: mirror.clone(),
        suite: "trixie".into(),
        components: vec!["main".into()],
        architecture: "amd64".into(),
        keyring: DEFAULT_KEYRINGS.iter().map(PathBuf::from).collect(),
    };
    let text = |error: ashlar_debian::Error| error.to_string();
    let index = Index::load(&suite, &cache, Network::Offline, &NoProgress).map_err(text)?;
    // The first has the links `/lib64`, `/bin`, …; the libraries at the end are opened by name.
    let wanted = [
        "base-files",
        "coreutils",
        "systemd",
        "systemd-container",
        "systemd-ukify",
        "libtss2-esys-3.0.2-0t64",
        "libblkid1",
        "libcryptsetup12",
    ];
    let names: Vec<String> = wanted.iter().map(|&name| name.into()).collect();
    let packages = index.resolve(&names, &[]).unwrap();
    ashlar_debian::fetch(&packages, Some(&mirror), &cache, Network::Online, &NoProgress).map_err(text)?;
    let root = built.out.with_file_name("debian-13");
    std::fs::create_dir_all(&root).unwrap();
    let links = packages.iter().filter(|package| package.name == "base-files");
    for package in links.chain(&packages) {
        let deb = built.cache.join("debs").join(format!("{}.deb", package.sha256));
        let Some(mut dpkg) = judge("dpkg-deb", "dpkg") else { return Err("dpkg-deb is needed".into()) };
        let _ = Run::of(dpkg.arg("-x").arg(deb).arg(&root)).ok();
    }
    std::fs::create_dir_all(root.join("release")).unwrap();
    let slot = &built.release.slot;
    for name in [&built.release.uki.artifact.file, &built.release.disk.file, &slot.root.file] {
        sparse::copy(&built.file(name), &root.join("release").join(name));
    }
    let uki = built.uki();
    for (name, content) in Uki::parse(&uki).unwrap().sections() {
        std::fs::write(root.join("release").join(name), content).unwrap();
    }
    let run = Run::of(inside(&root).arg("/usr/bin/true"));
    if run.code == Some(0) { Ok(root) } else { Err(format!("no program can be run in another root: {run}")) }
}

/// A command in another root, as root or in a user namespace.
fn inside(root: &Path) -> Command {
    let mut command = Command::new(if is_root() { "chroot" } else { "unshare" });
    if !is_root() {
        command.args(["--map-root-user", "chroot"]);
    }
    command.arg(root).env_clear().envs([("PATH", "/usr/sbin:/usr/bin"), ("LC_ALL", "C")]);
    command
}

#[test]
fn ukify_reads_the_uki() {
    let Some(built) = built() else { return };
    let Some(root) = debian_13(built) else { return };
    let run = Run::of(inside(root).args(["ukify", "inspect", "/release/uki.efi", "--json=short"])).ok();
    let seen: serde_json::Value = serde_json::from_str(run.stdout.trim()).unwrap();
    // ukify shows the sections that it knows.
    for (name, digest) in &built.release.uki.sections {
        if let Some(section) = seen.get(name) {
            assert_eq!(section["sha256"], digest.to_string(), "{name}");
        }
    }
    for name in [".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat", ".pcrpkey", ".pcrsig"] {
        assert!(seen.get(name).is_some(), "ukify sees no {name}: {run}");
    }
    assert_eq!(seen[".cmdline"]["text"].as_str().unwrap().trim_end(), built.release.uki.cmdline);
}

#[test]
fn systemd_measure_computes_our_pcr_11() {
    let Some(built) = built() else { return };
    let Some(root) = debian_13(built) else { return };
    let mut command = inside(root);
    command.args(["/usr/lib/systemd/systemd-measure", "calculate", "--json=short", "--bank=sha256"]);
    for name in built.release.uki.sections.keys() {
        if [".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".uname", ".sbat", ".pcrpkey"]
            .contains(&name.as_str())
        {
            command.arg(format!("--{}=/release/{name}", &name[1..]));
        }
    }
    let mut path = String::new();
    for phase in PHASES {
        path = if path.is_empty() { phase.into() } else { format!("{path}:{phase}") };
        command.arg(format!("--phase={path}"));
    }
    command.arg("--phase=");
    let run = Run::of(&mut command).ok();
    let theirs: serde_json::Value = serde_json::from_str(run.stdout.trim()).unwrap();
    let value = |phase: &str| -> Digest {
        let entries = theirs["sha256"].as_array().unwrap();
        let entry = entries.iter().find(|entry| entry["phase"].as_str().unwrap_or("") == phase).unwrap();
        entry["hash"].as_str().unwrap().parse().unwrap()
    };
    let ours = &built.release.pcrs[&11];
    assert_eq!(ours.len(), PHASES.len() + 1);
    let mut phase = String::new();
    assert_eq!(ours[0].value, value(""));
    for (variant, word) in ours[1..].iter().zip(PHASES) {
        phase = if phase.is_empty() { word.into() } else { format!("{phase}:{word}") };
        assert_eq!(variant.value, value(&phase), "{}", variant.name);
    }
}

#[test]
fn systemd_dissect_knows_the_partitions() {
    let Some(built) = built() else { return };
    let Some(root) = debian_13(built) else { return };
    let dissect = |policy: &str| {
        let mut command = inside(root);
        command.args(["systemd-dissect", "--validate", "/release/disk.raw"]).arg(policy);
        Run::of(command.env("SYSTEMD_LOG_LEVEL", "debug"))
    };
    let run = dissect("--image-policy=root=verity+unprotected:esp=unprotected:var=unprotected:=ignore").ok();
    for (kind, entry) in
        ["esp", "root", "root-verity", "esp", "root", "root-verity", "var"].iter().zip(&PARTITIONS)
    {
        let line = format!("Dissecting {kind} partition with label {} and UUID", entry.label);
        assert!(run.stderr.contains(&line), "{run}");
    }
    assert_ne!(dissect("--image-policy=root=absent:=ignore").code, Some(0));
}
