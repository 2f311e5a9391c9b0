//! TLS to a machine that is known by the fingerprint of its certificate: no CA, no name, no date.

use super::{CONNECT, Credentials, unreachable};
use crate::error::ControlError;
use crate::fingerprint::Fingerprint;
use crate::server::tls::{ALPN, provider};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Accepts one certificate and remembers what was shown.
#[derive(Debug)]
struct Pinned {
    trusted: Option<Fingerprint>,
    shown: Mutex<Option<Fingerprint>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Fingerprint::of(certificate);
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        if self.trusted == Some(shown) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    // The fingerprint says whose certificate it is; these say that its key is there.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Shakes hands.
pub async fn connect(
    node: &str,
    host: &str,
    stream: TcpStream,
    credentials: &Credentials,
) -> Result<TlsStream<TcpStream>, ControlError> {
    let tls = |error: rustls::Error| ControlError::Tls(error.to_string());
    let verifier =
        Arc::new(Pinned { trusted: credentials.fingerprint, shown: Mutex::new(None), provider: provider() });
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone());
    let mut config = match &credentials.identity {
        Some(identity) => {
            builder.with_client_auth_cert(identity.chain.clone(), identity.key.clone_key()).map_err(tls)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    // The name is sent where it is one, and not looked at.
    let name = ServerName::try_from(host.to_owned())
        .or_else(|_| ServerName::try_from("ashlar"))
        .map_err(|error| ControlError::Usage(error.to_string()))?;
    let error = match timeout(CONNECT, TlsConnector::from(Arc::new(config)).connect(name, stream)).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => error,
        Err(_) => return Err(unreachable(node, "no TLS handshake in time".into())),
    };
    let shown = *verifier.shown.lock().unwrap_or_else(PoisonError::into_inner);
    match (credentials.fingerprint, shown) {
        (None, Some(found)) => Err(ControlError::UnknownNode { node: node.to_owned(), found }),
        (Some(trusted), Some(found)) if trusted != found => {
            Err(ControlError::ChangedNode { node: node.to_owned(), trusted, found })
        }
        _ => Err(match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => {
                ControlError::NotAccepted { node: node.to_owned(), problem: self::alert(*alert) }
            }
            _ => unreachable(node, format!("no TLS 1.3 is spoken there: {error}")),
        }),
    }
}

/// What a machine means by an alert (RFC 8446, section 6.2).
pub fn alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "none was shown".into(),
        AlertDescription::UnknownCA => "no trust root of the machine has issued it".into(),
        AlertDescription::CertificateExpired => "it has expired, or the machine's clock is wrong".into(),
        AlertDescription::BadCertificate | AlertDescription::DecryptError => {
            "its signature is wrong, or it is not in force".into()
        }
        AlertDescription::UnsupportedCertificate => "it is none for clients".into(),
        other => format!("alert {other:?}"),
    }
}
