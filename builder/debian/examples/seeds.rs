//! Writes small valid inputs for the fuzz targets `deb`, `tar`, `debian_index` and `in_release` into folders of these names,
//! made by `dpkg-deb`, `ar`, `tar` and `gpg`: `cargo run -p ashlar-debian --example seeds -- DIR`. What the tool for is
//! not installed is left out, and that is said.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Longest time that a tool may take.
const DEADLINE: Duration = Duration::from_secs(60);

const CONTROL: &str = "Package: seed\nVersion: 1:1.0~rc1-2\nArchitecture: all\nMaintainer: A B <a@example.org>\n\
    Depends: lib (>= 2) | other [amd64], c:any <!nocheck>\nProvides: virtual (= 3)\nDescription: a seed\n of a few words\n";

fn main() -> Result<()> {
    let root = std::env::args().nth(1).ok_or("usage: seeds DIR")?;
    let root = Path::new(&root);
    for target in ["deb", "tar", "debian_index", "in_release"] {
        fs::create_dir_all(root.join(target))?;
    }
    let work = tempfile::tempdir()?;
    let tree = work.path().join("tree");
    make_tree(&tree)?;
    debs(&root.join("deb"), work.path(), &tree)?;
    tars(&root.join("tar"), &tree)?;
    let release = indexes(&root.join("debian_index"))?;
    in_release(&root.join("in_release"), work.path(), &release)
}

/// Runs a tool and returns what it prints; none, with a message, when it is not installed or refuses.
fn run(program: &str, arguments: &[&str]) -> Result<Option<Vec<u8>>> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        println!("left out: {program} is not installed");
        return Ok(None);
    };
    let Some(mut stdout) = child.stdout.take() else { return Err("a tool has no output".into()) };
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        stdout.read_to_end(&mut output).map(|_| output)
    });
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > DEADLINE {
            child.kill()?;
            child.wait()?;
            return Err(format!("{program} takes too long").into());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let output = reader.join().map_err(|_| "reading failed")??;
    if !status.success() {
        println!("left out: {program} {} ends with {status}", arguments.join(" "));
        return Ok(None);
    }
    Ok(Some(output))
}

/// A path as an argument.
fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| "a path is not UTF-8".into())
}

