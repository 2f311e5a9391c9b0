//! Requests over HTTP: one at a time, redirections followed by hand, so that a login never reaches another host.
//!
//! `ureq` and not `oci-client`: the builder is blocking code and has `ureq` with rustls already; the protocol is three
//! kinds of requests, and an asynchronous runtime with a second HTTP and TLS stack would be by far the larger part.

use crate::Error;
use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// Redirections that are followed.
const MAX_REDIRECTS: usize = 5;
/// Bytes of an error's body that are read.
const MAX_ERROR: u64 = 64 << 10;
/// Largest file of CA certificates, in bytes.
const MAX_CA: u64 = 16 << 20;

/// Why an attempt failed.
pub(crate) enum Failure {
    /// The next attempt may go well.
    Passing(String),
    /// The server has answered, and will answer the same again.
    Final(String),
    /// An error that says all.
    Ours(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

pub(crate) type Answer = Response<ureq::Body>;

pub(crate) struct Http {
    agent: ureq::Agent,
}

impl Http {
    pub(crate) fn new(ca_file: Option<&Path>, patience: Duration) -> Result<Self, Error> {
        let roots = match ca_file {
            None => RootCerts::PlatformVerifier,
            Some(path) => RootCerts::Specific(Arc::new(certificates(path)?)),
        };
        let config = ureq::Agent::config_builder()
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .build();
        Ok(Self { agent: config.new_agent() })
    }

    /// One request: `form` makes it a POST. Proxies are those of the environment (`https_proxy`, `no_proxy`), and none for this
    /// machine itself.
    pub(crate) fn send(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        form: Option<&str>,
    ) -> Result<Answer, Failure> {
        let uri: Uri = url.parse().map_err(|_| Failure::Final(format!("`{url}` is not a URL")))?;
        let direct = uri.host().is_some_and(is_loopback);
        let result = match form {
            None => {
                let mut request = self.agent.get(uri);
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                if direct {
                    request = request.config().proxy(None).build();
                }
                request.call()
            }
            Some(form) => {
                let mut request =
                    self.agent.post(uri).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                if direct {
                    request = request.config().proxy(None).build();
                }
                request.send(form)
            }
        };
        result.map_err(|error| {
            let why = explain(&error);
            match error {
                ureq::Error::Io(ref inner) if inner.kind() == std::io::ErrorKind::InvalidData => {
                    Failure::Final(why)
                }
                ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => {
                    Failure::Passing(why)
                }
                _ => Failure::Final(why),
            }
        })
    }

    /// A GET with redirections followed: `authorization` is sent to the first server only, and never from TLS to none.
    pub(crate) fn get(
        &self,
        url: &str,
        authorization: Option<&str>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        let mut at = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let mut all = headers.to_vec();
            if let Some(value) = authorization.filter(|_| origin(&at) == origin(url)) {
                all.push(("authorization", value));
            }
            let mut answer = self.send(&at, &all, None)?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let location = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            at = location.and_then(|location| follow(&at, location)).ok_or_else(|| {
                Failure::Final(format!("it redirects with {} to no place that can be used", answer.status()))
            })?;
            // So that the connection can be used again.
            let _ = std::io::copy(&mut answer.body_mut().as_reader().take(MAX_ERROR), &mut std::io::sink());
        }
        Err(Failure::Final(format!("it redirects more than {MAX_REDIRECTS} times")))
    }
}

/// The system's roots and those of a file.
fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Error> {
    let bad = |why: &str| Error::Settings { path: path.to_owned(), why: why.to_owned() };
    let pem = ashlar_cache::read_if_there(path, MAX_CA)?.ok_or_else(|| bad("it is not there"))?;
    let mut roots = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|_| bad("it is not PEM"))? {
            roots.push(certificate);
        }
    }
    if roots.is_empty() {
        return Err(bad("it holds no certificate in PEM"));
    }
    let system = rustls_native_certs::load_native_certs().certs;
    roots.extend(system.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()));
    Ok(roots)
}

/// What went wrong, with what to do where that is known.
fn explain(error: &ureq::Error) -> String {
    let text = error.to_string();
    if text.contains("invalid peer certificate") {
        return format!(
            "its certificate cannot be trusted ({text}); name the file of its CA, if it has its own"
        );
    }
    if text.contains("InvalidContentType") {
        return format!("it does not speak TLS ({text}); if it may be without, say so");
    }
    text
}

/// The message of a registry's error, if it has one (distribution-spec, error codes), made harmless for a terminal.
pub(crate) fn message(answer: &mut Answer) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut body = Vec::new();
    let _ = answer.body_mut().as_reader().take(MAX_ERROR).read_to_end(&mut body);
    let errors = serde_json::from_slice::<Errors>(&body).map(|errors| errors.errors).unwrap_or_default();
    let text = errors.first().map(|e| format!(" ({}: {})", e.code, e.message)).unwrap_or_default();
    let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    format!("it answers {}{text}", answer.status())
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Scheme, host and port: what a login is for.
pub(crate) fn origin(url: &str) -> Option<(String, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

/// Where a redirection leads (RFC 3986, section 5.2, for what servers send): to `http` and `https` only, and never from the
/// second to the first.
fn follow(from: &str, location: &str) -> Option<String> {
    let uri: Uri = from.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let location = location.split('#').next()?;
    let to = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.split_once(':').is_some_and(|(before, _)| !before.contains(['/', '?'])) {
        return None;
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    (scheme == "http" || to.starts_with("https://")).then_some(to)
}

/// A value in a query or form.
pub(crate) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push('%');
            escaped.push_str(&hex::encode_upper([byte]));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_redirections() {
        let from = "https://r.example/v2/a/blobs/x";
        assert_eq!(follow(from, "/y?a=b:c").as_deref(), Some("https://r.example/y?a=b:c"));
        assert_eq!(follow(from, "y").as_deref(), Some("https://r.example/v2/a/blobs/y"));
        assert_eq!(follow(from, "https://s.example/y#z").as_deref(), Some("https://s.example/y"));
        assert_eq!(follow(from, "http://r.example/y"), None);
        assert_eq!(follow(from, "file:///etc/passwd"), None);
        assert_eq!(origin("https://R.example/a"), origin("https://r.example:443/b"));
        assert_ne!(origin("https://r.example/a"), origin("http://r.example/a"));
        assert_ne!(origin("https://r.example/a"), origin("https://r.example:444/a"));
    }

    #[test]
    fn this_machine_is_known() {
        for host in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example", "10.0.0.1", "127.0.0.1.example", ""] {
            assert!(!is_loopback(host), "{host}");
        }
        assert_eq!(escape("repository:a/b:pull ä"), "repository%3Aa%2Fb%3Apull%20%C3%A4");
    }
}
