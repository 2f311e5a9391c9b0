//! Bodies of responses.

use super::activity::Request;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Bytes given to HTTP/2 at a time: what a slow client has not room for stays here, and is counted once.
const PIECE: usize = 16 << 10;

/// What a response holds until the client has taken it.
#[derive(Debug)]
pub struct Held {
    /// Its place among the connection's requests.
    pub request: Arc<Request>,
    /// Its place among all requests, or followers.
    pub _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Content {
    Whole(Bytes),
    Stream(mpsc::Receiver<Bytes>),
}

/// A body.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    _held: Option<Held>,
}

impl ResponseBody {
    /// All of it at once.
    pub fn whole(bytes: impl Into<Bytes>, held: Option<Held>) -> Self {
        Self { content: Content::Whole(bytes.into()), _held: held }
    }

    /// As it comes.
    pub fn stream(receiver: mpsc::Receiver<Bytes>, held: Held) -> Self {
        Self { content: Content::Stream(receiver), _held: Some(held) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => None,
            Content::Whole(bytes) => Some(bytes.split_to(bytes.len().min(PIECE))),
            Content::Stream(receiver) => ready!(receiver.poll_recv(context)),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}
