//! A web server.

use crate::limit::{Bandwidth, Bounded, Pace, end};
use crate::ranges::content_range;
use crate::resolve::Names;
use crate::{Body, FetchError, Request, Source, is_inside};
use std::time::{Duration, Instant};
use ureq::http::{Response, StatusCode, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Proxy};

/// Most redirects that are followed.
const MAX_REDIRECTS: u32 = 5;
/// Longest headers in bytes.
const MAX_HEADERS: usize = 32 << 10;

/// How a server is spoken to.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// A proxy for the server, `http://HOST:PORT`.
    pub proxy: Option<String>,
    /// Authorities that are trusted for https, each in PEM; those of the web if there are none.
    pub roots: Vec<Vec<u8>>,
    /// Longest time until a connection is there.
    pub connect: Duration,
    /// Longest time without a byte.
    pub stall: Duration,
    /// Bytes per second that a server must send, on the average over [`Self::window`].
    pub slowest: u64,
    /// Over what time the slowest rate is looked at.
    pub window: Duration,
    /// Limit of the bandwidth.
    pub bandwidth: Option<Bandwidth>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            proxy: None,
            roots: Vec::new(),
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            slowest: 1024,
            window: Duration::from_secs(30),
            bandwidth: None,
        }
    }
}

/// Files below an address. Connections are kept and used again; any number of threads may ask at once.
#[derive(Debug)]
pub struct Http {
    base: String,
    agent: Agent,
    options: HttpOptions,
}

impl Http {
    /// Files below `base`, an `http` or `https` address. From `https` no redirect leads to `http`.
    pub fn new(base: &str, options: HttpOptions) -> Result<Self, FetchError> {
        let failed = |reason: String| FetchError::Failed { path: base.to_owned(), reason };
        let secure = base.starts_with("https://");
        if !secure && !base.starts_with("http://") {
            return Err(failed("the address begins neither with http:// nor with https://".into()));
        }
        let proxy = options.proxy.as_deref().map(Proxy::new).transpose();
        let proxy = proxy.map_err(|error| failed(format!("the proxy: {error}")))?;
        let mut tls = TlsConfig::builder();
        if !options.roots.is_empty() {
            let roots =
                options.roots.iter().map(|pem| Certificate::from_pem(pem)).collect::<Result<Vec<_>, _>>();
            let roots = roots.map_err(|error| failed(format!("a trusted authority: {error}")))?;
            tls = tls.root_certs(RootCerts::from(roots));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(secure)
            .tls_config(tls.build())
            .proxy(proxy)
            .max_redirects(MAX_REDIRECTS)
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .max_response_header_size(MAX_HEADERS)
            .timeout_connect(Some(options.connect))
            .timeout_resolve(Some(options.connect))
            .timeout_recv_response(Some(options.stall))
            .timeout_per_read(Some(options.stall))
            .timeout_per_write(Some(options.stall))
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Names);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), agent, options })
    }

    /// Sends a report (POST) and waits for the answer's status.
    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<(), FetchError> {
        let failed = |reason: String| FetchError::Failed { path: path.to_owned(), reason };
        let url = if path.is_empty() { self.base.clone() } else { format!("{}/{path}", self.base) };
        let response = self
            .agent
            .post(url)
            .header(header::CONTENT_TYPE, content_type)
            .send(body)
            .map_err(|error| failed(error.to_string()))?;
        if response.status().is_success() { Ok(()) } else { Err(failed(status(&response))) }
    }
}

fn status<T>(response: &Response<T>) -> String {
    let again = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let again = again
        .map(|text| format!("; it asks to come again after {}", text.escape_debug()))
        .unwrap_or_default();
    format!("the server answers {}{again}", response.status())
}

impl Source for Http {
    fn open(&self, request: &Request) -> Result<Body, FetchError> {
        let failed = |reason: String| FetchError::Failed { path: request.path.clone(), reason };
        if !is_inside(&request.path) {
            return Err(failed("this is no path of a channel".into()));
        }
        let mut get = self.agent.get(format!("{}/{}", self.base, request.path));
        if let Some(range) = request.range {
            let last = end(range).and_then(|end| end.checked_sub(1)).filter(|_| range.length > 0);
            let last = last.ok_or_else(|| failed("an empty range is asked for".into()))?;
            get = get.header(header::RANGE, format!("bytes={}-{last}", range.start));
        }
        let response = get.call().map_err(|error| failed(explain(&error)))?;
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(encoding) = header(header::CONTENT_ENCODING)
            && !encoding.eq_ignore_ascii_case("identity")
        {
            return Err(failed(format!(
                "the server packs it ({}), though it must not",
                encoding.escape_debug()
            )));
        }
        let length = header(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        let (start, expected, max) = match response.status() {
            StatusCode::OK => (0, length, request.max),
            StatusCode::PARTIAL_CONTENT => {
                let asked = request.range.ok_or_else(|| failed("the server sends a part, unasked".into()))?;
                let told = header(header::CONTENT_RANGE).and_then(content_range);
                let (range, _) =
                    told.ok_or_else(|| failed("the server does not say which part it sends".into()))?;
                if range.start != asked.start || range.length > asked.length {
                    return Err(failed("the server sends another part than was asked for".into()));
                }
                (range.start, Some(range.length), asked.length)
            }
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => {
                return Err(FetchError::NotFound(request.path.clone()));
            }
            _ => return Err(failed(status(&response))),
        };
        if expected.is_some_and(|expected| expected > max) {
            return Err(FetchError::TooLong { path: request.path.clone(), max });
        }
        let options = &self.options;
        let reader = Bounded {
            path: request.path.clone(),
            inner: Box::new(response.into_body().into_reader()),
            max,
            expected,
            taken: 0,
            bandwidth: options.bandwidth.clone(),
            pace: Some(Pace { rate: options.slowest, window: options.window }),
            window: (Instant::now(), 0),
        };
        Ok(Body { start, length: expected, reader: Box::new(reader) })
    }

    fn name(&self) -> String {
        self.base.clone()
    }
}

/// What went wrong, for people.
fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(what) => format!("the server does not answer in time ({what})"),
        ureq::Error::HostNotFound => "the server's name is not known".into(),
        ureq::Error::ConnectionFailed => "the server takes no connection".into(),
        ureq::Error::TooManyRedirects => "the server leads in circles".into(),
        ureq::Error::RequireHttpsOnly(_) => "the server leads from https to http".into(),
        ureq::Error::LargeResponseHeader(_, max) => {
            format!("the server's headers are longer than {max} bytes")
        }
        other => other.to_string(),
    }
}
