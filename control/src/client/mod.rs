//! Speaks to a machine: the local one through its socket, others over mutual TLS.

pub mod known;
mod noted;
pub mod target;
mod tls;
mod upload;

pub use target::Target;

use crate::error::ControlError;
use crate::fingerprint::Fingerprint;
use crate::identity::Identity;
use ashlar_image::control::{API_SOCKET, MAX_LINE, Refusal};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use noted::{Alert, Noted};
use std::error::Error;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;
use upload::RequestBody;

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Time for an answer: longer than the server's own, which says what was slow.
const ANSWER: Duration = Duration::from_secs(125);
/// How often the machine is asked whether it lives, and how long it may take to say so.
const PING: Duration = Duration::from_secs(15);
/// How long the reason of an end is waited for.
const REASON: Duration = Duration::from_secs(2);

/// Whom a client trusts and who it is, for machines afar.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The machine's fingerprint; none where it is not known yet.
    pub fingerprint: Option<Fingerprint>,
    /// The client's certificate.
    pub identity: Option<Identity>,
}

/// A connection to a machine.
#[derive(Debug)]
pub struct Client {
    node: String,
    sender: http2::SendRequest<RequestBody>,
    /// Why the connection has ended.
    end: Option<oneshot::Receiver<Option<hyper::Error>>>,
    /// What the machine has said to the client's certificate.
    alert: Alert,
}

impl Client {
    /// Connects.
    pub async fn connect(target: &Target, credentials: &Credentials) -> Result<Self, ControlError> {
        let node = target.to_string();
        match target {
            Target::Local(path) => {
                let stream = timeout(CONNECT, UnixStream::connect(path)).await.unwrap_or_else(|_| late());
                Self::over(node, stream.map_err(|error| local(path, &error))?, Alert::default()).await
            }
            Target::Remote { host, port } => {
                let stream = timeout(CONNECT, TcpStream::connect((host.as_str(), *port))).await;
                let stream = stream.unwrap_or_else(|_| late()).map_err(|error| remote(&node, &error))?;
                let _ = stream.set_nodelay(true);
                let stream = tls::connect(&node, host, stream, credentials).await?;
                let alert = Alert::default();
                Self::over(node, Noted::new(stream, alert.clone()), alert).await
            }
        }
    }

    async fn over<S>(node: String, stream: S, alert: Alert) -> Result<Self, ControlError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&node, &error, &alert))?;
        let (tell, end) = oneshot::channel();
        tokio::spawn(async move {
            let _ = tell.send(connection.await.err());
        });
        Ok(Self { node, sender, end: Some(end), alert })
    }

    /// Asks, and gives the whole answer of at most [`MAX_LINE`] bytes.
    pub async fn call(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<Bytes, ControlError> {
        let exchange = async {
            let response = self.send(method, path, RequestBody::whole(body)).await?;
            let collected = Limited::new(response.into_body(), MAX_LINE).collect().await;
            collected
                .map(http_body_util::Collected::to_bytes)
                .map_err(|error| ControlError::Answer { node: self.node.clone(), problem: error.to_string() })
        };
        match timeout(ANSWER, exchange).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(&self.node, "no answer in time".into())),
        }
    }

    /// Sends the `size` bytes of a file (PUT), and gives the whole answer. `tell` is told how many bytes are left.
    pub async fn upload(
        &mut self,
        path: &str,
        file: std::fs::File,
        size: u64,
        tell: Box<dyn FnMut(u64) + Send>,
    ) -> Result<Bytes, ControlError> {
        let response = self.send(Method::PUT, path, RequestBody::File(file, size, tell)).await?;
        let collected = Limited::new(response.into_body(), MAX_LINE).collect().await;
        collected
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| ControlError::Answer { node: self.node.clone(), problem: error.to_string() })
    }

    /// Asks, and gives the answer piece by piece as it comes, until it ends or `each` fails.
    pub async fn stream(
        &mut self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> Result<(), ControlError>,
    ) -> Result<(), ControlError> {
        let mut body =
            match timeout(ANSWER, self.send(Method::GET, path, RequestBody::whole(Vec::new()))).await {
                Ok(response) => response?.into_body(),
                Err(_) => return Err(unreachable(&self.node, "no answer in time".into())),
            };
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => {
                    if let Some(bytes) = frame.data_ref() {
                        each(bytes)?;
                    }
                }
                Err(error) => return Err(self.ended(&error).await),
            }
        }
        Ok(())
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: RequestBody,
    ) -> Result<Response<Incoming>, ControlError> {
        // The authority is no secret and nobody looks at it: machines are known by their certificates.
        let request = Request::builder()
            .method(method)
            .uri(format!("https://ashlar{path}"))
            .body(body)
            .map_err(|error| ControlError::Usage(error.to_string()))?;
        let response = match self.sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => return Err(self.ended(&error).await),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_LINE).collect().await;
        let refusal = body.ok().and_then(|body| serde_json::from_slice::<Refusal>(&body.to_bytes()).ok());
        Err(match refusal {
            Some(refusal) if status == StatusCode::BAD_GATEWAY || status == StatusCode::GATEWAY_TIMEOUT => {
                ControlError::Unreachable {
                    node: self.node.clone(),
                    problem: refusal.message,
                    advice: refusal.advice,
                }
            }
            Some(refusal) => ControlError::Refused(refusal),
            None => {
                ControlError::Answer { node: self.node.clone(), problem: format!("HTTP status {status}") }
            }
        })
    }

    /// Why a request has failed: the connection often knows better.
    async fn ended(&mut self, error: &hyper::Error) -> ControlError {
        let reason = match self.end.take() {
            Some(end) => timeout(REASON, end).await.ok().and_then(Result::ok).flatten(),
            None => None,
        };
        broken(&self.node, reason.as_ref().unwrap_or(error), &self.alert)
    }
}

