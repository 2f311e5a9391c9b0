//! `lockctl` as an operator uses it, and its FleetLock server as `curl` sees it; on real etcd.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn skip(why: &str) {
    assert!(std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(), "ASHLAR_TESTS_NO_SKIP is set, and {why}");
    eprintln!("skipped: {why}");
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// etcd, and whoever uses it.
struct Etcd {
    child: Child,
    url: String,
    folder: TempDir,
}

impl Etcd {
    fn start() -> Option<Self> {
        if !Path::new("/usr/bin/etcd").exists() {
            skip("etcd is not installed (package etcd-server)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let (url, peer) = (format!("http://127.0.0.1:{}", port()), format!("http://127.0.0.1:{}", port()));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args([
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
                "--listen-peer-urls",
                &peer,
            ])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("default={peer}")])
            .args(["--logger", "zap", "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let etcd = Self { child, url, folder };
        let until = Instant::now() + Duration::from_secs(30);
        while etcd.run(&["status"]).status.code() != Some(0) {
            assert!(Instant::now() < until, "{:?}", etcd.run(&["status"]));
        }
        Some(etcd)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lockctl"));
        command.env("LOCKCTL_ENDPOINT", &self.url).current_dir(self.folder.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command().args(arguments).output().unwrap()
    }

    /// Exit code, output, errors.
    fn told(&self, line: &str) -> (i32, String, String) {
        let output = self.run(&line.split(' ').collect::<Vec<_>>());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    }

    fn good(&self, line: &str) -> String {
        let (code, out, error) = self.told(line);
        assert_eq!((code, error.as_str()), (0, ""), "{line}");
        out
    }

    fn json(&self, line: &str) -> serde_json::Value {
        serde_json::from_str(&self.good(&format!("--json {line}"))).unwrap()
    }

    fn refused(&self, line: &str, code: i32, error: &str) {
        let told = self.told(line);
        assert_eq!((told.0, told.1.as_str()), (code, ""), "{line}: {}", told.2);
        assert!(told.2.contains(error), "{line}: {}", told.2);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn locksmiths_words() {
    let Some(etcd) = Etcd::start() else { return };
    assert_eq!(etcd.good("status"), "Available: 1\nMax: 1\n");
    assert_eq!(etcd.good("lock a"), "");
    assert_eq!(etcd.good("status"), "Available: 0\nMax: 1\n\nMACHINE ID\na\n");
    // The holder may ask again; another gets locksmith's answer.
    assert_eq!(etcd.good("lock a"), "");
    let (code, out, error) = etcd.told("lock b");
    assert_eq!((code, out.as_str(), error.as_str()), (1, "", "Error locking: semaphore is at 0\n"));
    let (code, out, error) = etcd.told("unlock b");
    assert_eq!((code, out.as_str(), error.as_str()), (1, "", "Error unlocking: holder does not exist\n"));
    assert_eq!(etcd.good("set-max 4"), "Old-Max: 1\nMax: 4\n");
    etcd.refused("set-max 0", 1, "max must be from 1 to 10000, not 0");
    etcd.refused("set-max -1", 2, "-1");
    assert_eq!(etcd.good("lock b --reason disk"), "");
    assert_eq!(etcd.good("status"), "Available: 2\nMax: 4\n\nMACHINE ID\na\nb\n");
    let wide = etcd.good("status --wide");
    assert!(wide.contains("MACHINE ID  STATE  SINCE") && wide.contains("disk"), "{wide}");
    assert_eq!(etcd.good("unlock a"), "");
    // Groups do not see each other; their names are escaped in keys.
    assert_eq!(etcd.good("--group prod/database status"), "Available: 1\nMax: 1\n");
    etcd.good("--group prod/database lock a");
    let keys = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args([
            "--endpoints",
            &etcd.url,
            "get",
            "--prefix",
            "--keys-only",
            "ashlar/reboot-lock/v1/groups/prod",
        ])
        .output()
        .unwrap();
    let keys = String::from_utf8(keys.stdout).unwrap();
    assert!(
        keys.lines().any(|key| key == "ashlar/reboot-lock/v1/groups/prod%2Fdatabase/semaphore"),
        "{keys}"
    );
    let status = etcd.json("status");
    assert_eq!((status["available"].as_u64(), status["max"].as_u64()), (Some(3), Some(4)));
    assert_eq!(status["holders"][0]["reason"], "disk");
    let history = etcd.json("history");
    let what: Vec<&str> =
        history.as_array().unwrap().iter().map(|event| event["what"].as_str().unwrap()).collect();
    assert_eq!(what, ["locked", "locked", "max", "locked", "unlocked"]);
    assert!(etcd.good("history --count 1").ends_with("unlocked  a           by hand\n"));
    etcd.refused("lock a/b", 2, "`a/b` is no machine ID");
    etcd.refused("--group= status", 2, "no name of a group");
    etcd.refused("--cert x status", 6, "`x` cannot be read");
    etcd.refused("--user x status", 2, "--user and --password-file belong together");
    etcd.refused("reboot", 3, "/run/ashlar/update.sock");
    let nobody = Command::new(env!("CARGO_BIN_EXE_lockctl"))
        .args(["--endpoint", "http://127.0.0.1:1", "status"])
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(3));
    let error = String::from_utf8(nobody.stderr).unwrap();
    assert!(
        error.starts_with("Error reading the semaphore: the lock's store does not answer: 127.0.0.1:1:"),
        "{error}"
    );
}

#[test]
fn settings_waiting_and_pages() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.good("set-stale 3600 --automatic");
    etcd.good("set-gate 0.1 --at-least 3");
    let status = etcd.json("status");
    assert_eq!(status["stale"], serde_json::json!({ "after": 3600, "automatic": true }));
    assert_eq!(status["gate"], serde_json::json!({ "share": 0.1, "at_least": 3 }));
    etcd.good("set-stale never");
    etcd.good("set-gate off");
    assert!(etcd.json("status")["gate"].is_null());
    etcd.refused("resume", 1, "no release is stopped");
    // Who waits gets the place when it is given back.
    etcd.good("lock a");
    let mut waiting = etcd.command().args(["lock", "b", "--wait", "30"]).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while etcd.json("status")["waiting"] != serde_json::json!(["b"]) {
        assert!(Instant::now() < until);
    }
    etcd.refused("lock c --wait 1", 1, "semaphore is at 0");
    etcd.good("unlock a");
    assert!(waiting.wait().unwrap().success());
    assert_eq!(etcd.good("status"), "Available: 0\nMax: 1\n\nMACHINE ID\nb\n");
    // What cannot be read is not touched.
    let broken = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args([
            "--endpoints",
            &etcd.url,
            "put",
            "ashlar/reboot-lock/v1/groups/default/semaphore",
            "{\"version\":9}",
        ])
        .status();
    assert!(broken.unwrap().success());
    etcd.refused("lock x", 4, "the semaphore of group `default`");
    etcd.good("man pages");
    assert!(etcd.folder.path().join("pages/lockctl-set-max.1").exists());
    assert!(etcd.good("completions bash").contains("set-max"));
}

/// A FleetLock server.
struct Server {
    child: Child,
    address: String,
    metrics: String,
}

impl Server {
    fn start(etcd: &Etcd, arguments: &[&str]) -> Self {
        let mut child = etcd
            .command()
            .args(["serve", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut next = |what: &str| {
            let line = lines.next().unwrap().unwrap();
            line.strip_prefix(what).unwrap_or_else(|| panic!("{line}")).to_owned()
        };
        let metrics = next("metrics are served on ");
        let address = next("FleetLock is served on ");
        Self { child, address, metrics }
    }

    /// Status and body that curl gets.
    fn curl(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}"])
            .args(arguments)
            .arg(format!("http://{}{path}", self.address))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        (code.parse().unwrap(), body.to_owned())
    }

    fn post(&self, what: &str, body: &str) -> (u16, String) {
        self.curl(&format!("/v1/{what}"), &["-H", "fleet-lock-protocol: true", "-d", body])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kind((code, body): (u16, String)) -> (u16, String) {
    let failure: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{code} {body}"));
    assert!(failure["value"].is_string(), "{body}");
    (code, failure["kind"].as_str().unwrap().to_owned())
}

#[test]
fn fleetlock_for_foreign_clients() {
    let Some(etcd) = Etcd::start() else { return };
    if !Path::new("/usr/bin/curl").exists() {
        skip("curl is not installed (package curl)");
        return;
    }
    let server = Server::start(&etcd, &["--plain"]);
    let body = |id: &str| format!(r#"{{"client_params":{{"id":"{id}","group":"workers"}}}}"#);
    // Twice is once; a second machine waits; giving back twice is once.
    for _ in 0..2 {
        assert_eq!(server.post("pre-reboot", &body("one")), (200, String::new()));
    }
    assert_eq!(kind(server.post("pre-reboot", &body("two"))), (423, "lock_held".into()));
    assert_eq!(etcd.json("--group workers status")["holders"].as_array().unwrap().len(), 1);
    assert_eq!(
        server.post("steady-state", &body("two")),
        (200, String::new()),
        "who holds none gives none back"
    );
    assert_eq!(etcd.json("--group workers status")["holders"][0]["id"], "one");
    for _ in 0..2 {
        assert_eq!(server.post("steady-state", &body("one")), (200, String::new()));
    }
    assert_eq!(etcd.good("--group workers status"), "Available: 1\nMax: 1\n");
    assert_eq!(
        etcd.json("--group workers history").as_array().unwrap().len(),
        2,
        "what changes nothing is not written"
    );
    assert_eq!(server.post("pre-reboot", &body("two")), (200, String::new()));
    etcd.good("--group workers set-max 2");
    assert_eq!(
        server.post("pre-reboot", &body("one")),
        (200, String::new()),
        "a changed number counts at once"
    );
    // What is not the protocol.
    assert_eq!(
        kind(server.curl("/v1/pre-reboot", &["-H", "fleet-lock-protocol: true"])),
        (405, "method_not_allowed".into())
    );
    assert_eq!(kind(server.curl("/v1/pre-reboot", &["-d", &body("x")])), (400, "missing_header".into()));
    assert_eq!(kind(server.post("pre-reboot", "{")), (400, "decode_error".into()));
    assert_eq!(
        kind(server.post("pre-reboot", r#"{"client_params":{"group":"a"}}"#)),
        (400, "decode_error".into())
    );
    assert_eq!(
        kind(server.post("pre-reboot", r#"{"client_params":{"id":"","group":"a"}}"#)),
        (400, "invalid_client_identity".into())
    );
    assert_eq!(
        kind(server.post("pre-reboot", r#"{"client_params":{"id":"a","group":"a/b"}}"#)),
        (400, "invalid_client_identity".into())
    );
    assert_eq!(kind(server.post("other", "{}")), (404, "unknown_path".into()));
    let large = etcd.folder.path().join("large");
    std::fs::write(&large, vec![b' '; 100_000]).unwrap();
    assert_eq!(
        kind(server.post("pre-reboot", &format!("@{}", large.display()))),
        (413, "body_too_large".into())
    );
    let metrics = Command::new("curl")
        .args(["--silent", &format!("http://{}/metrics", server.metrics)])
        .output()
        .unwrap();
    let metrics = String::from_utf8(metrics.stdout).unwrap();
    for line in [
        "lockctl_fleetlock_requests_total{request=\"pre-reboot\",result=\"granted\"} 4",
        "lockctl_fleetlock_requests_total{request=\"pre-reboot\",result=\"lock_held\"} 1",
        "lockctl_fleetlock_requests_total{request=\"other\",result=\"unknown_path\"} 1",
        "# EOF",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}\n{metrics}");
    }
    // Without etcd, no.
    let url = etcd.url.clone();
    drop(etcd);
    let gone = kind(server.post("pre-reboot", &body("three")));
    assert_eq!(gone, (503, "backend_unavailable".into()), "{url}");
}

#[test]
fn fleetlock_with_certificates() {
    let Some(etcd) = Etcd::start() else { return };
    let place = etcd.folder.path().to_str().unwrap().to_owned();
    let script = format!(
        "cd {place}; for name in ca other; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
           -subj /CN=$name -keyout $name.key -out $name.pem -days 2 2>/dev/null; done; \
         for name in server client; do \
           openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr 2>/dev/null; \
           printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' > $name.ext; \
           openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem 2>/dev/null; \
         done"
    );
    assert!(Command::new("sh").args(["-ec", &script]).status().unwrap().success());
    let server = Server::start(
        &etcd,
        &["--tls-cert", "server.pem", "--tls-key", "server.key", "--client-ca", "ca.pem"],
    );
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .current_dir(&place)
            .args(["--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}"])
            .args(["--cacert", "ca.pem", "-H", "fleet-lock-protocol: true"])
            .args(["-d", r#"{"client_params":{"id":"a","group":"default"}}"#])
            .args(arguments)
            .arg(format!("https://{}/v1/pre-reboot", server.address))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(&["--cert", "client.pem", "--key", "client.key"]), "200");
    assert_eq!(curl(&[]), "000", "without a certificate");
    assert_eq!(curl(&["--cert", "other.pem", "--key", "other.key"]), "000", "with another authority's");
    let wrong = etcd.run(&["serve", "--tls-cert", "server.pem", "--tls-key", "client.key"]);
    assert_eq!(wrong.status.code(), Some(6), "{wrong:?}");
    let plain = etcd.run(&["serve"]);
    assert_eq!(plain.status.code(), Some(2), "encryption is not left out by mistake: {plain:?}");
}
