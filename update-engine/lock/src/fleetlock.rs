//! A FleetLock client (the protocol of Fedora CoreOS's Zincati, "FleetLock protocol" in its documentation).
//!
//! `POST BASE/v1/pre-reboot` takes a place, `POST BASE/v1/steady-state` gives it back if it is held. Both are idempotent.
//! 200 is granted; every other status is a failure.

use crate::names::HolderId;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;

/// Header of each request; a server refuses those without, so that no redirect makes a lock.
pub const HEADER: &str = "fleet-lock-protocol";
/// Longest answer in bytes.
const MAX_ANSWER: u64 = 64 << 10;
/// Longest time for an answer: a server may drain the machine first.
pub const DEADLINE: Duration = Duration::from_secs(120);
/// Application ID of FleetLock's machine IDs.
const APPLICATION: [u8; 16] =
    [0xde, 0x35, 0x10, 0x6b, 0x6e, 0xc2, 0x46, 0x88, 0xb6, 0x3a, 0xfd, 0xda, 0xa1, 0x56, 0x67, 0x9b];

/// The body of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// Who asks.
    pub client_params: Params,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// The machine.
    pub id: String,
    /// Its group: `^[a-zA-Z0-9.-]+$`.
    pub group: String,
}

/// The body of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub kind: String,
    /// For people.
    pub value: String,
}

/// Why a place was not had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FleetLockError {
    /// The server refuses.
    #[error("server-side error, code {code}: {}", failure.value)]
    Server {
        /// HTTP status.
        code: u16,
        /// What it says; `generic_http_CODE` where it does not say it as the protocol wants.
        failure: Failure,
    },
    /// No answer.
    #[error("the FleetLock server at `{server}` does not answer: {reason}")]
    Request {
        /// Its address.
        server: String,
        /// Why.
        reason: String,
    },
    /// A setting.
    #[error("{0}")]
    Setting(String),
}

impl FleetLockError {
    /// Of small number: for metrics.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Server { failure, .. } => &failure.kind,
            Self::Request { .. } => "client_failed_request",
            Self::Setting(_) => "client_failed_build",
        }
    }
}

/// The machine ID that servers are told: HMAC-SHA-256 of the application's ID, keyed with the machine ID, its first 16 bytes as a
/// UUID of version 4 (sd_id128_get_machine_app_specific(3)). The machine ID itself is not told. None if that is none.
#[must_use]
pub fn app_specific_id(machine_id: &str) -> Option<String> {
    let machine = hex::decode(machine_id.trim()).ok().filter(|bytes| bytes.len() == 16)?;
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &machine);
    let tag = ring::hmac::sign(&key, &APPLICATION);
    let mut id: [u8; 16] = tag.as_ref().get(..16)?.try_into().ok()?;
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Some(hex::encode(id))
}

/// Whether a group's name is one of the protocol.
#[must_use]
pub fn is_group(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
}

/// A client.
#[derive(Debug)]
pub struct FleetLock {
    base: String,
    agent: Agent,
    body: Vec<u8>,
}

