//! An archive of Debian packages in a folder, made and signed by the test itself.
#![allow(dead_code, reason = "each test program uses a part")]

use ashlar_debian::{Cache, Error, Index, Locked, Network, Progress, Suite, SuiteSource};
use openpgp::cert::{Cert, CertBuilder};
use openpgp::policy::StandardPolicy;
use openpgp::serialize::Serialize;
use openpgp::serialize::stream::{Message, Signer};
use ring::digest::{SHA256, digest};
use sequoia_openpgp as openpgp;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

/// One thing in a package.
pub enum Entry<'a> {
    Directory(&'a str, u32),
    File(&'a str, &'a str),
    Symlink(&'a str, &'a str),
    HardLink(&'a str, &'a str),
}

/// A `tar` as dpkg-deb makes it.
pub fn tar(files: &[Entry]) -> Vec<u8> {
    [tar_of(files), vec![0; 1024]].concat()
}

/// As [`tar`], without the end mark.
fn tar_of(files: &[Entry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_mode(0o644);
        header.set_size(0);
        match file {
            Entry::Directory(path, mode) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                builder.append_data(&mut header, path, &[][..]).unwrap();
            }
            Entry::File(path, text) => {
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
            Entry::Symlink(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Entry::HardLink(path, target) => {
                header.set_entry_type(tar::EntryType::Link);
                builder.append_link(&mut header, path, target).unwrap();
            }
        }
    }
    let mut tar = builder.into_inner().unwrap();
    tar.truncate(tar.len() - 1024);
    tar
}

fn member(out: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    writeln!(out, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, bytes.len()).unwrap();
    out.extend_from_slice(bytes);
    if bytes.len() % 2 == 1 {
        out.push(b'\n');
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut packed).unwrap();
    packed
}

/// A package of the archive.
pub struct Deb {
    pub name: &'static str,
    pub version: &'static str,
    /// More fields of the control file, each with its line feed.
    pub fields: &'static str,
    pub bytes: Vec<u8>,
}

impl Deb {
    pub fn new(name: &'static str, version: &'static str, fields: &'static str, files: &[Entry]) -> Self {
        Self::with_scripts(name, version, fields, files, &[])
    }

    /// With further files in the control archive.
    pub fn with_scripts(
        name: &'static str,
        version: &'static str,
        fields: &'static str,
        files: &[Entry],
        scripts: &[Entry],
    ) -> Self {
        let control = format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n{fields}");
        let control =
            [tar_of(&[Entry::File("./control", &control)]), tar_of(scripts), vec![0; 1024]].concat();
        let mut bytes = b"!<arch>\n".to_vec();
        member(&mut bytes, "debian-binary", b"2.0\n");
        member(&mut bytes, "control.tar.gz", &gzip(&control));
        member(&mut bytes, "data.tar.xz", &xz(&tar(files)));
        Self { name, version, fields, bytes }
    }

    /// Name of the package file below the mirror; with a character that URLs must escape.
    pub fn path(&self) -> String {
        format!("pool/main/{}_{}+x_amd64.deb", self.name, self.version)
    }
}

/// A certificate with a signing sub-key, made `age` ago and valid for `validity`.
pub fn key(age: Duration, validity: Option<Duration>) -> Cert {
    CertBuilder::new()
        .add_userid("Test archive")
        .set_creation_time(SystemTime::now() - age)
        .set_validity_period(validity)
        .add_signing_subkey()
        .generate()
        .unwrap()
        .0
}

/// Signs in the cleartext framework, `age` ago.
pub fn sign(text: &str, cert: &Cert, age: Duration) -> Vec<u8> {
    let policy = StandardPolicy::new();
    let time = SystemTime::now() - age;
    let key = cert.keys().with_policy(&policy, time).for_signing().secret().next().unwrap();
    let pair = key.key().clone().into_keypair().unwrap();
    let mut out = Vec::new();
    let signer = Signer::new(Message::new(&mut out), pair).unwrap();
    let mut message = signer.cleartext().creation_time(time).build().unwrap();
    message.write_all(text.as_bytes()).unwrap();
    message.finalize().unwrap();
    out
}

/// Answers requests for the files of a folder on the loopback device: whole ones and ranges.
pub struct Server {
    pub url: String,
    state: std::sync::Arc<ServerState>,
}

#[derive(Default)]
struct ServerState {
    /// Head of each request.
    heads: Mutex<Vec<String>>,
    /// After so many bytes of a body the connections are closed; the first for the next answer.
    cuts: Mutex<std::collections::VecDeque<usize>>,
    /// Ranges are passed over.
    no_ranges: std::sync::atomic::AtomicBool,
}

impl Server {
    pub fn start(folder: &Path) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = std::sync::Arc::new(ServerState::default());
        let (folder, shared) = (folder.to_owned(), std::sync::Arc::clone(&state));
        // Both end with the test program.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, state) = (folder.clone(), std::sync::Arc::clone(&shared));
                std::thread::spawn(move || answer(stream, &folder, &state));
            }
        });
        Self { url, state }
    }

    /// The next answers end after so many bytes of their bodies.
    pub fn cut(&self, after: &[usize]) {
        self.state.cuts.lock().unwrap().extend(after);
    }

    pub fn without_ranges(&self) {
        self.state.no_ranges.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// The path of each request since the last call.
    pub fn paths(&self) -> Vec<String> {
        let heads = std::mem::take(&mut *self.state.heads.lock().unwrap());
        heads.iter().filter_map(|head| head.split(' ').nth(1).map(str::to_owned)).collect()
    }

    /// The `Range` of each request for a path with this ending since the last call; empty for a whole file.
    pub fn ranges(&self, ending: &str) -> Vec<String> {
        let heads = std::mem::take(&mut *self.state.heads.lock().unwrap());
        let of_path = heads.iter().filter(|head| {
            head.lines()
                .next()
                .and_then(|line| line.split(' ').nth(1))
                .is_some_and(|path| path.ends_with(ending))
        });
        let range = |head: &String| {
            let line = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: ").map(str::to_owned));
            line.unwrap_or_default()
        };
        of_path.map(range).collect()
    }
}

