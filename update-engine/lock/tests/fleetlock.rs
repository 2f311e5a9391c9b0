//! The FleetLock client against servers of others: good ones, bad ones, and such as are none.

#![allow(clippy::unwrap_used)]

use ashlar_lock::HolderId;
use ashlar_lock::fleetlock::{FleetLock, FleetLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const ID: &str = "978a225b3d7b40e9acd7ce9b62f68444";

/// What a server got.
#[derive(Debug)]
struct Got {
    line: String,
    headers: Vec<String>,
    body: String,
}

fn read(stream: &TcpStream) -> Option<Got> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        lines.push(line);
    }
    let length = lines
        .iter()
        .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let headers = lines.split_off(1.min(lines.len()));
    Some(Got { line: lines.pop()?, headers, body: String::from_utf8(body).ok()? })
}

/// A server that answers everything with these bytes, and goes on sending where they do not end.
fn server(answer: &str) -> (String, Receiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, got) = channel();
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Some(request) = read(&stream) else { continue };
            let _ = sender.send(request);
            match answer.as_str() {
                "silence" => std::thread::sleep(Duration::from_secs(10)),
                "endless" => {
                    let _ = stream.write_all(b"HTTP/1.1 500 x\r\ntransfer-encoding: chunked\r\n\r\n");
                    while stream.write_all(b"10\r\n0123456789abcdef\r\n").is_ok() {}
                }
                "slow" => {
                    let _ = stream.write_all(b"HTTP/1.1 500 x\r\ncontent-length: 1000\r\n\r\n");
                    while stream.write_all(b"x").is_ok() {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
                text => drop(stream.write_all(text.as_bytes())),
            }
        }
    });
    (address, got)
}

fn client(base: &str, deadline: Duration) -> FleetLock {
    let id: HolderId = ID.parse().unwrap();
    FleetLock::new(base, "workers", &id, &[], deadline).unwrap()
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

#[test]
fn a_request_is_the_protocols() {
    let (address, got) = server(&http("200 OK", ""));
    // With a path, with a slash at its end and without.
    for base in [format!("{address}/fleet_lock"), format!("{address}/fleet_lock/")] {
        let client = client(&base, Duration::from_secs(5));
        client.pre_reboot().unwrap();
        client.steady_state().unwrap();
        for what in ["pre-reboot", "steady-state"] {
            let got = got.recv().unwrap();
            assert_eq!(got.line, format!("POST /fleet_lock/v1/{what} HTTP/1.1"));
            assert!(
                got.headers.iter().any(|header| header.eq_ignore_ascii_case("fleet-lock-protocol: true"))
            );
            let body: serde_json::Value = serde_json::from_str(&got.body).unwrap();
            assert_eq!(body, serde_json::json!({ "client_params": { "id": ID, "group": "workers" } }));
        }
    }
}

#[test]
fn failures_are_told_as_the_protocol_says() {
    let held = r#"{"kind":"lock_held","value":"by somebody"}"#;
    for (answer, kind, text) in [
        (http("423 Locked", held), "lock_held", "server-side error, code 423: by somebody"),
        (
            http("500 Oh", r#"{"kind":"internal_error","value":"x"}"#),
            "internal_error",
            "server-side error, code 500: x",
        ),
        (http("500 Oh", "<html>Sorry</html>"), "generic_http_500", "server-side error, code 500"),
        (http("404 No", ""), "generic_http_404", "server-side error, code 404"),
        // Only 200 grants.
        (http("204 No Content", ""), "generic_http_204", "code 204"),
        (http("201 Created", "{}"), "generic_http_201", "code 201"),
        (http("302 Found\r\nlocation: http://127.0.0.1:1/", ""), "generic_http_302", "redirect"),
        (http("307 Again\r\nlocation: /v1/pre-reboot", ""), "generic_http_307", "redirect"),
        ("garbage\r\n\r\n".into(), "client_failed_request", "does not answer"),
        (String::new(), "client_failed_request", "does not answer"),
    ] {
        let (address, _got) = server(&answer);
        let error = client(&address, Duration::from_secs(5)).pre_reboot().unwrap_err();
        assert_eq!(error.kind(), kind, "{answer}: {error}");
        assert!(error.to_string().contains(text), "{answer}: {error}");
    }
}

#[test]
fn servers_that_do_not_end() {
    for answer in ["silence", "endless", "slow"] {
        let (address, _got) = server(answer);
        let start = Instant::now();
        let error = client(&address, Duration::from_secs(1)).pre_reboot().unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(8), "{answer} took {:?}", start.elapsed());
        match answer {
            "silence" => assert!(matches!(error, FleetLockError::Request { .. }), "{error}"),
            _ => assert_eq!(error.kind(), "generic_http_500", "{answer}: {error}"),
        }
    }
    let nobody = client("http://127.0.0.1:1", Duration::from_secs(1)).pre_reboot().unwrap_err();
    assert_eq!(nobody.kind(), "client_failed_request");
}
