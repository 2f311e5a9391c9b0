//! Tests of what only the kernel can judge: each runs again in a network of its own, with this program as its only user.

#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Set where the test is inside.
const INSIDE: &str = "ASHLAR_TEST_INSIDE";
/// How long a test may take inside.
const DEADLINE: Duration = Duration::from_secs(60);

/// Says why a test cannot run. Fails instead with `ASHLAR_TESTS_NO_SKIP` set.
pub fn skip(why: &str) {
    assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "ASHLAR_TESTS_NO_SKIP is set, and {why}");
    eprintln!("skipped: {why}");
}

/// Whether a program is installed; skips if not.
pub fn has(program: &str, package: &str) -> bool {
    let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .any(|folder| fs::exists(format!("{folder}/{program}")).unwrap_or(false));
    if !found {
        skip(&format!("{program} is not installed (package {package})"));
    }
    found
}

/// Waits for a process until a deadline and kills it then.
pub fn finish(mut child: Child, limit: Duration) -> io::Result<Output> {
    let end = Instant::now() + limit;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            let output = child.wait_with_output()?;
            panic!("it took longer than {limit:?}: {}", shown(&output));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output()
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn unshare() -> Option<Vec<&'static str>> {
    let is_root = rustix::process::geteuid().is_root();
    let flags: &[&str] = if is_root { &[] } else { &["--user", "--map-root-user"] };
    let flags = [flags, &["--net", "--mount", "--uts"]].concat();
    let works = Command::new("unshare").args(&flags).arg("true").stderr(Stdio::null()).status();
    works.is_ok_and(|status| status.success()).then_some(flags)
}

/// Whether this is the inside of the test `name`. Outside, runs it inside: in a network, a tree of mounts and a host name
/// of its own.
pub fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let Some(flags) = unshare() else {
        skip(
            "network namespaces cannot be made here (as root, or with unprivileged user namespaces, they can)",
        );
        return false;
    };
    let child = Command::new("unshare")
        .args(flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = finish(child, DEADLINE).unwrap();
    assert!(output.status.success(), "{name}: {}", shown(&output));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// Whether this is the inside of the test `name`. Outside, runs it inside of a kernel of its own with IPv6 and `veth`:
/// User-mode Linux, a kernel as a program. Other modules are for [`load`].
pub fn inside_kernel(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !has("linux.uml", "user-mode-linux") || !has("ip", "iproute2") || !has("insmod", "kmod") {
        return false;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin {INSIDE}=1\nmount -t proc proc /proc\n\
         mount -t sysfs sys /sys\nmount -t tmpfs tmp /run\n\
         find /usr/lib/uml/modules -name '*.ko' > /run/modules\n\
         for name in crc-ccitt ipv6 veth; do insmod $(grep /$name.ko /run/modules); done\n\
         {} --exact {name} --nocapture --test-threads=1 > /run/out 2>&1\necho \"exit $?\" >> /run/out\n\
         cat /run/out\necho o > /proc/sysrq-trigger\nsleep 10\n",
        program.display()
    );
    fs::write(format!("{path}/init"), script).unwrap();
    fs::set_permissions(format!("{path}/init"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    let child = Command::new("linux.uml")
        .args(["mem=256M", "rootfstype=hostfs", "rootflags=/", "rw", "con=null", "con0=fd:0,fd:1", "quiet"])
        .arg(format!("init={path}/init"))
        .arg(format!("uml_dir={path}/uml"))
        .env("TMPDIR", path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = finish(child, DEADLINE).unwrap();
    let text = shown(&output);
    assert!(text.lines().any(|line| line.trim() == "exit 0"), "{name}: {text}");
    false
}

/// Loads modules of User-mode Linux, in this order.
pub fn load(modules: &[&str]) {
    let list = fs::read_to_string("/run/modules").unwrap();
    for name in modules {
        let file = list.lines().find(|path| path.ends_with(&format!("/{name}.ko"))).unwrap();
        sh(&format!("insmod {file}"));
    }
}

/// Runs a line of shell, which must succeed; gives its output.
pub fn sh(line: &str) -> String {
    let child = Command::new("sh")
        .args(["-ec", line])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = finish(child, Duration::from_secs(20)).unwrap();
    assert!(output.status.success(), "{line}: {}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// A process that ends with the test.
pub struct Server(pub Child);

impl Server {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
