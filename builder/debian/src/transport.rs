//! Getting files from a mirror: `http`, `https` and `file` URLs.
//!
//! A proxy is taken from `http_proxy` and `https_proxy` (or `all_proxy`) unless `no_proxy` names the host. A plain
//! `http` mirror is asked for through the proxy in absolute form (RFC 9112, section 3.2.2), which is what caching
//! proxies want; `https` goes through a tunnel (`CONNECT`).

use crate::Error;
use base64::Engine;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;
use ureq::http::{Uri, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport,
};

/// Whether a mirror may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// What is not in the cache is fetched, and the index is looked at anew.
    Online,
    /// Only the cache is used.
    Offline,
}

/// Longest time to connect, and longest silence of a mirror.
const PATIENCE: Duration = Duration::from_secs(20);
/// Redirections that are followed.
const MAX_REDIRECTS: usize = 5;
/// Waiting time before each further attempt.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1500)];
/// An attempt that got so many bytes further has not failed in vain: the attempts are counted anew.
const HEADWAY: u64 = 1 << 20;

/// Why an attempt failed.
pub(crate) enum Failure {
    /// The next attempt may go well.
    Passing(String),
    /// The mirror has answered, and will answer the same again.
    Final(String),
    /// It does not lie at the mirror: a full disk, a wrong hash.
    Ours(Error),
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Passing(error.to_string())
    }
}

/// The proxies of the environment.
#[derive(Debug, Clone, Default)]
struct Proxies {
    http: Option<String>,
    https: Option<String>,
    /// Hosts (and their sub-domains) that are asked directly; `*` for all.
    direct: Vec<String>,
}

impl Proxies {
    fn from(variable: impl Fn(&str) -> Option<String>) -> Self {
        // Lower case first, as curl and apt have it.
        let get = |name: &str| {
            variable(name).or_else(|| variable(&name.to_ascii_uppercase())).filter(|value| !value.is_empty())
        };
        Self {
            http: get("http_proxy").or_else(|| get("all_proxy")),
            https: get("https_proxy").or_else(|| get("all_proxy")),
            direct: get("no_proxy")
                .unwrap_or_default()
                .split(',')
                .map(|host| host.trim().trim_start_matches('.').to_ascii_lowercase())
                .filter(|host| !host.is_empty())
                .collect(),
        }
    }

    fn for_url(&self, url: &Uri) -> Option<&str> {
        let host = url.host()?.to_ascii_lowercase();
        let direct = |name: &String| {
            name == "*"
                || host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        if self.direct.iter().any(direct) {
            return None;
        }
        if url.scheme_str() == Some("https") { self.https.as_deref() } else { self.http.as_deref() }
    }
}

/// Asks mirrors.
pub(crate) struct Client {
    agent: ureq::Agent,
    proxies: Proxies,
}

impl Client {
    /// With the proxies of the environment.
    pub(crate) fn new() -> Self {
        Self::with(Proxies::from(|name| std::env::var(name).ok()), PATIENCE)
    }

    fn with(proxies: Proxies, patience: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .user_agent(concat!("ashlar/", env!("CARGO_PKG_VERSION")))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_resolve(Some(patience))
            .timeout_connect(Some(patience))
            .timeout_recv_response(Some(patience))
            .timeout_per_read(Some(patience))
            .timeout_per_write(Some(patience))
            .build();
        let connector = DefaultConnector::default().chain(AbsoluteForm);
        Self { agent: ureq::Agent::with_parts(config, connector, DefaultResolver::default()), proxies }
    }

    /// Opens `path` below `mirror` from byte `position` on and gives it to `consume`, with the byte at which it really
    /// begins (0 when the mirror knows no ranges) and the position, which `consume` moves on as it reads to the end. Both are
    /// done again from there when the connection fails in between.
    pub(crate) fn get_from<T>(
        &self,
        mirror: &str,
        path: &str,
        position: &mut u64,
        mut consume: impl FnMut(&mut dyn Read, u64, &mut u64) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let fail =
            |why| Error::Mirror { mirror: mirror.to_owned(), path: path.to_owned(), why, cached: None };
        let mut pauses = PAUSES.iter();
        let mut best = *position;
        loop {
            let result = self
                .open(mirror, path, *position)
                .and_then(|(mut body, from)| consume(&mut body, from, position));
            match result {
                Ok(result) => return Ok(result),
                Err(Failure::Ours(error)) => return Err(error),
                Err(Failure::Final(why)) => return Err(fail(why)),
                Err(Failure::Passing(why)) => {
                    if *position >= best.saturating_add(HEADWAY) {
                        best = *position;
                        pauses = PAUSES.iter();
                    }
                    match pauses.next() {
                        Some(pause) => std::thread::sleep(*pause),
                        None => return Err(fail(why)),
                    }
                }
            }
        }
    }