fn answer(mut stream: std::net::TcpStream, folder: &Path, state: &ServerState) {
    use std::io::BufRead;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut head = String::new();
    for line in
        std::io::BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty())
    {
        head.push_str(&line);
        head.push('\n');
    }
    let Some(path) = head.split(' ').nth(1).map(|path| path.replace("%2B", "+")) else { return };
    let lower = head.to_ascii_lowercase();
    let start =
        lower.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next()?.parse::<usize>().ok());
    let start = start.filter(|_| !state.no_ranges.load(std::sync::atomic::Ordering::SeqCst));
    state.heads.lock().unwrap().push(head);
    let reply = |status: &str, fields: &str, body: &[u8]| {
        let length = body.len();
        let mut reply =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{fields}Connection: close\r\n\r\n")
                .into_bytes();
        let cut = if body.is_empty() { None } else { state.cuts.lock().unwrap().pop_front() };
        reply.extend_from_slice(&body[..cut.unwrap_or(length).min(length)]);
        reply
    };
    let reply = match (std::fs::read(folder.join(path.trim_start_matches('/'))), start) {
        (Err(_), _) => reply("404 Not Found", "", b""),
        (Ok(bytes), None) => reply("200 OK", "", &bytes),
        (Ok(bytes), Some(start)) if start < bytes.len() => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            reply("206 Partial Content", &range, &bytes[start..])
        }
        (Ok(_), Some(_)) => reply("416 Range Not Satisfiable", "", b""),
    };
    // A client may have hung up.
    let _ = stream.write_all(&reply);
}

/// An archive with suite `stable`, codename `test`.
pub struct Archive {
    pub folder: TempDir,
    pub key: Cert,
    /// More lines of the index.
    pub release_fields: String,
    pub date: &'static str,
}

