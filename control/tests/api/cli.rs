//! `ashlarctl` as people use it, on the machine and from afar.

use crate::machine::Machine;
use ashlar_image::control::{Request, ServiceAction, Status};

/// Arguments for the machine over TLS.
fn afar<'a>(address: &'a str, identity: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [&["--node", address, "--identity", identity], arguments].concat()
}

#[test]
fn on_the_machine() {
    let machine = Machine::start();
    let run = |arguments: &[&str], input: &str| {
        machine.ashlarctl(&[&["--socket", "api.sock"], arguments].concat(), input)
    };
    let status = run(&["status"], "");
    assert_eq!(status.code(), 0, "{status:?}");
    for part in
        ["edge-1  good, up 12 s", "my-host 7, security version 4, floor 3", "web", "Secure Boot    on"]
    {
        assert!(status.stdout.contains(part), "{part}: {}", status.stdout);
    }
    let json = run(&["status", "--json"], "");
    assert_eq!(serde_json::from_str::<Status>(&json.stdout).unwrap(), crate::machine::status());
    assert!(run(&["services"], "").stdout.contains("NAME"));
    assert_eq!(run(&["service", "restart", "web"], "").code(), 0);
    let service = Request::Service { name: "web".into(), action: ServiceAction::Restart };
    assert_eq!(machine.requests().last(), Some(&service));
    let none = run(&["service", "stop", "none"], "");
    assert_eq!(none.code(), 4);
    assert!(
        none.stderr.contains("there is no such service") && none.stderr.contains("look closer"),
        "{none:?}"
    );

    let show = run(&["config", "show"], "");
    assert_eq!(show.stdout, "serial = 12\nhostname = \"edge-1\"\n");
    assert!(show.stderr.contains("serial 12, from state volume"), "{show:?}");
    std::fs::write(machine.path("good"), "{}").unwrap();
    std::fs::write(machine.path("forged"), "{forged}").unwrap();
    let dry = run(&["config", "apply", "good", "--dry-run"], "");
    assert!(dry.stdout.contains("serial 13 would be accepted"), "{dry:?}");
    assert!(dry.stdout.contains("waits for a restart: watchdog"), "{dry:?}");
    assert_eq!(machine.requests().last(), Some(&Request::Configure { envelope: "{}".into(), dry_run: true }));
    assert!(run(&["config", "apply", "-"], "{}").stdout.contains("serial 13 is in force"));
    assert_eq!(
        machine.requests().last(),
        Some(&Request::Configure { envelope: "{}".into(), dry_run: false })
    );
    assert_eq!(run(&["config", "apply", "forged"], "").code(), 4);
    assert_eq!(run(&["config", "apply", "nowhere"], "").code(), 6);

    let measured = run(&["measurements"], "");
    assert!(measured.stdout.contains("11   ") && measured.stdout.contains("1572864 bytes"), "{measured:?}");
    assert_eq!(run(&["state", "reseal"], " good-key \n").code(), 0);
    assert_eq!(run(&["state", "reseal"], "bad\n").code(), 4);
    assert_eq!(run(&["state", "reseal"], "\n").code(), 2);
    assert_eq!(run(&["reboot"], "").code(), 0);
    assert_eq!(run(&["power-off"], "").code(), 0);
    assert_eq!(machine.requests().last(), Some(&Request::PowerOff));
}

#[test]
fn from_afar_with_trust() {
    let machine = Machine::start();
    let address = machine.address.to_string();
    let fingerprint = machine.fingerprint();
    let status = afar(&address, "reader.pem", &["status"]);

    let unknown = machine.ashlarctl(&status, "");
    assert_eq!(unknown.code(), 5, "{unknown:?}");
    let grouped = fingerprint.parse::<ashlar_control::fingerprint::Fingerprint>().unwrap().grouped();
    assert!(grouped.lines().all(|line| unknown.stderr.contains(line)), "{unknown:?}");
    assert!(unknown.stderr.contains(&format!("ashlarctl trust {address}")), "{unknown:?}");

    // Nobody compares: nothing is stored, and the command that would is told.
    let trust = machine.ashlarctl(&["trust", &address], "");
    assert_eq!(trust.code(), 2);
    assert!(
        trust.stderr.contains(&format!("ashlarctl trust {address} --fingerprint {fingerprint}")),
        "{trust:?}"
    );
    assert_eq!(machine.ashlarctl(&status, "").code(), 5);
    let wrong = format!("sha256:{}", "ab".repeat(32));
    assert_eq!(machine.ashlarctl(&["trust", &address, "--fingerprint", &wrong], "").code(), 5);
    let trust = machine.ashlarctl(&["trust", &address, "--fingerprint", &fingerprint], "");
    assert_eq!(trust.code(), 0, "{trust:?}");

    let known = machine.ashlarctl(&status, "");
    assert_eq!(known.code(), 0, "{known:?}");
    assert!(known.stdout.contains("edge-1  good"));
    assert!(machine.ashlarctl(&["trust", &address], "").stdout.contains("trusted already"));

    // Said on the command line, that counts, right or wrong.
    let changed = machine.ashlarctl(&[&status[..], &["--fingerprint", &wrong]].concat(), "");
    assert_eq!(changed.code(), 5);
    assert!(changed.stderr.contains("another certificate than the trusted one"), "{changed:?}");
    // Nothing was asked of a machine that is not trusted.
    assert_eq!(machine.requests(), [Request::Status]);

    let refused = machine.ashlarctl(&afar(&address, "reader.pem", &["reboot"]), "");
    assert_eq!(refused.code(), 4);
    assert!(refused.stderr.contains("needs the role `operator`"), "{refused:?}");
    assert_eq!(machine.ashlarctl(&afar(&address, "operator.pem", &["reboot"]), "").code(), 0);
}

