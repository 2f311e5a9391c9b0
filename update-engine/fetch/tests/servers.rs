//! Web servers: nginx with ranges and without, and such as nobody should meet.
#![allow(clippy::unwrap_used)]

use ashlar_fetch::{FetchError, Http, HttpOptions, Range, Request, Source};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn options() -> HttpOptions {
    HttpOptions {
        connect: Duration::from_secs(2),
        stall: Duration::from_secs(1),
        slowest: 1000,
        window: Duration::from_secs(1),
        ..HttpOptions::default()
    }
}

fn get(server: &Http, path: &str, range: Option<Range>, max: u64) -> Result<(u64, Vec<u8>), FetchError> {
    let mut body = server.open(&Request { path: path.into(), range, max })?;
    let mut bytes = Vec::new();
    let read = body.reader.read_to_end(&mut bytes);
    read.map_err(|error| FetchError::Failed { path: path.into(), reason: error.to_string() })?;
    Ok((body.start, bytes))
}

/// nginx with more directives for its server; it ends with the value.
struct Nginx {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Nginx {
    fn start(more: &str) -> Option<Self> {
        if !Path::new("/usr/sbin/nginx").exists() {
            assert!(
                std::env::var_os("ASHLAR_TESTS_NO_SKIP").is_none(),
                "nginx is not installed (package nginx)"
            );
            eprintln!("skipped: nginx is not installed (package nginx)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let user = if rustix::process::geteuid().is_root() { "user root;\n" } else { "" };
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {place}/{kind};\n"))
            .concat();
        let config = format!(
            "{user}worker_processes 1;\npid {place}/pid;\nerror_log {place}/error.log;\nevents {{}}\nhttp {{\n  access_log off;\n\
             {temporary}  server {{ listen 127.0.0.1:{port}; root {place}/www; {more} }}\n}}\n"
        );
        std::fs::create_dir(folder.path().join("www")).unwrap();
        std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
        let child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(folder.path().join("nginx.conf"))
            .args(["-g", "daemon off;"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "nginx does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { child, port, folder })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn nginx_with_ranges_and_without() {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for (more, ranges) in
        [("", true), ("max_ranges 0;", false), ("gzip on; gzip_types *; gzip_min_length 1;", true)]
    {
        let Some(nginx) = Nginx::start(more) else { return };
        std::fs::write(nginx.folder.path().join("www/a file"), &content).unwrap();
        let server = Http::new(&format!("http://127.0.0.1:{}", nginx.port), options()).unwrap();
        let (start, bytes) = get(&server, "a%20file", None, 1 << 20).unwrap();
        assert!(start == 0 && bytes == content, "{more}");
        let part = Range { start: 1000, length: 5000 };
        let (start, bytes) = get(&server, "a%20file", Some(part), 1 << 20).unwrap();
        if ranges {
            assert!(start == 1000 && bytes == content[1000..6000], "{more}: {start} {}", bytes.len());
        } else {
            // Who asked takes what it needs of the whole.
            assert!(start == 0 && bytes == content, "{more}");
        }
        assert!(matches!(get(&server, "none", None, 10), Err(FetchError::NotFound(_))));
        assert!(matches!(get(&server, "a%20file", None, 1000), Err(FetchError::TooLong { .. })));
        for bad in ["../nginx.conf", "a//b", "/a", "a?b", ""] {
            assert!(matches!(get(&server, bad, None, 10), Err(FetchError::Failed { .. })), "{bad}");
        }
    }
}

fn slowly(stream: &mut TcpStream, head: &[u8]) -> std::io::Result<()> {
    stream.write_all(head)?;
    loop {
        stream.write_all(b"a")?;
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn for_ever(stream: &mut TcpStream, head: &[u8], piece: &[u8]) -> std::io::Result<()> {
    stream.write_all(head)?;
    loop {
        stream.write_all(piece)?;
    }
}

fn answer_with(stream: &mut TcpStream, answer: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    match answer {
        "silence" => {
            std::thread::sleep(Duration::from_secs(20));
            Ok(())
        }
        "slow header" => slowly(stream, b"HTTP/1.1 200 OK\r\nx-header: "),
        "slow body" => slowly(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"),
        "endless header" => {
            for_ever(stream, b"HTTP/1.1 200 OK\r\n", b"x-header: aaaaaaaaaaaaaaaaaaaaaaaa\r\n")
        }
        "endless body" => for_ever(
            stream,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"10\r\n0123456789abcdef\r\n",
        ),
        text => stream.write_all(text.as_bytes()),
    }
}

/// A server that answers with this text, or in one of the ways that have a name.
fn server(answer: &'static str) -> Http {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(answer_with(&mut stream, answer)));
        }
    });
    Http::new(&address, options()).unwrap()
}

#[test]
fn servers_that_nobody_should_meet() {
    let part = Some(Range { start: 10, length: 5 });
    for (answer, range, words) in [
        ("silence", None, "in time"),
        ("slow header", None, ""),
        ("endless header", None, ""),
        ("slow body", None, ""),
        ("endless body", None, "longer than"),
        ("", None, ""),
        ("garbage\r\n\r\n", None, ""),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort", None, ""),
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", None, "longer than"),
        ("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc", None, "packs it"),
        (
            "HTTP/1.1 206 Part\r\ncontent-length: 5\r\ncontent-range: bytes 0-4/5\r\n\r\nabcde",
            None,
            "unasked",
        ),
        ("HTTP/1.1 206 Part\r\ncontent-length: 5\r\n\r\nabcde", part, "which part"),
        (
            "HTTP/1.1 206 Part\r\ncontent-length: 5\r\ncontent-range: bytes 11-15/20\r\n\r\nabcde",
            part,
            "another part",
        ),
        (
            "HTTP/1.1 206 Part\r\ncontent-length: 9\r\ncontent-range: bytes 10-18/20\r\n\r\nabcdefghi",
            part,
            "another part",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: /x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            None,
            "circles",
        ),
        ("HTTP/1.1 302 Found\r\nlocation: ftp://127.0.0.1/x\r\ncontent-length: 0\r\n\r\n", None, ""),
        ("HTTP/1.1 302 Found\r\nlocation: file:///etc/passwd\r\ncontent-length: 0\r\n\r\n", None, ""),
        ("HTTP/1.1 503 Busy\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n", None, "after 120"),
    ] {
        let start = Instant::now();
        let error = get(&server(answer), "file", range, 10_000).unwrap_err().to_string();
        assert!(start.elapsed() < Duration::from_secs(10), "{answer} took {:?}: {error}", start.elapsed());
        assert!(error.contains(words), "{answer}: {error}");
    }
}
