//! `ashlarctl serve`

use super::Outcome;
use crate::server::{Settings, serve};
use ashlar_image::control::{API_SOCKET, INIT_SOCKET, LOG_FOLDER};
use ashlar_image::update::UPDATE_SOCKET;
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// Listen on this address with mutual TLS; may be given again
    #[arg(long, value_name = "ADDRESS:PORT", requires = "trust_roots")]
    listen: Vec<SocketAddr>,
    /// Certificates of the client CAs, PEM
    #[arg(long, value_name = "FILE")]
    trust_roots: Option<PathBuf>,
    /// Folder of the machine's key and certificate, which are made at the first start
    #[arg(long, value_name = "FOLDER", default_value = "/var/lib/ashlar/api")]
    identity: PathBuf,
    /// Where to write the certificate's fingerprint for the console
    #[arg(long, value_name = "FILE", default_value = FINGERPRINT_FILE)]
    fingerprint_file: PathBuf,
    /// Folder of the log
    #[arg(long, value_name = "FOLDER", default_value = LOG_FOLDER)]
    log_folder: PathBuf,
    /// PID 1's socket
    #[arg(long, value_name = "FILE", default_value = INIT_SOCKET)]
    init_socket: PathBuf,
    /// The update engine's socket
    #[arg(long, value_name = "FILE", default_value = UPDATE_SOCKET)]
    update_socket: PathBuf,
    /// The API's socket
    #[arg(long = "api-socket", value_name = "FILE", default_value = API_SOCKET)]
    api_socket: PathBuf,
}

/// Where the console page finds the fingerprint.
const FINGERPRINT_FILE: &str = "/run/ashlar/api-fingerprint";

impl Serve {
    pub(super) fn run(self) -> Outcome {
        let never = serve(&Settings {
            socket: self.api_socket,
            init_socket: self.init_socket,
            update_socket: self.update_socket,
            log_folder: self.log_folder,
            listen: self.listen,
            trust_roots: self.trust_roots,
            identity: self.identity,
            fingerprint_file: self.fingerprint_file,
        })?;
        match never {}
    }
}
