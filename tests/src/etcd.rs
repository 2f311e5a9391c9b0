//! A member of etcd with certificates, on this host; and `lockctl` for it.

use crate::programs::{self, Run};
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to answer.
const UP: Duration = Duration::from_secs(30);

/// A running member; it ends with this value.
#[derive(Debug)]
pub struct Etcd {
    child: Child,
    folder: PathBuf,
    /// Its port.
    pub port: u16,
    peer: u16,
}

fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// Starts one that keeps all in `folder`. It wants certificates, and is known as `127.0.0.1` and, as QEMU's guests see this
    /// host, as `10.0.2.2`.
    pub fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -keyout ca.key -out ca.pem -days 2; \
             for name in server admin; do \
               openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr; \
               printf 'subjectAltName=IP:127.0.0.1,IP:10.0.2.2\\nextendedKeyUsage=serverAuth,clientAuth\\n' > $name.ext; \
               openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem; \
             done; cp ca.pem clients.pem";
        let _ = Run::of(Command::new("sh").args(["-ec", script]).current_dir(folder)).ok();
        let (port, peer) = (port(), port());
        let mut etcd = Self { child: run(folder, port, peer), folder: folder.to_owned(), port, peer };
        etcd.ready();
        etcd
    }

    /// Lets clients with these certificates in too: starts it again.
    pub fn trust(&mut self, certificates: &[String]) {
        let path = self.folder.join("clients.pem");
        fs::write(&path, fs::read_to_string(&path).unwrap() + &certificates.concat()).unwrap();
        self.end();
        self.child = run(&self.folder, self.port, self.peer);
        self.ready();
    }

    /// The authority that has signed its certificate, in PEM.
    pub fn authority(&self) -> String {
        fs::read_to_string(self.folder.join("ca.pem")).unwrap()
    }

    /// `lockctl` for a group.
    pub fn lockctl(&self, group: &str, arguments: &[&str]) -> Run {
        let mut command = Command::new(programs::folder().join("lockctl"));
        command.args(["--endpoint", &format!("https://127.0.0.1:{}", self.port), "--group", group]);
        for (option, file) in [("--ca", "ca.pem"), ("--cert", "admin.pem"), ("--key", "admin.key")] {
            command.arg(option).arg(self.folder.join(file));
        }
        Run::of(command.args(arguments))
    }

    fn ready(&mut self) {
        let until = Instant::now() + UP;
        loop {
            let run = self.lockctl("default", &["status"]);
            if run.code == Some(0) {
                return;
            }
            assert!(Instant::now() < until, "etcd does not answer: {run}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &Path, port: u16, peer: u16) -> Child {
    let (clients, peers) = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    Command::new("etcd")
        .current_dir(folder)
        .args(["--data-dir", "data", "--logger", "zap", "--log-level", "error"])
        .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
        .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
        .args(["--initial-cluster", &format!("default={peers}")])
        .args(["--cert-file", "server.pem", "--key-file", "server.key"])
        .args(["--trusted-ca-file", "clients.pem", "--client-cert-auth"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.end();
    }
}
