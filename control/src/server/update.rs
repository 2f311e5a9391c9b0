//! The update engine is asked: one line, one line back. An offline bundle goes through as it comes.

use super::init::{busy, failed};
use super::limits;
use crate::api::Problem;
use ashlar_image::control::{MAX_LINE, RefusalKind};
use ashlar_image::update::{MAX_BUNDLE, UpdateAnswer, UpdateReply, UpdateRequest};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use std::io;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Who it is, in messages.
const ENGINE: &str = "the update engine";

/// The engine's socket.
#[derive(Debug)]
pub struct Engine {
    path: PathBuf,
    turns: Semaphore,
}

impl Engine {
    /// The socket at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, turns: Semaphore::new(limits::MAX_ASKED) }
    }

    /// Asks and waits for the answer.
    pub async fn ask(&self, request: &UpdateRequest) -> Result<UpdateReply, Problem> {
        self.exchange(request, None).await
    }

    /// Hands a bundle on.
    pub async fn bundle(&self, restart: bool, body: Incoming) -> Result<UpdateReply, Problem> {
        let size = body.size_hint().exact().filter(|size| (1..=MAX_BUNDLE).contains(size));
        let Some(size) = size else {
            let message = format!("a bundle has 1 to {MAX_BUNDLE} bytes, and its length must be told");
            return Err(Problem::new(411, RefusalKind::Invalid, message, ""));
        };
        self.exchange(&UpdateRequest::Bundle { size, restart }, Some(body)).await
    }

    async fn exchange(
        &self,
        request: &UpdateRequest,
        body: Option<Incoming>,
    ) -> Result<UpdateReply, Problem> {
        let Ok(Ok(_turn)) = timeout(limits::TURN, self.turns.acquire()).await else { return Err(busy()) };
        let mut line =
            serde_json::to_vec(request).map_err(|error| failed(ENGINE, 500, &error.to_string()))?;
        line.push(b'\n');
        let work = async {
            let mut stream = UnixStream::connect(&self.path).await?;
            stream.write_all(&line).await?;
            if let Some(mut body) = body {
                while let Some(frame) = timeout(limits::BODY, body.frame()).await.map_err(io::Error::other)? {
                    let data = frame.map_err(io::Error::other)?.into_data().unwrap_or_default();
                    stream.write_all(&data).await?;
                }
            }
            let mut answer = Vec::new();
            stream.take(MAX_LINE as u64 + 1).read_to_end(&mut answer).await?;
            Ok::<_, io::Error>(answer)
        };
        let limit =
            if matches!(request, UpdateRequest::Bundle { .. }) { limits::BUNDLE } else { limits::UPDATE };
        let answer = match timeout(limit, work).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failed(ENGINE, 502, &error.to_string())),
            Err(_) => return Err(failed(ENGINE, 504, "it has not answered in time")),
        };
        match serde_json::from_slice(&answer) {
            Ok(UpdateAnswer::Ok(reply)) => Ok(reply),
            Ok(UpdateAnswer::Error(refusal)) => Err(refusal.into()),
            Err(error) => Err(failed(ENGINE, 502, &format!("its answer cannot be read: {error}"))),
        }
    }
}
