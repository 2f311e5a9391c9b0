//! `lockctl serve`: FleetLock over the store.

mod answer;
mod metrics;

use crate::arguments::{Place, Problem, Serve, read};
use answer::{Answer, Answering, failure};
use ashlar_lock::{Etcd, Lock};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Metrics;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Connections at once.
const MAX_CONNECTIONS: usize = 512;
/// Questions to etcd at once; connections to it that are kept.
const MAX_QUESTIONS: usize = 8;
/// Longest body of a request in bytes.
const MAX_BODY: usize = 64 << 10;
/// How long a client may take for the handshake, for its headers, and for its body.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may live.
const LIFETIME: Duration = Duration::from_secs(300);

/// What all connections share.
struct Server {
    place: Place,
    locks: Mutex<Vec<Lock<Etcd>>>,
    questions: Semaphore,
    metrics: Metrics,
}

/// Serves until it is killed.
pub(crate) fn serve(place: &Place, options: &Serve) -> Result<(), Problem> {
    let fail = |text: String| Problem::new(Problem::FILE, text);
    // Wrong options are told before anybody listens.
    let first = place.lock()?;
    let acceptor = match (&options.tls_cert, &options.tls_key) {
        (Some(certificate), Some(key)) => {
            let client_ca = options.client_ca.as_deref().map(read).transpose()?;
            let config = tls(&read(certificate)?, &read(key)?, client_ca.as_deref()).map_err(fail)?;
            Some(TlsAcceptor::from(Arc::new(config)))
        }
        _ => None,
    };
    let server = Arc::new(Server {
        place: place.clone(),
        locks: Mutex::new(vec![first]),
        questions: Semaphore::new(MAX_QUESTIONS),
        metrics: Metrics::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| fail(error.to_string()))?;
    runtime.block_on(async {
        let open = async |address: SocketAddr| {
            let listener = TcpListener::bind(address).await;
            listener.map_err(|error| fail(format!("`{address}` cannot be listened on: {error}")))
        };
        let listener = open(options.listen).await?;
        if let Some(address) = options.metrics {
            let listener = open(address).await?;
            eprintln!("metrics are served on {}", local(&listener));
            tokio::spawn(accept(listener, None, server.clone(), true));
        }
        eprintln!("FleetLock is served on {}", local(&listener));
        accept(listener, acceptor, server, false).await;
        Ok(())
    })
}

fn local(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|_| "?".into(), |address| address.to_string())
}

fn tls(certificate: &str, key: &str, client_ca: Option<&str>) -> Result<rustls::ServerConfig, String> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    let certificates = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| format!("a certificate cannot be read: {error}"))
    };
    let chain = certificates(certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|error| format!("the server's key cannot be read: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(pem)? {
                roots.add(certificate).map_err(|error| format!("a client authority: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("the client authorities: {error}"))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder.with_single_cert(chain, key).map_err(|error| format!("certificate and key: {error}"))
}

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, server: Arc<Server>, metrics: bool) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // No file descriptors, for example.
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let (acceptor, server) = (acceptor.clone(), server.clone());
        tokio::spawn(async move {
            let _place = place;
            // A client that breaks off is its own affair.
            let _ = timeout(LIFETIME, connection(stream, acceptor, server, metrics)).await;
        });
    }
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, server: Arc<Server>, metrics: bool) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move {
            let answer = if metrics {
                server.metrics.answer(request.uri().path())
            } else {
                server.answer(request).await
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(DEADLINE).max_headers(64);
    match acceptor {
        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
        Some(acceptor) => {
            let Ok(Ok(stream)) = timeout(DEADLINE, acceptor.accept(stream)).await else { return };
            drop(http.serve_connection(TokioIo::new(stream), service).await);
        }
    }
}

fn respond(answer: &Answer) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Answer::Granted => (200, Bytes::new()),
        Answer::Refused { status, failure } => {
            (*status, serde_json::to_vec(failure).map(Bytes::from).unwrap_or_default())
        }
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
    if status != 200 {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if status == 405 {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

impl Server {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let answer = match Answering::of(&head) {
            Err(refused) => refused,
            Ok(what) => match timeout(DEADLINE, Limited::new(body, MAX_BODY).collect()).await {
                Err(_) => failure(408, "body_too_slow", "the body does not come"),
                Ok(Err(_)) => failure(413, "body_too_large", "the body is broken off or too long"),
                Ok(Ok(body)) => match what.parse(&body.to_bytes()) {
                    Err(refused) => refused,
                    Ok(asked) => self.clone().ask(asked).await,
                },
            },
        };
        self.metrics.count(head.uri.path(), &answer);
        respond(&answer)
    }

    /// Asks etcd, in a thread of its own.
    async fn ask(self: Arc<Self>, asked: answer::Asked) -> Answer {
        let Ok(_place) = self.questions.acquire().await else {
            return failure(503, "backend_unavailable", "the server ends");
        };
        let server = self.clone();
        let result = tokio::task::spawn_blocking(move || {
            let kept = server.locks.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let lock = match kept {
                Some(lock) => lock,
                None => match server.place.lock() {
                    Ok(lock) => lock,
                    Err(problem) => return failure(500, "backend_refused", &problem.text),
                },
            };
            let mut lock = lock;
            let answer = asked.ask(&mut lock);
            server.locks.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            answer
        });
        result.await.unwrap_or_else(|_| failure(500, "internal_error", "the question has failed"))
    }
}
