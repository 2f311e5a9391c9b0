//! A machine without a machine: PID 1's socket code with made-up answers, and the server before it.

use crate::programs::{Output, output};
use ashlar_control::identity;
use ashlar_control::role::Role;
use ashlar_control::server::{Server, Settings};
use ashlar_image::control::{
    Answer, Applied, ConfigurationState, Measurements, Refusal, RefusalKind, Reply, Request, Status,
};
use ashlar_image::digest::Digest;
use ashlar_image::report::ServiceState;
use ashlar_init::control::Control;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

/// What PID 1 has seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub requests: Mutex<Vec<Request>>,
    /// Most connections at a time.
    pub most: AtomicUsize,
}

/// PID 1 and the server, until it is dropped.
pub struct Machine {
    pub folder: tempfile::TempDir,
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    over: Arc<AtomicBool>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

pub fn status() -> Status {
    Status {
        machine_id: Some("5f0c".repeat(8)),
        hostname: "edge-1".into(),
        image_id: "my-host".into(),
        image_version: "7".into(),
        security_version: 4,
        rollback_floor: Some(3),
        slot: "root-a".into(),
        root_hash: Digest::of(b"root"),
        kernel: "6.12.48".into(),
        secure_boot: true,
        state: "tpm".into(),
        good: true,
        ready: true,
        problems: Vec::new(),
        last_boot: Some("in order".into()),
        last_boot_release: None,
        addresses: vec!["eth0 10.0.2.15/24".into()],
        time_server: None,
        trial: None,
        trial_failure: None,
        watchdog: None,
        uptime_seconds: 12.5,
        time: 1_795_577_114,
        configuration_serial: Some(12),
        services: services(),
    }
}

pub fn services() -> Vec<ServiceState> {
    vec![ServiceState { name: "web".into(), running: true, starts: 1, ..ServiceState::default() }]
}

fn refuse(kind: RefusalKind, message: &str) -> Answer {
    Answer::Error(Refusal { kind, message: message.into(), advice: "look closer".into() })
}

fn answer(request: &Request) -> Answer {
    let reply = match request {
        Request::Commit | Request::GiveUp(_) => unreachable!("only the engine asks for that"),
        Request::Status => Reply::Status(Box::new(status())),
        Request::Services => Reply::Services(services()),
        Request::Service { name, .. } => match name.as_str() {
            "web" => Reply::Done,
            "failing" => return refuse(RefusalKind::Failed, "it does not start"),
            _ => return refuse(RefusalKind::NotFound, "there is no such service"),
        },
        Request::Configuration => Reply::Configuration(ConfigurationState {
            text: Some("serial = 12\nhostname = \"edge-1\"\n".into()),
            digest: Some(Digest::of(b"text")),
            serial: Some(12),
            source: Some("state volume".into()),
            refused: None,
        }),
        Request::Configure { envelope, .. } if envelope.contains("forged") => {
            return refuse(RefusalKind::Forbidden, "the signature is wrong");
        }
        Request::Configure { envelope, .. } if envelope.contains("older") => {
            return refuse(RefusalKind::Conflict, "serial 11 is older than 12");
        }
        Request::Configure { envelope, .. } if !envelope.starts_with('{') => {
            return refuse(RefusalKind::Invalid, "no envelope");
        }
        Request::Configure { .. } => Reply::Applied(Applied {
            serial: 13,
            changed: vec!["hostname".into()],
            needs_reboot: vec!["watchdog".into()],
        }),
        Request::Measurements => Reply::Measurements(Measurements {
            pcrs: BTreeMap::from([(11, Digest::of(b"11"))]),
            firmware_log: "A".repeat(2 << 20),
            init_log: Vec::new(),
        }),
        Request::Reboot | Request::PowerOff => Reply::Done,
        Request::Reseal { recovery_key } if recovery_key == "good-key" => Reply::Done,
        Request::Reseal { .. } => return refuse(RefusalKind::Forbidden, "the recovery key is wrong"),
    };
    Answer::Ok(reply)
}

/// The loop of PID 1, for its socket alone.
fn init(path: &Path, seen: &Seen, over: &AtomicBool) {
    let mut control = Control::open_for(path, rustix::process::geteuid()).unwrap();
    let start = Instant::now();
    while !over.load(Ordering::Relaxed) {
        let now = start.elapsed();
        control.tick(now);
        let ready: Vec<_> = {
            let sources: Vec<_> = control.sources(now).collect();
            let mut polled: Vec<PollFd<'_>> = sources
                .iter()
                .map(|(_, fd, writes)| {
                    PollFd::from_borrowed_fd(*fd, if *writes { PollFlags::OUT } else { PollFlags::IN })
                })
                .collect();
            poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).unwrap();
            let ready = sources.iter().zip(&polled).filter(|(_, poll)| !poll.revents().is_empty());
            ready.map(|((token, ..), _)| *token).collect()
        };
        for token in ready {
            for (id, request) in control.handle(token, now) {
                seen.most.fetch_max(control.connections(), Ordering::Relaxed);
                control.answer(id, &answer(&request), now);
                seen.requests.lock().unwrap().push(request);
            }
        }
    }
}

impl Machine {
    /// Starts both. Certificates lie in `ca`, `reader.pem`, `operator.pem`, `admin.pem` of the folder.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        identity::new_ca(&path("ca"), "Clients").unwrap();
        for role in Role::ALL {
            let pem = identity::new_client(&path("ca"), &format!("the {role}"), role, 30).unwrap();
            std::fs::write(path(&format!("{role}.pem")), pem).unwrap();
        }
        std::fs::create_dir(path("log")).unwrap();
        let (seen, over) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
        let settings = Settings {
            socket: path("api.sock"),
            init_socket: path("init.sock"),
            update_socket: path("update.sock"),
            log_folder: path("log"),
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            trust_roots: Some(path("ca").join(identity::CA_CERTIFICATE)),
            identity: path("identity"),
            fingerprint_file: path("fingerprint"),
        };
        let server = Server::bind(&settings).unwrap();
        let address = server.addresses()[0];
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serve = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    result = server.run() => panic!("{result:?}"),
                    _ = stopped => {}
                }
            });
        });
        let (path, its_seen, its_over) = (path("init.sock"), seen.clone(), over.clone());
        let init = std::thread::spawn(move || init(&path, &its_seen, &its_over));
        let machine = Self { folder, address, seen, over, stop: Some(stop), threads: vec![serve, init] };
        crate::programs::wait_for("PID 1's socket", || machine.path("init.sock").exists().then_some(()));
        machine
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The fingerprint as the console shows it.
    pub fn fingerprint(&self) -> String {
        std::fs::read_to_string(self.path("fingerprint")).unwrap().trim().to_owned()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// `ashlarctl` of a user with an empty home.
    pub fn ashlarctl(&self, arguments: &[&str], input: &str) -> Output {
        output(&mut self.command(arguments), input.as_bytes())
    }

    /// The same, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ashlarctl"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("HOME", self.path("home"))
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("ASHLAR_NODE")
            .env_remove("ASHLAR_IDENTITY");
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.stop.take().map(|stop| stop.send(()));
        for thread in self.threads.drain(..) {
            let panicked = thread.join().is_err();
            assert!(!panicked || std::thread::panicking(), "a thread of the machine has panicked");
        }
    }
}