    /// Reads `path` below `mirror` into memory: at most `limit` bytes.
    pub(crate) fn read(&self, mirror: &str, path: &str, limit: u64) -> Result<Vec<u8>, Error> {
        self.get_from(mirror, path, &mut 0, |body, _, _| {
            let mut bytes = Vec::new();
            body.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
            if bytes.len() as u64 > limit {
                return Err(Failure::Final(format!("it is larger than {limit} bytes")));
            }
            Ok(bytes)
        })
    }

    /// Opens a file from byte `offset` on, or from its start if that is not to be had; says which.
    fn open(&self, mirror: &str, path: &str, offset: u64) -> Result<(Box<dyn Read>, u64), Failure> {
        if let Some(folder) = mirror.strip_prefix("file://") {
            let open = || -> std::io::Result<File> {
                let mut file = File::open(Path::new(folder).join(path))?;
                file.seek(SeekFrom::Start(offset))?;
                Ok(file)
            };
            return match open() {
                Ok(file) => Ok((Box::new(file), offset)),
                Err(error) => Err(Failure::Final(error.to_string())),
            };
        }
        let mut url = format!("{}/{}", mirror.trim_end_matches('/'), escape(path));
        for _ in 0..=MAX_REDIRECTS {
            let uri: Uri = url.parse().map_err(|_| Failure::Final(format!("`{url}` is not a URL")))?;
            let mut response = self.request(&uri, offset)?;
            let status = response.status();
            if status.is_success() {
                let from = match status.as_u16() {
                    206 => range_start(&response).ok_or_else(|| {
                        Failure::Final("it answers with a part of the file and does not say which".into())
                    })?,
                    _ => 0,
                };
                if from != 0 && from != offset {
                    return Err(Failure::Final("it answers with another part than was asked for".into()));
                }
                return Ok((Box::new(response.into_body().into_reader()), from));
            }
            // The file ends before: what is there already is not a part of it.
            if status.as_u16() == 416 && offset > 0 {
                return self.open(mirror, path, 0);
            }
            if !status.is_redirection() {
                let why = format!("it answers {status}");
                let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                return Err(if passing { Failure::Passing(why) } else { Failure::Final(why) });
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            url = location.and_then(|location| follow(&uri, location)).ok_or_else(|| {
                Failure::Final(format!("it answers {status} with no place that can be used"))
            })?;
            // So that the connection can be used again.
            let _ = std::io::copy(&mut response.body_mut().as_reader().take(1 << 16), &mut std::io::sink());
        }
        Err(Failure::Final(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    fn request(&self, url: &Uri, offset: u64) -> Result<ureq::http::Response<ureq::Body>, Failure> {
        // The hash of the whole is compared in the end, so that the parts need no entity tag to belong together.
        let range = (offset > 0).then(|| format!("bytes={offset}-"));
        let get = |url: &Uri| match &range {
            Some(range) => self.agent.get(url).header(header::RANGE, range),
            None => self.agent.get(url),
        };
        let passing = |error: ureq::Error| match error {
            ureq::Error::BadUri(_)
            | ureq::Error::InvalidProxyUrl
            | ureq::Error::Rustls(_)
            | ureq::Error::Tls(_) => Failure::Final(error.to_string()),
            _ => Failure::Passing(error.to_string()),
        };
        let Some(proxy) = self.proxies.for_url(url) else {
            return get(url).call().map_err(passing);
        };
        if url.scheme_str() == Some("https") {
            let proxy = ureq::Proxy::new(proxy).map_err(passing)?;
            return get(url).config().proxy(Some(proxy)).build().call().map_err(passing);
        }
        let bad_proxy = || Failure::Final("the proxy that the environment names cannot be used".into());
        let (scheme, rest) = proxy.split_once("://").unwrap_or(("http", proxy));
        let authority = rest.trim_end_matches('/');
        let (user, address) = match authority.rsplit_once('@') {
            Some((user, address)) => (Some(user), address),
            None => (None, authority),
        };
        if !matches!(scheme, "http" | "https") {
            return Err(bad_proxy());
        }
        let target = Uri::builder()
            .scheme(scheme)
            .authority(address)
            .path_and_query(format!("/{url}"))
            .build()
            .map_err(|_| bad_proxy())?;
        let host = url.authority().map_or("", |authority| authority.as_str());
        let mut request = get(&target).header(header::HOST, host);
        if let Some(user) = user {
            let user = unescape(user).ok_or_else(bad_proxy)?;
            let credentials = base64::engine::general_purpose::STANDARD.encode(user);
            request = request.header(header::PROXY_AUTHORIZATION, format!("Basic {credentials}"));
        }
        request.call().map_err(passing)
    }
}

/// The first byte of a partial answer (`Content-Range: bytes 7-9/10`; RFC 9110, section 14.4).
fn range_start<T>(response: &ureq::http::Response<T>) -> Option<u64> {
    let value = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    value.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// Sends requests for `/http://…` as requests for `http://…`, which a proxy takes (RFC 9112, section 3.2.2). The client
/// itself knows tunnels only, and URLs cannot have a path that is a URL.
#[derive(Debug)]
struct AbsoluteForm;

impl<In: Transport> Connector<In> for AbsoluteForm {
    type Out = AbsoluteFormTransport<In>;

    fn connect(
        &self,
        _details: &ConnectionDetails,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(AbsoluteFormTransport))
    }
}

#[derive(Debug)]
struct AbsoluteFormTransport<T>(T);

impl<T: Transport> Transport for AbsoluteFormTransport<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, mut amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let output = self.0.buffers().output();
        // A request line is always sent in one piece, at the start of the buffer.
        if output.get(..amount).is_some_and(|output| output.starts_with(b"GET /http://")) {
            output.copy_within(5..amount, 4);
            amount -= 1;
        }
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

/// Where a redirection leads (RFC 3986, section 5.2, for what servers send). Only to `http` and `https`, and
/// never from `https` to `http`.
fn follow(from: &Uri, location: &str) -> Option<String> {
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let location = location.split('#').next()?;
    let to = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else if location.split_once(':').is_some_and(|(before, _)| !before.contains('/')) {
        return None;
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{location}")
    };
    (scheme == "http" || to.starts_with("https://")).then_some(to)
}

/// A path with the characters escaped that have no or another meaning in a URL.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            use std::fmt::Write;
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let (code, after) = rest.split_at_checked(2)?;
            bytes.extend(hex::decode(code).ok()?);
            rest = after;
        } else {
            bytes.push(first);
        }
    }
    Some(bytes)
}

/// Checks that `url` can be a mirror and takes a slash at its end away.
pub(crate) fn check_mirror(url: &str) -> Result<&str, Error> {
    let bad = |why: &str| Error::BadMirror { url: url.to_owned(), why: why.to_owned() };
    if let Some(folder) = url.strip_prefix("file://") {
        return if folder.starts_with('/') {
            Ok(url.trim_end_matches('/'))
        } else {
            Err(bad("a `file://` URL needs an absolute path"))
        };
    }
    let uri: Uri = url.parse().map_err(|_| bad("it is not a URL"))?;
    match uri.scheme_str() {
        Some("http" | "https")
            if uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none() =>
        {
            Ok(url.trim_end_matches('/'))
        }
        _ => Err(bad("only `http://`, `https://` and `file://` are known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc;

    /// Answers one connection after another with what `answer` makes of the request's head, and reports the heads.
    fn server(answers: Vec<Vec<u8>>) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, heads) = mpsc::channel();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                // Not every test looks at them.
                let _ = sender.send(head(&stream));
                // A client that has hung up is part of some tests.
                let _ = stream.write_all(&answer);
            }
        });
        (address, heads)
    }

