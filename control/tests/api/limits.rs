//! What a client may not do to the machine.

use crate::machine::{Machine, status};
use crate::programs::{Process, wait_for};
use ashlar_control::client::{Client, Credentials, Target};
use ashlar_control::identity::Identity;
use ashlar_image::control::Status;
use bytes::Bytes;
use hyper::Method;
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

/// The connection preface of HTTP/2 and empty settings (RFC 9113, sections 3.4 and 6.5).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
/// Most requests that PID 1 has at a time.
const MAX_ASKED: usize = 8;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn remote(machine: &Machine, identity: &str) -> (Target, Credentials) {
    let target = machine.address.to_string().parse().unwrap();
    let credentials = Credentials {
        fingerprint: Some(machine.fingerprint().parse().unwrap()),
        identity: Some(Identity::read(&machine.path(identity)).unwrap()),
    };
    (target, credentials)
}

/// Ten connections with ten requests each, all at once.
async fn hundred(target: &Target, credentials: &Credentials) -> usize {
    let mut connections = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let (target, credentials) = (target.clone(), credentials.clone());
        connections.spawn(async move {
            let mut good = 0;
            let mut client = Client::connect(&target, &credentials).await.unwrap();
            for _ in 0..10 {
                let bytes = client.call(Method::GET, "/v1/status", Vec::new()).await.unwrap();
                good += usize::from(serde_json::from_slice::<Status>(&bytes).unwrap() == status());
            }
            good
        });
    }
    connections.join_all().await.iter().sum()
}

#[test]
fn a_hundred_requests() {
    let machine = Machine::start();
    let local = Target::Local(machine.path("api.sock"));
    let nobody = Credentials { fingerprint: None, identity: None };
    assert_eq!(runtime().block_on(hundred(&local, &nobody)), 100);
    let (target, credentials) = remote(&machine, "reader.pem");
    assert_eq!(runtime().block_on(hundred(&target, &credentials)), 100);
    assert_eq!(machine.requests().len(), 200);
    let most = machine.seen.most.load(Ordering::Relaxed);
    assert!((1..=MAX_ASKED).contains(&most), "{most}");
}

/// Whether the peer has ended the connection.
fn has_ended(stream: &mut impl Read) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return false;
            }
            Err(_) => return true,
        }
    }
}

#[test]
fn who_is_slow_is_sent_away() {
    let machine = Machine::start();
    let local = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(machine.path("api.sock")).unwrap();
        stream.write_all(bytes).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut unix = [
        // Nothing; half a preface; a preface and nothing more; headers that never end (HEADERS without END_HEADERS).
        local(b""),
        local(&PREFACE[..9]),
        local(PREFACE),
        local(&[PREFACE, b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"].concat()),
    ];
    let mut tcp: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(machine.address).unwrap()).collect();
    // The beginning of a TLS record, and no more.
    tcp[1].write_all(b"\x16\x03\x01\x02\x00\x01").unwrap();
    for stream in &tcp {
        stream.set_nonblocking(true).unwrap();
    }
    wait_for("the end of slow connections", || {
        (unix.iter_mut().all(has_ended) && tcp.iter_mut().all(has_ended)).then_some(())
    });
    // Nobody was in the way of others.
    assert_eq!(machine.ashlarctl(&["--socket", "api.sock", "status"], "").code(), 0);
}

/// A body of which nothing comes, ever.
struct Never;

impl hyper::body::Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// Asks through the socket and gives the response, of which nothing was read yet.
async fn ask<B>(socket: &Path, method: &str, path: &str, body: B) -> hyper::Response<Incoming>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::builder().method(method).uri(format!("http://m{path}")).body(body).unwrap();
    let response = tokio::time::timeout(Duration::from_secs(60), sender.send_request(request)).await;
    // The connection lives as long as its sender.
    std::mem::forget(sender);
    response.expect("an answer in time").unwrap()
}

#[test]
fn a_body_that_does_not_come() {
    let machine = Machine::start();
    let socket = machine.path("api.sock");
    let response = runtime().block_on(ask(&socket, "PUT", "/v1/configuration", Never));
    assert_eq!(response.status(), 408);
    assert_eq!(machine.requests(), []);
}

#[test]
fn one_address_does_not_take_all_places() {
    let machine = Machine::start();
    // More than are let in from one address: the rest is closed at once, the others after their time.
    let mut streams: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(machine.address).unwrap()).collect();
    for stream in &streams {
        stream.set_nonblocking(true).unwrap();
    }
    wait_for("the end of those that are too many", || {
        let ended = streams.iter_mut().map(|stream| usize::from(has_ended(stream))).sum::<usize>();
        (ended >= 24).then_some(())
    });
    drop(streams);
    let (target, credentials) = remote(&machine, "reader.pem");
    let connected = wait_for("a place", || {
        runtime().block_on(async {
            let mut client = Client::connect(&target, &credentials).await.ok()?;
            client.call(Method::GET, "/v1/status", Vec::new()).await.ok()
        })
    });
    assert!(!connected.is_empty());
}

/// A field of `/proc/PID/status` in KiB.
fn memory(pid: u32, field: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// The program itself: what it holds in memory while clients do not take what they have asked for.
#[test]
fn memory_is_bounded() {
    let machine = Machine::start();
    let socket = machine.path("second.sock");
    let log = machine.path("log");
    let line = serde_json::json!({
        "time": 1, "uptime": 1, "boot": "a", "unit": "web", "priority": 6, "message": "x".repeat(4000),
    });
    std::fs::write(log.join("0000000000000001.jsonl"), format!("{line}\n").repeat(8000)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ashlarctl"));
    command.arg("serve").arg("--api-socket").arg(&socket).arg("--log-folder").arg(&log);
    command.arg("--init-socket").arg(machine.path("init.sock")).stdout(Stdio::null()).stdin(Stdio::null());
    let server = Process(command.spawn().unwrap());
    wait_for("the socket", || UnixStream::connect(&socket).ok());
    let idle = memory(server.0.id(), "VmRSS");
    let target = Target::Local(socket.clone());
    let nobody = Credentials { fingerprint: None, identity: None };
    runtime().block_on(async {
        // Ten that follow 32 MB each and take nothing of it.
        let mut followers = Vec::new();
        for _ in 0..10 {
            let body = http_body_util::Empty::<Bytes>::new();
            let response = ask(&socket, "GET", "/v1/logs?follow=true", body).await;
            assert_eq!(response.status(), 200);
            followers.push(response);
        }
        assert_eq!(hundred(&target, &nobody).await, 100);
        drop(followers);
    });
    let most = memory(server.0.id(), "VmHWM");
    eprintln!("ashlarctl serve: {idle} KiB idle, {most} KiB at most");
    assert!(most < 40 << 10, "{most} KiB");
}
