//! Running a test again in a network of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const INSIDE: &str = "ASHLAR_TEST_INSIDE";
/// How long a test may take inside.
const DEADLINE: Duration = Duration::from_secs(300);

pub fn skip(why: &str) {
    assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "ASHLAR_TESTS_NO_SKIP is set, and {why}");
    eprintln!("skipped: {why}");
}

/// Whether this is the inside of the test `name`, a network of its own; outside, runs it there. Skips without etcd.
pub fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    for (program, package) in
        [("/usr/bin/etcd", "etcd-server"), ("/usr/bin/etcdctl", "etcd-client"), ("/sbin/ip", "iproute2")]
    {
        if !Path::new(program).exists() {
            skip(&format!("{program} is not installed (package {package})"));
            return false;
        }
    }
    let user: &[&str] =
        if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let unshare = || {
        let mut command = Command::new("unshare");
        command
            .args(user)
            .args(["--net", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"])
            .stdin(Stdio::null());
        command
    };
    if !unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        skip("network namespaces cannot be made here");
        return false;
    }
    let mut child = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .spawn()
        .unwrap();
    assert!(finish(&mut child), "{name} has failed inside, see above");
    false
}

fn finish(child: &mut Child) -> bool {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if Instant::now() > end {
            // With `--kill-child` all that it has started ends too.
            child.kill().unwrap();
            panic!("it took longer than {DEADLINE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a line of shell, which must succeed; gives its output.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", line])
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("ETCDCTL_API", "3")
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
