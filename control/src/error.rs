//! Why a command cannot be done, what to do next, and its exit code.

use crate::fingerprint::Fingerprint;
use ashlar_image::control::Refusal;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Exit codes of `ashlarctl`.
pub mod exit {
    /// Done; `status`: the machine is good.
    pub const GOOD: u8 = 0;
    /// `status`: the machine is not good.
    pub const NOT_GOOD: u8 = 1;
    /// An argument is wrong. clap has the same.
    pub const USAGE: u8 = 2;
    /// The machine does not answer.
    pub const UNREACHABLE: u8 = 3;
    /// The machine refuses what was asked.
    pub const REFUSED: u8 = 4;
    /// The machine's certificate is not the one that is trusted, or none is; or it does not trust ours.
    pub const UNTRUSTED: u8 = 5;
    /// A file of this computer cannot be read or written.
    pub const FILES: u8 = 6;
}

/// Why something cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// An argument is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file or folder does not do what it must.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried: `read`, `write`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file has not what it should have.
    #[error("{path}: {problem}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Keys and certificates cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// The machine does not answer.
    #[error("{node} does not answer: {problem}")]
    Unreachable {
        /// Which machine.
        node: String,
        /// What happened.
        problem: String,
        /// What to do.
        advice: String,
    },
    /// Nobody has said which certificate the machine has.
    #[error("{node} is not known yet; it shows a certificate with the fingerprint\n{}", shown(*.found))]
    UnknownNode {
        /// Which machine.
        node: String,
        /// What it shows.
        found: Fingerprint,
    },
    /// The machine shows another certificate than the trusted one.
    #[error(
        "{node} shows another certificate than the trusted one: this is another machine, or its state volume is new\n  \
         trusted\n{}\n  shown now\n{}",
        shown(*.trusted),
        shown(*.found)
    )]
    ChangedNode {
        /// Which machine.
        node: String,
        /// What is trusted.
        trusted: Fingerprint,
        /// What it shows.
        found: Fingerprint,
    },
    /// The machine does not accept the client's certificate.
    #[error("{node} does not accept this client's certificate: {problem}")]
    NotAccepted {
        /// Which machine.
        node: String,
        /// What it says.
        problem: String,
    },
    /// The machine refuses.
    #[error("refused: {}", .0.message)]
    Refused(Refusal),
    /// The machine's answer is none.
    #[error("{node} answers with something else than expected: {problem}")]
    Answer {
        /// Which machine.
        node: String,
        /// What is wrong.
        problem: String,
    },
}

fn shown(fingerprint: Fingerprint) -> String {
    format!("    {}", fingerprint.grouped().replace('\n', "\n    "))
}

impl ControlError {
    /// For `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// The exit code.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Io { .. } | Self::File { .. } | Self::Certificate(_) | Self::Tls(_) => exit::FILES,
            Self::Unreachable { .. } | Self::Answer { .. } | Self::Listen { .. } => exit::UNREACHABLE,
            Self::Refused(_) => exit::REFUSED,
            Self::UnknownNode { .. } | Self::ChangedNode { .. } | Self::NotAccepted { .. } => exit::UNTRUSTED,
        }
    }

    /// What to do next; empty where the message says all.
    pub fn advice(&self) -> String {
        match self {
            Self::File { advice, .. } | Self::Unreachable { advice, .. } => advice.clone(),
            Self::UnknownNode { node, .. } => format!(
                "compare it with the one on the machine's console; if they are the same: ashlarctl trust {node}"
            ),
            Self::ChangedNode { node, .. } => format!(
                "do not go on unless you know why. Compare with the machine's console; if it is the same as shown now: \
                 ashlarctl trust {node}"
            ),
            Self::NotAccepted { .. } => {
                "the certificate must come from a client CA among the trust roots of the machine's configuration and be \
                 in force: make one with `ashlarctl identity new NAME --role ROLE`, name it with --identity"
                    .into()
            }
            Self::Refused(refusal) => refusal.advice.clone(),
            Self::Listen { .. } => "another program has the port, or the address is not this machine's".into(),
            Self::Answer { .. } => "use the `ashlarctl` of the machine's release".into(),
            Self::Usage(_) | Self::Io { .. } | Self::Certificate(_) | Self::Tls(_) => String::new(),
        }
    }
}