#[test]
fn certificates_that_are_not_accepted() {
    let machine = Machine::start();
    let address = machine.address.to_string();
    let fingerprint = machine.fingerprint();
    let node = ["--node", &address, "--fingerprint", &fingerprint];
    let none = machine.ashlarctl(&[&node[..], &["status"]].concat(), "");
    assert_eq!(none.code(), 5, "{none:?}");
    assert!(none.stderr.contains("none was shown") && none.stderr.contains("identity new"), "{none:?}");
    let made = machine.ashlarctl(&["identity", "new-ca", "--ca", "other"], "");
    assert_eq!(made.code(), 0, "{made:?}");
    let arguments = ["identity", "new", "mallory", "--role", "admin", "--ca", "other"];
    assert_eq!(machine.ashlarctl(&arguments, "").code(), 0);
    assert_eq!(machine.ashlarctl(&arguments, "").code(), 6, "an identity is not overwritten");
    let foreign = machine.ashlarctl(&[&node[..], &["--identity", "mallory.pem", "status"]].concat(), "");
    assert_eq!(foreign.code(), 5, "{foreign:?}");
    assert!(foreign.stderr.contains("does not accept this client's certificate"), "{foreign:?}");
    // Where it is looked for without being named.
    std::fs::create_dir_all(machine.path("home/.config/ashlar")).unwrap();
    std::fs::copy(machine.path("reader.pem"), machine.path("home/.config/ashlar/identity.pem")).unwrap();
    assert_eq!(machine.ashlarctl(&[&node[..], &["status"]].concat(), "").code(), 0);
}

#[test]
fn who_does_not_answer() {
    let machine = Machine::start();
    let gone = machine.ashlarctl(&["--socket", "nowhere", "status"], "");
    assert_eq!(gone.code(), 3, "{gone:?}");
    // A port that was just free, and something that speaks no TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let closed = machine.ashlarctl(&["--node", &address, "status"], "");
    assert_eq!(closed.code(), 3);
    assert!(closed.stderr.contains("nobody listens") && closed.stderr.contains("trust roots"), "{closed:?}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let other = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = (stream.read(&mut [0; 64]), stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n"));
    });
    let ssh = machine.ashlarctl(&["--node", &address, "status"], "");
    assert_eq!(ssh.code(), 3);
    assert!(ssh.stderr.contains("no TLS 1.3 is spoken there"), "{ssh:?}");
    other.join().unwrap();
    std::fs::remove_file(machine.path("init.sock")).unwrap();
    let init = machine.ashlarctl(&["--socket", "api.sock", "status"], "");
    assert_eq!(init.code(), 3);
    assert!(init.stderr.contains("PID 1 does not answer"), "{init:?}");
    assert_eq!(machine.ashlarctl(&["status", "--node", "a b"], "").code(), 2);
}

#[test]
fn pages_and_completions() {
    let machine = Machine::start();
    for (shell, part) in
        [("bash", "_ashlarctl"), ("zsh", "#compdef ashlarctl"), ("fish", "complete -c ashlarctl")]
    {
        let script = machine.ashlarctl(&["generate", "completions", shell], "");
        assert!(script.status.success() && script.stdout.contains(part), "{shell}");
    }
    assert_eq!(machine.ashlarctl(&["generate", "man", "man"], "").code(), 0);
    let page = std::fs::read_to_string(machine.path("man/ashlarctl.1")).unwrap();
    assert!(page.contains("Exit codes") && machine.path("man/ashlarctl-logs.1").exists());
    assert!(!machine.path("man/ashlarctl-generate.1").exists());
}
