//! Which machine a command is for, and the connection to it.

use crate::client::{Client, Credentials, Target, known};
use crate::error::ControlError;
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use clap::Args;
use hyper::Method;
use serde::de::DeserializeOwned;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(super) struct Node {
    /// The machine, if it is not this one: HOST or HOST:PORT
    #[arg(long, global = true, env = "ASHLAR_NODE", value_name = "HOST[:PORT]")]
    #[expect(clippy::struct_field_names, reason = "the option is called so")]
    node: Option<Target>,
    /// Client certificate and key, PEM [default: identity.pem in ~/.config/ashlar]
    #[arg(long, global = true, env = "ASHLAR_IDENTITY", value_name = "FILE")]
    identity: Option<PathBuf>,
    /// The machine's fingerprint, instead of the one that `trust` has stored
    #[arg(long, global = true, value_name = "SHA256")]
    pub(super) fingerprint: Option<Fingerprint>,
    /// Print JSON, as the API gives it
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// The API's socket on this machine
    #[arg(long, global = true, hide = true, value_name = "FILE")]
    socket: Option<PathBuf>,
}

/// A connection and what drives it.
pub(super) struct Connection {
    runtime: tokio::runtime::Runtime,
    client: Client,
}

/// One thread is enough for a client.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, ControlError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|source| ControlError::Io { action: "start", path: "the runtime".into(), source })
}

/// Where `trust` stores fingerprints.
pub(super) fn known_nodes() -> PathBuf {
    known::folder().join("nodes.toml")
}

impl Node {
    /// The machine.
    pub(super) fn target(&self) -> Target {
        match (&self.node, &self.socket) {
            (Some(node), _) => node.clone(),
            (None, Some(socket)) => Target::Local(socket.clone()),
            (None, None) => Target::default(),
        }
    }

    fn credentials(&self, target: &Target) -> Result<Credentials, ControlError> {
        if let Target::Local(_) = target {
            return Ok(Credentials { fingerprint: None, identity: None });
        }
        let fingerprint = match self.fingerprint {
            Some(fingerprint) => Some(fingerprint),
            None => known::fingerprint(&known_nodes(), &target.to_string())?,
        };
        let default = known::folder().join("identity.pem");
        let identity = match &self.identity {
            Some(path) => Some(Identity::read(path)?),
            None if default.exists() => Some(Identity::read(&default)?),
            // The machine is asked all the same: it may have to be trusted first.
            None => None,
        };
        Ok(Credentials { fingerprint, identity })
    }

    /// Connects.
    pub(super) fn connect(&self) -> Result<Connection, ControlError> {
        let target = self.target();
        let credentials = self.credentials(&target)?;
        let runtime = runtime()?;
        let client = runtime.block_on(Client::connect(&target, &credentials))?;
        Ok(Connection { runtime, client })
    }

    /// What `GET` of the path gives: as it is where `--json` is given, and understood.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        let bytes = self.connect()?.call(Method::GET, path, Vec::new())?;
        self.understand(&bytes)
    }

    /// An answer; with `--json` it is printed too.
    pub(super) fn understand<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ControlError> {
        let answer = serde_json::from_slice(bytes).map_err(|error| ControlError::Answer {
            node: self.target().to_string(),
            problem: error.to_string(),
        })?;
        if self.json {
            super::output::print_raw(bytes);
        }
        Ok(answer)
    }
}

impl Connection {
    /// Asks.
    pub(super) fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, ControlError> {
        self.runtime.block_on(self.client.call(method, path, body)).map(|bytes| bytes.to_vec())
    }

    /// Sends a file.
    pub(super) fn upload(
        &mut self,
        path: &str,
        file: std::fs::File,
        size: u64,
        tell: Box<dyn FnMut(u64) + Send>,
    ) -> Result<Vec<u8>, ControlError> {
        self.runtime.block_on(self.client.upload(path, file, size, tell)).map(|bytes| bytes.to_vec())
    }

    /// Asks for a stream.
    pub(super) fn stream(
        &mut self,
        path: &str,
        each: impl FnMut(&[u8]) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        self.runtime.block_on(self.client.stream(path, each))
    }
}
