//! Certificates, names and passwords.

use crate::inside::{inside, sh};
use ashlar_lock::{Etcd, EtcdOptions, Group, Lock, Request, StoreError};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A member that wants certificates, and its authority in `folder`.
fn start(folder: &str) -> Server {
    sh(&format!(
        "cd {folder}; ip link set lo up; \
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -keyout ca.key -out ca.pem -days 2 2>/dev/null; \
         for name in server client other; do \
           openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr 2>/dev/null; \
           printf 'subjectAltName=IP:127.0.0.1,DNS:etcd.example\\nextendedKeyUsage=serverAuth,clientAuth\\n' > $name.ext; \
           openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem 2>/dev/null; \
         done; \
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=client -keyout forged.key -out forged.pem -days 2 2>/dev/null"
    ));
    let child = Command::new("etcd")
        .args(["--data-dir", &format!("{folder}/data"), "--logger", "zap", "--log-level", "error"])
        .args([
            "--listen-client-urls",
            "https://127.0.0.1:2379",
            "--advertise-client-urls",
            "https://127.0.0.1:2379",
        ])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380", "--auth-token-ttl", "3"])
        .args(["--cert-file", &format!("{folder}/server.pem"), "--key-file", &format!("{folder}/server.key")])
        .args(["--trusted-ca-file", &format!("{folder}/ca.pem"), "--client-cert-auth"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Server(child)
}

fn options(folder: &str, certificate: &str) -> EtcdOptions {
    let read = |name: &str| std::fs::read_to_string(format!("{folder}/{name}")).unwrap();
    EtcdOptions {
        endpoints: vec!["https://127.0.0.1:2379".into()],
        ca: Some(read("ca.pem")),
        identity: Some((read(&format!("{certificate}.pem")), read(&format!("{certificate}.key")))),
        user: None,
    }
}

fn lock(options: EtcdOptions, group: &str) -> Lock<Etcd> {
    Lock::new(Etcd::new(options).unwrap(), group.parse::<Group>().unwrap())
}

#[test]
fn certificates_names_and_passwords() {
    if !inside("secure::certificates_names_and_passwords") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    let _server = start(place);
    let until = Instant::now() + Duration::from_secs(30);
    let mut good = lock(options(place, "client"), "a/b");
    while let Err(error) = good.read() {
        assert!(Instant::now() < until, "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let id: ashlar_lock::HolderId = "m1".parse().unwrap();
    good.try_lock(&Request::new(id.clone(), "x"), false).unwrap();
    let ctl = format!(
        "etcdctl --endpoints https://127.0.0.1:2379 --cacert {place}/ca.pem --cert {place}/client.pem --key {place}/client.key"
    );
    // What etcd's own client sees is what the documentation says.
    let stored = sh(&format!("{ctl} get ashlar/reboot-lock/v1/groups/a%2Fb/semaphore --print-value-only"));
    let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
    assert_eq!((stored["max"].as_u64(), stored["holders"][0]["id"].as_str()), (Some(1), Some("m1")));

    let unavailable = |options: EtcdOptions| match lock(options, "a/b").read() {
        Err(StoreError::Unavailable(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let no_certificate = EtcdOptions { identity: None, ..options(place, "client") };
    unavailable(no_certificate);
    unavailable(options(place, "forged"));
    let foreign = std::fs::read_to_string(format!("{place}/forged.pem")).unwrap();
    let reason = unavailable(EtcdOptions { ca: Some(foreign), ..options(place, "client") });
    assert!(reason.contains("certificate"), "{reason}");
    let wrong_name =
        EtcdOptions { endpoints: vec!["https://localhost:2379".into()], ..options(place, "client") };
    let reason = unavailable(wrong_name);
    assert!(reason.contains("certificate") || reason.contains("name"), "{reason}");
    // The first member is not there; the second answers.
    let mut second = options(place, "client");
    second.endpoints = vec!["https://127.0.0.1:9".into(), "https://127.0.0.1:2379".into()];
    for _ in 0..4 {
        assert!(lock(second.clone(), "a/b").read().unwrap().semaphore.holder("m1").is_some());
    }

    // Names and passwords: without, nothing; with, and after the token has run out, all.
    sh(&format!(
        "{ctl} user add root:secret; {ctl} user grant-role root root || {ctl} role add root && {ctl} user grant-role root root; \
         {ctl} role add lock; {ctl} role grant-permission lock --prefix=true readwrite ashlar/reboot-lock/; \
         {ctl} user add machine:pass; {ctl} user grant-role machine lock; {ctl} user add nobody:pass; {ctl} auth enable"
    ));
    let user = |name: &str, password: &str| EtcdOptions {
        user: Some((name.into(), password.into())),
        ..options(place, "other")
    };
    let mut with = lock(user("machine", "pass"), "a/b");
    assert!(with.read().unwrap().semaphore.holder("m1").is_some());
    with.unlock(&id, None, false, "test").unwrap();
    std::thread::sleep(Duration::from_secs(5));
    with.try_lock(&Request::new(id, "the token has run out"), false).unwrap();
    for (name, password) in [("machine", "wrong"), ("nobody", "pass"), ("unknown", "pass")] {
        let refused = lock(user(name, password), "a/b").read().unwrap_err();
        assert!(matches!(refused, StoreError::Refused(_)), "{name}: {refused}");
    }
    // A certificate with a name that etcd does not know is nobody.
    let refused = lock(options(place, "other"), "a/b").read().unwrap_err();
    assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
}