impl Archive {
    pub fn new(debs: &[Deb]) -> Self {
        let archive = Self {
            folder: tempfile::tempdir().unwrap(),
            key: key(10 * DAY, None),
            release_fields: String::new(),
            date: "Sat, 21 Nov 2020 09:15:44 UTC",
        };
        archive.publish(debs);
        archive
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn mirror(&self) -> String {
        format!("file://{}", self.root().display())
    }

    /// Writes packages, lists and the signed index.
    pub fn publish(&self, debs: &[Deb]) {
        self.publish_lists(debs);
        let text = self.release(debs);
        self.write("dists/test/InRelease", &sign(&text, &self.key, Duration::ZERO));
    }

    fn packages(debs: &[Deb]) -> String {
        let mut list = String::new();
        for deb in debs {
            writeln!(
                list,
                "Package: {}\nVersion: {}\nArchitecture: amd64\n{}Filename: {}\nSize: {}\nSHA256: {}\n",
                deb.name,
                deb.version,
                deb.fields,
                deb.path(),
                deb.bytes.len(),
                sha256(&deb.bytes)
            )
            .unwrap();
        }
        list
    }

    fn publish_lists(&self, debs: &[Deb]) {
        for deb in debs {
            self.write(&deb.path(), &deb.bytes);
        }
        self.write("dists/test/main/binary-amd64/Packages.xz", &xz(Self::packages(debs).as_bytes()));
    }

    pub fn release(&self, debs: &[Deb]) -> String {
        let list = Self::packages(debs);
        let packed = xz(list.as_bytes());
        format!(
            "Suite: stable\nCodename: test\nDate: {}\nArchitectures: amd64\nComponents: main\n{}SHA256:\n {} {} \
             main/binary-amd64/Packages\n {} {} main/binary-amd64/Packages.xz\n",
            self.date,
            self.release_fields,
            sha256(list.as_bytes()),
            list.len(),
            sha256(&packed),
            packed.len()
        )
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.root().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let path = self.root().join(path);
        let mut bytes = std::fs::read(&path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    /// The suite, with the archive's key in a keyring.
    pub fn suite(&self) -> Suite {
        let keyring = self.root().join("keyring.pgp");
        let mut bytes = Vec::new();
        self.key.serialize(&mut bytes).unwrap();
        std::fs::write(&keyring, bytes).unwrap();
        Suite {
            mirror: self.mirror(),
            suite: "test".into(),
            components: vec!["main".into()],
            architecture: "amd64".into(),
            keyring: vec![PathBuf::from("/nonexistent/keyring"), keyring],
        }
    }

    /// The suite as one of several.
    pub fn source(&self, name: &str) -> SuiteSource {
        SuiteSource { name: name.into(), ..SuiteSource::new(self.suite()) }
    }

    pub fn load(&self, cache: &Cache, network: Network) -> Result<Index, Error> {
        Index::load(&self.suite(), cache, network, &Notes::default())
    }

    pub fn locked(&self, cache: &Cache, names: &[&str]) -> Vec<Locked> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        self.load(cache, Network::Online).unwrap().resolve(&names, &[]).unwrap()
    }
}

/// Collects what it is told.
#[derive(Default)]
pub struct Notes {
    pub notes: Mutex<Vec<String>>,
    pub bytes: Mutex<u64>,
}

impl Progress for Notes {
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn advance(&self, bytes: u64) {
        *self.bytes.lock().unwrap() += bytes;
    }
    fn end(&self) {}
    fn note(&self, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
}

/// An empty cache.
pub fn cache() -> (TempDir, Cache) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path()).unwrap();
    (folder, cache)
}

/// Names of the files in a folder of the cache, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs a program and returns what it prints; none when it is not installed. Ends it after a minute.
pub fn run(program: &str, arguments: &[&str]) -> Option<Vec<u8>> {
    let out = tempfile::NamedTempFile::new().unwrap();
    let child =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(out.reopen().unwrap()).spawn();
    let Ok(mut child) = child else {
        println!("skipped: {program} is not installed");
        return None;
    };
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "{program} {arguments:?}: {status}");
            return Some(std::fs::read(out.path()).unwrap());
        }
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{program} {arguments:?} takes too long");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