fn make_tree(tree: &Path) -> Result<()> {
    fs::create_dir_all(tree.join("DEBIAN"))?;
    let deep = tree.join("usr/share").join("a-long-name/".repeat(10));
    fs::create_dir_all(&deep)?;
    fs::write(tree.join("usr/tool"), "some text\n".repeat(40))?;
    fs::write(deep.join("file"), "x")?;
    fs::hard_link(tree.join("usr/tool"), tree.join("usr/zool"))?;
    symlink("tool", tree.join("usr/link"))?;
    symlink("target/".repeat(20), tree.join("usr/long"))?;
    fs::write(tree.join("DEBIAN/control"), CONTROL)?;
    fs::write(tree.join("DEBIAN/triggers"), "interest-noawait /usr/lib\n")?;
    fs::write(tree.join("DEBIAN/postinst"), "#!/bin/sh\nset -e\nldconfig\n")?;
    fs::set_permissions(tree.join("DEBIAN/postinst"), fs::Permissions::from_mode(0o755))?;
    for folder in ["", "DEBIAN"] {
        fs::set_permissions(tree.join(folder), fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn debs(out: &Path, work: &Path, tree: &Path) -> Result<()> {
    for packing in ["none", "gzip", "xz", "zstd"] {
        let deb = out.join(packing);
        let kind = format!("-Z{packing}");
        run("dpkg-deb", &["--root-owner-group", &kind, "--build", text(tree)?, text(&deb)?])?;
    }
    // Forms that dpkg-deb reads and does not make.
    let plain = out.join("none");
    if !plain.exists() {
        return Ok(());
    }
    let extra = work.join("_extra");
    fs::write(&extra, "odd")?;
    let with_extra = out.join("with-extra-member");
    fs::copy(&plain, &with_extra)?;
    run("ar", &["qS", text(&with_extra)?, text(&extra)?])?;
    let data = work.join("data.tar");
    let Some(bytes) = run("dpkg-deb", &["--fsys-tarfile", text(&plain)?])? else { return Ok(()) };
    fs::write(&data, bytes)?;
    if run("bzip2", &["--force", text(&data)?])?.is_some() {
        let bzip2 = out.join("bzip2");
        fs::copy(&plain, &bzip2)?;
        run("ar", &["d", text(&bzip2)?, "data.tar"])?;
        run("ar", &["qS", text(&bzip2)?, text(&work.join("data.tar.bz2"))?])?;
    }
    Ok(())
}

fn tars(out: &Path, tree: &Path) -> Result<()> {
    for format in ["v7", "ustar", "gnu", "oldgnu", "pax"] {
        let kind = format!("--format={format}");
        let owner = if format == "pax" || format == "gnu" { "--owner=x:3000000" } else { "--owner=root:0" };
        // v7 has no room for the long names.
        let what = if format == "v7" { "./DEBIAN" } else { "." };
        let archive = run("tar", &[&kind, owner, "--sort=name", "-C", text(tree)?, "-c", what])?;
        if let Some(archive) = archive {
            fs::write(out.join(format), archive)?;
        }
    }
    Ok(())
}

/// Writes package lists and a release file, and returns that.
fn indexes(out: &Path) -> Result<String> {
    let hash = "0123456789abcdef".repeat(4);
    let entry = |name: &str| {
        format!(
            "Package: {name}\n{}Filename: pool/main/s/{name}_1_all.deb\nSize: 1234\nSHA256: {hash}\n\n",
            CONTROL.replacen("Package: seed\n", "", 1)
        )
    };
    fs::write(out.join("packages"), entry("one") + &entry("two"))?;
    fs::write(out.join("control"), CONTROL)?;
    let release = format!(
        "Origin: Seed\nSuite: stable-backports\nCodename: trixie-backports\nNotAutomatic: yes\nButAutomaticUpgrades: yes\n\
         Date: Sat, 21 Nov 2026 09:15:44 UTC\nValid-Until: Sat, 28 Nov 2026 09:15:44 UTC\nAcquire-By-Hash: yes\n\
         No-Support-for-Architecture-all: Packages\nArchitectures: all amd64\nComponents: main contrib\nSHA256:\n \
         {hash} 1234 main/binary-amd64/Packages\n {hash} 56 main/binary-amd64/Packages.xz\n"
    );
    fs::write(out.join("release"), &release)?;
    Ok(release)
}

fn in_release(out: &Path, work: &Path, release: &str) -> Result<()> {
    let home = work.join("gpg");
    fs::create_dir(&home)?;
    fs::set_permissions(&home, fs::Permissions::from_mode(0o700))?;
    let home = text(&home)?;
    let base = ["--homedir", home, "--batch", "--no-tty", "--passphrase", "", "--pinentry-mode", "loopback"];
    let file = work.join("Release");
    fs::write(&file, release)?;
    for (kind, digest) in [("ed25519", "SHA256"), ("rsa2048", "SHA512")] {
        let user = format!("{kind} <{kind}@example.org>");
        let make = [&base[..], &["--quick-generate-key", &user, kind, "sign", "never"]].concat();
        if run("gpg", &make)?.is_none() {
            break;
        }
        let sign = [
            &base[..],
            &["--digest-algo", digest, "-u", &user, "--output", "-", "--clearsign", text(&file)?],
        ];
        if let Some(signed) = run("gpg", &sign.concat())? {
            fs::write(out.join(kind), signed)?;
        }
        for (name, export) in [("key", &["--export"][..]), ("armoured-key", &["--armor", "--export"])] {
            if let Some(key) = run("gpg", &[&base[..], export, &[&user]].concat())? {
                fs::write(out.join(format!("{kind}-{name}")), key)?;
            }
        }
    }
    // The agent that gpg has started would outlive this program.
    run("gpgconf", &["--homedir", home, "--kill", "all"])?;
    Ok(())
}