impl FleetLock {
    /// For the server at `base`, for example `https://lock.example/fleet`; what it needs is appended to the path. `roots` are
    /// the authorities that are trusted, in PEM; those of the web if there are none. An answer may take `deadline`, usually
    /// [`DEADLINE`].
    ///
    /// # Errors
    /// [`FleetLockError::Setting`].
    pub fn new(
        base: &str,
        group: &str,
        id: &HolderId,
        roots: &[Vec<u8>],
        deadline: Duration,
    ) -> Result<Self, FleetLockError> {
        let setting = |text: String| FleetLockError::Setting(text);
        if !base.starts_with("https://") && !base.starts_with("http://") || base.contains(['?', '#']) {
            return Err(setting(format!("`{base}` is no address of a FleetLock server")));
        }
        if !is_group(group) {
            return Err(setting(format!("`{group}` is no FleetLock group: letters, digits, `.` and `-`")));
        }
        let mut tls = TlsConfig::builder();
        if !roots.is_empty() {
            let roots = roots.iter().map(|pem| Certificate::from_pem(pem)).collect::<Result<Vec<_>, _>>();
            let roots = roots.map_err(|error| setting(format!("a trusted authority: {error}")))?;
            tls = tls.root_certs(RootCerts::from(roots));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(base.starts_with("https://"))
            .tls_config(tls.build())
            // A redirected POST is none any more: somebody else would answer.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(deadline))
            .timeout_connect(Some(Duration::from_secs(15)))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), ashlar_fetch::Names);
        let params = Params { id: id.to_string(), group: group.to_owned() };
        let body = serde_json::to_vec(&Body { client_params: params })
            .map_err(|error| setting(error.to_string()))?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), agent, body })
    }

    /// Takes a place, if the machine has none yet.
    pub fn pre_reboot(&self) -> Result<(), FleetLockError> {
        self.post("pre-reboot")
    }

    /// Gives the place back, if the machine has one.
    pub fn steady_state(&self) -> Result<(), FleetLockError> {
        self.post("steady-state")
    }

    fn post(&self, what: &str) -> Result<(), FleetLockError> {
        let failed = |reason: String| FleetLockError::Request { server: self.base.clone(), reason };
        let response = self
            .agent
            .post(format!("{}/v1/{what}", self.base))
            .header(HEADER, "true")
            .header("content-type", "application/json")
            .send(&self.body[..])
            .map_err(|error| failed(error.to_string()))?;
        let code = response.status().as_u16();
        if code == 200 {
            return Ok(());
        }
        let mut text = Vec::new();
        let read = response.into_body().into_reader().take(MAX_ANSWER).read_to_end(&mut text);
        Err(FleetLockError::Server { code, failure: failure(code, read.map_or(&[], |_| &text)) })
    }
}

/// What a server says of its failure.
fn failure(code: u16, text: &[u8]) -> Failure {
    let told: Option<Failure> = serde_json::from_slice(text).ok();
    let short =
        |text: &str, most: usize| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>();
    match told {
        Some(told) if !told.kind.is_empty() => {
            Failure { kind: short(&told.kind, 64), value: short(&told.value, 500) }
        }
        _ => {
            let value = match code {
                300..=399 => "it leads elsewhere (a redirect), which the protocol does not know",
                _ => "it does not say why as the protocol wants",
            };
            Failure { kind: format!("generic_http_{code}"), value: value.into() }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_id_that_servers_are_told() {
        // The protocol's own example.
        let id = app_specific_id("1c09ca98649c4c7abc779cd04c96812e").unwrap();
        assert_eq!(id, "978a225b3d7b40e9acd7ce9b62f68444");
        assert_eq!(app_specific_id("1c09"), None);
        assert_eq!(app_specific_id("x"), None);
    }

    #[test]
    fn failures() {
        assert_eq!(failure(423, br#"{"kind":"lock_held","value":"by a"}"#).value, "by a");
        for text in [&b""[..], b"<html>", b"{}", b"{\"kind\":\"\",\"value\":\"\"}", b"\xff"] {
            assert_eq!(failure(500, text).kind, "generic_http_500");
        }
        assert_eq!(failure(302, b"").kind, "generic_http_302");
        let long = format!(r#"{{"kind":"{}","value":"a\nb"}}"#, "k".repeat(1000));
        assert_eq!(
            (failure(500, long.as_bytes()).kind.len(), failure(500, long.as_bytes()).value.as_str()),
            (64, "ab")
        );
    }

    #[test]
    fn settings() {
        let id: HolderId = "a".parse().unwrap();
        for (base, group) in [("ftp://a", "x"), ("http://a?b", "x"), ("http://a", "a b"), ("http://a", "")] {
            assert_eq!(
                FleetLock::new(base, group, &id, &[], DEADLINE).unwrap_err().kind(),
                "client_failed_build"
            );
        }
        assert!(FleetLock::new("http://a/", "x", &id, &[b"no".to_vec()], DEADLINE).is_err());
        assert!(FleetLock::new("http://a/fleet_lock", "work.er-1", &id, &[], DEADLINE).is_ok());
    }
}
