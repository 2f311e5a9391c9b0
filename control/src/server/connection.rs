//! One connection: HTTP/2 with bounds, until it is idle or a request of it takes too long.

use super::activity::Activity;
use super::{Context, handler, limits};
use crate::role::Peer;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Tasks of one connection: they end with it.
#[derive(Debug, Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

impl Tasks {
    fn with<T>(&self, change: impl FnOnce(&mut JoinSet<()>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.with(|tasks| {
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                task.await;
            });
        });
    }
}

/// Serves one connection to its end.
pub(super) async fn serve<S>(stream: S, peer: Peer, context: Arc<Context>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let activity = Activity::new(Instant::now());
    let tasks = Tasks::default();
    let ends = peer.ends;
    let peer = Arc::new(peer);
    let service = {
        let activity = activity.clone();
        service_fn(move |request| {
            let (context, peer, activity) = (context.clone(), peer.clone(), activity.clone());
            async move { Ok::<_, Infallible>(handler::handle(context, peer, activity, request).await) }
        })
    };
    let mut builder = http2::Builder::new(tasks.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::MAX_STREAMS)
        .max_header_list_size(limits::MAX_HEADERS)
        .initial_stream_window_size(limits::STREAM_WINDOW)
        .initial_connection_window_size(limits::CONNECTION_WINDOW)
        .max_send_buf_size(limits::SEND_BUFFER)
        .keep_alive_interval(limits::PING)
        .keep_alive_timeout(limits::PING);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        tokio::select! {
            // A connection that ends badly is the client's affair.
            _ = &mut connection => break,
            () = sleep(limits::LOOK) => {
                if activity.is_over(Instant::now()) || ends.is_some_and(has_passed) {
                    break;
                }
            }
        }
    }
    tasks.with(JoinSet::abort_all);
}

/// Whether this time since 1970 is over.
fn has_passed(time: Duration) -> bool {
    Duration::from_micros(crate::clock::now()) >= time
}
