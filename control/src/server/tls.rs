//! Mutual TLS 1.3: clients show a certificate of a trust root, or do not get beyond the handshake.

use crate::error::ControlError;
use crate::files;
use crate::identity::{Identity, MAX_PEM, certificates};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// The one protocol that is spoken (RFC 9113, section 3.1).
pub const ALPN: &[u8] = b"h2";

/// ring's algorithms. TLS 1.2 is not compiled in.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The server's configuration for the client CAs in the PEM file `roots`.
pub fn config(identity: &Identity, roots: &Path) -> Result<ServerConfig, ControlError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(roots, &files::read(roots, MAX_PEM)?)? {
        store.add(certificate).map_err(|error| ControlError::File {
            path: roots.to_owned(),
            problem: format!("a certificate cannot be a trust root: {error}"),
            advice: "a client CA is made by `ashlarctl identity new-ca`".into(),
        })?;
    }
    let tls = |error: &dyn std::fmt::Display| ControlError::Tls(error.to_string());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|error| tls(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| tls(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain.clone(), identity.key.clone_key())
        .map_err(|error| tls(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Each connection shows its certificate: none goes on with what an earlier one has shown.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