/// The fingerprint that a machine shows.
pub async fn shown_fingerprint(target: &Target) -> Result<Fingerprint, ControlError> {
    match target {
        Target::Local(_) => Err(ControlError::Usage("the machine here needs no trust".into())),
        Target::Remote { host, port } => {
            let node = target.to_string();
            let stream = timeout(CONNECT, TcpStream::connect((host.as_str(), *port))).await;
            let stream = stream.unwrap_or_else(|_| late()).map_err(|error| remote(&node, &error))?;
            let nobody = Credentials { fingerprint: None, identity: None };
            match tls::connect(&node, host, stream, &nobody).await {
                Err(ControlError::UnknownNode { found, .. }) => Ok(found),
                Err(error) => Err(error),
                // Without a fingerprint to expect none is accepted.
                Ok(_) => Err(unreachable(&node, "it has shown no certificate".into())),
            }
        }
    }
}

fn late<T>() -> io::Result<T> {
    Err(io::Error::new(ErrorKind::TimedOut, format!("no connection within {} s", CONNECT.as_secs())))
}

fn unreachable(node: &str, problem: String) -> ControlError {
    let advice = "is the machine on and its network up? its console shows its addresses and what ails it";
    ControlError::Unreachable { node: node.to_owned(), problem, advice: advice.into() }
}

fn remote(node: &str, error: &io::Error) -> ControlError {
    if error.kind() == ErrorKind::ConnectionRefused {
        return ControlError::Unreachable {
            node: node.to_owned(),
            problem: "it is there, but nobody listens on that port".into(),
            advice: "the API listens once the machine's configuration has trust roots for clients; its log says more"
                .into(),
        };
    }
    unreachable(node, error.to_string())
}

fn local(path: &Path, error: &io::Error) -> ControlError {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => "only root may speak to the machine: run it as root",
        ErrorKind::NotFound if path == Path::new(API_SOCKET) => {
            "this computer is no Ashlar machine, or its API does not run; name a machine with --node HOST"
        }
        _ => "the API does not run; the machine's console and its log in /var/log/ashlar say more",
    };
    ControlError::Unreachable {
        node: format!("the machine here ({})", path.display()),
        problem: error.to_string(),
        advice: advice.into(),
    }
}

/// A connection has ended. An alert is the machine's word on the client's certificate: with TLS 1.3 it comes after the
/// client's side of the handshake is over.
fn broken(node: &str, error: &hyper::Error, alert: &Alert) -> ControlError {
    if let Some(alert) = alert.get() {
        return ControlError::NotAccepted { node: node.to_owned(), problem: tls::alert(alert) };
    }
    let mut problem = error.to_string();
    if let Some(source) = error.source() {
        problem = format!("{problem}: {source}");
    }
    unreachable(node, problem)
}
