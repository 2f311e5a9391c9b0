//! Servers on this machine: the real `docker-registry`, and small ones for what it would never do.
#![allow(dead_code)] // each test uses a part of it
#![allow(clippy::unwrap_used)] // a test fails by it

use crate::common::Guard;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A registry with its own storage; ended when it is dropped.
pub struct DockerRegistry {
    pub address: SocketAddr,
    pub folder: tempfile::TempDir,
    _child: Guard,
}

impl DockerRegistry {
    /// Starts one; `more` is what its configuration says below `auth` and `http.tls`. None when it is not installed.
    pub fn start(auth: &str, tls: Option<(&Path, &Path)>) -> Option<Self> {
        for attempt in 0.. {
            let folder = tempfile::tempdir().unwrap();
            // Free a moment ago; somebody else may be faster, so it is tried again.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let tls = tls.map_or(String::new(), |(certificate, key)| {
                format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display())
            });
            let config = format!(
                "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n  secret: test\n{tls}{auth}",
                folder.path().join("storage").display()
            );
            let path = folder.path().join("config.yml");
            std::fs::write(&path, config).unwrap();
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let child = Command::new("docker-registry")
                .arg("serve")
                .arg(&path)
                .env_clear()
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn();
            let mut child = match child {
                Ok(child) => Guard(child),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    println!("skipped: docker-registry is not installed (Debian package docker-registry)");
                    return None;
                }
                Err(error) => panic!("{error}"),
            };
            let end = Instant::now() + Duration::from_secs(20);
            loop {
                if TcpStream::connect(address).is_ok() {
                    return Some(Self { address, folder, _child: child });
                }
                if child.0.try_wait().unwrap().is_some() || Instant::now() > end {
                    let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
                    assert!(attempt < 3, "docker-registry does not start: {log}");
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        None
    }

    /// Where it keeps a blob.
    pub fn blob(&self, digest: &str) -> PathBuf {
        let folder = self.folder.path().join("storage/docker/registry/v2/blobs/sha256");
        folder.join(&digest[..2]).join(digest).join("data")
    }
}

/// Answers each request with what `reply` makes of its head (and the body, if it has one): bytes to be sent, after which the connection is closed. Heads are
/// remembered. Runs until the test's process ends.
pub struct Small {
    pub address: SocketAddr,
    pub heads: Arc<Mutex<Vec<String>>>,
}

impl Small {
    pub fn start(reply: impl Fn(SocketAddr, &str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let remembered = heads.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                    head.push(byte[0]);
                }
                let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
                let length =
                    text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
                let mut body = vec![0; length.unwrap_or(0)];
                let _ = stream.read_exact(&mut body);
                head.extend(body);
                let head = String::from_utf8_lossy(&head).into_owned();
                remembered.lock().unwrap().push(head.clone());
                let _ = stream.write_all(&reply(address, &head));
            }
        });
        Self { address, heads }
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

/// An answer with a body.
pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}
