//! Every address, asked by curl through the Unix socket.

use crate::machine::{Machine, services, status};
use crate::programs::{Output, output, tool};
use ashlar_image::control::{
    Applied, ConfigurationState, Measurements, Refusal, RefusalKind, Request, ServiceAction, Status,
};
use ashlar_image::report::ServiceState;

/// The HTTP status, and the body.
fn curl(machine: &Machine, arguments: &[&str], path: &str) -> Option<(u16, String)> {
    let output = run(machine, &["--http2-prior-knowledge"], arguments, path)?;
    assert!(output.status.success(), "{output:?}");
    let (body, status) = output.stdout.rsplit_once('\n').unwrap();
    Some((status.parse().unwrap(), body.to_owned()))
}

fn run(machine: &Machine, version: &[&str], arguments: &[&str], path: &str) -> Option<Output> {
    let mut command = tool("curl")?;
    command
        .args([
            "--silent",
            "--show-error",
            "--max-time",
            "50",
            "--write-out",
            "\n%{http_code}",
            "--unix-socket",
        ])
        .arg(machine.path("api.sock"))
        .args(version)
        .args(arguments)
        .arg(format!("http://machine{path}"))
        .current_dir(machine.folder.path());
    // For `--upload-file -`.
    Some(output(&mut command, &vec![b' '; (1 << 20) + 1]))
}

fn refusal(body: &str) -> Refusal {
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn what_the_machine_tells() {
    let machine = Machine::start();
    let Some((code, body)) = curl(&machine, &[], "/v1/status") else { return };
    assert_eq!((code, serde_json::from_str::<Status>(&body).unwrap()), (200, status()));
    let (code, body) = curl(&machine, &[], "/v1/services").unwrap();
    assert_eq!((code, serde_json::from_str::<Vec<ServiceState>>(&body).unwrap()), (200, services()));
    let (code, body) = curl(&machine, &[], "/v1/configuration").unwrap();
    assert_eq!((code, serde_json::from_str::<ConfigurationState>(&body).unwrap().serial), (200, Some(12)));
    let (code, body) = curl(&machine, &[], "/v1/measurements").unwrap();
    let measured: Measurements = serde_json::from_str(&body).unwrap();
    assert_eq!((code, measured.firmware_log.len(), measured.pcrs.len()), (200, 2 << 20, 1));
    let expected = [Request::Status, Request::Services, Request::Configuration, Request::Measurements];
    assert_eq!(machine.requests(), expected);
}

#[test]
fn what_the_machine_does() {
    let machine = Machine::start();
    for (path, request) in [
        ("/v1/services/web/start", Request::Service { name: "web".into(), action: ServiceAction::Start }),
        ("/v1/services/web/stop", Request::Service { name: "web".into(), action: ServiceAction::Stop }),
        ("/v1/services/web/restart", Request::Service { name: "web".into(), action: ServiceAction::Restart }),
        ("/v1/reboot", Request::Reboot),
        ("/v1/power-off", Request::PowerOff),
    ] {
        let Some((code, body)) = curl(&machine, &["--request", "POST"], path) else { return };
        assert_eq!((code, body.as_str()), (204, ""));
        assert_eq!(machine.requests().last(), Some(&request));
    }
    let envelope = "{\"payload\": \"\u{e4}\\\"\"}";
    std::fs::write(machine.path("envelope"), envelope).unwrap();
    for (path, dry_run) in [("/v1/configuration", false), ("/v1/configuration?dry-run=true", true)] {
        let (code, body) = curl(&machine, &["--upload-file", "envelope"], path).unwrap();
        assert_eq!((code, serde_json::from_str::<Applied>(&body).unwrap().serial), (200, 13));
        let request = Request::Configure { envelope: envelope.into(), dry_run };
        assert_eq!(machine.requests().last(), Some(&request));
    }
    let (code, _) =
        curl(&machine, &["--data", "{\"recovery_key\":\"good-key\"}"], "/v1/state/reseal").unwrap();
    assert_eq!(code, 204);
    assert_eq!(machine.requests().last(), Some(&Request::Reseal { recovery_key: "good-key".into() }));
}

#[test]
fn what_the_machine_refuses() {
    let machine = Machine::start();
    for (arguments, path, expected, kind) in [
        (&["--request", "POST"][..], "/v1/services/none/start", 404, RefusalKind::NotFound),
        (&["--request", "POST"], "/v1/services/failing/start", 500, RefusalKind::Failed),
        (&["--request", "PUT", "--data", "{forged}"], "/v1/configuration", 403, RefusalKind::Forbidden),
        (&["--request", "PUT", "--data", "{older}"], "/v1/configuration", 409, RefusalKind::Conflict),
        (&["--request", "PUT", "--data", "x"], "/v1/configuration", 400, RefusalKind::Invalid),
        (&["--data", "{\"recovery_key\":\"bad\"}"], "/v1/state/reseal", 403, RefusalKind::Forbidden),
    ] {
        let Some((code, body)) = curl(&machine, arguments, path) else { return };
        assert_eq!((code, refusal(&body).kind), (expected, kind), "{path}: {body}");
        assert_eq!(refusal(&body).advice, "look closer");
    }
}

#[test]
fn what_never_reaches_pid_1() {
    let machine = Machine::start();
    std::fs::write(machine.path("big"), vec![b' '; (1 << 20) + 1]).unwrap();
    // Of more bytes in JSON than a line for PID 1 may have.
    std::fs::write(machine.path("escaped"), vec![1; 1 << 20]).unwrap();
    std::fs::write(machine.path("latin1"), [b'{', 0xe4]).unwrap();
    for (arguments, path, expected) in [
        (&[][..], "/", 404),
        (&[], "/v2/status", 404),
        (&["--request", "DELETE"], "/v1/status", 405),
        (&["--data", "x"], "/v1/reboot", 413),
        (&["--upload-file", "big"], "/v1/configuration", 413),
        // Of a length that is not said.
        (&["--upload-file", "-"], "/v1/configuration", 413),
        (&["--upload-file", "escaped"], "/v1/configuration", 413),
        (&["--upload-file", "latin1"], "/v1/configuration", 400),
        (&["--data", "{\"recovery_key\":\"good-key\",\"x\":1}"], "/v1/state/reseal", 400),
        (&["--data", "good-key"], "/v1/state/reseal", 400),
        (&["--request", "POST"], "/v1/services/..%2f/start", 400),
        (&["--request", "POST"], "/v1/reboot?now=true", 400),
    ] {
        let Some((code, body)) = curl(&machine, arguments, path) else { return };
        assert_eq!(code, expected, "{arguments:?} {path}: {body}");
        assert!(!refusal(&body).message.contains("good-key"), "{body}");
    }
    // Headers: HTTP/2 itself answers.
    let long = format!("x: {}", "y".repeat(40_000));
    let output = run(&machine, &["--http2-prior-knowledge"], &["--header", &long], "/v1/status").unwrap();
    assert!(output.stdout.ends_with("\n431") || !output.status.success(), "{output:?}");
    // Another protocol is no HTTP/2.
    let output = run(&machine, &["--http1.1"], &[], "/v1/status").unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(machine.requests(), []);
}

#[test]
fn pid_1_is_not_there() {
    let machine = Machine::start();
    std::fs::remove_file(machine.path("init.sock")).unwrap();
    let Some((code, body)) = curl(&machine, &[], "/v1/status") else { return };
    assert_eq!((code, refusal(&body).kind), (502, RefusalKind::Failed));
}
