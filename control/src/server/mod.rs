//! `ashlarctl serve`: the control API of the machine it runs on.
//!
//! One thread, and a few more for the files of the log. Everything has a bound: connections, streams, bodies, headers,
//! time, and what waits in memory for a slow reader. It needs root only for PID 1's socket: sockets and keys are
//! opened before anything is served.

mod activity;
mod body;
mod connection;
mod handler;
mod init;
mod limits;
mod listener;
mod log_stream;
pub mod tls;
mod update;

use crate::error::ControlError;
use crate::files;
use crate::identity::Identity;
use init::Init;
use limits::{MAX_FOLLOWERS, MAX_REQUESTS};
use rustls::ServerConfig;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::Semaphore;
use update::Engine;

/// What the server is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The API's socket, made with mode 0660.
    pub socket: PathBuf,
    /// PID 1's socket.
    pub init_socket: PathBuf,
    /// The update engine's socket.
    pub update_socket: PathBuf,
    /// Folder of the log.
    pub log_folder: PathBuf,
    /// Addresses to listen on with mutual TLS.
    pub listen: Vec<SocketAddr>,
    /// Certificates of the client CAs, PEM. Without it nothing is listened on but the socket.
    pub trust_roots: Option<PathBuf>,
    /// Folder of the machine's key and certificate.
    pub identity: PathBuf,
    /// Where the fingerprint is written for the console.
    pub fingerprint_file: PathBuf,
}

/// What all requests share.
#[derive(Debug)]
struct Context {
    init: Init,
    engine: Engine,
    log_folder: PathBuf,
    /// The kernel's boot id without hyphens.
    boot: String,
    requests: Arc<Semaphore>,
    followers: Arc<Semaphore>,
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    context: Arc<Context>,
    local: UnixListener,
    remote: Vec<std::net::TcpListener>,
    tls: Option<Arc<ServerConfig>>,
}

impl Server {
    /// Opens sockets and keys. What belongs to TLS and cannot be had is said and left out, so that the machine can
    /// still be asked on its console's side.
    ///
    /// # Errors
    /// The Unix socket cannot be made.
    pub fn bind(settings: &Settings) -> Result<Self, ControlError> {
        let fail = || ControlError::io("listen on", &settings.socket);
        if fs::symlink_metadata(&settings.socket).is_ok_and(|old| old.file_type().is_socket()) {
            fs::remove_file(&settings.socket).map_err(fail())?;
        }
        let local = UnixListener::bind(&settings.socket).map_err(fail())?;
        fs::set_permissions(&settings.socket, fs::Permissions::from_mode(0o660)).map_err(fail())?;
        local.set_nonblocking(true).map_err(fail())?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let mut server = Self {
            context: Arc::new(Context {
                init: Init::new(settings.init_socket.clone()),
                engine: Engine::new(settings.update_socket.clone()),
                log_folder: settings.log_folder.clone(),
                boot: boot.trim().replace('-', ""),
                requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
                followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)),
            }),
            local,
            remote: Vec::new(),
            tls: None,
        };
        if !settings.listen.is_empty()
            && let Err(error) = server.bind_remote(settings)
        {
            eprintln!("the API is not reachable from afar: {error}");
            let advice = error.advice();
            if !advice.is_empty() {
                eprintln!("{advice}");
            }
            server.remote.clear();
        }
        Ok(server)
    }

    fn bind_remote(&mut self, settings: &Settings) -> Result<(), ControlError> {
        let identity = Identity::of_node(&settings.identity)?;
        let fingerprint = identity.fingerprint();
        println!("certificate {fingerprint}");
        let line = format!("{fingerprint}\n");
        if let Err(error) = files::write(&settings.fingerprint_file, 0o644, line.as_bytes(), true) {
            eprintln!("the console cannot show the fingerprint: {error}");
        }
        let Some(roots) = &settings.trust_roots else {
            return Err(ControlError::Tls("there are no trust roots, so nobody could be let in".into()));
        };
        self.tls = Some(Arc::new(tls::config(&identity, roots)?));
        for address in &settings.listen {
            match listener::open(*address) {
                Ok(listener) => self.remote.push(listener),
                // The others are of use all the same.
                Err(source) => eprintln!("{}", ControlError::Listen { address: *address, source }),
            }
        }
        Ok(())
    }

    /// The addresses that are listened on: with port 0 the kernel has chosen one.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.remote.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves. Comes back only where the sockets cannot be used.
    pub async fn run(self) -> Result<std::convert::Infallible, ControlError> {
        let used = |source| ControlError::Io { action: "serve", path: "the API".into(), source };
        let gate = listener::Gate::default();
        for remote in self.remote {
            let remote = tokio::net::TcpListener::from_std(remote).map_err(used)?;
            if let Some(tls) = &self.tls {
                let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
                tokio::spawn(listener::remote(remote, acceptor, gate.clone(), self.context.clone()));
            }
        }
        let local = tokio::net::UnixListener::from_std(self.local).map_err(used)?;
        Ok(listener::local(local, self.context).await)
    }
}

/// Serves with a runtime of its own.
pub fn serve(settings: &Settings) -> Result<std::convert::Infallible, ControlError> {
    let server = Server::bind(settings)?;
    println!("serving on {}", settings.socket.display());
    for address in server.addresses() {
        println!("serving on {address} with mutual TLS");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(limits::LOG_THREADS)
        .thread_stack_size(limits::LOG_STACK)
        .build()
        .map_err(|source| ControlError::Io { action: "start", path: "the runtime".into(), source })?;
    ready();
    runtime.block_on(server.run())
}

/// Tells the supervisor, where it has asked to be told (the protocol of sd_notify(3)).
fn ready() {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET")
        && let Ok(socket) = std::os::unix::net::UnixDatagram::unbound()
    {
        let _ = socket.send_to(b"READY=1", path);
    }
}
