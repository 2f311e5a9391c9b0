//! Bodies of requests: bytes in memory, or a file that goes out as it is read.

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

/// What is read of a file at once, in bytes.
const STEP: u64 = 64 << 10;

/// A body.
pub(super) enum RequestBody {
    /// Bytes.
    Whole(Full<Bytes>),
    /// The first `left` bytes of a file, and who is told how many are left.
    File(File, u64, Box<dyn FnMut(u64) + Send>),
}

impl RequestBody {
    pub(super) fn whole(bytes: Vec<u8>) -> Self {
        Self::Whole(Full::new(Bytes::from(bytes)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::File(_, 0, _) => Poll::Ready(None),
            // A file is there at once, near enough, and a client does nothing else meanwhile.
            Self::File(file, left, tell) => {
                let mut buffer = vec![0; usize::try_from(STEP.min(*left)).unwrap_or(0)];
                Poll::Ready(Some(file.read(&mut buffer).and_then(|read| {
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    buffer.truncate(read);
                    *left = left.saturating_sub(read as u64);
                    tell(*left);
                    Ok(Frame::data(Bytes::from(buffer)))
                })))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::File(_, left, _) => *left == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::File(_, left, _) => SizeHint::with_exact(*left),
        }
    }
}
