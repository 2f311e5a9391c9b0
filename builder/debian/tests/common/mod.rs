//! An archive of Debian packages in a folder, made and signed by the test itself.
#![allow(dead_code, reason = "each test program uses a part")]

use ashlar_debian::{Cache, Error, Index, Locked, Network, Progress, Suite};
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
    builder.into_inner().unwrap()
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
        let control = format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\n{fields}");
        let mut bytes = b"!<arch>\n".to_vec();
        member(&mut bytes, "debian-binary", b"2.0\n");
        member(&mut bytes, "control.tar.gz", &gzip(&tar(&[Entry::File("./control", &control)])));
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