    fn head(stream: &TcpStream) -> String {
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut head = String::new();
        for line in BufReader::new(stream).lines() {
            let line = line.unwrap();
            if line.is_empty() {
                break;
            }
            head.push_str(&line);
            head.push('\n');
        }
        head
    }

    fn ok(body: &str) -> Vec<u8> {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()).into()
    }

    fn status(line: &str) -> Vec<u8> {
        format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into()
    }

    fn direct() -> Client {
        Client::with(Proxies::default(), Duration::from_secs(5))
    }

    #[test]
    fn redirections_are_followed_and_bounded() {
        let (end, _) = server(vec![ok("body")]);
        let to = status(&format!("302 Found\r\nLocation: http://{end}/other%2Bplace"));
        let (start, heads) = server(vec![to]);
        let mirror = format!("http://{start}/debian/");
        assert_eq!(direct().read(&mirror, "pool/a+b.deb", 10).unwrap(), b"body");
        assert!(heads.recv().unwrap().starts_with("GET /debian/pool/a%2Bb.deb HTTP/1.1\n"));

        let (around, _) = server(vec![status("301 Moved\r\nLocation: /again"); 6]);
        let error = direct().read(&format!("http://{around}"), "x", 10).unwrap_err();
        assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
    }

    #[test]
    fn passing_failures_are_tried_again() {
        let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort".to_vec();
        let (address, heads) = server(vec![status("503 Busy"), cut, ok("whole")]);
        assert_eq!(direct().read(&format!("http://{address}"), "x", 100).unwrap(), b"whole");
        assert_eq!(heads.iter().count(), 3);
        let (address, heads) = server(vec![status("404 Not Found")]);
        let error = direct().read(&format!("http://{address}"), "x", 100).unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
        assert_eq!(heads.iter().count(), 1);
    }

    #[test]
    fn too_much_is_not_read() {
        let (address, _) = server(vec![ok("12345678")]);
        let error = direct().read(&format!("http://{address}"), "x", 7).unwrap_err();
        assert!(error.to_string().contains("larger than 7 bytes"), "{error}");
    }

    #[test]
    fn a_silent_mirror_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mirror = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::with(Proxies::default(), Duration::from_millis(100));
        assert!(matches!(client.read(&mirror, "x", 7), Err(Error::Mirror { .. })));
    }

    #[test]
    fn http_goes_through_the_proxy_in_absolute_form() {
        let (address, heads) = server(vec![ok("by proxy")]);
        let proxies =
            Proxies::from(|name| (name == "http_proxy").then(|| format!("http://me:p%40ss@{address}/")));
        let client = Client::with(proxies, Duration::from_secs(5));
        assert_eq!(client.read("http://mirror.example/debian", "dists/x", 10).unwrap(), b"by proxy");
        let head = heads.recv().unwrap().to_ascii_lowercase();
        assert!(head.starts_with("get http://mirror.example/debian/dists/x http/1.1\n"), "{head}");
        assert_eq!(head.matches("host:").count(), 1, "{head}");
        assert!(head.contains("\nhost: mirror.example\n"), "{head}");
        assert!(head.contains("\nproxy-authorization: basic bwu6cebzcw==\n"), "{head}");
    }

    #[test]
    fn https_asks_the_proxy_for_a_tunnel() {
        let (address, heads) = server(vec![status("403 Forbidden"); 3]);
        let proxies = Proxies::from(|name| (name == "HTTPS_PROXY").then(|| format!("http://{address}")));
        let client = Client::with(proxies, Duration::from_secs(5));
        assert!(client.read("https://mirror.example/debian", "x", 10).is_err());
        let head = heads.recv().unwrap();
        assert!(head.starts_with("CONNECT mirror.example:443 HTTP/1.1\n"), "{head}");
    }

    #[test]
    fn no_proxy_names_hosts_and_their_domains() {
        let with = |list: &'static str| {
            Proxies::from(move |name| match name {
                "all_proxy" => Some("http://proxy.example".into()),
                "no_proxy" => Some(list.into()),
                _ => None,
            })
        };
        let proxied = |list, url: &str| with(list).for_url(&url.parse().unwrap()).is_some();
        assert!(proxied("", "http://a.example/") && proxied("b.example", "https://a.example/"));
        assert!(proxied("a.example", "http://aa.example/"));
        assert!(!proxied("x, .example", "http://a.example/") && !proxied("a.EXAMPLE", "http://A.example/"));
        assert!(!proxied("*", "http://a.example/"));
    }

    #[test]
    fn places_of_redirections() {
        let from: Uri = "https://m.example/a/b".parse().unwrap();
        assert_eq!(follow(&from, "c").as_deref(), Some("https://m.example/a/c"));
        assert_eq!(follow(&from, "//n.example/c#x").as_deref(), Some("https://n.example/c"));
        assert_eq!(follow(&from, "http://m.example/"), None);
        assert_eq!(follow(&from, "file:///etc/passwd"), None);
    }

    #[test]
    fn mirrors_are_checked() {
        assert_eq!(check_mirror("http://m.example/debian/").unwrap(), "http://m.example/debian");
        for bad in [
            "m.example/debian",
            "ftp://m.example",
            "file://x",
            "mirror+file:/etc/x",
            "http:///x",
            "http://m/?q",
        ] {
            assert!(check_mirror(bad).is_err(), "{bad}");
        }
    }
}
