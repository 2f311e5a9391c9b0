//! The log as the body of a response.

use super::body::{Held, ResponseBody};
use super::{Context, limits};
use crate::api::Problem;
use crate::logs::reader::Batch;
use crate::logs::{Query, Reader};
use ashlar_image::control::RefusalKind;
use bytes::Bytes;
use rustix::fs::inotify;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

/// How long news are collected: a busy log is read in pieces, not line by line.
const COLLECT: Duration = Duration::from_millis(50);

/// News of the log's folder. inotify is no pipe, but is waited for and read like one.
#[derive(Debug)]
struct Watch(Receiver);

impl Watch {
    fn new(folder: &Path) -> io::Result<Self> {
        let inotify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let news = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&inotify, folder, news)?;
        Receiver::from_owned_fd_unchecked(inotify).map(Self)
    }

    /// Waits for news, and for a while at most.
    async fn changed(&self) {
        if let Ok(Ok(())) = timeout(limits::FOLLOW, self.0.readable()).await {
            // What has changed is not looked at: the reader finds out.
            let mut events = [0; 4096];
            while matches!(self.0.try_read(&mut events), Ok(length) if length > 0) {}
            sleep(COLLECT).await;
        }
    }
}

/// Begins to read. An error that comes before the first line is told as such.
pub(super) async fn start(context: &Arc<Context>, query: Query, held: Held) -> Result<ResponseBody, Problem> {
    let folder = context.log_folder.clone();
    // First, or what is written before it is set up would be missed.
    let watch = query.follow.then(|| Watch::new(&folder)).transpose().map_err(|error| problem(&error))?;
    let boot = context.boot.clone();
    let mut reader = spawn_blocking(move || Reader::new(&folder, &query, &boot))
        .await
        .map_err(|error| problem(&io::Error::other(error)))?
        .map_err(|error| problem(&error))?;
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let request = held.request.clone();
    tokio::spawn(async move {
        loop {
            request.set_deadline(Some(Instant::now() + limits::REQUEST));
            let step = spawn_blocking(move || {
                let batch = reader.next_batch();
                (reader, batch)
            });
            let Ok((back, batch)) = step.await else { return };
            reader = back;
            let Batch { lines, at_end } = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    eprintln!("cannot read the log: {error}");
                    return;
                }
            };
            // Who does not take the lines in time is cut off: the deadline stands.
            if !lines.is_empty() && sender.send(lines.into()).await.is_err() {
                return;
            }
            if at_end {
                let Some(watch) = &watch else { return };
                request.set_deadline(None);
                tokio::select! {
                    () = watch.changed() => {}
                    () = sender.closed() => return,
                }
            }
        }
    });
    Ok(ResponseBody::stream(receiver, held))
}

fn problem(error: &io::Error) -> Problem {
    if error.kind() == ErrorKind::NotFound {
        let message = "the machine has no log";
        return Problem::new(
            404,
            RefusalKind::NotFound,
            message,
            "is its state volume open? see `ashlarctl status`",
        );
    }
    Problem::new(500, RefusalKind::Failed, format!("cannot read the log: {error}"), "")
}
